"""`configure()` never raises for what the environment holds, and says what it could not use."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors, options, settings
from otel_pipeline_metrics._core.validation import MAX_WAIT_S
from otel_pipeline_metrics._export import global_providers
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from pathlib import Path

NAMES = sorted(
    {option.variable for option in options.OPTIONS if option.variable}
    | {
        f"OTEL_{name}"
        for name in (
            "SDK_DISABLED", "SERVICE_NAME", "RESOURCE_ATTRIBUTES", "TRACES_SAMPLER",
            "BSP_SCHEDULE_DELAY", "BSP_EXPORT_TIMEOUT", "BSP_MAX_QUEUE_SIZE",
            "BSP_MAX_EXPORT_BATCH_SIZE", "METRIC_EXPORT_INTERVAL", "METRIC_EXPORT_TIMEOUT",
            "EXPORTER_OTLP_TIMEOUT", "EXPORTER_OTLP_TRACES_TIMEOUT", "EXPORTER_OTLP_ENDPOINT",
            "EXPORTER_OTLP_HEADERS", "EXPORTER_OTLP_PROTOCOL", "EXPORTER_OTLP_COMPRESSION",
            "EXPORTER_OTLP_CERTIFICATE", "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "TRACES_EXPORTER", "METRICS_EXPORTER", "SPAN_LINK_COUNT_LIMIT",
            "SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "METRICS_EXEMPLAR_FILTER",
            "EXPERIMENTAL_RESOURCE_DETECTORS",
        )
    }
)  # fmt: skip
VALUES = [
    "9" * 5000, "1e300", "1e400", "-1", "0", "nan", "inf", "²", "nope", "=,=,==", "~nobody/x",
    "http://[", "\udcff", "a" * 100_000, "\x1b[31m",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_a_variable_raises(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors, "raise_faults", False)
    # the SDK quotes values that pytest-xdist cannot send
    logging.disable(logging.CRITICAL)
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "0.2")
    for value in VALUES:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv(name, value)
        opm.configure(exporter=None if name.endswith("_EXPORTER") else "otlp", console=False)
        # it works, however it is exported
        with opm.run("r", resources=False) as run, opm.stage("s"):
            pass
        assert run.report.run["result"] == "success"
        # a timeout may be a million seconds now, which is not waited for here
        settings.replace(settings.Config(flush_timeout_s=0.05))
        opm.shutdown()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "9" * 30),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1e300"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1e300"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "9" * 300),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1e300"),
    ],
)
def test_a_wait_longer_than_any_program_is_eleven_days(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    """A thread that waits longer than the system allows ends with an OverflowError."""
    monkeypatch.setenv(name, value)
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    opm.configure(console=False, flush_timeout=0.2)
    opm.shutdown()
    assert failed == []
    limit = MAX_WAIT_S if name.endswith("OTLP_TIMEOUT") else MAX_WAIT_S * 1000
    said = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert said == [f"{name} is more than {limit}; {limit} is used"]


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_a_flush_timeout_is_at_most_eleven_days(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT", "1e300")
    opm.configure(exporter="none", **({"flush_timeout": 1e300} if way == "argument" else {}))
    assert settings.settings().flush_timeout_s == MAX_WAIT_S < threading.TIMEOUT_MAX


# --- the spool ------------------------------------------------------------------------------------


def spool_warnings(caplog: pytest.LogCaptureFixture, spool: object) -> list[str]:
    """Return the warnings about this spool; a thread of another test may warn late."""
    said = [record.getMessage() for record in caplog.records]
    kept_in = f"cannot be kept in {spool} "
    return [line for line in said if kept_in in line or "there is no spool" in line]


@pytest.mark.parametrize("way", ["argument", "variable"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}/" + "a" * 300, "File name too long"),
        ("{}" + "/a" * 2500, "File name too long"),
        ("~nobody-of-this-name/x", "could not determine home directory"),
        ("{}/circle", "Too many levels of symbolic links|File exists"),
        ("{}/circle/x", "Too many levels of symbolic links"),
        ("{}/file/x", "Not a directory"),
        ("{}/file", "File exists|Not a directory"),
        ("/dev/null/x", "Not a directory"),
        ("/proc/nothing-of-this-name", "No such file or directory"),
        ("/proc/nothing-of-this-name/x/y", "No such file or directory"),
    ],
)
def test_a_spool_that_cannot_be_used_is_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    way: str,
    path: str,
    reason: str,
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    spool = path.format(tmp_path)
    if way == "variable":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL", spool)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    opm.configure(console=False, flush_timeout=2, **({"spool": spool} if way == "argument" else {}))
    with opm.run("r", resources=False), opm.stage("s"):
        pass
    opm.shutdown()
    (said,) = spool_warnings(caplog, spool)
    assert any(one in said for one in reason.split("|"))
    assert opm.stats()["spans"]["dropped"] == 2


def test_an_audit_hook_that_forbids_a_spool_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(*_: object) -> None:
        raise RuntimeError("os.mkdir")

    monkeypatch.setattr(os, "mkdir", forbidden)
    spool = tmp_path / "spool"
    opm.configure(console=False, exporter="otlp", flush_timeout=0.1, spool=spool)
    (said,) = spool_warnings(caplog, spool)
    assert "(RuntimeError)" in said


@pytest.mark.parametrize(
    "error", [errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE]
)
def test_a_spool_on_a_dead_mount_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    spool = tmp_path / "mount" / "spool"

    def dead(name: str) -> None:
        before = getattr(os, name)

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(path, int) and str(path).startswith(str(spool)):
                raise OSError(error, os.strerror(error), str(path))
            return before(path, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("mkdir", "open", "stat", "lstat", "scandir", "listdir", "unlink", "rename"):
        dead(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    opm.configure(console=False, flush_timeout=2, spool=spool)
    with opm.run("r", resources=False), opm.stage("s"):
        pass
    opm.shutdown()
    (said,) = spool_warnings(caplog, spool)
    assert os.strerror(error) in said


def test_a_null_byte_in_the_argument_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="spool must not contain a null byte"):
        opm.configure(exporter="otlp", spool="a\0b")


def test_without_a_working_directory_there_is_no_relative_spool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_SPOOL", "spool")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    opm.configure(console=False, flush_timeout=0.2)
    assert "there is no spool (No such file or directory)" in caplog.text


# --- providers ------------------------------------------------------------------------------------


class Unhashable:
    """As a dataclass that compares by its fields."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("not comparable")

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")


class UnhashableTracers(Unhashable, trace.NoOpTracerProvider):
    pass


class UnhashableMeters(Unhashable, metrics.NoOpMeterProvider):
    pass


@pytest.mark.parametrize("way", ["given", "global"])
def test_a_provider_may_be_unhashable_and_compare_as_it_likes(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    earlier = trace.NoOpTracerProvider()  # one of ours, to compare it with
    monkeypatch.setattr(global_providers, "_ours", [weakref.ref(earlier)])
    tracers, meters = UnhashableTracers(), UnhashableMeters()
    if way == "given":
        opm.configure(tracer_provider=tracers, meter_provider=meters, console=False)
    else:
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(meters)
        opm.configure(exporter="none", console=False)
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    assert [stage["count"] for stage in run.report.stages] == [1]
    assert trace.get_tracer_provider() is tracers or way == "given"


class BrokenMeters(metrics.NoOpMeterProvider):
    broken = False

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            raise LookupError("no meters today")
        return super().get_meter(*args, **kwargs)


def test_a_global_provider_that_raises_costs_only_telemetry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meters = BrokenMeters()
    metrics.set_meter_provider(meters)
    meters.broken = True
    opm.configure(exporter="none", console=False)
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    assert [stage["count"] for stage in run.report.stages] == [1]
    assert "the providers cannot be used, so nothing is exported: LookupError" in caplog.text


PROVIDER = """
import json, logging, sys
import otel_pipeline_metrics as opm
opm.configure(exporter="console")
with opm.run("r", resources=False), opm.stage("s"):
    pass
opm.shutdown()
found = opm.stats()
print(json.dumps([found["spans"]["exported"], found["metric_points"]["exported"] > 0]))
"""


@pytest.mark.processes
@pytest.mark.parametrize("value", ["nope", "", "\x1b[31m"])
@pytest.mark.parametrize("kinds", [("METER",), ("TRACER",), ("METER", "TRACER")])
def test_a_broken_variable_for_the_global_provider_costs_nothing(
    kinds: tuple[str, ...], value: str
) -> None:
    done = run_python(PROVIDER, **{f"OTEL_PYTHON_{kind}_PROVIDER": value for kind in kinds})
    assert (done.returncode, json.loads(done.stdout)) == (0, [2, True])
    for kind in kinds:
        assert done.stderr.count(f"(OTEL_PYTHON_{kind}_PROVIDER) cannot be used") == 1


CARRIED = """
import otel_pipeline_metrics as opm
from concurrent.futures import ThreadPoolExecutor
with opm.run("r", resources=False) as run, ThreadPoolExecutor(1) as pool:
    assert opm.wrap_executor(pool).submit(opm.process(lambda: 1)).result() == 1
assert run.report.stages[0]["count"] == 1
print("OK")
"""


@pytest.mark.processes
def test_a_broken_propagator_is_replaced() -> None:
    done = run_python(CARRIED, OTEL_PROPAGATORS="nope")
    assert (done.returncode, done.stdout) == (0, "OK\n")
    assert "OTEL_PROPAGATORS cannot be used (Propagator nope not found" in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("disabled", ["true", "false"])
@pytest.mark.parametrize("value", ["many", "-1", "9" * 5000, "²"])
def test_a_broken_limit_cannot_stop_the_import_of_the_sdk(value: str, disabled: str) -> None:
    program = "import otel_pipeline_metrics as opm; opm.configure(console=False); print('OK')"
    limits = {
        "OTEL_SPAN_LINK_COUNT_LIMIT": value,
        "OTEL_ATTRIBUTE_COUNT_LIMIT": value,
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": value,
    }
    done = run_python(program, OTEL_SDK_DISABLED=disabled, **limits)
    assert (done.returncode, done.stdout) == (0, "OK\n")
    assert done.stderr.count("must be a whole number") == (0 if disabled == "true" else 3)


# --- what the system refuses ----------------------------------------------------------------------

WITHOUT_FILES = """
import os, resource, sys
import otel_pipeline_metrics as opm
if "early" in sys.argv:
    opm.run, opm.configure
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
opm.configure(exporter="otlp", console=False, flush_timeout=0.2, spool="spool")
if "early" in sys.argv:
    with opm.run("r", report="report.json", resources=False) as run, opm.stage("s"):
        pass
    assert run.report.stages[0]["count"] == 1
opm.shutdown()
for one in taken:
    os.close(one)
# and it works again
opm.configure(exporter="console")
with opm.stage("s"):
    pass
opm.shutdown()
assert opm.stats()["spans"]["exported"] == 1
print("OK")
"""


@pytest.mark.processes
@pytest.mark.parametrize("when", ["early", "late"])
def test_without_file_descriptors_it_is_one_warning(tmp_path: Path, when: str) -> None:
    done = run_python(
        WITHOUT_FILES, when, cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"
    )
    assert (done.returncode, done.stdout) == (0, "OK\n")
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_threads_the_calling_one_flushes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    opm.configure(exporter="otlp", console=False, flush_timeout=0.2)
    with opm.run("r") as run, opm.stage("s"):
        pass
    opm.shutdown()
    assert run.report.stages[0]["count"] == 1
    said = [record.getMessage() for record in caplog.records]
    assert sum("no traces are exported" in line for line in said) == 1
    assert sum("no metrics are exported" in line for line in said) == 1
    assert sum("resources are sampled only at the start" in line for line in said) == 1


SUBINTERPRETER = """
import sys
try:
    import _xxsubinterpreters as interpreters
except ImportError:  # since Python 3.13
    import _interpreters as interpreters
inner = interpreters.create()
interpreters.run_string(inner, '''
import sys
sys.path[:0] = {path!r}
import otel_pipeline_metrics as opm
opm.configure(exporter="otlp", console=False, flush_timeout=0.2)
with opm.run("r") as run, opm.stage("s"):
    pass
assert run.report.stages[0]["count"] == 1
opm.shutdown()
print("OK", flush=True)
'''.replace("{path!r}", repr(sys.path)))
interpreters.destroy(inner)
"""


@pytest.mark.processes
@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12),
    reason="3.12 aborts at its end after `import ssl` alone in a subinterpreter",
)
def test_a_subinterpreter_may_configure() -> None:
    done = run_python(SUBINTERPRETER, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "OK\n")
    assert "Traceback" not in done.stderr

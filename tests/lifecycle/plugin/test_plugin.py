"""Test the plugin: entry points, instrument, uninstrument, and no exception."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import PipelineMetricsInstrumentor
from otel_pipeline_metrics._core import environment_variables
from otel_pipeline_metrics._lifecycle import summary
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured

STAGE = "pipeline.stage.name"


@opm.process
def work() -> int:
    return 1


@pytest.fixture
def instrumentor() -> Iterator[PipelineMetricsInstrumentor]:
    """Return the only instrumentor, uninstrumented before and after."""
    only = PipelineMetricsInstrumentor()
    yield only
    if only.is_instrumented_by_opentelemetry:
        only.uninstrument()


@pytest.fixture
def quiet_faults(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def test_the_instrumentor_is_an_entry_point() -> None:
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="otel_pipeline_metrics")
    loaded = entry.load()
    assert loaded is PipelineMetricsInstrumentor
    assert issubclass(loaded, BaseInstrumentor)
    assert list(loaded().instrumentation_dependencies()) == []


def test_the_variables_are_an_entry_point() -> None:
    (entry,) = entry_points(
        group="opentelemetry_environment_variables", name="otel_pipeline_metrics"
    )
    module = entry.load()
    assert module is environment_variables
    names = [name for name in vars(module) if name.startswith("OTEL_")]
    assert len(names) >= 4
    for name in names:
        assert getattr(module, name) == name
        assert name.startswith("OTEL_PIPELINE_METRICS_")


def test_it_takes_every_argument_of_configure(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured
) -> None:
    instrumentor.instrument(
        tracer_provider=captured.tracer_provider,
        meter_provider=captured.meter_provider,
        forbidden_keys=["tenant"],
        skip_dep_check=True,  # an option of the base class
    )
    with opm.stage("s", attributes={"tenant": "a", "shard": 1}):
        pass
    (span,) = captured.spans()
    assert dict(span.attributes or {}) == {"pipeline.stage.name": "s", "shard": 1}


def test_the_package_has_no_distro_and_no_configurator() -> None:
    for group in ("opentelemetry_distro", "opentelemetry_configurator"):
        assert not [entry for entry in entry_points(group=group) if "pipeline" in entry.value]


def test_opentelemetry_instrument_offers_the_variables_as_options() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("opentelemetry-instrument")), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = [name for name in vars(environment_variables) if name.startswith("OTEL_")]
    for name in names:
        assert f"--{name.removeprefix('OTEL_').lower()}" in done.stdout


def test_an_option_reaches_the_program(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "import otel_pipeline_metrics as opm\n"
        "@opm.fetch(attributes={'tenant': 'a'})\ndef work(): pass\n"
        "with opm.run('nightly', resources=False): work()\n"
    )
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("opentelemetry-instrument")),
            *("--pipeline_metrics_metric_attributes", "tenant"),
            *("--pipeline_metrics_console", "all"),
            *(sys.executable, str(script)),
        ],
        env={"PATH": "/usr/bin:/bin", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("pipeline.stage.duration"))
    assert "tenant=a" in line


def test_instrumented_on_the_providers_there_are(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured
) -> None:
    captured.install()
    instrumentor.instrument()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert trace.get_tracer_provider() is captured.tracer_provider
    assert metrics.get_meter_provider() is captured.meter_provider


def test_it_takes_the_arguments_of_configure(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured
) -> None:
    instrumentor.instrument(
        tracer_provider=captured.tracer_provider,
        meter_provider=captured.meter_provider,
        metric_attributes=("tenant",),
        console=False,
    )
    with opm.stage("block", attributes={"tenant": "a"}):
        pass
    (point,) = captured.points()["pipeline.stage.duration"]
    assert point.attributes["tenant"] == "a"
    assert captured.span_names() == ["block"]


def test_instrument_again_after_uninstrument(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured
) -> None:
    """Uninstrumented functions run without telemetry."""
    given: dict[str, Any] = {
        "tracer_provider": captured.tracer_provider,
        "meter_provider": captured.meter_provider,
    }
    instrumentor.instrument(**given)
    work()
    instrumentor.uninstrument()
    assert work() == 1
    assert captured.span_names() == ["work"]
    instrumentor.instrument(**given)
    work()
    assert captured.span_names() == ["work", "work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 2}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0


def test_twice_changes_nothing(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured
) -> None:
    captured.install()
    instrumentor.instrument()
    instrumentor.instrument()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    instrumentor.uninstrument()
    instrumentor.uninstrument()
    assert work() == 1
    assert captured.span_names() == ["work"]
    assert trace.get_tracer_provider() is captured.tracer_provider


def test_a_configure_in_the_program_wins(
    instrumentor: PipelineMetricsInstrumentor, captured: Captured, other: Captured
) -> None:
    captured.install()
    instrumentor.instrument()
    other.configure()
    work()
    assert (captured.span_names(), other.span_names()) == ([], ["work"])


@pytest.mark.parametrize(
    "options",
    [
        {"exporter": "jaeger"},
        {"exporter": 7},
        {"tracer_provider": "mine"},
        {"meter_provider": 1},
        {"metric_attributes": "tenant"},
        {"resource_attributes": 3},
        {"service_name": ""},
        {"console": "yes"},
    ],
    ids=repr,
)
def test_bad_options_are_logged_and_never_raised(
    instrumentor: PipelineMetricsInstrumentor,
    quiet_faults: pytest.LogCaptureFixture,
    options: dict[str, Any],
) -> None:
    instrumentor.instrument(**options)
    (record,) = quiet_faults.records
    assert record.name == "otel_pipeline_metrics"
    assert record.levelno >= logging.WARNING
    (name,) = options
    assert record.exc_info is not None
    assert name in str(record.exc_info[1])
    assert work() == 1


@pytest.mark.parametrize("key", ["whatever", "exporters", "span_per_second"])
def test_an_unknown_keyword_is_an_error_that_names_it(
    instrumentor: PipelineMetricsInstrumentor, key: str
) -> None:
    with pytest.raises(TypeError, match=rf"instrument\(\) has no argument '{key}'"):
        instrumentor.instrument(**{key: 1}, console=False)
    assert not instrumentor.is_instrumented_by_opentelemetry


def test_the_loaders_own_options_are_ignored(
    instrumentor: PipelineMetricsInstrumentor,
    captured: Captured,
    quiet_faults: pytest.LogCaptureFixture,
) -> None:
    captured.install()
    instrumentor.instrument(skip_dep_check=True, raise_exception_on_conflict=True)
    work()
    assert captured.span_names() == ["work"]
    assert quiet_faults.records == []


def test_a_build_that_raises_is_logged_and_never_raised(
    instrumentor: PipelineMetricsInstrumentor,
    quiet_faults: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from otel_pipeline_metrics._export import providers

    def broken(_: object) -> None:
        raise RuntimeError("cannot build")

    monkeypatch.setattr(providers, "build", broken)
    instrumentor.instrument()
    assert work() == 1
    assert [record.exc_info is not None for record in quiet_faults.records] == [True]


def test_a_broken_environment_is_never_raised(
    instrumentor: PipelineMetricsInstrumentor,
    quiet_faults: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {
        "OTEL_TRACES_EXPORTER": "zipkin",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_METRIC_EXPORT_INTERVAL": "often",
        "OTEL_BSP_MAX_QUEUE_SIZE": "-1",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT": "long",
        "OTEL_PIPELINE_METRICS_CONSOLE": "perhaps",
    }.items():
        monkeypatch.setenv(name, value)
    instrumentor.instrument(exporter="console")
    assert work() == 1
    instrumentor.uninstrument()
    assert all(record.exc_info is None for record in quiet_faults.records)
    said = " ".join(record.getMessage() for record in quiet_faults.records)
    for name in ("FLUSH_TIMEOUT", "CONSOLE", "OTEL_TRACES_SAMPLER"):
        assert name in said
    capsys.readouterr()


def test_a_failing_shutdown_is_never_raised(
    instrumentor: PipelineMetricsInstrumentor,
    captured: Captured,
    quiet_faults: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from otel_pipeline_metrics._lifecycle import configure

    captured.install()
    instrumentor.instrument()

    def broken() -> None:
        raise RuntimeError("cannot shut down")

    with monkeypatch.context() as patch:
        patch.setattr(configure, "shutdown", broken)
        instrumentor.uninstrument()
    assert [record.levelname for record in quiet_faults.records] == ["ERROR"]


def test_an_internal_error_does_not_stop_the_other_instrumentations(tmp_path: Path) -> None:
    done = run_python(
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(levelname)s %(message)s')\n"
        "from opentelemetry.instrumentation.auto_instrumentation import _load\n"
        "from opentelemetry.instrumentation.distro import DefaultDistro\n"
        "from otel_pipeline_metrics._export import providers\n"
        "def broken(config): raise RuntimeError('cannot build')\n"
        "providers.build = broken\n"
        "_load._load_instrumentors(DefaultDistro())\n"
        "from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor\n"
        "print('others:', SystemMetricsInstrumentor().is_instrumented_by_opentelemetry)\n",
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR otel_pipeline_metrics is not configured" in done.stdout
    assert "others: True" in done.stdout


def test_opentelemetry_instrument_on_a_decorated_program(tmp_path: Path) -> None:
    """Without `configure()` and variables, there is a summary."""
    script = tmp_path / "app.py"
    script.write_text(
        "import otel_pipeline_metrics as opm\n"
        "@opm.fetch\ndef work(): return 1\n"
        "with opm.run('nightly', report='report.json'): work()\n"
    )
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("opentelemetry-instrument")),
            *(sys.executable, str(script)),
        ],
        env={"PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "run nightly: success in " in done.stderr
    assert done.stderr.endswith(f"{summary.MORE}\n")
    assert opm.RunReport.load(tmp_path / "report.json").stages[0]["name"] == "work"

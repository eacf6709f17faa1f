"""Log records that meet the traces: `configure(logs=True)`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from tests.lifecycle.configure.support import clean_slate
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.export.conftest import Received

pytest.importorskip("opentelemetry.instrumentation.logging")

# the program's own
log = logging.getLogger("program")


@pytest.fixture(autouse=True)
def slate() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogRecordFactory()
    with clean_slate():
        errors.reset()
        yield
    assert list(root.handlers) == before[0]
    assert logging.getLogRecordFactory() is before[2]
    root.setLevel(before[1])


@opm.process
def work() -> tuple[str, str]:
    log.warning("row %d is odd", 7, extra={"row.kind": "odd"})
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def test_records_carry_the_ids_and_go_out(
    collector: Received, caplog: pytest.LogCaptureFixture
) -> None:
    opm.configure(logs=True, console=False, service_name="nightly")
    ids = work()
    log.warning("outside")
    opm.shutdown()
    inside, outside = [r for r in caplog.records if r.name == "program"]
    assert (inside.otelTraceID, inside.otelSpanID) == ids  # type: ignore[attr-defined]
    assert outside.otelTraceID == "0"  # type: ignore[attr-defined]
    first, second = [r for r in collector.records if r["logger"] == "program"]
    assert first == {
        "logger": "program", "body": "row 7 is odd", "severity": "WARN", "service": "nightly",
        "trace_id": ids[0], "span_id": ids[1], "attributes": {"row.kind": "odd"},
    }  # fmt: skip
    assert (second["body"], second["trace_id"]) == ("outside", "")
    assert collector.spans == {"work": 1}


async def test_coroutines_and_generators_have_their_own_span(collector: Received) -> None:
    @opm.fetch
    async def pages() -> Any:
        log.warning("page")
        yield trace.get_current_span().get_span_context().span_id

    @opm.write
    async def store() -> int:
        log.warning("store")
        return trace.get_current_span().get_span_context().span_id

    opm.configure(logs=True, console=False)
    with opm.run("r", resources=False):
        ids = [one async for one in pages()] + [await store()]
    opm.shutdown()
    found = {r["body"]: r["span_id"] for r in collector.records if r["logger"] == "program"}
    assert found == {"page": f"{ids[0]:016x}", "store": f"{ids[1]:016x}"}


def test_off_by_default(collector: Received, caplog: pytest.LogCaptureFixture) -> None:
    opm.configure(console=False)
    work()
    opm.shutdown()
    assert collector.records == []
    assert not hasattr(caplog.records[0], "otelTraceID")


def test_the_variable_asks_for_it(collector: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_LOGS", "true")
    opm.configure(console=False)
    work()
    assert opm.flush().ok
    assert [r["body"] for r in collector.records] == ["row 7 is odd"]


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ({"exporter": "none"}, {}),
        ({"exporter": "console", "console": "summary"}, {}),
        ({}, {"OTEL_LOGS_EXPORTER": "none"}),
        ({}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}),
    ],
)
def test_ids_without_an_exporter(
    arguments: dict[str, Any],
    env: dict[str, str],
    http_collector: Received,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where telemetry does not go over OTLP, records carry the ids and go nowhere."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    opm.configure(logs=True, **{"console": False, **arguments})
    work()
    opm.shutdown()
    assert http_collector.records == []
    (record,) = [r for r in caplog.records if r.name == "program"]
    assert hasattr(record, "otelTraceID")


def test_forbidden_keys_do_not_go_out(
    http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    opm.configure(logs=True, console=False)
    log.warning("in", extra={"password": "hunter2", "customer_email": "a@b.c", "tenant": "t"})
    opm.shutdown()
    (record,) = [r for r in http_collector.records if r["logger"] == "program"]
    assert record["attributes"] == {"tenant": "t"}


def test_the_programs_logging_stays_its_own(
    http_collector: Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`basicConfig` still sets handlers, and a second `configure()` sends nothing twice."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    root = logging.getLogger()
    before = list(root.handlers)
    for handler in before:
        root.removeHandler(handler)
    try:
        opm.configure(logs=True, console=False)
        ours = list(root.handlers)
        logging.basicConfig()
        assert len(root.handlers) == len(ours) + 1
        opm.configure(logs=True, console=False, service_name="second")
        log.warning("once")
        opm.shutdown()
        assert len(root.handlers) == 1
    finally:
        root.handlers[:] = before
    assert [(r["body"], r["service"]) for r in http_collector.records] == [("once", "second")]


def test_a_dead_collector_makes_no_more_records(
    http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the exporters log of a failed batch is not another batch."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    http_collector.refuse = True
    opm.configure(logs=True, console=False, exporter="otlp", flush_timeout=5)
    log.warning("lost")
    opm.flush()
    http_collector.refuse = False
    opm.shutdown()
    assert [r for r in http_collector.records if r["logger"].startswith("opentelemetry")] == []


def test_a_silent_collector_holds_the_end_up_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket
    import time

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        opm.configure(logs=True, console=False, flush_timeout=0.5)
        work()
        begun = time.monotonic()
        opm.shutdown()
        # the SDK's own shutdown would take ten seconds and more
        assert time.monotonic() - begun < 8


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_pipeline_metrics._export import logs

    monkeypatch.setattr(logs, "installed", lambda: False)
    with pytest.raises(ValueError, match=r"logs: .*otel-pipeline-metrics\[logs\]"):
        opm.configure(logs=True, exporter="none", console=False)


def test_a_missing_package_costs_the_variable_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_pipeline_metrics._export import logs

    monkeypatch.setattr(logs, "installed", lambda: False)
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_LOGS", "true")
    opm.configure(exporter="none", console=False)
    assert [m for m in caplog.messages if "otel-pipeline-metrics[logs]" in m]


CHILD = """
import logging, os
import otel_pipeline_metrics as opm

opm.configure(logs=True, console=False)
log = logging.getLogger("program")
log.warning("parent")
opm.flush()
child = os.fork()
if child == 0:
    log.warning("child")
    opm.flush()
    os._exit(0)
os.waitpid(child, 0)
log.warning("parent again")
"""


@pytest.mark.slow
def test_a_forked_child_sends_its_own(http_collector: Received) -> None:
    env = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": http_collector.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    subprocess.run([sys.executable, "-c", CHILD], check=True, env=env, cwd=ROOT, timeout=60)
    assert sorted(r["body"] for r in http_collector.records) == ["child", "parent", "parent again"]

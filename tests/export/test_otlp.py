"""Everything arrives at an OTLP server, by gRPC and by HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Received, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["grpc", "http/protobuf"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Received:
    fixture = "grpc_collector" if request.param == "grpc" else "http_collector"
    received: Received = request.getfixturevalue(fixture)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return received


def test_everything_arrives(build: Build, collector: Received) -> None:
    telemetry = build(service_name="orders")
    use(telemetry, spans=1_000)

    report = telemetry.shutdown(5)

    assert (report.ok, report.spans_exported, report.spans_failed) == (True, 1_000, 0)
    assert (report.metric_points_exported, report.metric_points_failed) == (1, 0)
    assert report.collector == "ok"
    assert collector.spans == {"work": 1_000}
    assert collector.points == {"done": 1}
    assert {resource["service.name"] for resource in collector.resources} == {"orders"}


def test_spans_after_a_flush_arrive_too(build: Build, collector: Received) -> None:
    telemetry = build()
    use(telemetry, spans=2)
    assert telemetry.flush(5).spans_exported == 2
    use(telemetry, spans=3)

    assert telemetry.shutdown(5).spans_exported == 5
    assert collector.spans == {"work": 5}


def test_headers_are_sent(
    build: Build, collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=s3cret")
    telemetry = build()
    use(telemetry)
    telemetry.shutdown(5)

    assert {"s3cret"} == {headers.get("x-token") for headers in collector.headers}


def test_the_status_of_a_refusal_is_reported_once(
    build: Build, collector: Received, caplog: pytest.LogCaptureFixture
) -> None:
    collector.refuse = True
    telemetry = build()
    use(telemetry, spans=600)

    report = telemetry.shutdown(5)

    assert (report.ok, report.spans_failed, report.collector) == (False, 600, "unreachable")
    first, summary = [record.getMessage() for record in caplog.records]
    assert "(UNAUTHENTICATED)" in first or "(HTTP 400)" in first
    assert summary.startswith("600 spans")
    assert "1 metric batch could not be exported" in summary


def test_a_process_sends_everything_in_atexit(collector: Received) -> None:
    """There CPython 3.12 cannot start a thread."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.export.child", "5", "700"],
        env=dict(os.environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert "ok=True" in done.stdout
    assert done.stderr == ""
    assert collector.spans == {"work": 700}
    assert collector.points == {"done": 1}


FORK = """
import os, sys
from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export.providers import build
telemetry = build(Config())
tracer = telemetry.tracer_provider.get_tracer("fork")
tracer.start_span("parent").end()
pid = os.fork()
if pid == 0:
    tracer.start_span("child").end()
    report = telemetry.shutdown(5)
    os._exit(0 if (report.ok, report.spans_exported) == (True, 1) else 1)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
report = telemetry.shutdown(5)
sys.exit(status or (report.ok, report.spans_exported) != (True, 1))
"""


def test_a_forked_child_exports_its_own_spans(
    http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For gRPC see tests/system/processes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, check=False, timeout=30)

    assert done.returncode == 0
    assert http_collector.spans == {"parent": 1, "child": 1}

"""Metrics of the telemetry's own health: what was sent, dropped, kept, and how long it took."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._export.delivery.batch import Batch
from otel_pipeline_metrics._export.delivery.delivery import Delivery
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._probes.resources.reading import ResourceLimits
from otel_pipeline_metrics.service import MetricsManager
from otel_pipeline_metrics.service.watching import watch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.service.conftest import Metrics


@pytest.fixture
def ledgers(monkeypatch: pytest.MonkeyPatch) -> tuple[ExportLedger, ...]:
    made = (
        ExportLedger("traces", "otlp/grpc", "http://secret:4317", remote=False),
        ExportLedger("metrics", "otlp/grpc", "http://secret:4317", remote=False),
    )
    monkeypatch.setattr(telemetry_stats, "ledgers", made)
    watch()
    return made


def test_exports_are_counted_and_timed(
    metrics: Metrics, clock: Clock, ledgers: tuple[ExportLedger, ...]
) -> None:
    deliveries = [Delivery(ledger) for ledger in ledgers]

    def batch(items: int) -> Batch:
        return Batch("traces", (None,) * items)

    def export(ok: bool, seconds: float) -> bool:
        clock.advance(seconds)
        return ok

    for _ in range(5):
        ledgers[0].accept()
    deliveries[0].deliver(batch(3), lambda: export(True, 0.25))
    deliveries[0].deliver(batch(2), lambda: export(False, 0.5))
    deliveries[1].deliver(batch(7), lambda: export(True, 1.0))
    first = metrics.collect()
    assert _values(first, "otel.sdk.exporter.span.exported") == {
        ("otlp/grpc/0",): 3,
        ("_OTHER", "otlp/grpc/0"): 2,
    }
    assert _values(first, "otel.sdk.exporter.metric_data_point.exported") == {
        ("otlp/grpc/1",): 7,
        ("_OTHER", "otlp/grpc/1"): 0,
    }
    assert metrics.values("otel.sdk.exporter.operation.duration") == {
        ("otlp/grpc/0",): (1, 0.25),
        ("_OTHER", "otlp/grpc/0"): (1, 0.5),
        ("otlp/grpc/1",): (1, 1.0),
    }
    assert "secret" not in repr(first)


def test_the_sdk_reports_itself_if_it_is_told_to(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, ledgers: tuple[ExportLedger, ...]
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    metrics.install()
    for ledger in ledgers:
        ledger.durations.append((1.0, True))
    found = {**metrics.collect(), **metrics.collect()}
    assert [name for name in found if name.startswith("otel.sdk.")] == []
    assert "pipeline.container.cpu.limit" in found


def test_durations_that_nobody_reads_are_bounded() -> None:
    ledger = ExportLedger("traces", "otlp/grpc", "x")
    for number in range(5000):
        ledger.durations.append((number, True))
    assert len(ledger.durations) == 1024


def test_the_spool(metrics: Metrics, tmp_path: Path, ledgers: tuple[ExportLedger, ...]) -> None:
    assert metrics.values("pipeline.telemetry.spool.size") == {}
    for ledger in ledgers:  # one folder for both
        ledger.kept_in = str(tmp_path)
    assert metrics.values("pipeline.telemetry.spool.size") == {(): 0}
    (tmp_path / "metrics-0000000000001-1-0badcafe-000000-1.jsonl").write_bytes(b"x" * 30)
    (tmp_path / "traces-0000000000001-1-0badcafe-000000-1.jsonl").write_bytes(b"x" * 12)
    (tmp_path / "other").write_bytes(b"x" * 1000)
    assert metrics.values("pipeline.telemetry.spool.size") == {(): 42}


async def test_operations(metrics: Metrics, tmp_path: Path) -> None:
    watch()
    assert metrics.values("pipeline.telemetry.operations.pending") == {}
    one, other = (MetricsManager(tmp_path, 3600.0, max_queue_size=3) for _ in range(2))
    async with one, other:
        for _ in range(5):
            await one.record_operation("test", "one", 1)
        await other.record_operation("test", "one", 1)
        assert metrics.values("pipeline.telemetry.operations.pending") == {(): 4}
        assert metrics.values("pipeline.telemetry.operations.dropped") == {(): 2}
    assert metrics.values("pipeline.telemetry.operations.pending") == {(): 0}
    assert metrics.values("pipeline.telemetry.operations.dropped") == {(): 2}


def test_the_limits_of_the_container(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    watch()
    monkeypatch.setattr(cgroup, "limits", lambda: ResourceLimits("cgroup2", 1.5, 2**30))
    assert metrics.values("pipeline.container.cpu.limit") == {(): 1.5}
    assert metrics.values("pipeline.container.memory.limit") == {(): 2**30}
    monkeypatch.setattr(cgroup, "limits", lambda: ResourceLimits("host", 2.0, None))
    assert metrics.values("pipeline.container.memory.limit") == {}


def test_a_program_that_uses_no_service_reports_none_of_it(metrics: Metrics) -> None:
    with opm.stage("one"):
        pass
    found = metrics.collect()
    assert not [name for name in found if name.startswith(("pipeline.telemetry", "otel.sdk"))]
    assert "pipeline.stalled" not in found
    assert not [each for each in threading.enumerate() if "operations" in each.name]


def _values(found: dict[str, list[Any]], name: str) -> dict[tuple[Any, ...], Any]:
    return {
        tuple(value for _, value in sorted(point.attributes.items())): point.value
        for point in found[name]
    }

"""Fixtures of the tests of services: a manager, and what is in its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

from otel_pipeline_metrics._core import cardinality, drain, series
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._telemetry import sink, values
from otel_pipeline_metrics.service import events, known_managers, process_stages, stalled
from otel_pipeline_metrics.service.activity import activity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test as a process starts, and leave no probe, sink or thread behind."""
    names = cardinality.Distinct(cardinality.MAX_NAMES)
    monkeypatch.setattr(cardinality, "instrument_names", names)
    monkeypatch.setattr(sink, "_probes", dict(sink._probes))
    monkeypatch.setattr(sink, "_more_sinks", [])
    monkeypatch.setattr(events, "_of_process", {})
    registry.queues.reset()
    drain.drain()
    for scope in list(series.scopes):
        scope.forget()
    before = list(known_managers.managers)
    for state in (activity, process_stages._stages, stalled.detector):
        state.after_fork()
    for each in (*values._measures.values(), *values._levels.values()):
        each.after_fork()
    known_managers.managers.clear()
    yield
    known_managers.managers.update(before)
    for scope in list(series.scopes):
        scope.forget()
    sink.install(sink.OtelSink())


class Metrics:
    """A meter provider, and what it has collected."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def install(self) -> None:
        sink.install(sink.OtelSink(NoOpTracerProvider(), self.provider))

    def collect(self) -> dict[str, list[Any]]:
        """Collect once; return the points of each metric."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (() if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Collect; return the value, or count and sum, by the values of the sorted attributes."""
        return {
            tuple(value for _, value in sorted(point.attributes.items())): (
                point.value if hasattr(point, "value") else (point.count, round(point.sum, 9))
            )
            for point in self.collect().get(name, ())
        }


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """Install telemetry on a meter provider in memory."""
    found = Metrics()
    found.install()
    yield found
    sink.install(sink.silent())
    found.provider.shutdown()


@pytest.fixture
def records(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads all records, after checking every file."""

    def read() -> list[dict[str, Any]]:
        found = []
        for path in sorted(tmp_path.glob("metrics_*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            assert sorted(data) == ["batch_id", "batch_timestamp", "records", "total_records"]
            assert path.name == f"metrics_{data['batch_id']}.json"
            assert data["total_records"] == len(data["records"])
            found += data["records"]
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
        return found

    return read

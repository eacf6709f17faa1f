"""The settings of a service: what is read, how often, and what is reported."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import NoOpTracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics._probes.eventloop import Heartbeat
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._probes.resources.reading import ResourceReading
from otel_pipeline_metrics.service import get_event_metrics, readings
from tests.lifecycle.configure.support import clean_slate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.conftest import Metrics


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with clean_slate():
        monkeypatch.setattr(probe, "_manual", ResourceReading(-math.inf))
        yield


def collected(metrics: Metrics, **settings: Any) -> set[str]:
    opm.configure(tracer_provider=NoOpTracerProvider(), meter_provider=metrics.provider, **settings)
    events = get_event_metrics()
    events.record_event_processing(0.1, "queue", "orders")
    events.set_connections("db", 1)
    opm.counter("shop.orders").add(1)
    with opm.run("r"):
        pass
    return set(metrics.collect())


GROUPS = {
    "enable_system_metrics": {"system.disk.io", "system.memory.usage"},
    "enable_performance_metrics": {"process.cpu.time", "process.memory.usage"},
    "enable_business_metrics": {
        "shop.orders", "pipeline.event.duration", "pipeline.connection.count"
    },
}  # fmt: skip


@pytest.mark.parametrize("off", GROUPS)
def test_a_group_of_metrics_is_left_out(metrics: Metrics, off: str) -> None:
    found = collected(metrics, **{off: False})
    for group, names in GROUPS.items():
        assert (names & found) == (set() if group == off else names)


def test_without_monitoring_nothing_is_read(metrics: Metrics) -> None:
    found = collected(metrics, monitoring_enabled=False)
    assert not {name for name in found if name.startswith(("process.", "system."))}
    with opm.run("r") as run:
        pass
    assert run.report.resources is None or not run.report.resources.get("samples")
    seen = get_event_metrics().get_comprehensive_metrics()["resources"]
    assert seen["rss_bytes"] is None

    async def beats() -> bool:
        return Heartbeat().start(print)

    assert not asyncio.run(beats())
    assert readings.readings._monitor is None


def test_a_service_is_read_at_its_interval() -> None:
    opm.configure(exporter="none", monitoring_interval=500.0)
    events = get_event_metrics()
    monitor = readings.readings._monitor
    assert monitor is not None
    assert (monitor.interval, monitor.running) == (500.0, True)
    sampled = events.get_comprehensive_metrics()["resources"]["sampled"]
    assert sampled["memory_samples"] >= 1
    opm.configure(exporter="none", monitoring_interval=400.0)
    assert not monitor.running
    again = readings.readings._monitor
    assert again is not None
    assert again.interval == 400.0
    opm.configure(exporter="none", monitoring_enabled=False)
    assert not again.running


@pytest.mark.parametrize(
    ("variables", "argument", "expected_ms"),
    [
        ({}, None, 10_000),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "7000"}, None, 7_000),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "often"}, None, 10_000),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "7000"}, 3.0, 3_000),
        ({"OTEL_PIPELINE_METRICS_METRICS_SYNC_INTERVAL": "5"}, None, 5_000),
    ],
)
def test_the_export_interval(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    argument: float | None,
    expected_ms: float,
) -> None:
    made: list[float] = []

    class Reader(exporters.PatientReader):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self._export_interval_millis)

    monkeypatch.setattr(exporters, "PatientReader", Reader)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opm.configure(exporter="otlp", metrics_sync_interval=argument, flush_timeout=0.1)
    assert made == [expected_ms]


def test_a_history_keeps_as_many_as_asked() -> None:
    opm.configure(exporter="none", history_size=3)
    events = get_event_metrics()
    for seconds in (9.0, 1.0, 2.0, 3.0):
        events.record_event_processing(seconds, "queue", "orders")
    found = events.get_comprehensive_metrics()["events"]["duration_s"]
    assert (found["samples"], found["count"], found["p50"]) == (3, 4, 2.0)


def test_prometheus_is_added_to_what_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_ENABLE_PROMETHEUS_INTEGRATION", "true")
    opm.configure()
    export = configure._export
    assert export is not None
    kinds = [info.kind for info in export.exporters if info.signal == "metrics"]
    assert kinds == ["console", "prometheus"]


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("monitoring_enabled", 1, TypeError),
        ("monitoring_interval", 0, ValueError),
        ("metrics_sync_interval", -1, ValueError),
        ("history_size", 0, ValueError),
        ("enable_business_metrics", "yes", TypeError),
    ],
)
def test_a_bad_argument_is_named(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=argument):
        opm.configure(**{argument: value})


def test_a_bad_variable_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_MONITORING_INTERVAL", "often")
    with caplog.at_level(logging.WARNING):
        opm.configure(exporter="none")
    (line,) = (r.getMessage() for r in caplog.records if "INTERVAL" in r.getMessage())
    assert "must be a positive number of seconds, not 'often'; the default (30.0) is used" in line


def test_an_unknown_variable_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_MONITORING_INTERVALL", "5")
    with caplog.at_level(logging.WARNING):
        opm.configure(exporter="none")
        opm.configure(exporter="none", console=False)
    (line,) = (r.getMessage() for r in caplog.records if "INTERVALL" in r.getMessage())
    assert "OTEL_PIPELINE_METRICS_MONITORING_INTERVALL is no setting and is ignored" in line
    assert " MONITORING_INTERVAL," in line

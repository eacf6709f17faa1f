"""Provide real SDK providers in memory, without global state."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_pipeline_metrics import current_stage
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._telemetry import sink
from tests.conftest import Results
from tests.stages.support import nothing_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.trace import ReadableSpan


class Otel:
    """Real providers that keep what they get, with telemetry installed on them."""

    def __init__(
        self,
        metric_attributes: tuple[str, ...] = (),
        readers: tuple[InMemoryMetricReader, ...] = (),
        tracer_provider: Any = None,
        **meter_options: Any,
    ) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = tracer_provider or TracerProvider(shutdown_on_exit=False)
        if isinstance(self.tracer_provider, TracerProvider):
            self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.readers = readers or (InMemoryMetricReader(),)
        self.meter_provider = MeterProvider(self.readers, shutdown_on_exit=False, **meter_options)
        self.telemetry = sink.OtelSink(self.tracer_provider, self.meter_provider, metric_attributes)
        self.results = Results()
        # drop what other tests finished without a provider
        sink.install(sink.silent())
        self.install()

    def install(self) -> None:
        sink.install(self.telemetry)
        drain.set_sinks((self.telemetry.stages, self.results))

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [s for s in self.spans() if s.name == name]
        return found

    def collect(self, reader: int = 0) -> dict[str, Metric]:
        """Collect once; return the stage metrics by name."""
        data = self.readers[reader].get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name.startswith("pipeline.stage.")
        }

    def points(self, name: str, reader: int = 0) -> list[Any]:
        metric = self.collect(reader).get(name)
        return [] if metric is None else list(metric.data.data_points)

    def values(self, name: str, stage: str, reader: int = 0) -> dict[tuple[Any, ...], Any]:
        """Return a counter's values for one stage, by its attributes except the stage's name."""
        return {
            tuple(v for k, v in sorted(p.attributes.items()) if k != "pipeline.stage.name"): p.value
            for p in self.points(name, reader)
            if p.attributes["pipeline.stage.name"] == stage
        }

    def close(self) -> None:
        self.meter_provider.shutdown()
        if isinstance(self.tracer_provider, TracerProvider):
            self.tracer_provider.shutdown()


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """Check that a test leaves nothing current and nothing in flight."""
    yield
    left = [] if nothing_current() else [trace.get_current_span(), current_stage()]
    flying = [series.key for series in _series.all_series() if series.active]
    _series.active_cell.set(None)
    context.attach(context.Context())
    for scope in list(_series.scopes):
        scope.forget()
    assert not left
    assert not flying


@pytest.fixture
def make_otel() -> Iterator[Callable[..., Otel]]:
    """Return a function that makes and installs an `Otel` with options."""
    made: list[Otel] = []

    def make(**options: Any) -> Otel:
        made.append(Otel(**options))
        return made[-1]

    yield make
    sink.install(sink.OtelSink())
    for otel in made:
        otel.close()


@pytest.fixture
def otel(make_otel: Callable[..., Otel]) -> Otel:
    return make_otel()


@pytest.fixture
def silence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """Fail if a warning is logged or an exception is dropped; checked at the end."""
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: dropped.append(repr(u.exc_value)))
    caplog.set_level(logging.WARNING)
    yield dropped
    for _ in range(3):
        gc.collect()
    assert [r.getMessage() for r in caplog.get_records("call")] == []
    assert dropped == []

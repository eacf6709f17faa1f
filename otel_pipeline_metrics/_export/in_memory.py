"""Keep spans and metric points in memory as plain data, for the tests of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import ReadableSpan


class InMemory:
    """A pair of providers.

    The tracer provider is one for the process: a tracer that a module of the program made keeps
    the first provider that it finds.
    """

    _spans: InMemorySpanExporter | None = None
    _tracer_provider: TracerProvider

    def __init__(self) -> None:
        if InMemory._spans is None:
            InMemory._spans = InMemorySpanExporter()
            InMemory._tracer_provider = TracerProvider(shutdown_on_exit=False)
            processor = SimpleSpanProcessor(InMemory._spans)
            InMemory._tracer_provider.add_span_processor(processor)
        self._exporter = InMemory._spans
        self._exporter.clear()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = InMemory._tracer_provider
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def close(self) -> None:
        """Forget the spans, and end the meter provider."""
        self._exporter.clear()
        self.meter_provider.shutdown()

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans that have ended, in that order."""
        return [_span(span) for span in self._exporter.get_finished_spans()]

    def points(self) -> list[dict[str, Any]]:
        """Collect, and return the sums since the beginning."""
        data = self._reader.get_metrics_data()
        return [
            {
                "name": metric.name,
                "unit": metric.unit,
                "kind": type(metric.data).__name__.lower(),
                "scope": scope.scope.name,
                "attributes": _plain(point.attributes),
                **dict(_numbers(point)),
            }
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


def _span(span: ReadableSpan) -> dict[str, Any]:
    own, parent = span.get_span_context(), span.parent
    begun, ended = span.start_time or 0, span.end_time or 0
    return {
        "name": span.name,
        "trace_id": None if own is None else format_trace_id(own.trace_id),
        "span_id": None if own is None else format_span_id(own.span_id),
        "parent_id": None if parent is None else format_span_id(parent.span_id),
        "kind": span.kind.name.lower(),
        "scope": None if span.instrumentation_scope is None else span.instrumentation_scope.name,
        "status": span.status.status_code.name.lower(),
        "status_description": span.status.description,
        "start_unix_s": begun / 1e9,
        "duration_s": (ended - begun) / 1e9,
        "attributes": _plain(span.attributes),
        "events": [
            {"name": event.name, "attributes": _plain(event.attributes)} for event in span.events
        ],
        "links": [
            {
                "trace_id": format_trace_id(link.context.trace_id),
                "span_id": format_span_id(link.context.span_id),
                "attributes": _plain(link.attributes),
            }
            for link in span.links
        ],
    }


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in (attributes or {}).items()
    }


def _numbers(point: Any) -> Iterator[tuple[str, Any]]:
    """Yield the value of a number, or count, sum and extremes of a histogram, and its buckets."""
    for name, shown in (
        ("value", "value"),
        ("count", "count"),
        ("sum", "sum"),
        ("min", "min"),
        ("max", "max"),
        ("explicit_bounds", "bounds"),
        ("bucket_counts", "buckets"),
    ):
        value = getattr(point, name, None)
        if value is not None:
            yield shown, list(value) if isinstance(value, (tuple, list)) else value

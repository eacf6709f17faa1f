"""One export's batch, and what of it can be encoded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import MetricsData

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export.delivery.log_filter import exporting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._export.environment import Signal


class Batch:
    """The spans or the metrics data of one export."""

    def __init__(self, signal: Signal, data: Any) -> None:
        self.signal = signal
        self.data = data
        self.items = len(data) if signal == "traces" else sum(1 for _ in _points(data))

    def line(self) -> bytes:
        """Encode it as one line for the disk; raises whatever the encoder raises."""
        from otel_pipeline_metrics._export.delivery import otlp_json

        with exporting():  # the encoder logs each attribute that it leaves out
            return otlp_json.line(self.signal, self.data)

    def sift(self) -> int:
        """Leave out each span or point that cannot be encoded; return their number.

        The last line of defence: names, attributes and counts are cleaned where they come in
        (`_core.cleaning`), but spans and metrics of the program's own come here unseen.
        """
        before = self.items
        sifted = self._sift_spans() if self.signal == "traces" else self._sift_points()
        if sifted.items < before:
            self.data, self.items = sifted.data, sifted.items
            errors.warn_once(
                f"cannot encode {self.signal}",
                "some %s hold a value that OTLP cannot carry: they are dropped and counted, and "
                "the others are exported",
                "spans" if self.signal == "traces" else "metric points",
            )
        return before - self.items

    def _sift_spans(self) -> Batch:
        sound = _sound(self.data, lambda spans: _encodes("traces", tuple(spans)))
        return Batch("traces", tuple(sound))

    def _sift_points(self) -> Batch:
        resources = []
        for resource in self.data.resource_metrics:
            scopes = []
            for scope in resource.scope_metrics:
                metrics = []
                for metric in scope.metrics:
                    points = _sound(
                        metric.data.data_points,
                        partial(_encodes_points, resource, scope, metric),
                    )
                    if points:
                        metrics.append(_with_points(metric, points))
                scopes.append(replace(scope, metrics=metrics))
            resources.append(replace(resource, scope_metrics=scopes))
        return Batch("metrics", MetricsData(resource_metrics=resources))


def _sound(items: Sequence[Any], encodes: Callable[[Sequence[Any]], bool]) -> list[Any]:
    """Return the items that can be encoded; of n items a bad one costs about 2 log n attempts."""
    if not items or encodes(items):
        return list(items)
    if len(items) == 1:
        return []
    middle = len(items) // 2
    return _sound(items[:middle], encodes) + _sound(items[middle:], encodes)


def _encodes_points(resource: Any, scope: Any, metric: Any, points: Sequence[Any]) -> bool:
    scopes = [replace(scope, metrics=[_with_points(metric, list(points))])]
    return _encodes(
        "metrics", MetricsData(resource_metrics=[replace(resource, scope_metrics=scopes)])
    )


def _points(data: Any) -> Iterator[Any]:
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from metric.data.data_points


def _with_points(metric: Any, points: list[Any]) -> Any:
    return replace(metric, data=replace(metric.data, data_points=points))


def _encodes(signal: Signal, data: Any) -> bool:
    from otel_pipeline_metrics._export.delivery import otlp_json

    try:
        with exporting():
            otlp_json.message(signal, data)
    except Exception as error:  # protobuf raises several kinds
        if errors.from_signal_handler(error):
            raise
        return False
    return True

"""Instruments on one meter, made from the table in `_semconv`.

A change of configuration retires the whole set and makes a new one. Observable callbacks of
a retired set answer with nothing, so that a provider the user still holds does not go on
reporting for its successor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from otel_pipeline_metrics import _guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter

    from otel_pipeline_metrics._model import Point
    from otel_pipeline_metrics._semconv import Metric


class InstrumentSet:
    """Makes instruments on `meter`; `retire()` silences all of its observable ones."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._retired = False

    def retire(self) -> None:
        """Let every observable of this set report nothing from now on."""
        self._retired = True

    def histogram(self, metric: Metric) -> Histogram:
        """Make a histogram that advises its boundaries; a view of the user's still wins."""
        return self._meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.description,
            explicit_bucket_boundaries_advisory=metric.buckets,
        )

    def counter(self, metric: Metric) -> Counter:
        """Make a counter of increments."""
        return self._meter.create_counter(metric.name, metric.unit, metric.description)

    def observable_counter(self, metric: Metric, read: Callable[[], Iterable[Point]]) -> None:
        """Report monotonic totals: `read` gives (value, attributes) pairs and only reads memory."""
        self._meter.create_observable_counter(
            metric.name, [self._callback(metric, read)], metric.unit, metric.description
        )

    def observable_up_down_counter(
        self, metric: Metric, read: Callable[[], Iterable[Point]]
    ) -> None:
        """Report levels that add up across processes."""
        self._meter.create_observable_up_down_counter(
            metric.name, [self._callback(metric, read)], metric.unit, metric.description
        )

    def observable_gauge(self, metric: Metric, read: Callable[[], Iterable[Point]]) -> None:
        """Report levels that do not add up."""
        self._meter.create_observable_gauge(
            metric.name, [self._callback(metric, read)], metric.unit, metric.description
        )

    def _callback(
        self, metric: Metric, read: Callable[[], Iterable[Point]]
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(_: CallbackOptions) -> list[Observation]:
            if self._retired:
                return []
            try:
                return [Observation(value, attributes) for value, attributes in read()]
            except Exception:  # noqa: BLE001 - one bad probe must not stop the others
                _guard.fault(metric.name)
                return []

        return callback

"""Instruments on one meter, made from the table in `metric_definitions`.

A change of configuration retires the whole set and makes a new one. Observable callbacks of
a retired set answer with nothing, so that a provider the user still holds does not go on
reporting for its successor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from otel_pipeline_metrics._core import (
    errors,
    metric_definitions,
)
from otel_pipeline_metrics._core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider

    from otel_pipeline_metrics._core.metric_definitions import Metric
    from otel_pipeline_metrics._core.records import (
        Point,
    )


class InstrumentSet:
    """Makes instruments on `meter`; `retire()` silences all of its observable ones.

    A meter makes an observable instrument once: asked again, it returns the first one and
    forgets the new callback. So the callbacks of a retired set speak for its successor where
    that one is on the same provider, and for nobody otherwise.
    """

    def __init__(self, meter: Meter, provider: MeterProvider | None = None) -> None:
        self._meter = meter
        self._provider = provider
        self._reads: dict[str, Callable[[], Iterable[Point]]] = {}
        self._retired = False
        self._successor: InstrumentSet | None = None

    def retire(self, successor: InstrumentSet | None = None) -> None:
        """Let the observables of this set report for `successor` or not at all."""
        self._retired = True
        self._successor = successor

    def _read(self, metric: str) -> Iterable[Point]:
        speaking = self._latest()
        if speaking._retired:  # noqa: SLF001 - one of its own kind, as below
            return ()
        if speaking is not self and self.where() is not speaking.where():
            return ()
        read = speaking._reads.get(metric)  # noqa: SLF001
        return () if read is None else read()

    def _latest(self) -> InstrumentSet:
        latest = self
        while latest._successor is not None:
            latest = latest._successor
        if latest is not self:
            self._successor = latest  # those in between may go
        return latest

    def where(self) -> MeterProvider:
        """Return the provider; without one of our own it is the global one of this moment."""
        return metrics.get_meter_provider() if self._provider is None else self._provider

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
        self._reads[metric.name] = read

        def callback(_: CallbackOptions) -> list[Observation]:
            try:
                points = self._read(metric.name)
                return [Observation(value, attributes) for value, attributes in points]
            except Exception:  # one bad probe must not stop the others
                errors.log_internal_error(metric.name)
                return []

        return callback


T = TypeVar("T")


class _Snapshot(Generic[T]):
    """One look for all callbacks of a collection.

    A collection calls every callback once, one after the other. So a callback that finds the
    snapshot it has already used is in a new collection, and takes a new one. That needs neither
    a clock nor a callback that is known to be the first, which a user's view might drop.
    """

    def __init__(self, take: Callable[[], T]) -> None:
        self._take = take
        self._current: list[T] = []
        """The snapshot in a list of its own, whose identity is the snapshot's."""

    def reader(self) -> Callable[[], T]:
        """Return what one callback calls, once a collection."""
        used: list[T] = self._current

        def read() -> T:
            nonlocal used
            if used is self._current:
                self._current = [self._take()]
            used = self._current
            return used[0]

        return read


def _point(reading: Any, field: str, attributes: dict[str, str]) -> list[Point]:
    """Return the point of a field, or none where it is unknown: unknown is never 0."""
    value = getattr(reading, field)
    return [] if value is None else [(value, attributes)]


def meter_of(provider: MeterProvider | None) -> Meter:
    """Return our meter on `provider`, or on the global one, present or to come."""
    if provider is None:
        return metrics.get_meter(metric_definitions.SCOPE, __version__)
    return provider.get_meter(metric_definitions.SCOPE, __version__)

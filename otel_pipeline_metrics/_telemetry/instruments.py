"""Make the instruments of one meter from the table in `metric_definitions`.

A change of configuration retires the whole set and makes a new one. Observable callbacks of a
retired set report nothing, so that a provider which the user still holds does not continue to
report for its successor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.cleaning import MAX_INT, clean_int
from otel_pipeline_metrics._core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider

    from otel_pipeline_metrics._core.metric_definitions import Metric
    from otel_pipeline_metrics._core.records import Point


# The set that replaced the others. These do not hold their successors: the first one, on the
# API's proxy, lives as long as the process, and would keep each provider that comes.
_latest: InstrumentSet | None = None


class InstrumentSet:
    """The instruments on one meter; `retire()` silences its observable ones.

    A meter makes an observable instrument once: a second time it returns the first one and
    drops the new callback. So the callbacks of a retired set report for its successor if that
    is on the same provider, and report nothing otherwise.
    """

    def __init__(self, meter: Meter, provider: MeterProvider | None = None) -> None:
        self._meter = meter
        self._provider = provider
        self._reads: dict[str, Callable[[], Iterable[Point]]] = {}
        self._retired = False
        self._replaced = False

    def retire(self, successor: InstrumentSet | None = None) -> None:
        """Make the observable instruments report for `successor`, or nothing."""
        global _latest
        self._retired, self._replaced = True, successor is not None
        if successor is not None:
            successor._retired = successor._replaced = False
            _latest = successor

    def _read(self, metric: str) -> Iterable[Point]:
        latest = _latest if self._replaced and _latest is not None else self
        if latest is not self and self.provider() is not latest.provider():
            return ()
        read = None if latest._retired else latest._reads.get(metric)
        return () if read is None else read()

    def provider(self) -> MeterProvider:
        """Return the provider of the set; by default the current global one."""
        return _global_provider() if self._provider is None else self._provider

    def histogram(self, metric: Metric) -> Histogram:
        """Make a histogram with advisory boundaries; a view of the user still wins."""
        return self._meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.description,
            explicit_bucket_boundaries_advisory=metric.buckets,
        )

    def counter(self, metric: Metric) -> Counter:
        """Make a counter that takes increments."""
        return self._meter.create_counter(metric.name, metric.unit, metric.description)

    def observable_counter(self, metric: Metric, read: Callable[[], Iterable[Point]]) -> None:
        """Report monotonic totals; `read` returns points and only reads memory."""
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
                return [
                    Observation(_clean(value, metric.name), attributes)
                    for value, attributes in self._read(metric.name)
                ]
            except Exception:  # one broken probe must not stop the others
                errors.log_internal_error(metric.name)
                return []

        return callback


def _clean(value: float, metric: str) -> float:
    """Return a value that OTLP can carry: a level or a count of the user's may be anything."""
    if type(value) is int and 0 <= value <= MAX_INT:
        return value
    return clean_int(value, metric) if isinstance(value, int) else value


T = TypeVar("T")


class Snapshot(Generic[T]):
    """One reading that all callbacks of a collection share.

    A collection calls every callback once, one after the other. So a callback that finds the
    snapshot it has already used is in a new collection, and takes a new one. That needs neither
    a clock nor a callback that always comes first, which a user's view might drop.
    """

    def __init__(self, take: Callable[[], T]) -> None:
        self._take = take
        # the snapshot in its own list, whose identity is the identity of the snapshot
        self._current: list[T] = []

    def reader(self) -> Callable[[], T]:
        """Return a function that one callback calls once in each collection."""
        used: list[T] = self._current

        def read() -> T:
            nonlocal used
            if used is self._current:
                self._current = [self._take()]
            used = self._current
            return used[0]

        return read


def point_of(reading: Any, field: str, attributes: dict[str, str]) -> list[Point]:
    """Return the point of a field, or no point if it is unknown: that is not 0."""
    value = getattr(reading, field)
    return [] if value is None else [(value, attributes)]


def meter_of(provider: MeterProvider | None) -> Meter:
    """Return our meter on `provider`, or on the present or future global one."""
    used = _global_provider() if provider is None else provider
    return used.get_meter(defs.SCOPE, __version__, defs.SCHEMA_URL)


_NO_PROVIDER: Final = metrics.NoOpMeterProvider()


def _global_provider() -> MeterProvider:
    try:
        return metrics.get_meter_provider()
    except Exception as error:  # OTEL_PYTHON_METER_PROVIDER names one that cannot be loaded
        errors.warn_once(
            "global meter provider",
            "the global meter provider (OTEL_PYTHON_METER_PROVIDER) cannot be used: %r",
            error,
        )
        return _NO_PROVIDER

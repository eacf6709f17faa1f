"""Many histogram values at once: the one file that knows the SDK's private parts.

`Histogram.record` takes 7 µs a value, most of it spent on cleaning and hashing the same
attributes again. Here one value of a batch is recorded publicly, which lets the SDK find or
make its aggregation, and the others are counted into that aggregation under its own lock,
just as its `aggregate` would: views, temporalities, several readers and cardinality limits
are still the SDK's. It is used only where a comparison with `record` on a provider of our
own has given the same points; else, and wherever something looks unfamiliar, every value is
recorded publicly.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics import _guard
from otel_pipeline_metrics.environment_variables import OTEL_PIPELINE_METRICS_FOLD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.metrics import Histogram

_INTERNAL: Final = "opentelemetry.sdk.metrics._internal"

_works: bool | None = None


class HistogramSeries:
    """One histogram under one set of attributes."""

    __slots__ = ("_attributes", "_histogram", "_keys")

    def __init__(self, histogram: Histogram, attributes: dict[str, Any]) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._keys: dict[int, Any] = {}
        """By identity of a view's match: the key of our aggregation in it."""

    def record(self, values: Sequence[float], *, collecting: bool) -> bool:
        """Record `values`, sorted upwards; False, and nothing recorded, for "not now".

        Args:
            values: at least one.
            collecting: whether the caller is a callback of this histogram's provider, which
                then holds off every other collection.
        """
        if not is_live(self._histogram):
            return True
        rest = values[1:]
        if not works():
            for value in values:
                self._histogram.record(value, self._attributes)
            return True
        with _undisturbed(self._histogram, collecting) as alone:
            if not alone:
                return False
            self._histogram.record(values[0], self._attributes)
            if rest and not self._fold(rest):
                for value in rest:
                    self._histogram.record(value, self._attributes)
        return True

    def _fold(self, values: Sequence[float]) -> bool:
        """Count values into the SDK's aggregations; False, and nothing done, if they differ."""
        try:
            instrument = _real(self._histogram)
            consumer = instrument._measurement_consumer
            if not _only_traced_exemplars(consumer):
                return False
            found = []
            for storage in list(consumer._reader_storages.values()):
                for match in storage._get_or_init_view_instrument_match(instrument):
                    aggregation = self._aggregation_in(match)
                    if aggregation is None or type(aggregation).__name__ not in _FOLDS:
                        return False
                    found.append(aggregation)
        except Exception:  # noqa: BLE001 - private parts may be anything; record() is there
            _guard.once("fold", "histograms are recorded one value at a time: %r", sys.exc_info())
            return False
        for aggregation in found:
            _FOLDS[type(aggregation).__name__](aggregation, values)
        return True

    def _aggregation_in(self, match: Any) -> Any:
        """Return the aggregation that the public record() just went into, or None."""
        aggregations = match._attributes_aggregation
        key = self._keys.get(id(match))
        if key is not None and key in aggregations:
            return aggregations[key]
        kept = match._view._attribute_keys
        expected = self._attributes
        if kept is not None:
            expected = {k: v for k, v in expected.items() if k in kept}
        for candidate, aggregation in list(aggregations.items()):
            if dict(aggregation._attributes or {}) == expected:
                self._keys[id(match)] = candidate
                return aggregation
        return None


def _fold_explicit(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        aggregation._sum += sum(values)
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, values[0])
            aggregation._max = max(aggregation._max, values[-1])
        counts, done = aggregation._value, 0
        last = values[-1]
        for index, bound in enumerate(aggregation._boundaries):
            # a bucket holds the values up to and with its bound
            upto = bisect_right(values, bound, done)
            counts[index] += upto - done
            done = upto
            if last <= bound:
                return
        counts[-1] += len(values) - done


class _Measured:
    """All that an aggregation reads of a measurement once exemplars are out of question."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


def _fold_exponential(aggregation: Any, values: Sequence[float]) -> None:
    for value in values:
        aggregation.aggregate(_Measured(value), False)


def _fold_drop(aggregation: Any, values: Sequence[float]) -> None:
    """A view drops this histogram."""


_FOLDS: Final = {
    "_ExplicitBucketHistogramAggregation": _fold_explicit,
    "_ExponentialBucketHistogramAggregation": _fold_exponential,
    "_DropAggregation": _fold_drop,
}


def is_live(instrument: Any) -> bool:
    """Tell whether records go anywhere: not on the API's proxy while no SDK is there."""
    if hasattr(instrument, "_real_instrument"):
        return instrument._real_instrument is not None
    return not type(instrument).__name__.startswith("NoOp")


def _real(histogram: Any) -> Any:
    return getattr(histogram, "_real_instrument", None) or histogram


def _only_traced_exemplars(consumer: Any) -> bool:
    """Tell whether a value without a sampled span can be no exemplar, as is the default."""
    name = type(consumer._sdk_config.exemplar_filter).__name__
    return name in ("TraceBasedExemplarFilter", "AlwaysOffExemplarFilter")


@contextmanager
def _undisturbed(histogram: Any, collecting: bool) -> Iterator[bool]:
    """Keep collections away: one with delta temporality throws its aggregations away.

    Nobody waits here: the caller may be the user's thread, and a collection that is going on
    waits for the caller's own lock.
    """
    lock = getattr(getattr(_real(histogram), "_measurement_consumer", None), "_lock", None)
    if lock is None or collecting:
        yield True
        return
    held = lock.acquire(blocking=False)
    try:
        yield held
    finally:
        if held:
            lock.release()


def works() -> bool:
    """Tell whether folding gives what recording gives, on the SDK that is loaded."""
    global _works  # noqa: PLW0603 - found out once
    if os.environ.get(OTEL_PIPELINE_METRICS_FOLD, "").strip().lower() == "false":
        return False
    if _works is None:
        if _INTERNAL not in sys.modules:
            return False
        _works = False  # for the check itself, and should it fail half-way
        try:
            _works = _same_points()
        except Exception:  # noqa: BLE001 - an SDK we do not know is no fault
            _works = False
        if not _works:
            _guard.logger.info("this OpenTelemetry SDK's histograms are recorded value by value")
    return _works


def _same_points() -> bool:
    from opentelemetry.sdk.metrics import Histogram as SdkHistogram
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

    values = [0.0, 0.5, 1.0, 1.5, 2.0, 7.0]
    attributes = {"check": "fold", "list": ("a", "b")}
    delta: dict[type, AggregationTemporality] = {SdkHistogram: AggregationTemporality.DELTA}
    exponential: dict[type, Aggregation] = {SdkHistogram: ExponentialBucketHistogramAggregation()}

    def collected(*, fold: bool) -> list[tuple[Any, ...]]:
        readers = [
            InMemoryMetricReader(),
            InMemoryMetricReader(preferred_temporality=delta),
            InMemoryMetricReader(preferred_aggregation=exponential),
        ]
        provider = MeterProvider(readers, shutdown_on_exit=False)
        histogram = provider.get_meter("check").create_histogram("check")
        series = HistogramSeries(histogram, dict(attributes))
        points = []
        for part in (values, values[2:4]):
            histogram.record(part[0], attributes)
            if fold and not series._fold(part[1:]):
                raise RuntimeError("private parts are not as expected")
            for value in [] if fold else part[1:]:
                histogram.record(value, attributes)
            points += [_point(reader) for reader in readers]
        provider.shutdown()
        return points

    return collected(fold=True) == collected(fold=False)


def _point(reader: Any) -> tuple[Any, ...]:
    data = reader.get_metrics_data()
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    buckets = (
        (point.bucket_counts, point.explicit_bounds)
        if hasattr(point, "bucket_counts")
        else (point.scale, point.zero_count, point.positive.offset, point.positive.bucket_counts)
    )
    return (point.count, point.sum, point.min, point.max, *buckets)

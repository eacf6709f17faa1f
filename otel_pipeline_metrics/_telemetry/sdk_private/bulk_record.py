"""Many values at once: the one file that knows the SDK's private parts.

`Histogram.record` and `Counter.add` take 7 µs a value, most of it spent on cleaning and hashing
the same attributes again. Here a value is recorded publicly where that lets the SDK make its
aggregation, and all others are counted into that aggregation just as its `aggregate` would,
under the lock that its collection takes: views, temporalities, several readers and cardinality
limits are still the SDK's. It is used only where a comparison with `record` on a provider of our
own has given the same points; else, and wherever something looks unfamiliar, every value is
recorded publicly.

Nobody waits for a collection here. The caller may be the user's thread, or a signal handler
that interrupts a collection in the same thread; what cannot be recorded now is recorded later.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.metrics import Counter, Histogram


_NO_SPAN: Final = Context({"opm": "no span"})
"""For values without an exemplar: an empty context would be replaced by the current one."""


class Instrument:
    """A histogram or a counter, and where in the SDK its values go."""

    __slots__ = ("_folds", "_live", "_matches", "_storages", "instrument")

    def __init__(
        self, instrument: Histogram | Counter, *, folds: bool | Callable[[], bool]
    ) -> None:
        self.instrument: Any = instrument
        self._live = False
        self._folds = folds
        self._storages: tuple[Any, int] = (None, 0)
        self._matches: list[Any] = []

    @property
    def live(self) -> bool:
        """Whether values go anywhere by now."""
        if not self._live:
            self._live = is_live(self.instrument)
        return self._live

    @property
    def can_become_live(self) -> bool:
        """Whether values may go somewhere later: on a proxy, once there is a global provider."""
        return hasattr(self.instrument, "_real_instrument")

    def sdk_targets(self) -> list[Any]:
        """Return the matches of readers and views that take its values; empty for "unknown"."""
        if not isinstance(self._folds, bool):
            self._folds = self._folds()
        if not self._folds:
            return []
        try:
            real = getattr(self.instrument, "_real_instrument", None) or self.instrument
            storages = real._measurement_consumer._reader_storages
            if self._storages[0] is not storages or self._storages[1] != len(storages):
                if not _only_traced_exemplars(real._measurement_consumer):
                    return []
                found = [
                    match
                    for storage in list(storages.values())
                    for match in storage._get_or_init_view_instrument_match(real)
                ]
                self._storages, self._matches = (storages, len(storages)), found
        except Exception as error:  # private parts may be anything; record() is there
            if errors.from_signal_handler(error):
                raise
            errors.warn_once("fold", "metrics are recorded one value at a time: %r", sys.exc_info())
            return []
        return self._matches


class _Series:
    """One instrument under one set of attributes."""

    __slots__ = ("_attributes", "_full", "_instrument", "_keys", "_matches", "_record")

    def __init__(self, instrument: Instrument, record: Any, attributes: Any) -> None:
        self._instrument = instrument
        self._record = record
        self._attributes = attributes
        self._matches: list[Any] = []
        self._keys: list[Any] = []
        """For each match, the key of our aggregation in it."""
        self._full: Any = None
        """Aggregations among which ours is not, though it was recorded: they are too many."""

    def record(self, values: Sequence[float], exemplars: Iterable[tuple[float, Any]] = ()) -> bool:
        """Record `values`, sorted upwards; False, and nothing recorded, for "not now".

        Args:
            values: of which none is an exemplar.
            exemplars: values with the contexts of their sampled spans.
        """
        if not self._instrument.live:
            return True
        matches = self._instrument.sdk_targets()
        # the SDK takes nothing below zero, and what is not finite goes its own ways
        foldable = bool(matches and values) and values[0] >= 0 and math.isfinite(sum(values))
        if foldable:
            done = self._fold(matches, values)
            if done is None:
                return False
            if not done:
                # with its first value, the SDK makes the aggregation
                self._record(values[0], self._attributes, _NO_SPAN)
                values = values[1:]
                done = self._fold(matches, values, recorded=True)
            if done:
                values = ()
        elif any(match._lock.locked() for match in matches):
            return False
        self._one_by_one(values, exemplars)
        return True

    def _one_by_one(self, values: Sequence[float], exemplars: Iterable[tuple[float, Any]]) -> None:
        for value in values:
            self._record(value, self._attributes, _NO_SPAN)
        for value, context in exemplars:
            self._record(value, self._attributes, context)

    def _fold(
        self, matches: list[Any], values: Sequence[float], *, recorded: bool = False
    ) -> bool | None:
        """Count values into the SDK's aggregations, all of them or nothing.

        Returns:
            False where an aggregation is missing or of an unknown kind, None where one of them
            is being collected.
        """
        if not values:
            return True
        # a collection of delta temporality throws the aggregations away that it has read
        held = _hold(matches)
        if held is None:
            return None
        try:
            found = self._aggregations(matches, recorded)
            for aggregation in found:
                _FOLDS[type(aggregation).__name__](aggregation, values)
        finally:
            _release(held)
        return bool(found)

    def _aggregations(self, matches: list[Any], recorded: bool) -> list[Any]:
        """Return where the public record() would count a value; empty if that is not clear."""
        if self._matches is not matches:
            self._matches, self._keys = matches, [None] * len(matches)
        found = []
        try:
            for place, match in enumerate(matches):
                aggregation = self._aggregation_in(place, match, recorded)
                if type(aggregation).__name__ not in _FOLDS:
                    return []
                found.append(aggregation)
        except Exception as error:  # as above
            if errors.from_signal_handler(error):
                raise
            errors.warn_once("fold", "metrics are recorded one value at a time: %r", sys.exc_info())
            return []
        return found

    def _aggregation_in(self, place: int, match: Any, recorded: bool) -> Any:
        """Return the aggregation that the public record() goes into; None where there is none."""
        aggregations = match._attributes_aggregation
        found = aggregations.get(self._keys[place])
        if found is not None or self._full is aggregations:
            return found
        kept = match._view._attribute_keys
        expected = self._attributes
        if kept is not None:
            expected = {k: v for k, v in expected.items() if k in kept}
        for candidate, aggregation in reversed(aggregations.items()):
            if dict(aggregation._attributes or {}) == expected:
                self._keys[place] = candidate
                return aggregation
        if recorded:
            self._full = aggregations
        return None


class HistogramSeries(_Series):
    """One histogram under one set of attributes."""

    __slots__ = ()

    def __init__(self, histogram: Instrument, attributes: dict[str, Any]) -> None:
        super().__init__(histogram, histogram.instrument.record, attributes)


class CounterSeries(_Series):
    """One counter under one set of attributes."""

    __slots__ = ()

    def __init__(self, counter: Instrument, attributes: dict[str, Any]) -> None:
        super().__init__(counter, counter.instrument.add, attributes)
        # Zero first: a backend that sees the series begin can tell the first increase.
        self._one_by_one((0,), ())


def _hold(matches: list[Any]) -> list[Any] | None:
    """Take the locks that keep collections away; None if there is one."""
    held: list[Any] = []
    for match in matches:
        if not match._lock.acquire(blocking=False):
            _release(held)
            return None
        held.append(match._lock)
    return held


def _release(held: list[Any]) -> None:
    for lock in held:
        lock.release()


def _fold_explicit(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        aggregation._sum += sum(values)
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, values[0])
            aggregation._max = max(aggregation._max, values[-1])
        counts, bounds = aggregation._value, aggregation._boundaries
        if len(values) <= len(bounds):
            for value in values:
                counts[bisect_left(bounds, value)] += 1
            return
        done, last = 0, values[-1]
        for index, bound in enumerate(bounds):
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
    zeros = bisect_right(values, 0)
    if len(values) - zeros <= 2:  # the two ends
        for value in values:
            aggregation.aggregate(_Measured(value), False)
        return
    # the two ends bring about the scale that holds everything between them
    aggregation.aggregate(_Measured(values[-1]), False)
    aggregation.aggregate(_Measured(values[zeros]), False)
    with aggregation._lock:
        between = values[zeros + 1 : -1]
        aggregation._sum += sum(between)
        aggregation._count += len(between) + zeros
        aggregation._zero_count += zeros
        aggregation._min = min(aggregation._min, values[0])
        buckets = aggregation._value_positive
        index_of, base = aggregation._mapping.map_to_index, buckets.index_base
        for value in between:
            buckets.increment_bucket(index_of(value) - base)


def _fold_sum(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        aggregation._value = (aggregation._value or 0) + sum(values)


def _fold_last_value(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        aggregation._value = values[-1]


def _fold_drop(aggregation: Any, values: Sequence[float]) -> None:
    """A view drops this instrument."""


_FOLDS: Final = {
    "_ExplicitBucketHistogramAggregation": _fold_explicit,
    "_ExponentialBucketHistogramAggregation": _fold_exponential,
    "_SumAggregation": _fold_sum,
    "_LastValueAggregation": _fold_last_value,
    "_DropAggregation": _fold_drop,
}


def is_live(instrument: Any) -> bool:
    """Tell whether records go anywhere: not on the API's proxy while no SDK is there."""
    if hasattr(instrument, "_real_instrument"):
        return instrument._real_instrument is not None
    return not type(instrument).__name__.startswith("NoOp")


def _only_traced_exemplars(consumer: Any) -> bool:
    """Tell whether a value without a sampled span can be no exemplar, as is the default."""
    name = type(consumer._sdk_config.exemplar_filter).__name__
    return name in ("TraceBasedExemplarFilter", "AlwaysOffExemplarFilter")

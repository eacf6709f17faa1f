"""Record many values at once in the private aggregations of the SDK.

`Histogram.record` and `Counter.add` take 7 µs a value, most of it for cleaning and hashing the
same attributes again. Here the first value is recorded by the public method, which makes the
SDK build its aggregation. All others are added to that aggregation just as its `aggregate`
would, under the lock that its collection takes: views, temporalities, several readers and
cardinality limits are still the SDK's. It is used only if a comparison with `record` on a
provider of our own has given the same points (`self_check`). Otherwise, and where a private
part is unfamiliar, every value is recorded by the public method.

Recording never waits for a collection. The caller may be the user's thread, or a signal handler
that interrupts a collection in the same thread; what cannot be recorded now is recorded later.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.cleaning import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.metrics import Counter, Histogram


# for values without an exemplar: an empty context would be replaced by the current one
_NO_SPAN: Final = Context({"opm": "no span"})


class Instrument:
    """A histogram or a counter, and its targets in the SDK.

    Args:
        instrument: made by the API.
        bulk: whether bulk recording is supported, or a function that tells it.
    """

    __slots__ = ("_bulk", "_live", "_storages", "_targets", "indexes", "instrument")

    def __init__(self, instrument: Histogram | Counter, *, bulk: bool | Callable[[], bool]) -> None:
        self.instrument: Any = instrument
        self._live = False
        self._bulk = bulk
        self._storages: tuple[Any, int] = (None, 0)
        self._targets: list[Any] = []
        # of each target
        self.indexes: list[_Index] = []

    @property
    def live(self) -> bool:
        """Whether there is a provider that takes the values."""
        if not self._live:
            self._live = is_live(self.instrument)
        return self._live

    @property
    def can_become_live(self) -> bool:
        """Whether it is the API's proxy, which follows a later global provider."""
        return hasattr(self.instrument, "_real_instrument")

    def sdk_targets(self) -> list[Any]:
        """Return the view matches of all readers that take its values; empty if unknown."""
        if not isinstance(self._bulk, bool):
            self._bulk = self._bulk()
        if not self._bulk:
            return []
        try:
            real = getattr(self.instrument, "_real_instrument", None) or self.instrument
            storages = real._measurement_consumer._reader_storages
            if self._storages[0] is not storages or self._storages[1] != len(storages):
                if not _only_traced_exemplars(real._measurement_consumer):
                    return []
                found = [
                    target
                    for storage in list(storages.values())
                    for target in storage._get_or_init_view_instrument_match(real)
                ]
                self._storages, self._targets = (storages, len(storages)), found
                self.indexes = [_Index(target) for target in found]
        except Exception as error:  # private parts may change; record() remains
            return _unfamiliar(error)
        return self._targets


def _unfamiliar(error: Exception) -> list[Any]:
    """Warn that private parts of the SDK are unfamiliar; return no targets."""
    if errors.from_signal_handler(error):
        raise error
    errors.warn_once("fold", "metrics are recorded one value at a time: %r", sys.exc_info())
    return []


class _Index:
    """The keys of a target's aggregations by their attributes.

    The SDK only adds aggregations, or replaces all of them. So each is read once, however many
    series ask for their key.
    """

    __slots__ = ("_aggregations", "_count", "_keys", "_target")

    def __init__(self, target: Any) -> None:
        self._target = target
        self._aggregations: dict[Any, Any] = {}
        # how many of them have been read
        self._count = 0
        self._keys: dict[frozenset[Any], Any] = {}

    def key_of(self, attributes: Mapping[str, Any]) -> Any:
        """Return the key of the aggregation with these attributes; None if there is none."""
        kept = self._target._view._attribute_keys
        if kept is not None:
            attributes = {k: v for k, v in attributes.items() if k in kept}
        aggregations = self._target._attributes_aggregation
        if self._aggregations is not aggregations:
            self._aggregations, self._count, self._keys = aggregations, 0, {}
        new = len(aggregations) - self._count
        for key, aggregation in islice(reversed(aggregations.items()), new):
            self._keys[_typed(aggregation._attributes or {})] = key
        self._count += new
        return self._keys.get(_typed(attributes))


def _typed(attributes: Mapping[str, Any]) -> frozenset[Any]:
    """Return attributes as a key; True, 1 and 1.0 are equal, but not the same attribute."""
    return frozenset((key, type(value), repr(value)) for key, value in attributes.items())


class _Series:
    """One instrument under one set of attributes."""

    __slots__ = ("_attributes", "_instrument", "_keys", "_record", "_targets")

    def __init__(self, instrument: Instrument, record: Any, attributes: Any) -> None:
        self._instrument = instrument
        self._record = record
        self._attributes = attributes
        self._targets: list[Any] = []
        # for each target, the key of our aggregation in it
        self._keys: list[Any] = []

    def record(self, values: Sequence[float], exemplars: Iterable[tuple[float, Any]] = ()) -> bool:
        """Record sorted `values`; during a collection record none and return False.

        Args:
            values: values without an exemplar.
            exemplars: values with the contexts of their sampled spans.
        """
        if not self._instrument.live:
            return True
        targets = self._instrument.sdk_targets()
        # the SDK refuses negative values, and treats values that are not finite in its own way
        if targets and values and values[0] >= 0 and math.isfinite(sum(values)):
            done = self.bulk_record(targets, values)
            if done is None:
                return False
            if not done:
                # the SDK builds the aggregation for its first value
                self._record(values[0], self._attributes, _NO_SPAN)
                values = values[1:]
                done = self.bulk_record(targets, values)
            if done:
                values = ()
        elif any(target._lock.locked() for target in targets):
            return False
        self.record_each(values, exemplars)
        return True

    def record_each(self, values: Sequence[float], exemplars: Iterable[tuple[float, Any]]) -> None:
        """Record every value by the public method."""
        for value in values:
            self._record(value, self._attributes, _NO_SPAN)
        for value, context in exemplars:
            self._record(value, self._attributes, context)

    def bulk_record(self, targets: list[Any], values: Sequence[float]) -> bool | None:
        """Add values to the SDK's aggregations, all of them or none.

        Returns:
            False if an aggregation is missing or of an unknown kind, None if one of them is
            being collected.
        """
        if not values:
            return True
        # the locks keep collections away: one of delta temporality drops the aggregations
        if len(targets) == 1:  # the same as below, with one reader and no view
            lock = targets[0]._lock
            if lock.locked():
                return None
            with lock:
                return self._add(targets, values)
        locks = [target._lock for target in targets]
        return _holding(locks, lambda: self._add(targets, values))

    def _add(self, targets: list[Any], values: Sequence[float]) -> bool:
        found = self._aggregations(targets)
        for aggregation in found:
            _BULK_RECORD[type(aggregation).__name__](aggregation, values)
        return bool(found)

    def _aggregations(self, targets: list[Any]) -> list[Any]:
        """Return the aggregations that record() would use; empty if that is unclear."""
        if self._targets is not targets:
            self._targets, self._keys = targets, [None] * len(targets)
        found = []
        try:
            for place, target in enumerate(targets):
                aggregation = self._aggregation_in(place, target)
                if type(aggregation).__name__ not in _BULK_RECORD:
                    return []
                found.append(aggregation)
        except Exception as error:  # private parts may change; record() remains
            return _unfamiliar(error)
        return found

    def _aggregation_in(self, place: int, target: Any) -> Any:
        """Return the aggregation that record() would use; None if there is none."""
        key = self._keys[place]
        if key is None:
            key = self._keys[place] = self._instrument.indexes[place].key_of(self._attributes)
        # at the cardinality limit, record() uses another one than that of these attributes
        return target._attributes_aggregation.get(key)


class HistogramSeries(_Series):
    """One histogram under one set of attributes."""

    __slots__ = ()

    def __init__(self, histogram: Instrument, attributes: dict[str, Any]) -> None:
        super().__init__(histogram, histogram.instrument.record, attributes)


class CounterSeries(_Series):
    """One counter under one set of attributes; its total stays within 64 bits."""

    __slots__ = ("_name", "_room")

    def __init__(self, counter: Instrument, attributes: dict[str, Any]) -> None:
        super().__init__(counter, counter.instrument.add, attributes)
        self._name = getattr(counter.instrument, "name", "a counter")
        self._room: float = MAX_INT
        # Zero first: a backend that sees the series begin can tell the first increase.
        self.record_each((0,), ())

    def add(self, amount: float) -> bool:
        """Add to the counter; during a collection add nothing and return False.

        Above `MAX_INT` the total stands still: OTLP could not carry it, nor the other metrics of
        the same export.
        """
        if math.isnan(amount):
            return True
        if amount > self._room:
            errors.warn_once(
                f"total of {self._name}", "a total of %s is beyond 64 bits: it stays", self._name
            )
            amount = self._room
        if amount and not self.record((amount,)):
            return False
        self._room -= amount
        return True


def _holding(locks: Sequence[Any], work: Callable[[], bool]) -> bool | None:
    """Do `work` under all locks; do nothing and return None if one of them is taken.

    Only `with` takes a lock: after `acquire()`, an exception of a signal handler could leave it
    locked for good. A lock that another thread takes just then is held for a moment only.
    """
    if not locks:
        return work()
    if locks[0].locked():
        return None
    with locks[0]:
        return _holding(locks[1:], work)


def _add_to_explicit(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        aggregation._sum += sum(values)
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, values[0])
            aggregation._max = max(aggregation._max, values[-1])
        counts, bounds = aggregation._value, aggregation._boundaries
        done, count = 0, len(values)
        while done < count:
            # a bucket holds the values up to its bound, inclusive
            index = bisect_left(bounds, values[done])
            upto = bisect_right(values, bounds[index], done) if index < len(bounds) else count
            counts[index] += upto - done
            done = upto


class _Measurement:
    """A measurement as far as an aggregation reads it for a value without an exemplar."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


def _add_to_exponential(aggregation: Any, values: Sequence[float]) -> None:
    zeros = bisect_right(values, 0)
    if len(values) - zeros <= 2:  # only the least and the largest
        for value in values:
            aggregation.aggregate(_Measurement(value), False)
        return
    # the least and the largest value set the scale for all values between them
    aggregation.aggregate(_Measurement(values[-1]), False)
    aggregation.aggregate(_Measurement(values[zeros]), False)
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


def _add_to_sum(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        aggregation._value = (aggregation._value or 0) + sum(values)


def _add_to_last_value(aggregation: Any, values: Sequence[float]) -> None:
    with aggregation._lock:
        aggregation._value = values[-1]


def _add_to_dropped(aggregation: Any, values: Sequence[float]) -> None:
    """Do nothing: a view drops this instrument."""


_BULK_RECORD: Final = {
    "_ExplicitBucketHistogramAggregation": _add_to_explicit,
    "_ExponentialBucketHistogramAggregation": _add_to_exponential,
    "_SumAggregation": _add_to_sum,
    "_LastValueAggregation": _add_to_last_value,
    "_DropAggregation": _add_to_dropped,
}


def is_live(instrument: Any) -> bool:
    """Tell whether there is a provider: not for the API's proxy without an SDK."""
    if hasattr(instrument, "_real_instrument"):
        return instrument._real_instrument is not None
    return not type(instrument).__name__.startswith("NoOp")


def _only_traced_exemplars(consumer: Any) -> bool:
    """Tell whether only values with a sampled span become exemplars: the default."""
    name = type(consumer._sdk_config.exemplar_filter).__name__
    return name in ("TraceBasedExemplarFilter", "AlwaysOffExemplarFilter")

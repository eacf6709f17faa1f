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
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.cleaning import MAX_INT
from otel_pipeline_metrics._telemetry.sdk_private.bulk_add import ADD_BY_CLASS, add_to_several

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import Counter, Histogram

    from otel_pipeline_metrics._telemetry.sdk_private.bulk_add import Add


# for values without an exemplar: an empty context would be replaced by the current one
_NO_SPAN: Final = Context({"opm": "no span"})


class Instrument:
    """A histogram or a counter, and its targets in the SDK.

    Args:
        instrument: made by the API.
        bulk: whether bulk recording is supported, or a function that tells it.
    """

    __slots__ = (
        "_bulk", "_live", "_matches", "_storages", "changed", "generation", "instrument", "targets",
    )  # fmt: skip

    def __init__(self, instrument: Histogram | Counter, *, bulk: bool | Callable[[], bool]) -> None:
        self.instrument: Any = instrument
        self._live = False
        self._bulk = bulk
        self._storages: tuple[Any, int] = (None, 0)
        # the view matches of all readers that take its values
        self._matches: list[Any] = []
        self.targets: list[_Target] = []
        # changes whenever the aggregations of its series do
        self.generation = 0
        # its series that may have pending values
        self.changed: dict[Any, None] = {}

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
                    match
                    for storage in list(storages.values())
                    for match in storage._get_or_init_view_instrument_match(real)
                ]
                targets, read = [_Target(match) for match in found], (storages, len(storages))
                # at once: after an exception of a signal handler, all of it is known or nothing
                self._storages, self._matches, self.targets, self.generation = (
                    read, found, targets, self.generation + 1,
                )  # fmt: skip
        except Exception as error:  # private parts may change; record() remains
            return _unfamiliar(error)
        return self._matches

    def holding(self, work: Callable[[], bool]) -> bool | None:
        """Do `work` while no collection can begin to take values; return None during one."""
        locks = [match._lock for match in self.sdk_targets()]
        return _holding(locks, lambda: self._look() and work())

    def _look(self) -> bool:
        """Notice replaced aggregations; return False if private parts are unfamiliar."""
        try:
            for target in self.targets:
                current = target.match._attributes_aggregation
                if target.aggregations is not current:
                    # at once, or its series would keep the ones that were replaced
                    target.aggregations, self.generation = current, self.generation + 1
        except Exception as error:  # private parts may change; record() remains
            return bool(_unfamiliar(error))
        return True

    def flush(self) -> None:
        """Record what is pending, in bulk as far as possible; during a collection nothing."""
        if not self.changed:
            return
        try:
            if self.holding(self._flush_in_bulk) is None:
                return
        except Exception as error:  # private parts may change; record() remains
            nothing = _unfamiliar(error)
            self._bulk, self.targets, self.generation = False, nothing, self.generation + 1
        for series in list(self.changed):
            if series.flush():
                self.changed.pop(series, None)

    def _flush_in_bulk(self) -> bool:
        left = [series for series in self.changed if not series.flush_in_bulk()]
        self.changed = dict.fromkeys(left)
        return True


def _unfamiliar(error: Exception) -> list[Any]:
    """Warn that private parts of the SDK are unfamiliar; return no targets."""
    if errors.from_signal_handler(error):
        raise error
    errors.warn_once("fold", "metrics are recorded one value at a time: %r", sys.exc_info())
    return []


class _Target:
    """A view match of the SDK, and its aggregations by their attributes.

    The SDK only adds aggregations, or replaces all of them. So each is read once, however many
    series ask for theirs.
    """

    __slots__ = ("_by_attributes", "_read", "aggregations", "match")

    def __init__(self, match: Any) -> None:
        self.match = match
        self.aggregations: dict[Any, Any] = {}
        self._read: tuple[Any, int] = (None, 0)
        self._by_attributes: dict[str, Any] = {}

    def aggregation_of(self, attributes: Mapping[str, Any]) -> Any:
        """Return the aggregation that record() would use; None if there is none.

        At the cardinality limit, record() uses another one than that of these attributes.
        """
        kept = self.match._view._attribute_keys
        if kept is not None:
            attributes = {k: v for k, v in attributes.items() if k in kept}
        found, (known, count) = self.aggregations, self._read
        if known is not found:
            self._by_attributes, count = {}, 0
        for aggregation in islice(reversed(found.values()), len(found) - count):
            self._by_attributes[_typed(aggregation._attributes or {})] = aggregation
        self._read = found, len(found)
        return self._by_attributes.get(_typed(attributes))


def _typed(attributes: Mapping[str, Any]) -> str:
    """Return attributes as a key; True, 1 and 1.0 are equal, but not the same attribute."""
    # a string, which the garbage collector never looks at: each stage has some
    return repr(sorted(attributes.items()))


class HistogramSeries:
    """One histogram under one set of attributes."""

    __slots__ = ("_attributes", "_found", "_generation", "_instrument", "_record")

    _method = "record"

    def __init__(self, instrument: Instrument, attributes: dict[str, Any]) -> None:
        self._instrument = instrument
        self._record = getattr(instrument.instrument, self._method)
        self._attributes = attributes
        # its aggregations, and how values are added to each, as of that generation
        self._found: tuple[tuple[Add, Any], ...] = ()
        self._generation = -1

    def will_change(self) -> None:
        """Have the next flush look at its pending values."""
        self._instrument.changed[self] = None

    def record(
        self, values: list[float], exemplars: dict[int, tuple[float, Any]] | None = None
    ) -> bool:
        """Record sorted `values`; during a collection record none and return False.

        Each value is removed in the statement that adds it, or, for the public method, before it
        is called: an exception of a signal handler there costs this value at most.

        Args:
            values: values without an exemplar.
            exemplars: values with the contexts of their sampled spans.
        """
        exemplars = {} if exemplars is None else exemplars
        if not self._instrument.live:
            values.clear()
            exemplars.clear()
            return True
        targets = self._instrument.sdk_targets()
        if targets and values and are_usual(values, sum(values)):
            done = self.bulk_record(values)
            if done is False:
                # the SDK builds the aggregation for its first value
                self._record_first(values)
                done = self.bulk_record(values)
            if done is None:
                return False
        elif any(target._lock.locked() for target in targets):
            return False
        self.record_each(values, exemplars)
        return True

    def record_each(
        self, values: list[float], exemplars: dict[int, tuple[float, Any]] | None = None
    ) -> None:
        """Remove every value and record it by the public method."""
        while values:
            self._record_first(values)
        exemplars = exemplars or {}
        for bucket in list(exemplars):
            value, context = exemplars[bucket]
            del exemplars[bucket]
            self._record_one(value, context)

    def _record_first(self, values: list[float]) -> None:
        value, values[:1] = values[0], ()
        self._record_one(value, _NO_SPAN)

    def _record_one(self, value: float, context: Any = _NO_SPAN) -> None:
        try:
            self._record(value, self._attributes, context)
        except Exception:  # of an exemplar filter, perhaps: the other values are recorded
            errors.log_internal_error("recording a value")

    def bulk_record(self, values: list[float]) -> bool | None:
        """Move values to the SDK's aggregations, all of them or none.

        Returns:
            False if an aggregation is missing or of an unknown kind, None if one of them is
            being collected.
        """
        if not values:
            return True
        # the locks keep collections away: one of delta temporality drops the aggregations
        return self._instrument.holding(lambda: self._add_all(values, sum(values)))

    def _add_all(self, values: list[float], total: float) -> bool:
        found = self.known()
        if len(found) == 1:
            add, aggregation = found[0]
            add(aggregation, values, total)
        elif found:
            add_to_several(found, values, total, [partial(values.clear)])
        return bool(found)

    def known(self) -> tuple[tuple[Add, Any], ...]:
        """Return the aggregations that record() would use, if known; the locks are held."""
        if self._generation != self._instrument.generation:
            self._find()
        return self._found

    def _find(self) -> None:
        self._found, self._generation, found = (), -1, []
        try:
            for target in self._instrument.targets:
                aggregation = target.aggregation_of(self._attributes)
                add = ADD_BY_CLASS.get(type(aggregation).__name__)
                if add is None:
                    return
                found.append((add, aggregation))
        except Exception as error:  # private parts may change; record() remains
            _unfamiliar(error)
            return
        self._found, self._generation = tuple(found), self._instrument.generation


def are_usual(values: Sequence[float], total: float) -> bool:
    """Tell whether the SDK takes sorted values as they are: it refuses negative ones."""
    return values[0] >= 0 and total < math.inf


class CounterSeries(HistogramSeries):
    """The same of a counter; its total stays within 64 bits."""

    __slots__ = ("_name", "_room")

    _method = "add"

    def __init__(self, counter: Instrument, attributes: dict[str, Any]) -> None:
        super().__init__(counter, attributes)
        self._name = getattr(counter.instrument, "name", "a counter")
        self._room: float = MAX_INT
        # Zero first: a backend that sees the series begin can tell the first increase.
        self._record_one(0)

    def limited(self, amount: float) -> float:
        """Return the part of an increase that keeps the total within 64 bits.

        Above `MAX_INT` the total stands still: OTLP could not carry it, nor the other metrics of
        the same export.
        """
        if amount <= self._room:
            return amount
        if math.isnan(amount):
            return 0
        errors.warn_once(
            f"total of {self._name}", "a total of %s is beyond 64 bits: it stays", self._name
        )
        return self._room


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


def is_live(instrument: Any) -> bool:
    """Tell whether there is a provider: not for the API's proxy without an SDK."""
    if hasattr(instrument, "_real_instrument"):
        return instrument._real_instrument is not None
    return not type(instrument).__name__.startswith("NoOp")


def _only_traced_exemplars(consumer: Any) -> bool:
    """Tell whether only values with a sampled span become exemplars: the default."""
    name = type(consumer._sdk_config.exemplar_filter).__name__
    return name in ("TraceBasedExemplarFilter", "AlwaysOffExemplarFilter")

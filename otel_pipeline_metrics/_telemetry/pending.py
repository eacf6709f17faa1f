"""Keep the values of one instrument under one set of attributes until they are recorded."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._telemetry.sdk_private.bulk_add import add_to_several, add_to_sum
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import (
    CounterSeries,
    HistogramSeries,
    Instrument,
    are_usual,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.records import AttributeValue


# this many pending histogram values are recorded at once, not at the next collection
WAITING_BOUND: Final = 1024


class PendingSum(CounterSeries):
    """The pending increments of one counter under one set of attributes."""

    __slots__ = ("_pending",)

    def __init__(self, counter: Instrument, attributes: dict[str, AttributeValue]) -> None:
        super().__init__(counter, attributes)
        self._pending: float = 0

    def increase(self, amount: float) -> None:
        """Add an increment to the pending ones."""
        self._pending += amount
        self._instrument.changed[self] = None

    def flush(self) -> bool:
        """Record the pending increments as one; return False during a collection."""
        instrument = self._instrument
        self._pending = self.limited(self._pending) if instrument.live else 0
        if not self._pending:
            return True
        targets = instrument.sdk_targets()
        done = instrument.holding(self.flush_in_bulk) if targets else False
        if done is None or (not done and any(target._lock.locked() for target in targets)):
            return False
        if not done:
            pending = self._pending
            self._pending, self._room = 0, self._room - pending
            self._record_one(pending)
        return True

    def flush_in_bulk(self) -> bool:
        """Do the same, without checks, while the locks of the targets are held."""
        pending = self._pending
        if not 0 < pending <= self._room:
            return not pending
        found = self.known()
        if not found:
            return False
        add, aggregation = found[0]
        room = self._room - pending
        if add is add_to_sum and len(found) == 1:
            # as `add_to_sum` does, and at once: a signal handler raises before or after this
            with aggregation._lock:
                aggregation._value, self._pending, self._room = (
                    (aggregation._value or 0) + pending, 0, room,
                )  # fmt: skip
            return True
        removed = [partial(setattr, self, "_pending", 0), partial(setattr, self, "_room", room)]
        add_to_several(found, [pending], pending, removed)
        return True


class PendingValues(HistogramSeries):
    """The pending values of one histogram under one set of attributes."""

    __slots__ = ("_exemplars", "_pending")

    def __init__(self, histogram: Instrument, attributes: dict[str, AttributeValue]) -> None:
        super().__init__(histogram, attributes)
        self._pending: list[float] = []
        # by bucket, the latest value with a sampled span: as many as a reservoir keeps
        self._exemplars: dict[int, tuple[float, Any]] = {}

    def changing(self) -> list[float]:
        """Return the pending values without an exemplar, for the caller to add some."""
        self._instrument.changed[self] = None
        return self._pending

    def extend(self, values: Sequence[float]) -> None:
        """Add values."""
        self.changing().extend(values)

    def show(self, exemplars: Sequence[tuple[float, Any]], begin: int) -> None:
        """Give the values from `begin` on, which are sorted, their exemplars."""
        for value, context in exemplars:
            pending = self._pending
            place = bisect_left(pending, value, begin)
            if place < len(pending) and pending[place] == value:
                bucket, last = bisect_left(defs.DURATION_BUCKETS, value), len(pending) - 1
                before = self._exemplars.get(bucket, ())[:1]
                # at once, so an exception of a signal handler loses no value
                pending[place : place + 1], pending[last:], self._exemplars[bucket] = (
                    (), before, (value, context),
                )  # fmt: skip

    def append(self, value: float, context: Any, boundaries: Sequence[float]) -> None:
        """Add a value and the context of its span if that is sampled."""
        self._instrument.changed[self] = None
        if context is not None:
            bucket, end = bisect_left(boundaries, value), len(self._pending)
            before = self._exemplars.get(bucket, ())[:1]
            # at once, so an exception of a signal handler loses no value
            self._pending[end:], self._exemplars[bucket] = before, (value, context)
        else:
            self._pending.append(value)

    def flush_if_full(self) -> None:
        """Record the pending values if there are too many for the next collection."""
        if len(self._pending) >= WAITING_BOUND:
            self.flush()

    def flush(self) -> bool:
        """Record the pending values; return False during a collection."""
        if not (self._pending or self._exemplars):
            return True
        self._pending.sort()
        return self.record(self._pending, self._exemplars)

    def flush_in_bulk(self) -> bool:
        """Record what needs no public method while the targets' locks are held."""
        pending = self._pending
        if pending:
            pending.sort()
            total = sum(pending)
            if not (are_usual(pending, total) and self._add_all(pending, total)):
                return False
        return not self._exemplars

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


class Additions:
    """What a batch adds to pending values: all of it at once, or nothing.

    A signal handler may raise at any line, and then the batch comes again.
    """

    __slots__ = ("_sums", "_values")

    def __init__(self) -> None:
        self._sums: dict[PendingSum, float] = {}
        # the new values, and the exemplars as they will be
        self._values: dict[PendingValues, tuple[list[float], dict[int, tuple[float, Any]]]] = {}

    def increase(self, total: PendingSum, amount: float) -> None:
        """Add an increment."""
        self._sums[total] = self._sums.get(total, 0) + amount

    def extend(
        self, pending: PendingValues, values: Sequence[float], exemplars: Sequence[Any] = ()
    ) -> None:
        """Add values, which are sorted if some of them have an exemplar."""
        left = [*values]
        for value, context in exemplars:
            place = bisect_left(left, value)
            if place < len(left) and left[place] == value:
                del left[place]
                self.append(pending, value, context, defs.DURATION_BUCKETS)
        self._of(pending)[0].extend(left)

    def append(
        self, pending: PendingValues, value: float, context: Any, boundaries: Sequence[float]
    ) -> None:
        """Add a value and the context of its span if that is sampled."""
        values, exemplars = self._of(pending)
        if context is None:
            values.append(value)
        else:
            # the one that it replaces is a value like all others
            bucket = bisect_left(boundaries, value)
            values.extend(exemplars.get(bucket, ())[:1])
            exemplars[bucket] = (value, context)

    def _of(self, pending: PendingValues) -> tuple[list[float], dict[int, tuple[float, Any]]]:
        found = self._values.get(pending)
        if found is None:
            found = self._values[pending] = [], dict(pending._exemplars)
        return found

    def put_in_force(self, *more: partial[Any]) -> None:
        """Add it, and make more changes: calls of functions of C that return None."""
        changes = [*more]
        for total, amount in self._sums.items():
            total.will_change()
            changes.append(partial(setattr, total, "_pending", total._pending + amount))
        for pending, (values, exemplars) in self._values.items():
            pending.will_change()
            changes.append(partial(pending._pending.extend, values))
            changes.append(partial(setattr, pending, "_exemplars", exemplars))
        # one call that stays in C, where Python handles no signal
        any(map(partial.__call__, changes))


class PendingSum(CounterSeries):
    """The pending increments of one counter under one set of attributes."""

    __slots__ = ("_pending",)

    def __init__(self, counter: Instrument, attributes: dict[str, AttributeValue]) -> None:
        super().__init__(counter, attributes)
        self._pending: float = 0

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

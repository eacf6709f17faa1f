"""Keep the values of one instrument under one set of attributes until they are recorded."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import metric_definitions as defs
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
        pending, self._pending = self._pending, 0
        if pending and not self.add(pending):
            self._pending = pending
            return False
        return True

    def flush_in_bulk(self) -> bool:
        """Do the same, without checks, while the locks of the targets are held."""
        pending = self._pending
        if not 0 < pending <= self._room:
            return not pending
        # as `known` does; a call costs more
        if self._generation != self._instrument.generation:
            self._find()
        if not self._found:
            return False
        self._pending = 0
        self._room -= pending
        for add, aggregation in self._found:
            add(aggregation, (pending,), pending)
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
            place = bisect_left(self._pending, value, begin)
            if place < len(self._pending) and self._pending[place] == value:
                del self._pending[place]
                self.append(value, context, defs.DURATION_BUCKETS)

    def append(self, value: float, context: Any, boundaries: Sequence[float]) -> None:
        """Add a value and the context of its span if that is sampled."""
        self._instrument.changed[self] = None
        if context is not None:
            bucket = bisect_left(boundaries, value)
            before = self._exemplars.get(bucket)
            self._exemplars[bucket] = (value, context)
            if before is None:
                return
            value = before[0]
        self._pending.append(value)

    def flush_if_full(self) -> None:
        """Record the pending values if there are too many for the next collection."""
        if len(self._pending) >= WAITING_BOUND:
            self.flush()

    def flush(self) -> bool:
        """Record the pending values; return False during a collection."""
        pending, exemplars = self._pending, self._exemplars
        if not (pending or exemplars):
            return True
        # removed first: values that cannot be recorded would fail, and grow, every time
        self._pending, self._exemplars = [], {}
        pending.sort()
        if not self.record(pending, exemplars.values()):
            self._pending, self._exemplars = pending, exemplars
            return False
        return True

    def flush_in_bulk(self) -> bool:
        """Record what needs no public method while the targets' locks are held."""
        pending = self._pending
        if pending:
            pending.sort()
            total = sum(pending)
            # as `known` does; a call costs more
            if self._generation != self._instrument.generation:
                self._find()
            if not (self._found and are_usual(pending, total)):
                return False
            self._pending = []
            for add, aggregation in self._found:
                add(aggregation, pending, total)
        return not self._exemplars

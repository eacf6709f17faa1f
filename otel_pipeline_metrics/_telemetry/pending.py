"""Keep the values of one instrument under one set of attributes until they are recorded."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import (
    CounterSeries,
    HistogramSeries,
    Instrument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.records import AttributeValue


# this many pending histogram values are recorded at once, not at the next collection
WAITING_BOUND: Final = 1024


class PendingSum:
    """The pending increments of one counter under one set of attributes."""

    __slots__ = ("_pending", "_series")

    def __init__(self, counter: Instrument, attributes: dict[str, AttributeValue]) -> None:
        self._series = CounterSeries(counter, attributes)
        self._pending: float = 0

    def add(self, amount: float) -> None:
        """Add an increment."""
        self._pending += amount

    def record(self) -> bool:
        """Record the pending increments as one; return False during a collection."""
        pending, self._pending = self._pending, 0
        if pending and not self._series.add(pending):
            self._pending = pending
            return False
        return True


class PendingValues:
    """The pending values of one histogram under one set of attributes."""

    __slots__ = ("_exemplars", "_pending", "_series")

    def __init__(self, histogram: Instrument, attributes: dict[str, AttributeValue]) -> None:
        self._series = HistogramSeries(histogram, attributes)
        self._pending: list[float] = []
        # by bucket, the latest value with a sampled span: as many as a reservoir keeps
        self._exemplars: dict[int, tuple[float, Any]] = {}

    @property
    def count(self) -> int:
        """How many values are pending, without exemplars."""
        return len(self._pending)

    def add_many(
        self, values: Sequence[float], exemplars: Sequence[tuple[float, Any]] = ()
    ) -> None:
        """Add sorted values, of which `exemplars` have a sampled span."""
        begins = len(self._pending)
        self._pending.extend(values)
        for value, context in exemplars:
            place = bisect_left(self._pending, value, begins)
            if place < len(self._pending) and self._pending[place] == value:
                del self._pending[place]
                self.add(value, context, defs.DURATION_BUCKETS)

    def add(self, value: float, context: Any, boundaries: Sequence[float]) -> None:
        """Add a value and the context of its span if that is sampled."""
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
            self.record()

    def record(self) -> bool:
        """Record the pending values; return False during a collection."""
        pending, exemplars = self._pending, self._exemplars
        if not (pending or exemplars):
            return True
        # removed first: values that cannot be recorded would fail, and grow, every time
        self._pending, self._exemplars = [], {}
        pending.sort()
        if not self._series.record(pending, exemplars.values()):
            self._pending, self._exemplars = pending, exemplars
            return False
        return True

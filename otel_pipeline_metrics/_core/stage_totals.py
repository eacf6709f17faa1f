"""Sum up the stages of the process, whatever run they belong to, for its collector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, drain
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import StageResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch


class RecordedResult(StageResult):
    """A result that the program measured itself; the collector that took it has its numbers."""

    __slots__ = ()


@dataclass
class StageTotal:
    """Running sums of one stage. Times are in seconds."""

    count: int = 0
    total_s: float = 0.0
    min_s: float = math.inf
    max_s: float = 0.0
    errors: int = 0

    def copy(self) -> StageTotal:
        """Return a copy."""
        return StageTotal(self.count, self.total_s, self.min_s, self.max_s, self.errors)

    def add(self, seconds: Sequence[float]) -> None:
        """Add the durations of calls, at least one, smallest first."""
        self.count += len(seconds)
        self.total_s += sum(seconds)
        self.min_s = min(self.min_s, seconds[0])
        self.max_s = max(self.max_s, seconds[-1])

    def merge(self, other: StageTotal) -> None:
        """Add the sums of another one."""
        self.count += other.count
        self.total_s += other.total_s
        self.min_s = min(self.min_s, other.min_s)
        self.max_s = max(self.max_s, other.max_s)
        self.errors += other.errors

    def to_dict(self) -> dict[str, Any]:
        """Return the row of the collector; unknown is None."""
        known = math.isfinite(self.min_s)
        return {
            "count": self.count,
            "total_duration_s": self.total_s,
            "avg_duration_s": ratio(self.total_s, self.count),
            "min_duration_s": self.min_s if known else None,
            "max_duration_s": self.max_s if known else None,
            "throughput_per_s": ratio(self.count, self.total_s),
            "errors": self.errors,
        }


_NOTHING: Final = StageTotal()


class StageTotals:
    """A sink that keeps the sums of each stage, by name."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at zero: the parent reports what it measured."""
        self.started = clock.now()
        self.started_unix = clock.unix()
        self._stages: dict[str, StageTotal] = {}
        self._last: Batch | None = None

    def accept(self, batch: Batch) -> None:
        """Add a batch to its stage."""
        results = [result for result in batch.results if not isinstance(result, RecordedResult)]
        if not (batch.durations or results) or batch is self._last:
            return
        # a copy, put in place at once: a signal handler may raise, and then the batch comes again
        total = self._stages.get(batch.key.stage, _NOTHING).copy()
        if batch.durations:
            total.add(batch.durations)
        if results:
            total.add(sorted(result.busy_s for result in results))
            total.errors += sum(result.outcome == "error" for result in results)
        self._stages[batch.key.stage], self._last = total, batch

    def accept_queue(self, batch: QueueBatch) -> None:
        """Take a queue's batch, which is no stage's."""

    def accept_limit(self, batch: LimitBatch) -> None:
        """Take a limit's batch, which is no stage's."""

    def read(self) -> dict[str, StageTotal]:
        """Return copies of the sums, with the calls that ended until now."""
        found: dict[str, StageTotal] = {}

        def copy() -> None:
            found.update((name, total.copy()) for name, total in list(self._stages.items()))

        if not drain.drain(copy):
            copy()
        return found


totals = StageTotals()

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
    from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch


class RecordedResult(StageResult):
    """A result that the program measured itself; the collector that took it has its numbers."""

    __slots__ = ()


@dataclass(slots=True)
class StageTotal:
    """Sums of one stage. Times are in seconds."""

    count: int = 0
    total_s: float = 0.0
    min_s: float = math.inf
    max_s: float = 0.0
    errors: int = 0

    def plus(
        self, count: int, total_s: float, min_s: float, max_s: float, errors: int
    ) -> StageTotal:
        """Return the sums with those of other calls."""
        return StageTotal(
            self.count + count,
            self.total_s + total_s,
            min(min_s, self.min_s),
            max(max_s, self.max_s),
            self.errors + errors,
        )

    def merged(self, other: StageTotal) -> StageTotal:
        """Return the sums of both."""
        # they are read before the call, so no other thread comes in between
        return self.plus(other.count, other.total_s, other.min_s, other.max_s, other.errors)

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
        seconds, more, errors = batch.durations, batch.total_s, 0
        if batch.results:
            results = [one for one in batch.results if not isinstance(one, RecordedResult)]
            seconds = sorted([*seconds, *(one.busy_s for one in results)])
            more, errors = sum(seconds), sum(one.outcome == "error" for one in results)
        if not seconds or batch is self._last:
            return
        total = self._stages.get(batch.key.stage)
        if total is None:
            total = self._stages[batch.key.stage] = StageTotal()
        least, most = seconds[0], seconds[-1]
        # at once: a signal handler may raise, and then the batch comes again
        total.count, total.total_s, total.min_s, total.max_s, total.errors, self._last = (
            total.count + len(seconds),
            total.total_s + more,
            least if least < total.min_s else total.min_s,  # noqa: FURB136 - a call costs more
            most if most > total.max_s else total.max_s,  # noqa: FURB136 - a call costs more
            total.errors + errors,
            batch,
        )

    def accept_queue(self, batch: QueueBatch) -> None:
        """Take a queue's batch, which is no stage's."""

    def accept_limit(self, batch: LimitBatch) -> None:
        """Take a limit's batch, which is no stage's."""

    def read(self) -> dict[str, StageTotal]:
        """Return the sums, with the calls that ended until now."""
        drain.drain()
        return {name: _NOTHING.merged(total) for name, total in list(self._stages.items())}


totals = StageTotals()

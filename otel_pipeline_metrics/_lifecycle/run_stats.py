"""Sum up the calls of a run's stages and the waits of its queues, for the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.distribution import Distribution
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._lifecycle.limit_stats import LimitStats
from otel_pipeline_metrics._lifecycle.slowest import Slowest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from otel_pipeline_metrics._core.observed import QueueSeries
    from otel_pipeline_metrics._core.records import (
        Batch,
        Counts,
        LimitBatch,
        QueueBatch,
        StageKey,
        StageResult,
    )
    from otel_pipeline_metrics._probes.queues.held import Held, HeldInRun


class StageStats(Distribution):
    """The statistics of one stage in one run."""

    def __init__(self, key: StageKey) -> None:
        super().__init__()
        self.key = key
        self.cancelled = 0
        self.abandoned = 0
        self.errors: dict[str, int] = {}
        self.retries = 0
        # seconds of the calls that raised, and of the others that reported retries
        self.failed_s = 0.0
        self.retried_s = 0.0
        self.retried = 0
        self.items_in: int | None = None
        self.items_out: int | None = None
        self.bytes_in: int | None = None
        self.bytes_out: int | None = None
        self.sum_of_squares = 0.0
        self.min_s = math.inf
        self.slowest = Slowest()

    def copy(self) -> Self:
        """Return the same statistics, to which batches can be added separately."""
        made = super().copy()
        made.errors, made.slowest = dict(self.errors), self.slowest.copy()
        return made

    def add_sorted(self, durations: Sequence[float]) -> None:
        """Add the durations of one call or more, smallest first."""
        super().add_sorted(durations)
        self.sum_of_squares += sum([value * value for value in durations])
        self.min_s = min(self.min_s, durations[0])

    def add(self, result: StageResult) -> None:
        """Add everything that a result has beside its duration."""
        if result.outcome == "error":
            kind = result.error_type or cardinality.OTHER
            kind = cardinality.key_in(self.errors, kind, "error types of a stage")
            self.errors[kind] = self.errors.get(kind, 0) + 1
            self.failed_s += result.busy_s
        elif result.outcome == "cancelled":
            self.cancelled += 1
        elif result.outcome == "abandoned":
            self.abandoned += 1
        if result.retries:
            self.retries += sum(count for _, count in result.retries)
            if result.outcome != "error":
                self.retried += 1
                self.retried_s += result.busy_s
        self.add_counts(result.counts.since(result.reported))

    def add_counts(self, counts: Counts) -> None:
        """Add items and bytes."""
        self.items_in = _plus(self.items_in, counts.items_in)
        self.items_out = _plus(self.items_out, counts.items_out)
        self.bytes_in = _plus(self.bytes_in, counts.bytes_in)
        self.bytes_out = _plus(self.bytes_out, counts.bytes_out)

    def to_dict(
        self, wall_s: float, times: Mapping[str, Any], *, percentiles: bool = True
    ) -> dict[str, Any]:
        """Return the stage's part of the report; unknown is None, never 0."""
        # no verdict reads the slowest calls, or percentiles
        items = self.items_out if self.items_out is not None else self.items_in
        return {
            "name": self.key.stage,
            "kind": self.key.kind,
            "count": self.count,
            "cancelled": self.cancelled,
            "abandoned": self.abandoned,
            "errors": {"total": sum(self.errors.values()), "by_type": dict(self.errors)},
            "retries": self.retries,
            "failed_s": self.failed_s,
            "retried": {"count": self.retried, "total_s": self.retried_s},
            "items": {"in": self.items_in, "out": self.items_out},
            "bytes": {"in": self.bytes_in, "out": self.bytes_out},
            "duration_s": {
                "total": self.total_s,
                "min": self.min_s if self.count else None,
                "sum_of_squares": self.sum_of_squares,
                **self.row(self.min_s, percentiles=percentiles),
            },
            "throughput": {
                "wall_per_s": ratio(self.count, wall_s),
                "busy_per_s": ratio(self.count, self.total_s),
                "items_per_s": ratio(items, wall_s),
            },
            **times,
            **({"slowest": self.slowest.to_list()} if percentiles else {}),
        }


class QueueStats(Distribution):
    """The times from put to get of one queue's items during a run."""

    def to_dict(
        self,
        series: QueueSeries,
        capacity: int | None,
        wall_s: float,
        held: tuple[Held, Held],
        in_progress: Mapping[object, float],
        *,
        percentiles: bool,
    ) -> dict[str, Any]:
        """Return the queue's part of the report.

        Args:
            series: what happened at the queue.
            capacity: of the queue; None if it has none.
            wall_s: seconds of the run.
            held: what was in the queue as the run began, and what is in it now.
            in_progress: the seconds of waits that are not over, by series and state.
            percentiles: whether to compute them.
        """
        item_s = self._item_seconds(series, *held)
        return {
            "name": series.name,
            "capacity": capacity,
            "depth_avg": None if item_s is None else ratio(item_s, wall_s),
            "depth_peak": series.depth_peak,
            "put": series.put,
            "got": series.got,
            "wait_s": self.row(percentiles=percentiles),
            # the time in which the queue was filled: from the first put to the last
            "put_span_s": None
            if series.first_put is None or series.last_put is None
            else max(0.0, series.last_put - series.first_put),
            "put_blocked_s": series.blocked + in_progress.get((series, "blocked"), 0.0),
            "get_waited_s": series.idle + in_progress.get((series, "idle"), 0.0),
            "producers": list(series.producers),
            "consumers": list(series.consumers),
        }

    def _item_seconds(self, series: QueueSeries, before: Held, now: Held) -> float | None:
        """Return how long all items were in the queue during the run, together; None: unknown.

        That is the sum of the waits, and of the times of those that are in it still, without what
        they waited before the run. Those of unknown time are taken to be like the others, unless
        they are more.
        """
        # the run's own: other runs or processes may put and get too
        left = max(0, before.items + series.put - series.got)
        part = min(1.0, left / now.items) if now.items else 0.0
        known = self.count + part * now.known
        # some may have left unseen: got in another process, or discarded
        unknown = max(0, series.got - self.count) + left - part * now.known
        if unknown > known:
            return None
        seconds = max(0.0, self.total_s + part * now.seconds - before.seconds)
        return seconds * (1.0 + unknown / known) if unknown else seconds


class RunStats:
    """The sink of one run: its stages, in the order of their first finished call."""

    def __init__(self) -> None:
        self.stages: dict[StageKey, StageStats] = {}
        self.queues: dict[str, QueueStats] = {}
        self.limits: dict[str, LimitStats] = {}
        self._last: Batch | QueueBatch | LimitBatch | None = None

    # A batch is added to a copy, which is put in place at once: a signal handler may raise, and
    # then the batch comes again.

    def accept(self, batch: Batch) -> None:
        if batch is self._last:
            return
        if not (batch.durations or batch.results or batch.sizes or batch.progress or batch.slowest):
            return
        stats = self.of_stage(batch.key).copy()
        stats.slowest.add(batch)
        if batch.durations:
            stats.add_sorted(batch.durations)
        if batch.sizes:
            stats.items_out = _plus(stats.items_out, sum(batch.sizes))
        if batch.results:
            stats.add_sorted(sorted(result.busy_s for result in batch.results))
        for result in batch.results:
            stats.add(result)
        for more in batch.progress:
            stats.add_counts(more.counts)
        self.stages[batch.key], self._last = stats, batch

    def accept_queue(self, batch: QueueBatch) -> None:
        if batch is not self._last:
            stats = (self.queues.get(batch.name) or QueueStats()).copy()
            stats.add_sorted(batch.waits)
            self.queues[batch.name], self._last = stats, batch

    def accept_limit(self, batch: LimitBatch) -> None:
        if batch is not self._last:
            stats = (self.limits.get(batch.name) or LimitStats()).copy()
            stats.add(batch)
            self.limits[batch.name], self._last = stats, batch

    def of_stage(self, key: StageKey) -> StageStats:
        """Return the statistics of a stage, made if need be."""
        return self.stages.get(key) or self.stages.setdefault(key, StageStats(key))

    def stage_list(
        self,
        wall_s: float,
        times: Callable[[StageKey], Mapping[str, Any]],
        *,
        percentiles: bool = True,
    ) -> list[dict[str, Any]]:
        """Return the stages' part of the report."""
        return [
            stats.to_dict(wall_s, times(key), percentiles=percentiles)
            for key, stats in list(self.stages.items())
        ]

    def queue_list(
        self,
        wall_s: float,
        series: Sequence[QueueSeries],
        capacities: Mapping[str, int],
        held: HeldInRun,
        now: float,
        in_progress: Mapping[object, float],
        *,
        percentiles: bool = True,
    ) -> list[dict[str, Any]]:
        """Return the queues' part of the report.

        Args:
            wall_s: seconds of the run.
            series: what happened at each queue.
            capacities: of the queues that have one, by name.
            held: what was in the queues as the run began.
            now: `clock.now()`.
            in_progress: the seconds of waits that are not over, by series and state.
            percentiles: whether to compute them.
        """
        return [
            (self.queues.get(queue.name) or QueueStats()).to_dict(
                queue,
                capacities.get(queue.name),
                wall_s,
                held.during(queue, wall_s, now),
                in_progress,
                percentiles=percentiles,
            )
            for queue in series
        ]


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more

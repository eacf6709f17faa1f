"""Sum up the finished calls of every stage of the process, in runs and outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, drain, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle.run_stats import RunStats
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import Batch, StageKey


# Of a stage's durations, what is of use only where reports are merged.
# what a report tells of one run
_OF_A_RUN: Final = ("failed_s", "retried", "slowest")
_ONLY_TO_MERGE: Final = ("sketch", "sum_of_squares")


class _Stages(RunStats):
    """The sink that never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.since = clock.now()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at zero: the parent reports what it did."""
        self.stages.clear()
        self.queues.clear()
        self.since = clock.now()

    def accept(self, batch: Batch) -> None:
        """Add a batch to its stage; those of too many pipelines are left out."""
        if batch.key in self.stages or len(self.stages) < cardinality.MAX_NAMES:
            super().accept(batch)


_stages: Final = _Stages()


def watch() -> None:
    """Sum up the stages of the process from now on."""
    sink.add_sink(_stages)


def p99(stage: StageKey) -> float | None:
    """Return the p99 of a stage's calls in seconds; None before the first has ended."""
    found = _stages.stages.get(stage)
    return None if found is None else found.sketch.quantile(0.99)


def finished(stage: StageKey) -> int:
    """Return how many calls of a stage have ended and are flushed."""
    found = _stages.stages.get(stage)
    return 0 if found is None else found.count


def to_list() -> list[dict[str, Any]]:
    """Return what is known of each stage as plain data."""
    drain.drain()
    in_flight: dict[StageKey, int] = {}
    for each in series.all_series():
        in_flight[each.key] = in_flight.get(each.key, 0) + each.active
    elapsed = clock.now() - _stages.since
    found = []
    for key, stats in list(_stages.stages.items()):
        data = stats.to_dict(elapsed, {})
        for name in _ONLY_TO_MERGE:
            del data["duration_s"][name]
        for name in _OF_A_RUN:
            del data[name]
        found.append({"pipeline": key.pipeline, **data, "in_flight": in_flight.get(key, 0)})
    return found

"""Sum up the waits at a run's limits, and make the report's part about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.distribution import Distribution
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._probes.limits import registry
from otel_pipeline_metrics.report.merge_rules import sum_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.limit_series import LimitSeries, LimitUse
    from otel_pipeline_metrics._core.records import LimitBatch
    from otel_pipeline_metrics._core.series import RunScope


class LimitStats(Distribution):
    """The waits for permits of one limit during a run, 0 for permits that were free."""

    def add(self, batch: LimitBatch) -> None:
        self.count += batch.passed
        self.sketch.add_zeros(batch.passed)
        if batch.waits:
            self.add_sorted(batch.waits)


def limit_list(
    scope: RunScope,
    waits: Mapping[str, LimitStats],
    wall_s: float,
    now: float,
    in_progress: Mapping[object, float],
) -> list[dict[str, Any]]:
    """Return the report's part about limits.

    Args:
        scope: of the run.
        waits: by the limit's name, those that are over.
        wall_s: seconds of the run.
        now: `clock.now()`.
        in_progress: the seconds of waits that are not over, by the use that has them.
    """
    most = registry.limits.known_capacities()
    return [
        _entry(
            outside.limit, waits.get(name, LimitStats()), most.get(name), wall_s, now, in_progress
        )
        for name, outside in list(scope.limits.items())
    ]


def _entry(
    limit: LimitSeries,
    waits: LimitStats,
    most: int | None,
    wall_s: float,
    now: float,
    in_progress: Mapping[object, float],
) -> dict[str, Any]:
    uses = list(limit.uses)
    held = _held_now(limit, now)
    known = limit.known
    stages: dict[str | None, list[LimitUse]] = {}
    for use in sorted(uses, key=lambda use: use.stage is None):
        # the use outside of stages is there for the sake of the others
        happened = use.held or _waited(use) or use in held or use in in_progress
        if use.stage is not None or not stages or happened:
            stages.setdefault(use.stage, []).append(use)
    held_s = {
        stage: sum(use.held + held.get(use, 0.0) for use in some) for stage, some in stages.items()
    }
    return {
        "name": limit.name,
        "kind": registry.kinds.get(limit.name),
        "max": most,
        "usage_avg": ratio(sum(held_s.values()), wall_s) if known else None,
        "usage_peak": limit.usage_peak if known else None,
        "acquired": limit.acquired,
        "wait_s": {"total": waits.total_s, **waits.row()},
        "stages": [
            {
                "stage": stage,
                "waited_s": sum_all([_plus(use.waited, in_progress.get(use)) for use in some]),
                "held_s": held_s[stage] if known else None,
            }
            for stage, some in stages.items()
        ],
    }


def _waited(use: LimitUse) -> bool:
    # what is left of waits that went to a stage is a rounding error
    return use.waited is None or use.waited > 1e-9


def _held_now(limit: LimitSeries, now: float) -> dict[LimitUse, float]:
    """Return for how long the permits that are held now were held so far."""
    found: dict[LimitUse, float] = {}
    for probe in registry.limits.alive(limit.name):
        for use, since, _ in probe.held():
            if use.limit is limit:
                found[use] = found.get(use, 0.0) + max(0.0, now - since)
    return found


def _plus(waited: float | None, in_progress: float | None) -> float | None:
    return None if waited is None else waited + (in_progress or 0.0)

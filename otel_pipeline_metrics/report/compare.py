"""Compare two runs: what has changed, and whether that is more than noise.

    from otel_pipeline_metrics import RunReport
    from otel_pipeline_metrics.report.compare import compare

    comparison = compare(RunReport.load("old.json"), RunReport.load("new.json"), fail_on=0.1)
    print(comparison.render())
    sys.exit(comparison.exit_code)

Two runs of the same program never take the same time, for three reasons:

- Chance: the calls of a stage differ from each other. A shift must be large against their
  spread and count (`significance`).
- A bad minute: another program slowed the machine down for part of a run. That leaves the
  quick half of the calls unchanged, so they must have slowed down too.
- Another day: the whole machine is a few per cent slower. A stage must have slowed down by
  more than the threshold beyond the other stages (`_drift`).

A stage must also matter: it adds at least one per cent of the run.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_pipeline_metrics._core.lookup import number, whole
from otel_pipeline_metrics.report.comparison import (
    Comparison,
    Judgement,
    StageChange,
    compare_figures,
    find_error_regressions,
    rounded_percent,
    write_notes,
)
from otel_pipeline_metrics.report.flow import stages_in_flow_order
from otel_pipeline_metrics.report.significance import RESOLUTION, Shift, sample_of, shift_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


__all__ = ["Comparison", "StageChange", "compare"]

FAIL_ON: Final = 0.10
_TAIL_Z: Final = 4.0
_MIN_COUNT: Final = 4
_MATTERS: Final = 0.01
_TAIL_MATTERS: Final = 0.05
_TAIL_SHIFT: Final = math.log(1.25)
_MAX_DRIFT: Final = math.log(1.10)
_MAX_COMMON_DRIFT: Final = math.log(1.15)


def compare(old: RunReport, new: RunReport, *, fail_on: float = FAIL_ON) -> Comparison:
    """Compare two runs of a pipeline, stage by stage.

    Args:
        old: the run to measure against.
        new: the run in question.
        fail_on: by how much a stage may get slower; 0.1 is ten per cent. Reports cannot show
            changes below two per cent.

    Returns:
        The changes, the regressions among them, and the exit code of the command.

    Raises:
        ValueError: the reports are of different pipelines, or `fail_on` is not positive.
    """
    if not 0 < fail_on < math.inf:
        raise ValueError(f"fail_on must be a positive ratio such as 0.1, not {fail_on!r}")
    pipelines = [report.run.get("pipeline") for report in (old, new)]
    if pipelines[0] != pipelines[1]:
        raise ValueError(
            f"the reports are of different pipelines: {pipelines[0]!r} and {pipelines[1]!r}"
        )
    stages = _stages(old, new, fail_on)
    regressions = [f"{s.name} {s.why}" for s in stages if s.judgement in {"slower", "slower tail"}]
    regressions += find_error_regressions(old, new, fail_on)
    results = [str(report.run.get("result") or "in progress") for report in (old, new)]
    if results[0] == "success" != results[1]:
        regressions.append(f"the run ended in {results[1]}, not in success")
    return Comparison(
        pipeline=str(pipelines[0]),
        fail_on=fail_on,
        stages=tuple(stages),
        figures=tuple(compare_figures(old, new)),
        regressions=tuple(regressions),
        notes=tuple(write_notes(old, new, stages)),
    )


# --- stages ---------------------------------------------------------------------------------


class _Pair(NamedTuple):
    """One stage in both runs."""

    name: str
    unit: Literal["item", "invocation"]
    old_s: float
    new_s: float
    counts: tuple[int, int]
    shift: Shift | None
    # what it adds to the run, as a part of the old run's wall time
    matters: float
    # its time in the old run, as a part of the old run's wall time
    share: float
    # logarithm of how much more CPU time the whole process took for the same work
    cpu: float | None


def _stages(old: RunReport, new: RunReport, fail_on: float) -> list[StageChange]:
    before = {(s["name"], s.get("kind")): s for s in old.stages}
    wall_s = number(old.run, "wall_s")
    used = _cpu_s(old), _cpu_s(new)
    cpu = math.log(used[1] / used[0]) if used[0] and used[1] else None
    pairs: list[_Pair | StageChange] = []
    for stage in stages_in_flow_order(new):
        earlier = before.pop((stage["name"], stage.get("kind")), None)
        pairs.append(
            StageChange(stage["name"], "new", "is new")
            if earlier is None
            else _paired(earlier, stage, wall_s, cpu)
        )
    known = [pair for pair in pairs if isinstance(pair, _Pair)]
    changes = [_judged(p, known, fail_on) if isinstance(p, _Pair) else p for p in pairs]
    return changes + [StageChange(s["name"], "gone", "is gone") for s in before.values()]


def _cpu_s(report: RunReport) -> float | None:
    """Return the CPU time of the run, in a unit that two runs on one machine share."""
    part = number(report.resources, "cpu_utilization", "avg")
    wall_s = number(report.run, "wall_s")
    return None if wall_s is None or part is None else wall_s * part


def _paired(
    old: dict[str, Any], new: dict[str, Any], wall_s: float | None, cpu: float | None
) -> _Pair | StageChange:
    first, second = sample_of(old), sample_of(new)
    if first is None or second is None:
        return StageChange(new["name"], "too few", "was not called in both runs")
    unit, per = _per_item(old, new)
    shift = None
    if min(first.calls, second.calls) >= _MIN_COUNT:
        shift = shift_of(first, second, math.log(per[0] / per[1]))
    work = second.calls * per[1] / (first.calls * per[0])
    # the difference to the time of the new run's items at the old pace
    added = (second.mean - first.mean * per[1] / per[0]) * second.calls
    return _Pair(
        name=new["name"],
        unit=unit,
        old_s=first.mean / per[0],
        new_s=second.mean / per[1],
        counts=(first.calls, second.calls),
        shift=shift,
        matters=added / wall_s if wall_s else math.inf,
        share=first.mean * first.calls / wall_s if wall_s else math.inf,
        cpu=None if cpu is None else cpu - math.log(work),
    )


def _per_item(
    old: dict[str, Any], new: dict[str, Any]
) -> tuple[Literal["item", "invocation"], tuple[float, float]]:
    """Return the unit, and how many of it a call has in each of the runs."""
    for way in ("in", "out"):
        items = whole(old, "items", way), whole(new, "items", way)
        counts = whole(old, "count"), whole(new, "count")
        if items[0] and items[1] and counts[0] and counts[1]:
            return "item", (items[0] / counts[0], items[1] / counts[1])
    return "invocation", (1.0, 1.0)


def _others(pair: _Pair, pairs: Sequence[_Pair], of: Callable[[Shift], float]) -> list[float]:
    """Return the shifts of those other stages that matter."""
    return [
        of(other.shift)
        for other in pairs
        if other is not pair and other.shift is not None and other.share >= _MATTERS
    ]


def _drift(pair: _Pair, pairs: Sequence[_Pair], limit: float) -> float:
    """Return the part of a shift that a slowdown of the whole machine explains.

    That is the median of the other stages' shifts, up to ten per cent; up to fifteen if at
    least two others all show it. If they do and this process used less than that of CPU time,
    it waited for the CPU, and that explains a shift of any size.
    """
    others = _others(pair, pairs, lambda shift: shift.slower)
    drift = max(0.0, min(statistics.median(others), _MAX_DRIFT)) if others else 0.0
    if len(others) > 1:
        drift = max(drift, min(*others, _MAX_COMMON_DRIFT))
        least = min(_others(pair, pairs, lambda shift: shift.typical))
        if pair.cpu is not None and least >= limit and pair.cpu < least / 2:
            drift = math.inf
    return drift


def _judged(pair: _Pair, pairs: Sequence[_Pair], fail_on: float) -> StageChange:
    shift = pair.shift
    judgement: Judgement
    if shift is None:
        few = min(pair.counts) < _MIN_COUNT
        judgement = "too few" if few else "not known"
        why = f"was called {min(pair.counts)} times" if few else "has no spread in its report"
    else:
        judgement, why = _judgement(pair, shift, pairs, math.log1p(max(fail_on, RESOLUTION)))
    return StageChange(
        name=pair.name,
        judgement=judgement,
        why=why,
        unit=pair.unit,
        old_s=pair.old_s,
        new_s=pair.new_s,
        shift=None if shift is None else math.expm1(shift.typical),
    )


def _judgement(
    pair: _Pair, shift: Shift, pairs: Sequence[_Pair], limit: float
) -> tuple[Judgement, str]:
    by = f"by {rounded_percent(math.expm1(abs(shift.typical)))}"
    found: tuple[Judgement, str] = ("no change", "has not changed")
    if shift.slower >= limit:
        drift = _drift(pair, pairs, limit)
        if drift == math.inf:
            found = "drift", f"is slower {by}, but this machine was busy with something else"
        elif shift.slower - drift < limit:
            shared = rounded_percent(math.expm1(drift))
            found = "drift", f"is slower {by}, {shared} of it like the other stages"
        elif not shift.is_sure(drift):
            found = "noise", f"is slower {by}, which its calls' spread explains"
        elif pair.matters < _MATTERS:
            found = "minor", f"is slower {by}, which adds less than 1 % to the run"
        else:
            found = "slower", f"is slower {by}"
    elif _has_slower_tail(pair, shift, pairs, limit):
        average = rounded_percent(math.expm1(shift.mean))
        found = "slower tail", f"is slower by {average} on average, in its slow calls"
    elif shift.faster <= -limit and shift.is_sure():
        less = rounded_percent(-math.expm1(shift.typical))
        found = "faster", f"is faster by {less}"
    elif abs(shift.mean) >= limit or abs(shift.typical) >= limit:
        found = "noise", "has changed in part of its calls only"
    return found


def _has_slower_tail(pair: _Pair, shift: Shift, pairs: Sequence[_Pair], limit: float) -> bool:
    """Tell whether many calls, though not most, have become much slower.

    A bad minute looks the same, so other stages must show that there was none.
    """
    others = _others(pair, pairs, lambda other: other.mean)
    if not others or _drift(pair, pairs, limit) == math.inf:
        return False
    return (
        shift.mean - max(statistics.median(others), 0.0) >= max(2 * limit, _TAIL_SHIFT)
        and shift.tail_z >= _TAIL_Z
        and pair.matters >= _TAIL_MATTERS
    )

"""Judge how the durations of a stage changed between two runs.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, ratio, whole
from otel_pipeline_metrics.report.flow import stages_in_flow_order
from otel_pipeline_metrics.report.significance import (
    RESOLUTION,
    Shift,
    calls_to_tell,
    sample_of,
    shift_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


Judgement = Literal[
    "slower", "slower tail", "faster", "no change", "noise", "drift", "minor", "too few",
    "not known", "new", "gone",
]  # fmt: skip

_TAIL_Z: Final = 4.0
_MIN_COUNT: Final = 4
_MATTERS: Final = 0.01
_TAIL_MATTERS: Final = 0.05
_TAIL_SHIFT: Final = math.log(1.25)
_MAX_DRIFT: Final = math.log(1.10)
_MAX_COMMON_DRIFT: Final = math.log(1.15)


@dataclass(frozen=True)
class StageChange:
    """One stage in both runs; times are seconds for one item or one call (`unit`)."""

    name: str
    judgement: Judgement
    why: str
    unit: Literal["item", "invocation"] = "invocation"
    old_s: float | None = None
    new_s: float | None = None
    # by how much a typical call is slower: 0.3 is 30 %; unlike `new_s / old_s`, this leaves out
    # the quickest and the slowest calls
    shift: float | None = None
    # so many calls in each run tell a change of `fail_on` from chance; None if unknown
    calls_needed: int | None = None

    @property
    def change(self) -> float | None:
        """The growth of the average: 0.3 is 30 % slower."""
        found = ratio(self.new_s, self.old_s)
        return None if found is None else found - 1


class Pair(NamedTuple):
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


def stages_of_both(old: RunReport, new: RunReport) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the entries of each stage that both runs have, in the order of the flow."""
    before: dict[Any, Any] = {(stage["name"], stage.get("kind")): stage for stage in old.stages}
    return [
        (before[key], stage)
        for stage in stages_in_flow_order(new)
        if (key := (stage["name"], stage.get("kind"))) in before
    ]


def pair_stages(old: RunReport, new: RunReport) -> list[Pair | StageChange]:
    """Return each stage of both runs; one that cannot be compared is a change already."""
    before = {(s["name"], s.get("kind")): s for s in old.stages}
    wall_s = number(old.run, "wall_s")
    used = _cpu_s(old), _cpu_s(new)
    cpu = math.log(used[1] / used[0]) if used[0] and used[1] else None
    pairs: list[Pair | StageChange] = []
    for stage in stages_in_flow_order(new):
        earlier = before.pop((stage["name"], stage.get("kind")), None)
        pairs.append(
            StageChange(stage["name"], "new", "is new")
            if earlier is None
            else _paired(earlier, stage, wall_s, cpu)
        )
    return pairs + [StageChange(s["name"], "gone", "is missing") for s in before.values()]


def judge_stages(pairs: Sequence[Pair | StageChange], fail_on: float) -> list[StageChange]:
    """Return what became of each stage; `fail_on` is the ratio that matters."""
    known = [pair for pair in pairs if isinstance(pair, Pair)]
    return [_judged(p, known, fail_on) if isinstance(p, Pair) else p for p in pairs]


def common_drift(pairs: Sequence[Pair | StageChange], limit: float) -> float:
    """Return the slowdown that two or more stages share, as a logarithm up to 15 %.

    A bad minute raises all averages alike, another day all typical calls. Infinity: the process
    waited for the CPU, as in `_drift`.
    """
    known = [pair for pair in pairs if isinstance(pair, Pair)]
    shifts = [p.shift for p in known if p.shift is not None and p.share >= _MATTERS]
    if len(shifts) < 2:
        return 0.0
    if any(_drift(pair, known, limit) == math.inf for pair in known):
        return math.inf
    shared = max(min(s.slower for s in shifts), min(s.mean for s in shifts))
    return max(0.0, min(shared, _MAX_COMMON_DRIFT))


def _cpu_s(report: RunReport) -> float | None:
    """Return the CPU time of the run, in a unit that two runs on one machine share."""
    part = number(report.resources, "cpu_utilization", "avg")
    wall_s = number(report.run, "wall_s")
    return None if wall_s is None or part is None else wall_s * part


def _paired(
    old: Mapping[str, Any], new: Mapping[str, Any], wall_s: float | None, cpu: float | None
) -> Pair | StageChange:
    first, second = sample_of(old), sample_of(new)
    if first is not None and not whole(new, "count") and not whole(new, "in_flight"):
        return StageChange(new["name"], "gone", "was not called")
    if first is None or second is None:
        return StageChange(new["name"], "too few", "was not called in both runs")
    unit, per = _per_item(old, new)
    shift = None
    if min(first.calls, second.calls) >= _MIN_COUNT:
        shift = shift_of(first, second, math.log(per[0] / per[1]))
    work = second.calls * per[1] / (first.calls * per[0])
    # the difference to the time of the new run's items at the old pace
    added = (second.mean - first.mean * per[1] / per[0]) * second.calls
    return Pair(
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
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[Literal["item", "invocation"], tuple[float, float]]:
    """Return the unit, and how many of it a call has in each of the runs."""
    for way in ("in", "out"):
        items = whole(old, "items", way), whole(new, "items", way)
        counts = whole(old, "count"), whole(new, "count")
        if items[0] and items[1] and counts[0] and counts[1]:
            return "item", (items[0] / counts[0], items[1] / counts[1])
    return "invocation", (1.0, 1.0)


def _others(pair: Pair, pairs: Sequence[Pair], of: Callable[[Shift], float]) -> list[float]:
    """Return the shifts of those other stages that matter."""
    return [
        of(other.shift)
        for other in pairs
        if other is not pair and other.shift is not None and other.share >= _MATTERS
    ]


def _drift(pair: Pair, pairs: Sequence[Pair], limit: float) -> float:
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


def _judged(pair: Pair, pairs: Sequence[Pair], fail_on: float) -> StageChange:
    shift, limit = pair.shift, math.log1p(max(fail_on, RESOLUTION))
    judgement: Judgement
    needed = None
    if shift is None:
        few = min(pair.counts) < _MIN_COUNT
        judgement = "too few" if few else "not known"
        called = text.counted(min(pair.counts), "time")
        why = f"was called {called}" if few else "has no spread in its report"
    else:
        judgement, why = _judgement(pair, shift, pairs, limit)
        needed = calls_to_tell(shift.yuen[1], pair.counts, limit)
        if judgement == "noise" and min(pair.counts) < needed:
            why += f"; {would_tell(needed, 'call', fail_on)}"
    return StageChange(
        name=pair.name,
        judgement=judgement,
        why=why,
        unit=pair.unit,
        old_s=pair.old_s,
        new_s=pair.new_s,
        shift=None if shift is None else math.expm1(shift.typical),
        calls_needed=needed,
    )


def _judgement(
    pair: Pair, shift: Shift, pairs: Sequence[Pair], limit: float
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


def _has_slower_tail(pair: Pair, shift: Shift, pairs: Sequence[Pair], limit: float) -> bool:
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


# --- the words ------------------------------------------------------------------------------


def would_tell(needed: int, noun: str, fail_on: float) -> str:
    """Return how much work tells a change of `fail_on` from chance."""
    return (
        f"about {text.counted(needed, noun)} in each run would tell "
        f"{rounded_percent(fail_on)} from chance"
    )


def rounded_percent(ratio: float) -> str:
    """Return a change in per cent with three significant digits, without its sign."""
    return f"{ratio * 100:.3g} %" if ratio < 1 else f"{ratio * 100:,.0f} %"

"""Thresholds that distinguish the kinds of limit, and the tests that apply them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup


Kind = Literal["stage", "source", "cpu", "event loop", "errors", "workers", "tie", "unknown"]
Confidence = Literal["high", "medium", "low"]

# Demands within this factor tie: halfway between a certain tie (5 %) and certainly none (10 %).
TIE: Final = 1.075
# From this demand over wall time on, the source cannot be the limit.
SATURATED: Final = 0.95
# Below this demand over wall time, a stage alone hardly limits the run.
BUSY: Final = 0.7
# From this blocked share on, a stage was held back, and not by chance.
HELD: Final = 0.3
CPU_FULL: Final = 0.9
# From so many busy CPUs on, the GIL is not the limit.
CPU_ONE_CORE: Final = 1.25
# From so many busy CPUs on, the GIL limits workers that are busy at the same time: switching
# costs the rest, even more on a machine with other work.
CPU_CROWDED: Final = 0.75
# From so many busy CPUs on, a gain is limited to the CPU time that is left.
CPU_COUNTS: Final = 0.3
# The most additional workers that are suggested: beyond that, something else may limit.
MORE: Final = 8
# From this idle share of all workers on, they lacked input.
IDLE: Final = 0.3
# From this busy time of all stages over wall time on, the stages explain the whole run.
ADDED_UP: Final = 0.85
CPU_FREE: Final = 0.5
# So many workers that are busy at a time cannot all have computed on one CPU.
CROWD: Final = 1.5
LATE_LOOP_S: Final = 0.1
USUALLY_LATE_S: Final = 0.005
WASTE: Final = 0.2
# From this gain on, a cause is mentioned separately.
WORTH: Final = 0.1

FAILED_COST: Final = "A failed attempt is assumed to cost as much as any other."
PARTIAL: Final = "The run has not finished or did not succeed: these are its numbers so far."


@dataclass
class Verdict:
    """The verdict, before `analyze` returns it as a dict."""

    kind: Kind
    why: str
    confidence: Confidence | None
    stage: str | None = None
    ties: list[str] = field(default_factory=list)
    busy: float | None = None
    advice: list[str] = field(default_factory=list)
    what_if: dict[str, Any] | None = None
    assumptions: list[str] = field(default_factory=list)


def is_cpu_bound(facts: Facts) -> bool:
    """Tell whether this process keeps about one CPU busy."""
    return facts.cores is not None and facts.cores >= CPU_FULL


def cpu_limits(facts: Facts, top: StageGroup) -> bool:
    """Tell whether the CPU is used up, or workers wait for the GIL."""
    if facts.cores is None or facts.utilization is None:
        return False
    if facts.utilization >= CPU_FULL:
        return True
    if not CPU_CROWDED <= facts.cores <= CPU_ONE_CORE:
        return False
    # one computing stage is itself the limit; with several at once it is the CPU
    crowd = facts.concurrency >= CROWD
    if facts.cores >= CPU_FULL:
        return crowd or top.demand < BUSY * facts.wall_s
    return crowd and not (facts.source_s is not None and source_limits(facts, top))


def loop_is_late(facts: Facts) -> bool:
    """Tell whether something blocks the event loop, long at times or most times.

    A loop that only awaits runs its callbacks within a millisecond. If half of them are five
    milliseconds late, the loop is blocked more often than not.
    """
    return (facts.loop_delay_s or 0.0) >= LATE_LOOP_S or (
        facts.loop_delay_usual_s or 0.0
    ) >= USUALLY_LATE_S


def source_limits(facts: Facts, top: StageGroup) -> bool:
    """Tell whether items arrive too slowly for a stage to be the limit."""
    used = top.demand / facts.wall_s
    if used >= SATURATED:
        return False
    if facts.source_s is not None:
        return facts.source_s > top.demand
    # without a queue that the source fills: no stage was busy or blocked by another
    held = any(group.blocked_share >= HELD for group in facts.groups)
    lacking = facts.idle_share >= IDLE or facts.concurrency < ADDED_UP
    return used < BUSY and not held and lacking


def waste(group: StageGroup) -> float:
    """Return the share of a group's attempts that failed."""
    return min(1.0, (group.errors + group.retries) / max(1, group.count + group.retries))


def cap_by_cpu(facts: Facts, gain: float) -> float:
    """Return the gain, limited to what the remaining CPU time allows.

    More threads or tasks of this process share its GIL, so one CPU; all processes share the
    machine's CPUs.
    """
    if facts.cores is None or not facts.utilization or facts.cores <= CPU_COUNTS:
        return gain
    return min(gain, max(0.0, 1 / max(facts.cores, facts.utilization) - 1))

"""Where the lines are drawn: what tells one kind of limit from another, and what is sure of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup


Kind = Literal["stage", "source", "cpu", "event loop", "errors", "workers", "tie", "unknown"]
Confidence = Literal["high", "medium", "low"]

TIE: Final = 1.075
"""Demands closer than this factor tie: in the middle between what is surely one (5 %) and what
surely is none (10 %)."""
SATURATED: Final = 0.95
"""Demand over wall time from which on no source can be what is missing."""
BUSY: Final = 0.7
"""Demand over wall time below which a stage alone hardly limits the run."""
HELD: Final = 0.3
"""A blocked share from which on a stage was held back, and not by chance."""
CPU_FULL: Final = 0.9
CPU_ONE_CORE: Final = 1.25
"""CPUs busy from which on the GIL is not what limits."""
CPU_CROWDED: Final = 0.75
"""CPUs busy from which on the GIL limits workers that are busy at the same time: handing it on
costs the rest, the more so on a machine that has other things to do."""
CPU_COUNTS: Final = 0.3
"""CPUs busy from which on a gain may not be more than the CPU that is left allows."""
MORE: Final = 8
"""More workers than these are never suggested: nobody knows what they would meet."""
IDLE: Final = 0.3
"""An idle share of all workers from which on they really lacked input."""
ADDED_UP: Final = 0.85
"""Busy time of all stages over wall time from which on nothing else need be looked for."""
CPU_FREE: Final = 0.5
CROWD: Final = 1.5
"""Workers busy at a time that cannot all have computed on one CPU."""
LATE_LOOP_S: Final = 0.1
USUALLY_LATE_S: Final = 0.005
WASTE: Final = 0.2
WORTH: Final = 0.1
"""A gain worth naming a cause of its own."""
FAILED_COST: Final = "A failed attempt is taken to cost as much as any other."
PARTIAL: Final = "The run is not over or did not end well: this is how far it got."


@dataclass
class Verdict:
    """What `analyze` returns, before it is a dict."""

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
    """Tell whether the CPU is used up, or the GIL is what workers wait for."""
    if facts.cores is None or facts.utilization is None:
        return False
    if facts.utilization >= CPU_FULL:
        return True
    if not CPU_CROWDED <= facts.cores <= CPU_ONE_CORE:
        return False
    # one stage that computes is that stage's limit; several at once are the CPU's
    crowd = facts.concurrency >= CROWD
    if facts.cores >= CPU_FULL:
        return crowd or top.demand < BUSY * facts.wall_s
    return crowd and not (facts.source_s is not None and source_limits(facts, top))


def loop_is_late(facts: Facts) -> bool:
    """Tell whether something holds the event loop up, now and then for long or all the time.

    A loop that only awaits comes round within a millisecond; half of all beats late by five
    mean that it is held up more often than not.
    """
    return (facts.loop_delay_s or 0.0) >= LATE_LOOP_S or (
        facts.loop_delay_usual_s or 0.0
    ) >= USUALLY_LATE_S


def source_limits(facts: Facts, top: StageGroup) -> bool:
    """Tell whether items come too slowly for the stages to be what limits."""
    used = top.demand / facts.wall_s
    if used >= SATURATED:
        return False
    if facts.source_s is not None:
        return facts.source_s > top.demand
    # nothing fills a queue from outside: then nobody was busy, and nobody in another's way
    held = any(group.blocked_share >= HELD for group in facts.groups)
    lacking = facts.idle_share >= IDLE or facts.concurrency < ADDED_UP
    return used < BUSY and not held and lacking


def waste(group: StageGroup) -> float:
    """Return which share of its attempts came to nothing."""
    return min(1.0, (group.errors + group.retries) / max(1, group.count + group.retries))


def cap_by_cpu(facts: Facts, gain: float) -> float:
    """Return a gain, or what the CPU that is left allows of it.

    More threads or tasks of this process share its GIL, and so one CPU; and all processes share
    the CPUs there are.
    """
    if facts.cores is None or not facts.utilization or facts.cores <= CPU_COUNTS:
        return gain
    return min(gain, max(0.0, 1 / max(facts.cores, facts.utilization) - 1))

"""`limit`: a lock, semaphore, pool or rate, or something inside of a stage that acts like one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis.bounds import FULL
from otel_pipeline_metrics.analysis.findings import Change, Verdict, at_least, at_most
from otel_pipeline_metrics.analysis.hidden_limit import GROWS, SURELY

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import LimitFacts
    from otel_pipeline_metrics.analysis.gains import Bound


# A number of calls at a time that is as close to a whole one, for all of a run, is no chance.
STEADY: Final = 0.03
# From this part of the run on, the permits of a limit are all held most of the time.
USED: Final = FULL


def check(case: Case) -> Verdict | None:
    """Workers wait for a permit, or share something that serves few of them at a time."""
    top = case.bounds.top
    if top is None:
        return _around(case)
    if top.kind == "limit":
        return _named(case)
    return _inside(case) if case.growth is not None else None


def _named(case: Case) -> Verdict | None:
    top, facts = case.bounds.top, case.facts
    if top is None:
        return None
    change, best = case.change("limit", top.name), case.best
    if change is None or (best is not None and change.middle < best.middle):
        # a stage that holds most of the permits, and takes time beside, is worth more
        return None
    load = case.bounds.load
    waits = next((limit for limit in facts.limits if limit.name == top.name), None)
    waited = sum(waits.waited_s.values()) if waits is not None else None
    evidence = [
        at_least("part of the run that the limit explains", load, USED),
        at_least("seconds that workers waited for it", waited, 0.05 * facts.wall_s),
    ]
    is_executor = waits is not None and waits.is_executor
    verdict = Verdict(
        kind="limit",
        name=top.name,
        stage=top.stage,
        confidence="high" if load >= USED else "low",
        evidence=evidence,
        why=_why(top, waits, load),
        what_if=case.listed(change),
        advice=[
            f"Give {top.name} more workers, or make its tasks shorter."
            if is_executor
            else f"Raise {top.name}, or hold a permit for a shorter time."
        ],
        assumptions=["What is behind the limit is assumed to serve twice as many as well."],
    )
    # who cannot have two of a lock has to hold it for a shorter time
    is_lock = waits is not None and waits.permits == 1
    verdict.doubt(int(is_lock and best is not None and best is not change))
    return verdict


def _why(top: Bound, waits: LimitFacts | None, load: float) -> str:
    used = f"{text.percent(load)} of the time"
    if waits is None:
        return f"Permits inside of {top.stage} were in use {used}, and its workers waited for them."
    waited = text.duration(sum(waits.waited_s.values()))
    if waits.is_executor:
        how_many = "" if waits.permits is None else f"{waits.permits} "
        return (
            f"The {how_many}workers of {top.name} were busy {used}, and tasks waited {waited} for "
            "one in all."
        )
    permits = f" of {waits.permits}" if waits.permits else ""
    return (
        f"The permits of {top.name}{permits} were in use {used}, and workers waited {waited} for "
        "them in all."
    )


def _around(case: Case) -> Verdict | None:
    """Return the verdict that something lets few of many tasks work at a time."""
    bounds, facts = case.bounds, case.facts
    if bounds.lanes is None or not bounds.has_many_tasks:
        return None
    at_a_time = round(bounds.lanes)
    off = abs(bounds.lanes - at_a_time) / bounds.lanes
    evidence = [
        at_most("from a whole number of calls at a time, of it", off, STEADY, vetoes=True),
        at_least("calls at a time", bounds.lanes, 2.0, vetoes=True),
        at_most(
            "part of the run outside of stages",
            (facts.outside_s or 0.0) / facts.wall_s,
            STEADY,
            vetoes=True,
        ),
    ]
    stage = max(bounds.alone, key=lambda bound: bound.seconds).name
    others = text.listed([str(bound.name) for bound in bounds.alone])
    return Verdict(
        kind="limit",
        name=stage,
        stage=stage,
        confidence="medium",
        evidence=evidence,
        why=(
            f"Each item has a task of its own, and about {bounds.lanes:.1f} of them at a time were "
            f"in {others}: a semaphore, a pool or the like around them lets so many work."
        ),
        # what is behind may serve less than twice as many
        what_if=[Change("limit", stage, stage, 2, 0.5, 1.05), *case.listed()],
        advice=[
            f"Let more than {at_a_time} work at a time, as far as the other side can take it.",
            "Wrap what holds them back with wrap_limit(), so that it has a name here.",
        ],
        assumptions=["That something holds the tasks back is inferred: their number is steady."],
    )


def _inside(case: Case) -> Verdict | None:
    top, found, facts = case.bounds.top, case.growth, case.facts
    if top is None or found is None:
        return None
    alone = facts.parts[str(top.name)].count * found.few_s / (top.workers or found.most)
    low, high, following = case.bounds.gain(
        lambda each: max(each.seconds / 2, alone) if each is top else each.seconds
    )
    change = Change("limit", top.name, top.stage, 2, low / 2, high, following)
    evidence = [
        at_least("times longer with as many in flight as mostly", found.ratio, GROWS),
        at_least("standard errors by which that differs", found.deviations, SURELY),
        at_least("part of the run that the stage explains", case.bounds.load, FULL),
    ]
    sure = case.bounds.load >= FULL and found.deviations >= 2 * SURELY
    return Verdict(
        kind="limit",
        name=top.name,
        stage=top.stage,
        busy=None if top.group is None else top.group.share,
        confidence="medium" if sure else "low",
        evidence=evidence,
        why=(
            f"A call of {top.name} takes {text.duration(found.few_s)} with few others in flight, "
            f"and {text.duration(found.many_s)} with {found.most}: something inside of it serves "
            f"about {found.permits:.1g} at a time."
        ),
        what_if=[change],
        advice=[
            (
                f"Raise what {top.name} shares: connections, permits, a rate, an executor's "
                "threads, or the far side's capacity. More workers only wait longer."
            ),
            "Wrap it with wrap_limit(), so that it has a name here.",
        ],
        assumptions=["The first calls, which found few others in flight, are taken for typical."],
    )

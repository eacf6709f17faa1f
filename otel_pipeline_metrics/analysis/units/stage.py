"""`stage`, `workers`, `skew`, `tie`: workers of a stage are busy nearly all the time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis import wording
from otel_pipeline_metrics.analysis.bounds import FULL, HOT
from otel_pipeline_metrics.analysis.case import ALIKE
from otel_pipeline_metrics.analysis.cpu_left import is_cpu_bound
from otel_pipeline_metrics.analysis.findings import Verdict, at_least, at_most
from otel_pipeline_metrics.analysis.units.steps import TIE

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup
    from otel_pipeline_metrics.analysis.findings import Change, Confidence, Kind, Witness
    from otel_pipeline_metrics.analysis.gains import Bound


# Below so many calls, a mean is not known.
FEW_CALLS: Final = 10
# A lead over the next stage below this is close to a tie.
CLOSE: Final = 1.15
# From this average filling on, the queue before a stage holds what it cannot take.
FILLED: Final = 0.3
CPU_FREE: Final = 0.5
# From this coefficient of variation on, more workers gain more than faster ones: that of a
# memoryless service is 1.
TAILS: Final = 1.5


def check_tie(case: Case) -> Verdict | None:
    """Several stages need about as long, so none of them alone gains much."""
    bounds, facts = case.bounds, case.facts
    top, best = bounds.top, case.best
    if top is None or bounds.alone or top.kind not in ("stage", "skew"):
        return None
    tied = [
        bound
        for bound in bounds.together
        if bound.kind == top.kind and top.seconds < TIE * bound.seconds
    ]
    if len(tied) < 2 or best is None:
        return None
    if best.change == "faster" and best.low > 2 * ALIKE:
        # one stage is part of all of them
        return None
    return Verdict(
        kind="tie",
        name=top.name,
        stage=top.name,
        ties=[str(bound.name) for bound in tied],
        busy=None if top.group is None else top.group.share,
        confidence=_confidence(case, top),
        evidence=[
            at_least(
                "part of the run that each of them needs", tied[-1].seconds / facts.wall_s, FULL
            ),
            at_most("the largest of them by the smallest", top.seconds / tied[-1].seconds, TIE),
        ],
        why=wording.tie(tied, facts),
        what_if=case.listed(),
        advice=[f"Relieve {text.listed([str(bound.name) for bound in tied])} together."],
        assumptions=[wording.MEASURED],
    )


def check_skew(case: Case) -> Verdict | None:
    """One worker of a stage has most of the work, and the others wait."""
    top, facts = case.bounds.top, case.facts
    if top is None or top.kind != "skew" or top.group is None:
        return None
    group = top.group
    hot = (group.hottest_s or 0.0) / (group.busy / group.workers)
    evidence = [
        at_least("times that its busiest worker was busy, by the average one", hot, HOT),
        at_least(
            "part of the run that its busiest worker was busy", top.seconds / facts.wall_s, FULL
        ),
    ]
    verdict = Verdict(
        kind="skew",
        name=top.name,
        stage=top.name,
        busy=group.share,
        confidence="high",
        evidence=evidence,
        why=(
            f"One of the {wording.workers(group.workers)} of {group.name} was busy "
            f"{text.percent(top.seconds / facts.wall_s)} of the run, {hot:.1f} times as long as "
            "the average one: its part of the items is too large."
        ),
        what_if=case.listed(case.change("faster", top.name)),
        advice=[
            (
                f"Share the items of {group.name} out more evenly: by another key, or by one "
                "queue for all of its workers."
            ),
            (
                f"Or make {group.name} faster; more workers only help if they take from the "
                "busiest one."
            ),
        ],
        assumptions=[wording.MEASURED],
    )
    verdict.doubt((not evidence[1].for_it) + (group.count < FEW_CALLS * group.workers))
    return verdict


def check(case: Case) -> Verdict | None:
    """The workers of a stage are busy all the time, so that the others wait for them."""
    best, facts = case.best, case.facts
    if best is None or best.change not in ("faster", "workers"):
        return None
    change = best
    faster = next((c for c in case.changes if c.change == "faster"), None)
    if best.change == "workers" and faster and faster.middle >= best.middle - 2 * ALIKE:
        change = faster
    workers = case.change("workers", change.name)
    if workers is not None and workers.middle >= change.middle - ALIKE and _has_tails(case):
        # a long call holds up one of two workers, and all of one that is twice as fast
        change = workers
    bound = case.bound_of(change.name)
    if bound is None or bound.kind not in ("stage", "skew", "limit"):
        return None
    group = bound.group
    name = str(change.name)
    starved = _better_staffed(case, bound)
    kind: Kind = "workers" if change.change == "workers" or starved is not None else "stage"
    if starved is not None:
        change = case.change("workers", bound.name) or change
    why = (
        wording.stage(bound, facts, name)
        if starved is None or group is None
        else wording.explain_few_workers(group, starved, facts)
    )
    return Verdict(
        kind=kind,
        name=name,
        stage=name,
        busy=None if group is None else group.share,
        confidence=_confidence(case, bound),
        evidence=_evidence(case, bound),
        why=why,
        what_if=case.listed(change),
        advice=_advice(case, bound, change),
        assumptions=_assumptions(case, bound),
    )


def _evidence(case: Case, bound: Bound) -> list[Witness]:
    facts = case.facts
    others = [each.seconds for each in case.bounds.together if each is not bound]
    lead = bound.seconds / max(others) if others and max(others) > 0 else None
    before = [q.fill for q in facts.queues if bound.name in q.consumers and q.fill is not None]
    after = [q.fill for q in facts.queues if bound.name in q.producers and q.fill is not None]
    return [
        at_least("part of the run that it needs", bound.seconds / facts.wall_s, FULL),
        at_least("its time by the next largest", lead, CLOSE),
        at_least("average filling of the queue before it", max(before, default=None), FILLED),
        at_most("average filling of the queue behind it", min(after, default=None), 1 - FILLED),
    ]


def _confidence(case: Case, bound: Bound) -> Confidence:
    """Return how sure it is: witnesses that speak against it, and what is not known."""
    facts, bounds = case.facts, case.bounds
    used = bound.seconds / facts.wall_s
    doubts = (used < FULL) + (used < 0.7)
    doubts += is_cpu_bound(facts)
    doubts += facts.partial
    group, part = bound.group, bound.part
    count = group.count if group is not None else part.count if part is not None else 0
    doubts += count < FEW_CALLS
    doubts += _may_share(bound, facts)
    doubts += group is not None and (group.ephemeral or not group.is_clear)
    # a pace at which its tasks are begun would look the same
    doubts += bound.part is not None and bound.part.never_drains
    others = [each for each in bounds.together if each is not bound]
    if others:
        second = others[0]
        lead = bound.seconds / second.seconds if second.seconds else math.inf
        doubts += TIE <= lead < CLOSE
        noise = group.noise if group is not None else 0.0
        other = second.group.noise if second.group is not None else 0.0
        doubts += lead > 1 and lead - 1 < 2 * math.hypot(noise, other)
    evidence = _evidence(case, bound)
    doubts += evidence[2].for_it is False or evidence[3].for_it is False
    doubts += any(seconds > bound.seconds for seconds in facts.unseen.values())
    return "high" if not doubts else "medium" if doubts == 1 else "low"


def _has_tails(case: Case) -> bool:
    """Tell whether the calls of the one worker that bounds the run differ by very much."""
    group = case.bounds.top.group if case.bounds.top is not None else None
    if group is None or round(group.workers) != 1:
        return False
    return group.noise * math.sqrt(max(0, group.count)) >= TAILS


def _may_share(bound: Bound, facts: Facts) -> bool:
    """Tell whether calls might be slower because of each other, which nothing rules out.

    Under load all calls find others in flight, so how long one takes alone is not known.
    """
    part = facts.parts.get(str(bound.name))
    if part is None or (bound.workers or 1) < 2:
        return False
    most = max(part.levels, default=0)
    return sum(count for level, (count, _) in part.levels.items() if 2 * level <= most) < FEW_CALLS


def _better_staffed(case: Case, bound: Bound) -> StageGroup | None:
    """Return a group with more work than a bound's, but enough workers for it."""
    facts, group = case.facts, bound.group
    if group is None or facts.cores is None or facts.cores >= CPU_FREE or group.ephemeral:
        return None
    if round(group.workers) != 1:
        # half the time is worth more than one more worker
        return None
    for other in facts.groups:
        if other.workers > group.workers and other.work > group.work and not other.ephemeral:
            return other
    return None


def _advice(case: Case, bound: Bound, change: Change) -> list[str]:
    facts, group = case.facts, bound.group
    name = change.name
    if is_cpu_bound(facts):
        return [
            (
                f"{name} seems to compute ({facts.cores or 0.0:.2f} CPUs busy): make it cheaper, "
                "or run it in processes."
            )
        ]
    if change.change == "workers":
        advice = [f"Give {name} more workers, or make its calls faster."]
    elif group is None:
        advice = [f"Make a call of {name} faster, or make more of them at a time."]
    else:
        advice = [f"Make a call of {name} faster, or give it more workers."]
    queue = facts.smallest_queue
    if group is not None and bound.seconds < FULL * facts.wall_s and queue is not None:
        advice.append(
            f"No stage was busy all the time: bursts of one delayed the others. A larger queue "
            f"evens them out; the smallest is {queue[0]}, with room for {queue[1]}."
        )
    return advice


def _assumptions(case: Case, bound: Bound) -> list[str]:
    facts, group = case.facts, bound.group
    found = [wording.MEASURED]
    if group is None and bound.kind == "stage":
        found.append(
            f"{bound.name} is taken to have {wording.workers(bound.workers or 1)}: the most of its "
            "calls that were in progress at a time."
        )
    elif group is not None and not is_cpu_bound(facts):
        found.append(wording.SCALES)
        if facts.cores is None:
            found.append("CPU use was not sampled, so work is assumed to be awaited I/O.")
    if group is not None and len(group.names) > 1:
        found.append(f"{text.listed(group.names)} are assumed to have the same workers.")
    if facts.unseen:
        found.append(f"Left out, since their waits are unknown: {text.listed(list(facts.unseen))}.")
    if facts.partial:
        found.append(wording.PARTIAL)
    return found

"""`source` and `undecorated`: a step that is no stage, known from the queues around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis import wording
from otel_pipeline_metrics.analysis.bounds import FILLED, FULL, HELD_UP
from otel_pipeline_metrics.analysis.findings import Verdict, at_least, at_most

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import QueueFacts


# From this part of the run on, a stage's workers have no time left, so no source limits it.
SATURATED: Final = 0.95
# Demands within this factor tie: halfway between a certain tie (5 %) and certainly none (10 %).
TIE: Final = 1.075
# Below this, the busiest stage has time left.
BUSY: Final = 0.7
# From this idle share of all workers on, they lacked input.
IDLE: Final = 0.3


def check_source(case: Case) -> Verdict | None:
    """Items arrive in the first queue more slowly than the stages could take them."""
    top = case.bounds.top
    if top is None or top.kind != "source":
        return _loop_source(case) or _inferred(case) or _paced(case)
    facts = case.facts
    queue = _queue(case, top.name)
    used = facts.groups[0].demand / facts.wall_s if facts.groups else 0.0
    evidence = [
        at_most("part of the run that the busiest stage needs", used, SATURATED, vetoes=True),
        at_most(
            "time that it waited for room in the queue", queue.blocked_share, HELD_UP, vetoes=True
        ),
        at_least("part of the run that the source took", top.seconds / facts.wall_s, FULL),
    ]
    verdict = Verdict(
        kind="source",
        name=top.name,
        confidence="high" if used < BUSY else "medium",
        evidence=evidence,
        why=wording.source(facts),
        what_if=case.listed(case.change("faster", top.name)),
        advice=[
            "Make the source faster: fetch ahead, in parallel or in larger batches.",
            "The stages have time left: fewer workers may be enough.",
        ],
        assumptions=[
            (
                "The source is not a stage: that it was slow is inferred because it hardly ever "
                f"found the queue {top.name} full, and because the stages were idle."
            )
        ],
    )
    verdict.doubt(sum((top.seconds < FULL * facts.wall_s, facts.partial)))
    return verdict


def _loop_source(case: Case) -> Verdict | None:
    """Return the verdict that the loop around a first stage waits for its items."""
    facts, top = case.facts, case.bounds.top
    found = next(
        (g for g in facts.groups if not g.gets and g.between > 0.5 * g.work and not g.ephemeral),
        None,
    )
    if found is None or found is not facts.groups[0]:
        return None
    puts = next((queue for queue in facts.queues if found.name in queue.producers), None)
    filled = None if puts is None else puts.fill
    if top is not None and top.name != found.name:
        # if the queue behind it is empty, it is not held up by what is about as slow
        factor = 1.0 if filled is not None and filled < HELD_UP else TIE
        if top.seconds >= found.demand / factor:
            return None
    clear = found.between > 0.8 * found.work and found.demand >= BUSY * facts.wall_s
    evidence = [
        at_least("part of its time between its calls", found.between / found.busy, 0.5),
        at_most("average filling of the queue behind it", filled, FILLED),
    ]
    return Verdict(
        kind="source",
        name=found.name,
        stage=found.name,
        busy=found.share,
        confidence="high" if clear and evidence[1].for_it is not False else "medium",
        evidence=evidence,
        why=wording.explain_loop_source(found, facts),
        advice=[
            (
                f"Look at what the loop around {found.name} awaits between two calls: fetch "
                "ahead, in parallel or in larger batches."
            ),
            "If that is work of its own, make it a stage, so that it has a name here.",
        ],
        assumptions=["Time between two calls counts as busy; its purpose is unknown."],
    )


def _inferred(case: Case) -> Verdict | None:
    """Return the verdict that a source is slow which no queue shows: nothing else was busy."""
    facts, bounds = case.facts, case.bounds
    if not facts.groups or facts.source_s is not None or facts.round_robin:
        return None
    explained = sum(b.seconds for b in bounds.alone) + (bounds.top.seconds if bounds.top else 0)
    used = explained / facts.wall_s
    held = max((group.blocked_share for group in facts.groups), default=0.0)
    lacking = facts.idle_share >= IDLE or facts.concurrency < FULL
    if used >= BUSY or held >= HELD_UP or not lacking:
        return None
    return Verdict(
        kind="source",
        confidence="low",
        evidence=[
            at_most("part of the run that the stages explain", used, BUSY),
            at_most("largest part of a stage's time that it was blocked", held, HELD_UP),
            at_least("idle part of the workers' time", facts.idle_share, IDLE),
        ],
        why=wording.source(facts),
        advice=["Make the source faster: fetch ahead, in parallel or in larger batches."],
        assumptions=["Inferred: all stages had time left, and none waited for room in a queue."],
    )


def _paced(case: Case) -> Verdict | None:
    """Return the verdict that something begins a task for each item at a pace of its own."""
    facts, bounds = case.facts, case.bounds
    part = max(bounds.alone, key=lambda bound: bound.seconds).part if bounds.alone else None
    if facts.groups or part is None or not part.begins_by_itself:
        return None
    share = part.own_s / sum(each.own_s for each in facts.parts.values())
    at_a_time = part.own_s / facts.wall_s
    return Verdict(
        kind="source",
        confidence="medium",
        evidence=[
            at_least("part of the time of all stages", share, BUSY, vetoes=True),
            at_least("calls at a time on average", at_a_time, 1.0),
        ],
        why=(
            f"Each item has a task of its own, and {at_a_time:.1f} of them at a time were in "
            f"{part.name}. Their number went up and down and was seldom the largest, so nothing "
            "in the tasks holds them back: what begins them does."
        ),
        advice=["Begin the tasks faster: look at what is awaited between two of them."],
        assumptions=["Inferred from how many calls were in progress as one began."],
    )


def check_undecorated(case: Case) -> Verdict | None:
    """A step between queues that is no stage takes as long as the run."""
    top, facts = case.bounds.top, case.facts
    if top is None or top.kind != "undecorated":
        return None
    queue = _queue(case, top.name)
    evidence = [
        at_least("average filling of its queue", queue.fill, 0.5),
        at_least("time that producers waited for room in it", queue.blocked_share, HELD_UP),
        at_least("part of the run that the step takes", top.seconds / facts.wall_s, FULL),
        at_most(
            "part of the run that the busiest stage needs",
            max((g.surely for g in facts.groups), default=0.0) / facts.wall_s,
            SATURATED,
            vetoes=True,
        ),
    ]
    change = case.change("faster", top.name)
    takes = "takes from" if not queue.consumers else "puts into"
    verdict = Verdict(
        kind="undecorated",
        name=top.name,
        confidence="high",
        evidence=evidence,
        why=(
            f"What {takes} the queue {top.name} is no stage, and takes about "
            f"{text.duration(top.seconds)} in a run of {text.duration(facts.wall_s)}; the queue "
            f"was {text.percent(queue.fill)} full on average."
        ),
        what_if=[change] if change is not None else [],
        advice=[
            f"Decorate what {takes} {top.name} with @stage, so that it has a name here.",
            "Make that step faster, or give it more workers.",
        ],
        assumptions=["How many workers that step has is not known; one is assumed."],
    )
    verdict.doubt(sum(witness.for_it is False for witness in evidence[:3]))
    return verdict


def _queue(case: Case, name: str | None) -> QueueFacts:
    return next(queue for queue in case.facts.queues if queue.name == name)

"""`serial`: nothing overlaps, so each stage's own time counts, and the largest most.

It is also the answer for tasks or threads of the same kind that run the same stages in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis.case import ALIKE
from otel_pipeline_metrics.analysis.findings import Verdict, at_least, at_most

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case


# Of what the steps that overlap nothing take together, by the run.
ADDED_UP: Final = 0.8
# A stage whose gain is ahead of the next one's by less could be the wrong one.
AHEAD: Final = 0.02
# The longest steps that are told.
TOLD: Final = 4


def check(case: Case) -> Verdict | None:
    """The run's steps follow one another, so a faster one shortens the run by what it saves."""
    bounds, facts, best = case.bounds, case.facts, case.best
    if best is None or best.change != "faster" or not bounds.alone:
        return None
    step = next((bound for bound in bounds.alone if best.name in bound.made_of), None)
    if step is None:
        return None
    each = sorted(
        ((seconds, name) for bound in bounds.alone for name, seconds in bound.made_of.items()),
        key=lambda found: found[0],
        reverse=True,
    )
    together = sum(seconds for seconds, _ in each)
    second = next((c for c in case.changes if c is not best and c.change == "faster"), None)
    ahead = best.middle - second.middle if second is not None else best.middle
    evidence = [
        at_least("part of the run that its steps add up to", together / facts.wall_s, ADDED_UP),
        at_most("workers of the same kind that run them in turn", bounds.lanes, 1.0),
        at_least("gain beyond the next best stage's", ahead, AHEAD),
    ]
    doubts = sum(
        (
            together < ADDED_UP * facts.wall_s and best.middle < 2 * ALIKE,
            ahead < AHEAD,
            bounds.lanes is not None,
            # a pace at which the tasks are begun would look the same
            step.part is not None and step.part.never_drains,
        )
    )
    listed = text.listed(
        [f"{name or 'outside of stages'} {text.duration(s)}" for s, name in each[:TOLD]]
    )
    how = (
        f"About {bounds.lanes:.1f} workers run the same stages one after the other"
        if bounds.lanes
        else f"{best.name} overlaps no other stage"
        if bounds.together
        else "Only one step runs at a time"
        if len(each) > 1
        else "Nothing overlaps"
    )
    name = best.name
    verdict = Verdict(
        kind="serial" if name is not None else "undecorated",
        name=name,
        stage=best.stage,
        confidence="high",
        evidence=evidence,
        why=f"{how}, so times add up: {listed}, in a run of {text.duration(facts.wall_s)}.",
        what_if=case.listed(best),
        advice=_advice(case, name),
        assumptions=["The gain is that of Amdahl's law: all else takes as long as it did."],
    )
    if bounds.lanes is not None:
        verdict.assumptions.append(
            "How many run at a time is taken from this run: a semaphore that is not wrapped, or a "
            "number of tasks, may decide it, and raising that may gain more."
        )
    verdict.doubt(doubts)
    return verdict


def _advice(case: Case, name: str | None) -> list[str]:
    if name is None:
        return [
            (
                "Most of the time passes outside of all stages: decorate what happens there, so "
                "that it has a name here."
            )
        ]
    others = [str(bound.name) for bound in case.bounds.alone if bound.name not in (None, name)]
    advice = [f"Make {name} faster."]
    if others:
        advice.append(
            f"Or let {name} overlap with {text.listed(others[:3])}: run them at the same time, "
            "with a queue between, or several items at a time."
        )
    else:
        advice.append(f"Or make several calls of {name} at a time.")
    return advice

"""`errors`: without a stage's failures and retries, the run would gain most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics.analysis import wording
from otel_pipeline_metrics.analysis.bounds import FULL
from otel_pipeline_metrics.analysis.case import ALIKE, WORTH
from otel_pipeline_metrics.analysis.findings import Verdict, at_least

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case


def check(case: Case) -> Verdict | None:
    """Failed calls and repeated attempts take most of the time that could be saved."""
    change = next((c for c in case.changes if c.change == "errors" and c.low >= WORTH), None)
    best = case.best
    if change is None or best is None:
        return None
    others = [c.middle for c in case.changes if c is not change and c.name == change.name]
    if change.middle < max(others, default=0.0) - ALIKE or change.middle < best.middle - ALIKE:
        return None
    saved = case.facts.saved[str(change.name)]
    group = next((g for g in case.facts.groups if g.name == change.name), None)
    load = case.bounds.load if case.bounds.together else 1.0
    evidence = [
        at_least("part of the stage's time that failures cost, at least", saved[0], WORTH),
        at_least("gain without failures, at least", change.low, WORTH),
        at_least("part of the run that the stage explains", load, FULL),
    ]
    verdict = Verdict(
        kind="errors",
        name=change.name,
        stage=change.name,
        busy=None if group is None else group.share,
        confidence="high",
        evidence=evidence,
        why=wording.errors(str(change.name), saved, case.facts.failures[str(change.name)]),
        what_if=case.listed(change),
        advice=[f"Find out why {change.name} fails."],
        assumptions=[
            (
                "Failed calls are priced at their own length, and calls that tried again at that "
                "beyond a good one's."
            )
        ],
    )
    verdict.doubt((load < FULL) + (saved[1] > 1.5 * saved[0]))
    return verdict

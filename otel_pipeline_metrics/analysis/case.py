"""Weigh the changes that a run's bounds suggest, for the units that give a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics.analysis import hidden_limit, loop_waits
from otel_pipeline_metrics.analysis.bounds import WORTH_A_LINE, find_bounds
from otel_pipeline_metrics.analysis.cpu_left import cap_by_cpu, cap_by_machine, is_cpu_bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.analysis.facts import Facts
    from otel_pipeline_metrics.analysis.findings import Change
    from otel_pipeline_metrics.analysis.gains import Bound, Bounds
    from otel_pipeline_metrics.analysis.hidden_limit import Growth


# Gains that differ by less are alike.
ALIKE: Final = 0.05
# From this gain at least on, failures are worth a verdict of their own.
WORTH: Final = 0.1
# The stages, and the bounds, whose changes are weighed.
WEIGHED: Final = 10
# The changes that a verdict lists.
LISTED: Final = 4


@dataclass
class Case:
    """A run's bounds, and what each change would gain, the best one first."""

    facts: Facts
    bounds: Bounds
    changes: list[Change] = field(default_factory=list)
    # of the largest bound: how its calls get slower with more of them in flight
    growth: Growth | None = None

    @property
    def best(self) -> Change | None:
        """The change that gains most, of those that surely gain something.

        Without failures much may be gained, or nothing if what failed was given up.
        """
        return next((c for c in self.changes if c.change != "errors" or c.low >= WORTH), None)

    def listed(self, first: Change | None = None) -> list[Change]:
        """Return the changes worth a line, that of the verdict first."""
        found = [] if first is None else [first]
        found += [c for c in self.changes if c is not first and c.high > WORTH_A_LINE]
        return found[:LISTED]

    def change(self, kind: str, name: str | None) -> Change | None:
        """Return a change."""
        found = (c for c in self.changes if c.change == kind and c.name == name)
        return next(found, None)

    def bound_of(self, name: str | None) -> Bound | None:
        """Return the largest bound that has a stage or step in it."""
        every = [*self.bounds.together, *self.bounds.alone]
        return next((bound for bound in every if name in bound.made_of), None)


def make_case(facts: Facts) -> Case:
    """Find the bounds of a run, and what changes to it would gain."""
    bounds = find_bounds(facts)
    loop_waits.charge(bounds, facts)
    case = Case(facts, bounds)
    top = bounds.top
    if top is not None and top.kind == "stage":
        part = facts.parts.get(str(top.name))
        case.growth = hidden_limit.growth(part, top.workers)
    every = [*bounds.alone, *bounds.together]
    stages = {group.name for group in facts.groups} | set(facts.parts)
    longest: dict[str | None, float] = {}
    for bound in every:
        for name, seconds in bound.made_of.items():
            longest[name] = max(seconds, longest.get(name, 0.0))
    # of many stages, the others cannot gain more than these
    for name in nlargest(WEIGHED, longest, key=longest.__getitem__):
        if case.growth is not None and top is not None and name == top.name:
            continue
        failures = max(0.0, facts.saved.get(str(name), (0.0, 0.0))[1])
        stage = name if name in stages else None
        case.changes.append(bounds.faster(name, stage, failures))
    for bound in every[:WEIGHED]:
        case.changes += _of_bound(case, bound)
    case.changes.sort(key=lambda change: change.middle, reverse=True)
    return case


def _of_bound(case: Case, bound: Bound) -> list[Change]:
    """Return what more of a bound's workers or permits, or no failures in it, would gain."""
    facts, bounds, found = case.facts, case.bounds, []
    is_limit = bound is bounds.top or bound in bounds.alone
    if bound.kind == "limit":
        found.append(_capped(bounds.twice_the_permits(bound), facts, cap_by_machine))
    elif is_limit and _can_widen(case, bound):
        found.append(_capped(bounds.more_workers(bound), facts, cap_by_cpu))
    if is_limit:
        failing = [str(name) for name in bound.made_of if name in facts.saved]
        found += [bounds.no_errors(bound, name, facts.saved[name]) for name in failing]
    return found


def _can_widen(case: Case, bound: Bound) -> bool:
    """Tell whether more workers would have a bound's work done by more at a time."""
    return bool(
        bound.kind == "stage"
        and bound.workers
        and bound.group is not None
        and not bound.group.ephemeral
        and case.growth is None
        and not is_cpu_bound(case.facts)
    )


def _capped(change: Change, facts: Facts, cap: Callable[[Facts, float], float]) -> Change:
    """Limit a gain of more work at a time to the CPU time that is left."""
    return replace(change, low=cap(facts, change.low), high=cap(facts, change.high))

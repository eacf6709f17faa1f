"""`Bound` and `Bounds`: what a run cannot be faster than, and what a change to it would gain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics.analysis.findings import Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.analysis.facts import StageGroup
    from otel_pipeline_metrics.analysis.findings import Kind
    from otel_pipeline_metrics.analysis.parts import Part


# Ranges of gains: what queues of finite size lose, and how well a mean of some calls is known.
# `benchmarks/verdict` has the first: the bound is up to 13 points too high in one of twenty.
LOST: Final = 0.1
KNOWN: Final = 0.03
# The part of it that calls lose which differ as much as those of a memoryless service.
UNEVEN: Final = 0.7
# Of time in which the largest bound was not busy, the part that may stay when it is faster.
GOES: Final = 0.25


@dataclass
class Bound:
    """Something that a run cannot be faster than."""

    kind: Kind
    name: str | None
    stage: str | None
    # how long the run takes at least
    seconds: float
    # how much of that is each stage's own time, or that of a step that is no stage, by its name
    made_of: dict[str | None, float] = field(default_factory=dict)
    # of these, how much of it is surely the stage's, and how much at most: others overlap it
    overlapped: dict[str | None, tuple[float, float]] = field(default_factory=dict)
    # the part of it that more workers do not share, at least and at most
    not_shared: tuple[float, float] = (0.0, 0.0)
    # how many workers it has; None if more of them are not its limit, or unknown
    workers: float | None = None
    group: StageGroup | None = None
    part: Part | None = None


@dataclass
class Bounds:
    """All bounds of one run."""

    wall_s: float
    # what overlaps nothing else, so adds up
    alone: list[Bound]
    # the largest first
    together: list[Bound]
    # whether the steps in `alone` overlap each other, in many tasks or threads of the same kind
    lanes: float | None = None
    # whether each item has a task of its own, so that something must let so few of them work
    has_many_tasks: bool = False
    # coefficient of variation of the calls of what bounds the run, at most 1
    spread: float = 0.0

    @property
    def rest_s(self) -> float:
        """The time in which stages could overlap."""
        return max(0.0, self.wall_s - sum(bound.seconds for bound in self.alone))

    @property
    def top(self) -> Bound | None:
        """The largest bound of those that overlap."""
        return self.together[0] if self.together else None

    @property
    def load(self) -> float:
        """The part of the time in which stages could overlap that the largest bound explains."""
        top, rest = self.top, self.rest_s
        return min(1.0, top.seconds / rest) if top is not None and rest else 0.0

    def gain(self, changed: Callable[[Bound], float]) -> tuple[float, float, str | None]:
        """Return the least and the most that a change gains, and what limits the run then.

        Args:
            changed: returns the seconds of a bound after the change.
        """
        alone = sum(changed(bound) for bound in self.alone)
        rest = self.rest_s
        if not self.together:
            following = max(self.alone, key=changed, default=None)
            low = high = self.wall_s / max(1e-12, alone + rest) - 1
            return (*_widen(low, high, 1 + high), None if following is None else following.name)
        following = max(self.together, key=changed)
        before, after = self.together[0].seconds, changed(following)
        slack = max(0.0, rest - before)
        # what the bounds do not explain stays as it is, or goes for the most part
        low, high = (
            self.wall_s / max(1e-12, alone + after + part * slack) - 1 for part in (1.0, GOES)
        )
        if low > 0:
            # two that are nearly alike hold each other up, and so do calls that differ much
            uneven = max(_closeness(self, changed), UNEVEN * self.spread)
            low = max(0.0, (1 + low) * (1 - LOST * uneven) - 1)
        return (*_widen(low, high, 1 + high), following.name)

    def faster(self, name: str | None, stage: str | None = None, failures: float = 0.0) -> Change:
        """Return the change that a stage, or a step that is none, takes half the time.

        Args:
            name: of the stage or step.
            stage: its name if it is a stage.
            failures: the part of its time that failures cost, which may stay as long as it is.
        """
        low, high, following = self.gain(
            lambda bound: bound.seconds - bound.made_of.get(name, 0.0) / 2
        )
        if any(name in bound.overlapped for bound in [*self.alone, *self.together]):
            low, high = self._saved(name, 0)[0], self._saved(name, 1)[1]
        if failures:
            part = max(0.0, 1 - failures) / 2
            low = self.gain(lambda bound: bound.seconds - bound.made_of.get(name, 0.0) * part)[0]
        return Change("faster", name, stage, 2, low, high, following)

    def _saved(self, name: str | None, at_most: int) -> tuple[float, float, str | None]:
        """Return what half the time of a step gains that others overlap for a part of it."""
        return self.gain(
            lambda bound: max(
                0.0,
                bound.seconds
                - bound.overlapped.get(name, (bound.made_of.get(name, 0.0),) * 2)[at_most] / 2,
            )
        )

    def more_workers(self, bound: Bound) -> Change:
        """Return the change that a bound has one more worker."""
        share = (bound.workers or 1.0) / ((bound.workers or 1.0) + 1)
        (_, high, following), (low, _, _) = (
            self.gain(
                lambda each, kept=kept: (  # type: ignore[misc]
                    kept + (bound.seconds - kept) * share if each is bound else each.seconds
                )
            )
            for kept in bound.not_shared
        )
        return Change("workers", bound.name, bound.stage, 1, low, high, following)

    def twice_the_permits(self, bound: Bound) -> Change:
        """Return the change that a limit allows twice as much."""
        low, high, following = self.gain(
            lambda each: each.seconds / 2 if each is bound else each.seconds
        )
        return Change("limit", bound.name, bound.stage, 2, low, high, following)

    def no_errors(self, bound: Bound, name: str, saved: tuple[float, float]) -> Change:
        """Return the change that no call of a stage fails.

        Args:
            bound: what the stage is part of.
            name: the stage's.
            saved: the part of its time that is saved then, at least and at most.
        """
        seconds = bound.made_of[name]
        ranges = [
            self.gain(
                lambda each, s=part * seconds: (  # type: ignore[misc]
                    max(0.0, each.seconds - s) if each is bound else each.seconds
                )
            )
            for part in saved
        ]
        low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
        return Change("errors", name, name, None, low, high, ranges[-1][2])


def _closeness(bounds: Bounds, changed: Callable[[Bound], float]) -> float:
    """Return how close the two largest bounds after a change are: 0 if one is twice the other."""
    largest = sorted((changed(bound) for bound in bounds.together), reverse=True)[:2]
    if len(largest) < 2 or largest[0] <= 0:
        return 0.0
    return max(0.0, 2 * largest[1] / largest[0] - 1)


def _widen(low: float, high: float, factor: float) -> tuple[float, float]:
    """Widen a range of gains by what is not known; `factor` is the new throughput by the old."""
    if max(abs(low), abs(high)) <= 1e-9:
        return 0.0, 0.0
    least = low - KNOWN * factor
    return least if low < 0 else max(0.0, least), high + KNOWN * factor

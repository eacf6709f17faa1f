"""What the windows of an experiment say about each stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._experiments.ledger import SAVED

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from otel_pipeline_metrics._experiments.ledger import Mode

# Fewer calls, or windows, tell nothing.
LEAST_CALLS: Final = 20
LEAST_WINDOWS: Final = 3
# Standard errors on each side of a prediction.
WIDE: Final = 2.0
# A stage that was made slower by less than this part of the time says nothing.
LEAST_ADDED: Final = 0.02
# The calls of a stage that get shorter by more than this part of what is added before them have
# waited for each other inside.
ABSORBED: Final = 0.4
# The coefficient of variation of the distances of a steady rate.
STEADY: Final = 0.15
# How strongly the weights of stages are drawn to equal shares.
DRAWN: Final = 0.02

_ROUNDS: Final = 200
_CLOSE: Final = 1e-5


@dataclass
class Window:
    """What happened in one window, without its beginning.

    Attributes:
        mode: what was done to the stage.
        target: the stage; None of a run as it is.
        seconds: how long it was.
        ahead_s: by how much the stage got ahead, or fell back if it was made slower.
        paused_s: how long workers paused, all together.
        counts: calls that ended, by stage.
        invocations: those of the stage.
        spent: by stage, seconds of its calls in progress, all together, without these pauses.
        added_s: by how many seconds each call was made longer.
        gaps: by stage, of the times between the ends of its calls: how many, their sum, and that
            of their squares.
    """

    mode: Mode
    target: Hashable
    seconds: float
    ahead_s: float
    paused_s: float
    counts: dict[Hashable, int]
    invocations: int
    spent: dict[Hashable, float] = field(default_factory=dict)
    added_s: float = 0.0
    gaps: dict[Hashable, tuple[int, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """What twice as fast gains, as a fraction of the throughput.

    Attributes:
        gain: the most likely one.
        low: the least that chance leaves possible.
        high: the most.
    """

    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """What is known of one stage.

    Attributes:
        faster: the gain, by making it virtually faster; None if that is not known.
        slower: the most that it can gain, by making it slower; None if that is not known.
        pauses: whether its calls could be made slower; None if that was not tried enough.
        absorbs: whether its calls got shorter as it was made slower: they wait for each other
            inside, so what was added is none of their time; None if it was not made slower.
        steady: whether its calls end at a steady rate, whatever each of them takes.
        rate: the throughput while it was ahead, as a multiple of that of the run as it is; None
            if it never was.
        ahead: by which part of the time it was ahead.
        lost: which part of its throughput the run lost while the stage was slower.
        invocations: its calls in these windows.
    """

    faster: Gain | None
    slower: Gain | None
    pauses: bool | None
    absorbs: bool | None
    steady: bool
    rate: float | None
    ahead: float
    lost: float
    invocations: int

    @property
    def gain(self) -> Gain | None:
        """What it gains, all taken together.

        The time of a run is a convex function of a stage's time, as the largest of many sums: what
        does not get longer with a slower stage gets no shorter with a faster one. That holds for
        waits too that no experiment sees.
        """
        most = None if self.absorbs else self.slower
        # a rate limit and a lock with equal calls look alike, and only one of them gains
        if not self.pauses or (self.absorbs and self.steady):
            return None
        if self.faster is None or most is None:
            return self.faster or most
        if self.faster.low <= most.high:
            return self.faster
        return most


@dataclass
class Record:
    """All windows so far."""

    windows: list[Window] = field(default_factory=list)

    def of(self, mode: Mode, target: Hashable = None) -> list[Window]:
        """Return the windows in which this was done."""
        return [one for one in self.windows if one.mode == mode and one.target == target]

    def effects(self, targets: Sequence[Hashable]) -> dict[Hashable, Effect]:
        """Return what is known of each stage."""
        base = self.of("as it is")
        weights = _weights(base)
        usual = (*_rate(self._pairs(base, weights)), len(base))
        return {target: self._effect(target, weights, usual) for target in targets}

    def _effect(
        self, target: Hashable, weights: dict[Hashable, float], usual: tuple[float, float, int]
    ) -> Effect:
        rate, spread, count = usual
        # few windows may be alike by chance
        least = spread * math.sqrt(count)
        faster, slower = self.of("faster", target), self.of("slower", target)
        seconds, ahead_s = fsum(one.seconds for one in faster), fsum(w.ahead_s for w in faster)
        pairs = [(_progress(one, weights), one.seconds - one.ahead_s) for one in faster]
        found, error = _rate(pairs, least)
        ratio = found / rate if rate > 0 and faster else None
        gain = None
        if _enough(faster) and ratio:
            wide = WIDE * ratio * math.hypot(error, spread)
            gain = Gain(ratio - 1, ratio - 1 - wide, ratio - 1 + wide)
        return Effect(
            gain,
            self._slower(target, weights, usual),
            _paused(slower) if _enough(slower) else None,
            self._absorbs(target, slower),
            self._steady(target),
            ratio,
            ahead_s / seconds if seconds else 0.0,
            1 - _rate(self._pairs(slower, weights))[0] / rate if slower and rate > 0 else 0.0,
            sum(one.invocations for one in (*faster, *slower)),
        )

    def _slower(
        self, target: Hashable, weights: dict[Hashable, float], usual: tuple[float, float, int]
    ) -> Gain | None:
        """Return what a stage can gain at most, as far as the run got longer with it."""
        slower, (rate, spread, count) = self.of("slower", target), usual
        least = spread * math.sqrt(count)
        seconds, added_s = fsum(one.seconds for one in slower), fsum(w.ahead_s for w in slower)
        calls = sum(one.invocations for one in slower)
        if not _enough(slower) or rate <= 0 or not _paused(slower):
            return None
        found, error = _rate(self._pairs(slower, weights), least)
        # how long it would have taken as it is, and how much longer it took for each added second
        usual_s, wide = seconds * found / rate, WIDE * math.hypot(error, spread)
        most = (seconds - usual_s) / added_s
        low, high = (most + sign * wide * usual_s / added_s for sign in (-1, 1))
        # what half of a call is of what was added to it
        each_s = fsum(one.added_s * one.invocations for one in slower) / calls
        share = SAVED * self.mean_s(target) / each_s * added_s / usual_s
        gains = [_gained(share * min(1.0, max(0.0, part))) for part in (most, low, high)]
        return Gain(*gains)

    @staticmethod
    def _pairs(
        windows: Sequence[Window], weights: dict[Hashable, float]
    ) -> list[tuple[float, float]]:
        return [(_progress(one, weights), one.seconds) for one in windows]

    def _absorbs(self, target: Hashable, slower: Sequence[Window]) -> bool | None:
        calls = sum(one.invocations for one in slower)
        if not _enough(slower):
            return None
        each_s = fsum(one.added_s * one.invocations for one in slower) / calls
        shorter_s = self.mean_s(target) - fsum(w.spent.get(target, 0.0) for w in slower) / calls
        return shorter_s > ABSORBED * each_s

    def _steady(self, target: Hashable) -> bool:
        """Tell whether the calls of a stage end at equal distances."""
        found = [one.gaps[target] for one in self.of("as it is") if target in one.gaps]
        count, total_s = sum(each[0] for each in found), fsum(each[1] for each in found)
        if count < LEAST_CALLS or total_s <= 0:
            return False
        mean_s = total_s / count
        variance = fsum(each[2] for each in found) / count - mean_s * mean_s
        return math.sqrt(max(0.0, variance)) < STEADY * mean_s

    def mean_s(self, target: Hashable) -> float:
        """Return how long a call of a stage takes in a run as it is."""
        base = self.of("as it is")
        calls = sum(one.counts.get(target, 0) for one in base)
        return fsum(one.spent.get(target, 0.0) for one in base) / calls if calls else 0.0


def _enough(windows: Sequence[Window]) -> bool:
    calls = sum(one.invocations for one in windows)
    return len(windows) >= LEAST_WINDOWS and calls >= LEAST_CALLS


def _paused(windows: Sequence[Window]) -> bool:
    """Tell whether a stage could be made slower: it is not where our own code cannot pause."""
    added_s = fsum(one.ahead_s for one in windows)
    return added_s >= LEAST_ADDED * fsum(one.seconds for one in windows)


def _gained(saved: float) -> float:
    return saved / (1 - saved) if saved < 1 else math.inf


def _progress(window: Window, weights: dict[Hashable, float]) -> float:
    """Return how far a window got, in seconds of a run as it is."""
    return fsum(weights.get(stage, 0.0) * count for stage, count in window.counts.items())


def _rate(pairs: Sequence[tuple[float, float]], least: float = 0.0) -> tuple[float, float]:
    """Return a ratio of sums, and its relative standard error.

    Args:
        pairs: what is summed up, of each window.
        least: the relative standard deviation that one window has at least.
    """
    over = fsum(second for _, second in pairs)
    if over <= 0:
        return 0.0, math.inf
    rate, count = fsum(first for first, _ in pairs) / over, len(pairs)
    if count < 2 or rate <= 0:
        return rate, math.inf
    squares = fsum((first - rate * second) ** 2 for first, second in pairs)
    error = math.sqrt(squares * count / (count - 1)) / (over * rate)
    return rate, max(error, least / math.sqrt(count))


def _weights(base: Sequence[Window]) -> dict[Hashable, float]:
    """Return the seconds that a call of each stage stands for in a run as it is.

    Stages of a line go on together, so any of them tells the progress. Those of phases take turns:
    then each counts for its own phase. Least squares over the windows, none below 0, drawn to equal
    shares where the windows leave it open.
    """
    totals: dict[Hashable, int] = {}
    for one in base:
        for stage, count in one.counts.items():
            totals[stage] = totals.get(stage, 0) + count
    seconds = fsum(one.seconds for one in base)
    stages = [stage for stage, count in totals.items() if count]
    if not stages or seconds <= 0:
        return {}
    rows = [[seconds * one.counts.get(s, 0) / totals[s] for s in stages] for one in base]
    size = len(stages)
    parts = [1 / size] * size
    drawn = DRAWN * seconds * seconds / len(base)
    products = [[fsum(row[j] * row[k] for row in rows) for j in range(size)] for k in range(size)]
    left = [
        fsum(row[k] * one.seconds for row, one in zip(rows, base, strict=True)) + drawn / size
        for k in range(size)
    ]
    for _ in range(_ROUNDS):
        most = 0.0
        for k in range(size):
            done = fsum(p * x for p, x in zip(parts, products[k], strict=True)) + drawn * parts[k]
            step = max(-parts[k], (left[k] - done) / (products[k][k] + drawn))
            parts[k] += step
            most = max(most, abs(step))
        if most < _CLOSE:
            break
    return {s: part * seconds / totals[s] for s, part in zip(stages, parts, strict=True)}

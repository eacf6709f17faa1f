"""Find where a series of runs changed its level.

The test is the two-sample t test at every possible point, with Bonferroni's correction for
having looked at all of them: the likelihood ratio test for one shift in the mean of a normal
series at an unknown time (Hawkins, "Testing a sequence of observations for a shift in location",
Journal of the American Statistical Association 72, 1977; Worsley, "On the likelihood ratio test
for a shift in location of normal populations", ibid. 74, 1979, gives the bound).

A level that rose and fell again hides from a test of the whole series, so parts of it are tested
too: its halves, quarters and so on, each overlapping the next by half. The surest point parts the
series, and both sides are searched again (Kovács and others, "Seeded binary segmentation: a
general methodology for fast and optimal changepoint detection", Biometrika 110, 2023).

Runs have accidents, which a normal series has not. So a change must not hang on one run: it must
be found without the run that speaks for it most.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_pipeline_metrics.report.significance import normal_deviate

if TYPE_CHECKING:
    from collections.abc import Sequence


# runs before and after a change, at least
_MIN_RUNS: Final = 2


class ChangePoint(NamedTuple):
    """A point where the level changed."""

    # the first value of the new level
    at: int
    # the means before and after, between this change and its neighbours
    before: float
    after: float


def change_points(
    values: Sequence[float], *, level: float, floor: float, least: float
) -> list[ChangePoint]:
    """Return the points where a series changed, first to last.

    Args:
        values: the series.
        level: the chance that an unchanging series shows a change.
        floor: the smallest standard deviation that is believed; measuring has limits.
        least: the smallest change that matters.
    """
    found = sorted(_split(values, 0, level, floor, least))
    ends = [0, *found, len(values)]
    return [
        ChangePoint(at, fmean(values[start:at]), fmean(values[at:end]))
        for start, at, end in zip(ends, found, ends[2:], strict=False)
    ]


def _split(
    values: Sequence[float], offset: int, level: float, floor: float, least: float
) -> list[int]:
    surest, at = 0.0, None
    for start, end, share in _parts(len(values)):
        # both signs, and every place that could have been the surest
        chance = level * share / 2 / (end - start - 2 * _MIN_RUNS + 1)
        found = _largest(values[start:end], floor)
        if (
            found is not None
            and found[0] > surest
            and _is_change(values[start:end], found[1], chance, floor, least)
        ):
            surest, at = found[0], start + found[1]
    if at is None:
        return []
    return [
        *_split(values[:at], offset, level, floor, least),
        offset + at,
        *_split(values[at:], offset + at, level, floor, least),
    ]


def _parts(count: int) -> list[tuple[int, int, float]]:
    """Return the whole series, its halves, quarters and so on, which overlap by half.

    With each goes its share of the level: half of it for the whole series, the rest for the
    parts by their lengths.
    """
    found = []
    pieces = 1
    while (length := count / pieces) >= 2 * _MIN_RUNS:
        places = [round(index * length / 2) for index in range(2 * pieces + 1)]
        found += list(zip(places, places[2:], strict=False))
        pieces *= 2
    whole, parts = found[:1], [(s, e) for s, e in found[1:] if e - s >= 2 * _MIN_RUNS]
    total = 2 * sum(end - start for start, end in parts)
    return [
        *((start, end, 0.5 if parts else 1.0) for start, end in whole),
        *((start, end, (end - start) / total) for start, end in parts),
    ]


def _largest(values: Sequence[float], floor: float) -> tuple[float, int] | None:
    """Return the surest point and its normal deviate; None if there are too few values."""
    count = len(values)
    total, squares = sum(values), sum(value * value for value in values)
    best, found = -1.0, 0
    left = left_squares = 0.0
    for at in range(1, count - _MIN_RUNS + 1):
        left += values[at - 1]
        left_squares += values[at - 1] ** 2
        if at < _MIN_RUNS:
            continue
        right = total - left
        inside = left_squares - left**2 / at
        inside += squares - left_squares - right**2 / (count - at)
        t = _t(right / (count - at) - left / at, inside, at, count - at, floor)
        if abs(t) > best:
            best, found = abs(t), at
    return (normal_deviate(best, count - 2), found) if found else None


def _is_change(values: Sequence[float], at: int, chance: float, floor: float, least: float) -> bool:
    """Tell whether the shift at a point is rarer than `chance`, also without its best run."""
    before, after = list(values[:at]), list(values[at:])
    shift = fmean(after) - fmean(before)
    if abs(shift) < least or not _is_rarer(before, after, floor, chance):
        return False
    shorter, sign = (after, shift) if len(after) <= len(before) else (before, -shift)
    shorter.remove((max if sign > 0 else min)(shorter))
    return _is_rarer(before, after, floor, chance)


def _is_rarer(before: Sequence[float], after: Sequence[float], floor: float, chance: float) -> bool:
    freedom = len(before) + len(after) - 2
    if freedom < 1:
        return False
    middles = fmean(before), fmean(after)
    inside = sum((value - middles[0]) ** 2 for value in before)
    inside += sum((value - middles[1]) ** 2 for value in after)
    t = _t(middles[1] - middles[0], inside, len(before), len(after), floor)
    return math.erfc(normal_deviate(t, freedom) / math.sqrt(2)) / 2 < chance


def _t(shift: float, inside: float, first: int, second: int, floor: float) -> float:
    """Return Student's t of a shift; `inside` is the sum of squares within both sides."""
    deviation = max(math.sqrt(max(0.0, inside) / max(1, first + second - 2)), floor)
    return shift / (deviation * math.sqrt(1 / first + 1 / second))

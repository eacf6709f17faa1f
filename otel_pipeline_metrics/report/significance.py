"""How the durations of one stage differ between two runs, and whether chance may have done it."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from otel_pipeline_metrics._core.quantile_sketch import bucket_values
from otel_pipeline_metrics.report.flow import dig, number, whole

RESOLUTION: Final = 0.02
"""Two sketches of one per cent cannot tell a smaller shift."""

_SURE_Z: Final = 3.09
"""One chance in a thousand, on one side."""
_PAIRED: Final = 5.0
_MIN_PAIRED: Final = 16
_TRIM: Final = 0.05
_POINTS: Final = 400
_ZERO_S: Final = 1e-9


class Sample(NamedTuple):
    """The durations of one stage in one run."""

    calls: int
    mean: float
    variance: float | None
    values: list[float]
    """Some hundred of them at most, at even distances in rank; empty where unknown."""


class Shift(NamedTuple):
    """How two samples differ, in natural logarithms: 0.1 is about ten per cent slower."""

    typical: float
    """Of the mean without its slowest and quickest twentieth."""
    quick: float
    """Of the quicker half."""
    mean: float
    """Of the whole mean."""
    tail_z: float
    """The difference of the whole means in standard errors (Welch)."""
    yuen: tuple[float, float, float]
    """Yuen's: the shift of the trimmed means of the logarithms, its error, its freedom."""
    paired: tuple[float, float] | None
    """The mean of the shifts rank for rank, and their spread; None with too few calls."""

    @property
    def slower(self) -> float:
        """The part of a slowdown that shows in typical and in quick calls."""
        return min(self.typical, self.quick)

    @property
    def faster(self) -> float:
        """The same of a gain in speed: negative."""
        return max(self.typical, self.quick)

    def is_sure(self, drift: float = 0.0) -> bool:
        """Tell whether chance is no explanation for what the shift is beyond `drift`.

        Either the calls are taken as drawn at random: Yuen's test, which is Welch's on
        trimmed means, of the logarithms. Or both runs did the same work, as nightly runs do.
        Then rank for rank the same calls face each other and all have moved by about the same
        ratio: their mean shift is large against what the shifts differ by. Draws at random
        seldom look like that: by simulation (lognormal, exponential, uniform and bimodal
        durations, 16 to 300 calls) at most one time in 1,000, and by more than 10 %.
        """
        shift, error, freedom = self.yuen
        t = abs(shift - drift) / error
        # Wallace's approximation of Student's t by a normal deviate
        z = math.sqrt(freedom * math.log1p(t * t / freedom))
        if z * (8 * freedom + 1) / (8 * freedom + 3) >= _SURE_Z:
            return True
        if self.paired is None:
            return False
        middle, spread = self.paired
        return abs(middle - drift) / spread >= _PAIRED


def sample_of(stage: dict[str, Any]) -> Sample | None:
    """Return what a stage's entry tells of its durations; None if it took no time."""
    calls, total = whole(stage, "count"), number(stage, "duration_s", "total")
    if not calls or total is None or total <= 0:
        return None
    mean = total / calls
    squares = number(stage, "duration_s", "sum_of_squares")
    values = _even(dig(stage, "duration_s", "sketch"), calls)
    variance = None
    if squares is not None and calls > 1:
        variance = max(0.0, squares - calls * mean * mean) / (calls - 1)
    elif len(values) > 1:
        middle = sum(values) / len(values)
        variance = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
    return Sample(calls, mean, variance, values)


def _even(sketch: Any, calls: int) -> list[float]:
    """Return up to `_POINTS` values of a sketch, upwards, at even distances in rank."""
    buckets = bucket_values(sketch)
    if buckets is None:
        return []
    steps = [(_ZERO_S, whole(sketch, "zeros") or 0), *buckets]
    inside = sum(count for _, count in steps)
    points = min(calls, _POINTS)
    values: list[float] = []
    seen = 0
    for value, count in steps:
        seen += count
        while len(values) < points and (len(values) + 0.5) * inside <= seen * points:
            values.append(value)
    return values if inside else []


def shift_of(old: Sample, new: Sample, per_item: float) -> Shift | None:
    """Return the shift, plus `per_item`; None where nothing tells the spread.

    `per_item` is the logarithm of how many times fewer items a call has now.
    """
    if old.variance is None or new.variance is None or min(old.calls, new.calls) <= 1:
        return None
    mean = math.log(new.mean / old.mean) + per_item
    scale = math.exp(per_item)
    error = math.sqrt(old.variance / old.calls + new.variance * scale**2 / new.calls)
    tail_z = (new.mean * scale - old.mean) / error if error else math.inf
    if not old.values or not new.values:
        # sums alone: Welch's test of the means
        relative = max(error / old.mean, RESOLUTION / 4)
        freedom = float(min(old.calls, new.calls) - 1)
        return Shift(mean, mean, mean, tail_z, (mean, relative, freedom), None)
    points = min(len(old.values), len(new.values))
    first, second = _resampled(old.values, points), _resampled(new.values, points)
    cut = int(points * _TRIM)
    first, second = first[cut : points - cut], second[cut : points - cut]
    apart = [math.log(b / a) + per_item for a, b in zip(first, second, strict=True)]
    half = apart[: (len(apart) + 1) // 2]
    return Shift(
        typical=math.log(sum(second) / sum(first)) + per_item,
        quick=sum(half) / len(half),
        mean=mean,
        tail_z=tail_z,
        yuen=_yuen(old, new, per_item),
        paired=_ranked(apart) if min(old.calls, new.calls) >= _MIN_PAIRED else None,
    )


def _resampled(values: list[float], points: int) -> list[float]:
    """Return `points` values at even distances in rank."""
    if len(values) == points:
        return values
    return [values[int((index + 0.5) * len(values) / points)] for index in range(points)]


def _ranked(apart: list[float]) -> tuple[float, float]:
    middle = sum(apart) / len(apart)
    spread = math.sqrt(sum((one - middle) ** 2 for one in apart) / (len(apart) - 1))
    return middle, max(spread, RESOLUTION / 2)


def _yuen(old: Sample, new: Sample, per_item: float) -> tuple[float, float, float]:
    means, squares, weights = [], [], []
    for sample in (old, new):
        logs = [math.log(value) for value in sample.values]
        cut = int(len(logs) * _TRIM)
        kept = logs[cut : len(logs) - cut]
        means.append(sum(kept) / len(kept))
        winsorised = [min(max(value, kept[0]), kept[-1]) for value in logs]
        middle = sum(winsorised) / len(winsorised)
        variance = sum((value - middle) ** 2 for value in winsorised) / (len(winsorised) - 1)
        # within a bucket of the sketch values look alike
        variance = max(variance, (RESOLUTION / 4) ** 2)
        left = sample.calls - 2 * int(sample.calls * _TRIM)
        squares.append((sample.calls - 1) * variance / (left * (left - 1)))
        weights.append(left - 1)
    total = squares[0] + squares[1]
    freedom = total * total / sum(s * s / w for s, w in zip(squares, weights, strict=True))
    return means[1] - means[0] + per_item, math.sqrt(total), freedom

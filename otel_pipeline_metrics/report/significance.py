"""Measure how durations and rates differ between two runs, and whether by chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core.lookup import get_path, number, whole
from otel_pipeline_metrics._core.quantile_sketch import bucket_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# two sketches with a relative error of one per cent cannot show a smaller shift
RESOLUTION: Final = 0.02

# one chance in a thousand, on one side
SURE_Z: Final = 3.09
# a change that is there is found in 19 of 20 comparisons
_POWER_Z: Final = 1.645
# the same chance of the binomial distribution
_RATE_P: Final = 0.001
_PAIRED: Final = 5.0
_MIN_PAIRED: Final = 16
_TRIM: Final = 0.05
_POINTS: Final = 400
_ZERO_S: Final = 1e-9


class Sample(NamedTuple):
    """The durations of a stage in one run."""

    calls: int
    mean: float
    variance: float | None
    # at most `_POINTS` of them, at even distances in rank; empty if unknown
    values: list[float]


class Shift(NamedTuple):
    """The difference of two samples as a natural logarithm: 0.1 is about 10 % slower."""

    # of the mean without the slowest and the quickest twentieth of the calls
    typical: float
    # of the quicker half
    quick: float
    # of the whole mean
    mean: float
    # the difference of the whole means in standard errors (Welch)
    tail_z: float
    # Yuen's test: shift of the trimmed means of the logarithms, standard error, degrees of freedom
    yuen: tuple[float, float, float]
    # mean and spread of the shifts rank for rank; None with too few calls
    paired: tuple[float, float] | None

    @property
    def slower(self) -> float:
        """The slowdown that typical and quick calls both show."""
        return min(self.typical, self.quick)

    @property
    def faster(self) -> float:
        """The gain in speed that typical and quick calls both show; a gain is negative."""
        return max(self.typical, self.quick)

    def is_sure(self, drift: float = 0.0) -> bool:
        """Tell whether the shift beyond `drift` is more than chance.

        Two tests, of which one is enough. The first takes the calls as random draws: Yuen's
        test (Welch's on trimmed means) of the logarithms. The second is for runs that did the
        same work, such as nightly runs: rank for rank, the same calls face each other and have
        all moved by about the same ratio, so their mean shift is large against its spread.
        Random draws seldom look like that: in simulations (lognormal, exponential, uniform and
        bimodal durations, 16 to 300 calls) at most once in 1,000, and by more than 10 %.
        """
        shift, error, freedom = self.yuen
        if normal_deviate((shift - drift) / error, freedom) >= SURE_Z:
            return True
        if self.paired is None:
            return False
        middle, spread = self.paired
        return abs(middle - drift) / spread >= _PAIRED


def normal_deviate(t: float, freedom: float) -> float:
    """Return the normal deviate that is as rare as Student's t of either sign.

    The approximation of Wallace, "Bounds on normal approximations to Student's and the
    chi-square distributions", Annals of Mathematical Statistics 30(4), 1959.
    """
    z = math.sqrt(freedom * math.log1p(t * t / freedom))
    return z * (8 * freedom + 1) / (8 * freedom + 3)


def calls_to_tell(error: float, counts: tuple[int, int], limit: float) -> int:
    """Return how many calls in each run tell a shift of `limit` from chance.

    That many find it in 19 of 20 comparisons, at one false alarm in a thousand.

    Args:
        error: the standard error of the shift with the calls that there are.
        counts: those calls, of both runs.
        limit: the shift, a logarithm.
    """
    variance = error * error / (1 / counts[0] + 1 / counts[1])
    needed = 2 * variance * ((SURE_Z + _POWER_Z) / limit) ** 2
    # two digits: it is an estimate
    digit: int = 10 ** max(0, math.floor(math.log10(max(needed, 1.0))) - 1)
    return max(2, math.ceil(needed / digit) * digit)


def sample_of(stage: Mapping[str, Any]) -> Sample | None:
    """Return the durations in a stage's entry; None if it took no time."""
    calls, total = whole(stage, "count"), number(stage, "duration_s", "total")
    if not calls or total is None or total <= 0:
        return None
    mean = total / calls
    squares = number(stage, "duration_s", "sum_of_squares")
    values = _even(get_path(stage, "duration_s", "sketch"), calls)
    variance = None
    if squares is not None and calls > 1:
        variance = max(0.0, squares - calls * mean * mean) / (calls - 1)
    elif len(values) > 1:
        middle = sum(values) / len(values)
        variance = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
    return Sample(calls, mean, variance, values)


def _even(sketch: Any, calls: int) -> list[float]:
    """Return up to `_POINTS` values of a sketch, ascending, at even distances in rank."""
    buckets = bucket_values(sketch)
    if buckets is None:
        return []
    steps = [(_ZERO_S, whole(sketch, "zeros") or 0), *buckets]
    inside = sum(count for _, count in steps)
    points = min(calls, _POINTS) if inside else 0
    values: list[float] = []
    seen = 0
    for value, count in steps:
        seen += count
        while len(values) < points and (len(values) + 0.5) * inside <= seen * points:
            values.append(value)
    return values


def shift_of(old: Sample, new: Sample, per_item: float) -> Shift | None:
    """Return the shift plus `per_item`; None if the spread is unknown.

    `per_item` is the logarithm of old items per call over new items per call.
    """
    if old.variance is None or new.variance is None or min(old.calls, new.calls) <= 1:
        return None
    mean = math.log(new.mean / old.mean) + per_item
    scale = math.exp(per_item)
    error = math.sqrt(old.variance / old.calls + new.variance * scale**2 / new.calls)
    tail_z = (new.mean * scale - old.mean) / error if error else math.inf
    if not old.values or not new.values:
        # without sketches only sums are known: Welch's test of the means
        relative = max(error / old.mean, RESOLUTION / 4)
        freedom = float(min(old.calls, new.calls) - 1)
        return Shift(mean, mean, mean, tail_z, (mean, relative, freedom), None)
    points = min(len(old.values), len(new.values))
    first, second = _resampled(old.values, points), _resampled(new.values, points)
    cut = int(points * _TRIM)
    first, second = first[cut : points - cut], second[cut : points - cut]
    shifts = [math.log(b / a) + per_item for a, b in zip(first, second, strict=True)]
    half = shifts[: (len(shifts) + 1) // 2]
    return Shift(
        typical=math.log(sum(second) / sum(first)) + per_item,
        quick=sum(half) / len(half),
        mean=mean,
        tail_z=tail_z,
        yuen=_yuen(old, new, per_item),
        paired=_paired(shifts) if min(old.calls, new.calls) >= _MIN_PAIRED else None,
    )


def _resampled(values: list[float], points: int) -> list[float]:
    """Return `points` values at even distances in rank."""
    if len(values) == points:
        return values
    return [values[int((index + 0.5) * len(values) / points)] for index in range(points)]


def _paired(shifts: list[float]) -> tuple[float, float]:
    middle = sum(shifts) / len(shifts)
    spread = math.sqrt(sum((one - middle) ** 2 for one in shifts) / (len(shifts) - 1))
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
        # values within one bucket of the sketch look equal
        variance = max(variance, (RESOLUTION / 4) ** 2)
        left = sample.calls - 2 * int(sample.calls * _TRIM)
        squares.append((sample.calls - 1) * variance / (left * (left - 1)))
        weights.append(left - 1)
    total = squares[0] + squares[1]
    freedom = total * total / sum(s * s / w for s, w in zip(squares, weights, strict=True))
    return means[1] - means[0] + per_item, math.sqrt(total), freedom


def more_often(hits: Sequence[int], counts: Sequence[int]) -> bool:
    """Tell whether the second rate is higher by more than one chance in a thousand.

    Few hits are tested exactly, by the binomial distribution of all hits over both runs; many
    by the normal distribution.
    """
    total = sum(hits)
    part = counts[1] / sum(counts)
    if total <= 1000:  # the number of terms in the sum
        tail = sum(
            math.exp(
                math.lgamma(total + 1)
                - math.lgamma(k + 1)
                - math.lgamma(total - k + 1)
                + k * math.log(part)
                + (total - k) * math.log1p(-part)
            )
            for k in range(hits[1], total + 1)
        )
        return tail < _RATE_P
    overall = total / sum(counts)
    error = math.sqrt(overall * (1 / counts[0] + 1 / counts[1]))
    return bool(error) and (hits[1] / counts[1] - hits[0] / counts[0]) / error >= SURE_Z

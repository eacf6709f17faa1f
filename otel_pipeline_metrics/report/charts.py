"""Draw the page's durations: coordinates, within 100 by 100, and labels."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import get_path, number
from otel_pipeline_metrics._core.quantile_sketch import bucket_values

_BINS: Final = 72


class _LogScale(NamedTuple):
    """A logarithmic axis from 0 to 100."""

    low: float
    high: float

    def at(self, seconds: float) -> float:
        inside = min(max(seconds, self.low), self.high)
        return 100 * math.log(inside / self.low) / math.log(self.high / self.low)


def durations(stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the outlines of all stages' durations on one axis; None without any."""
    seen = [
        value
        for stage in stages
        for key in ("min", "max", "p50", "p99")
        if (value := number(stage, "duration_s", key)) is not None and value > 0
    ]
    if not seen:
        return None
    # at most nine powers of ten: one call of nearly no length must not squeeze the rest
    high = max(seen) * 1.1
    low = max(min(seen) / 1.1, high / 1e9)
    if high < 4 * low:  # nearly equal durations stand in the middle
        low, high = low / 2, high * 2
    scale = _LogScale(low, high)
    rows = []
    for stage in stages:
        marks = [
            (name, f"{scale.at(value):.2f}", text.duration(value))
            for name in ("p50", "p95", "p99")
            if (value := number(stage, "duration_s", name)) is not None
        ]
        shape = _outline(bucket_values(get_path(stage, "duration_s", "sketch")) or [], scale)
        quantiles = ", ".join(f"{name} {value}" for name, _, value in marks) or "not known"
        rows.append(
            {
                "name": stage["name"],
                "path": shape,
                "marks": marks,
                "text": f"Durations of {stage['name']}: {quantiles}",
            }
        )
    return {"rows": rows, "ticks": _decades(scale)}


def _outline(buckets: list[tuple[float, int]], scale: _LogScale) -> str | None:
    """Return the SVG path of a histogram, within 100 by 100; None without values."""
    bins = [0] * _BINS
    for seconds, count in buckets:
        bins[min(_BINS - 1, int(scale.at(seconds) / 100 * _BINS))] += count
    top = max(bins)
    if not top:
        return None
    steps = []
    for index, count in enumerate(bins):
        # the square root keeps one slow call visible beside thousands of quick ones
        y = 100 - 96 * math.sqrt(count / top)
        steps.append(f"V{y:.1f}H{100 * (index + 1) / _BINS:.2f}")
    return f"M0 100{''.join(steps)}V100Z"


def _decades(scale: _LogScale) -> list[tuple[str, str]]:
    """Return at most about seven labels of the axis as (place, text)."""
    first, last = math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high))
    step = max(1, math.ceil((last - first + 1) / 7))
    powers = [10.0**power for power in range(first, last + 1, step)]
    if len(powers) < 3:  # there is room for steps between the powers of ten
        powers = [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in (1, 2, 5)
            if scale.low <= factor * 10.0**power <= scale.high
        ]
    if len(powers) < 2:  # an axis needs two labels
        ends = scale.low * 1.1, scale.high / 1.1
        return [(f"{scale.at(value):.2f}", text.duration(value)) for value in ends]
    return [(f"{scale.at(value):.2f}", _power(value)) for value in powers]


def _power(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= factor * 0.999:
            return f"{round(seconds / factor):,} {unit}"
    return f"{seconds:.0e} s"

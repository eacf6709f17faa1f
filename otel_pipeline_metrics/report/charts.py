"""Compute the page's charts: coordinates, within 100 by 100, and labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import get_path, number, whole
from otel_pipeline_metrics._core.quantile_sketch import bucket_values
from otel_pipeline_metrics.report import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.report.run_report import RunReport


# --- durations ------------------------------------------------------------------------------

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


# --- resources ------------------------------------------------------------------------------


def resources(report: RunReport) -> dict[str, Any] | None:
    """Return the charts of CPU and memory over time; None if they were not sampled."""
    found = report.resources
    if not whole(found, "samples"):
        return None
    limits = get_path(found, "limits")
    cpus, memory = number(limits, "cpus"), number(limits, "memory_bytes")
    series = [row for row in get_path(found, "series") or [] if isinstance(row, list)]
    charts = [
        _chart("CPU", series, 1, number(found, "cpu_utilization", "peak"), _percent_axis),
        _chart("Memory (RSS)", series, 2, number(found, "rss_bytes", "peak"), _bytes_axis),
    ]
    available = [
        *([] if cpus is None else [f"{cpus:g} CPUs"]),
        *([] if memory is None else [f"{text.size(memory)} of memory"]),
    ]
    return {
        "charts": [chart for chart in charts if chart is not None],
        "rows": console.resource_table(report).rows,
        "samples": text.counted(whole(found, "samples") or 0, "sample"),
        "limits": f"{text.listed(available)}, as {get_path(limits, 'source')} says"
        if available
        else None,
    }


Axis = list[tuple[float, str]]


def _chart(
    title: str,
    series: list[list[Any]],
    column: int,
    peak: float | None,
    axis_of: Callable[[float], Axis],
) -> dict[str, Any] | None:
    """Return a line over time and both axes; None with fewer than two points."""
    points = [
        (float(row[0]), float(row[column]) if _is_number(row[column]) else None)
        for row in series
        if len(row) > column and _is_number(row[0])
    ]
    values = [value for _, value in points if value is not None]
    if len(values) < 2 or points[-1][0] <= points[0][0]:
        return None
    start, end = points[0][0], points[-1][0]
    ticks = axis_of(max(values))
    top = ticks[-1][0]
    segments: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:  # an unknown value makes a gap in the line
            segments.append([])
        else:
            segments[-1].append((100 * (at - start) / (end - start), 100 - 100 * value / top))
    drawn = [segment for segment in segments if segment]
    lines = [" ".join(f"{x:.2f},{y:.2f}" for x, y in segment) for segment in drawn]
    areas = [
        f"{segment[0][0]:.2f},100 {line} {segment[-1][0]:.2f},100"
        for segment, line in zip(drawn, lines, strict=True)
    ]
    in_words = text.percent if axis_of is _percent_axis else text.size
    return {
        "title": title,
        "lines": lines,
        "areas": areas,
        "y": [(f"{100 - 100 * value / top:.2f}", label) for value, label in ticks],
        "x": [
            (f"{100 * (value - start) / (end - start):.2f}", label)
            for value, label in _time_axis(start, end)
        ],
        "text": (
            f"{title} over {text.duration(end - start)}: from {in_words(min(values))} to "
            f"{in_words(max(values if peak is None else [*values, peak]))}; "
            f"the axis ends at {ticks[-1][1]}"
        ),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _nice_step(span: float, parts: int) -> float:
    """Return the step, 1, 2 or 5 times a power of ten, that gives about `parts` parts."""
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _percent_axis(top: float) -> Axis:
    return _axis(top, 0.01, 0.01, "%")


def _bytes_axis(top: float) -> Axis:
    units = [(1024.0**power, name) for power, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))]
    unit, name = next((one for one in reversed(units) if top >= one[0]), units[0])
    return _axis(top, 1.0, unit, name)


def _axis(top: float, least: float, unit: float, name: str) -> Axis:
    """Return about four steps from 0 to `top`, or to `least` if that is larger."""
    step = _nice_step(max(top, least) / unit, 4)
    count = max(1, math.ceil(top / unit / step - 1e-9))
    return [(step * n * unit, f"{step * n:g}\u00a0{name}") for n in range(count + 1)]


def _time_axis(start: float, end: float) -> Axis:
    span = end - start
    units = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    unit, name = next(((u, n) for u, n in units if span >= 2 * u), units[-1])
    step = _nice_step(span / unit, 5)
    count = math.floor(span / unit / step + 1e-9)
    return [(start + step * n * unit, f"{step * n:g}\u00a0{name}") for n in range(count + 1)]

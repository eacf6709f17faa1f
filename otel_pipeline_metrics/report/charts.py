"""What the HTML page draws: coordinates, within 100 by 100, of durations and resources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core.quantile_sketch import bucket_values
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import dig, number, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.report.run_report import RunReport


# --- durations ------------------------------------------------------------------------------

_BINS: Final = 72


class _LogScale(NamedTuple):
    """Seconds to 0..100 on a logarithmic axis."""

    low: float
    high: float

    def at(self, seconds: float) -> float:
        inside = min(max(seconds, self.low), self.high)
        return 100 * math.log(inside / self.low) / math.log(self.high / self.low)


def durations(stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return, for each stage, the outline of its durations on one shared axis."""
    seen = [
        value
        for stage in stages
        for key in ("min", "max", "p50", "p99")
        if (value := number(stage, "duration_s", key)) is not None and value > 0
    ]
    if not seen:
        return None
    # no more than nine powers of ten: a single zero-length call must not squeeze the rest
    high = max(seen) * 1.1
    low = max(min(seen) / 1.1, high / 1e9)
    if high < 4 * low:  # durations that hardly differ stand in the middle
        low, high = low / 2, high * 2
    scale = _LogScale(low, high)
    rows = []
    for stage in stages:
        marks = [
            (name, f"{scale.at(value):.2f}", console.seconds(value))
            for name in ("p50", "p95", "p99")
            if (value := number(stage, "duration_s", name)) is not None
        ]
        shape = _outline(bucket_values(dig(stage, "duration_s", "sketch")) or [], scale)
        said = ", ".join(f"{name} {text}" for name, _, text in marks) or "not known"
        rows.append(
            {
                "name": stage["name"],
                "path": shape,
                "marks": marks,
                "text": f"Durations of {stage['name']}: {said}",
            }
        )
    return {"rows": rows, "ticks": _decades(scale)}


def _outline(buckets: list[tuple[float, int]], scale: _LogScale) -> str | None:
    """Return an SVG path, 100 by 100, of how the durations are spread."""
    bins = [0] * _BINS
    for seconds, count in buckets:
        bins[min(_BINS - 1, int(scale.at(seconds) / 100 * _BINS))] += count
    top = max(bins)
    if not top:
        return None
    steps = []
    for index, count in enumerate(bins):
        # the root keeps a rare slow call visible beside thousands of quick ones
        y = 100 - 96 * math.sqrt(count / top)
        steps.append(f"V{y:.1f}H{100 * (index + 1) / _BINS:.2f}")
    return f"M0 100{''.join(steps)}V100Z"


def _decades(scale: _LogScale) -> list[tuple[str, str]]:
    """Return the axis' labels with their places; at most about seven."""
    first, last = math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high))
    step = max(1, math.ceil((last - first + 1) / 7))
    powers = [10.0**power for power in range(first, last + 1, step)]
    if len(powers) < 3:  # within two powers of ten there is room for more
        powers = [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in (1, 2, 5)
            if scale.low <= factor * 10.0**power <= scale.high
        ]
    if len(powers) < 2:  # an axis needs two labels
        ends = scale.low * 1.1, scale.high / 1.1
        return [(f"{scale.at(value):.2f}", console.seconds(value)) for value in ends]
    return [(f"{scale.at(value):.2f}", _power(value)) for value in powers]


def _power(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= factor * 0.999:
            return f"{round(seconds / factor):,} {unit}"
    return f"{seconds:.0e} s"


# --- resources ------------------------------------------------------------------------------


def resources(report: RunReport) -> dict[str, Any] | None:
    """Return the charts of CPU and memory over time; None where nobody looked."""
    found = report.resources
    if not whole(found, "samples"):
        return None
    limits = dig(found, "limits")
    cpus, memory = number(limits, "cpus"), number(limits, "memory_bytes")
    series = [row for row in dig(found, "series") or [] if isinstance(row, list)]
    charts = [
        _chart("CPU", series, 1, number(found, "cpu_utilization", "peak"), _percent_axis),
        _chart("Memory (RSS)", series, 2, number(found, "rss_bytes", "peak"), _bytes_axis),
    ]
    host = [
        f"{cpus:g} CPUs" if cpus is not None else "",
        f"{console.size(memory)} of memory" if memory is not None else "",
    ]
    said = " and ".join(filter(None, host))
    return {
        "charts": [chart for chart in charts if chart is not None],
        "rows": console.resource_rows(found),
        "samples": console.counted(whole(found, "samples") or 0, "sample"),
        "limits": f"{said}, as {dig(limits, 'source')} says" if said else None,
    }


Axis = list[tuple[float, str]]


def _chart(
    title: str,
    series: list[list[Any]],
    column: int,
    peak: float | None,
    axis_of: Callable[[float], Axis],
) -> dict[str, Any] | None:
    """Return a line over time: its path within 100 by 100, and both axes."""
    points = [
        (float(row[0]), float(row[column]) if _is_number(row[column]) else None)
        for row in series
        if len(row) > column and _is_number(row[0])
    ]
    values = [value for _, value in points if value is not None]
    if len(values) < 2:  # one point is no line
        return None
    start, end = points[0][0], points[-1][0]
    if end <= start:
        return None
    ticks = axis_of(max(values))
    top = ticks[-1][0]
    segments: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:  # unknown: the line has a gap there
            segments.append([])
        else:
            segments[-1].append((100 * (at - start) / (end - start), 100 - 100 * value / top))
    drawn = [segment for segment in segments if segment]
    lines = [" ".join(f"{x:.2f},{y:.2f}" for x, y in segment) for segment in drawn]
    areas = [
        f"{segment[0][0]:.2f},100 {line} {segment[-1][0]:.2f},100"
        for segment, line in zip(drawn, lines, strict=True)
    ]
    text = _in_words(axis_of)
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
            f"{title} over {console.seconds(end - start)}: from {text(min(values))} to "
            f"{text(max(values if peak is None else [*values, peak]))}; "
            f"the axis ends at {ticks[-1][1]}"
        ),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_words(axis_of: Callable[[float], Axis]) -> Callable[[float], str]:
    """Return what writes a value of an axis in words."""
    return console.percent if axis_of is _percent_axis else console.size


def _nice_step(span: float, parts: int) -> float:
    """Return the step of 1, 2 or 5 times a power of ten that gives about `parts` parts."""
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _percent_axis(top: float) -> Axis:
    step = _nice_step(max(top, 0.01), 4)
    count = max(1, math.ceil(top / step - 1e-9))
    return [(step * n, f"{step * n * 100:.3g}\u00a0%") for n in range(count + 1)]


def _bytes_axis(top: float) -> Axis:
    unit, name = 1.0, "B"
    for following in ("KiB", "MiB", "GiB", "TiB"):
        if top < unit * 1024:
            break
        unit, name = unit * 1024, following
    step = _nice_step(max(top, 1.0) / unit, 4)
    count = max(1, math.ceil(top / unit / step - 1e-9))
    return [(step * n * unit, f"{step * n:g}\u00a0{name}") for n in range(count + 1)]


def _time_axis(start: float, end: float) -> Axis:
    span = end - start
    units = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    unit, name = next(((u, n) for u, n in units if span >= 2 * u), units[-1])
    step = _nice_step(span / unit, 5)
    count = math.floor(span / unit / step + 1e-9)
    return [(start + step * n * unit, f"{step * n:g}\u00a0{name}") for n in range(count + 1)]

"""The report as one HTML page that needs nothing beside itself: no network, no script.

Here the report becomes texts and coordinates; `_page/` lays them out. The template escapes
every string (jinja2's autoescape), and the page's own policy forbids scripts and connections.
"""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report._flow import (
    dig,
    error_total,
    finished,
    in_order,
    names,
    number,
    queues_after,
    queues_in_order,
    verdict,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report._report import RunReport

STATES: Final = ("busy", "idle", "blocked")

_RESULTS: Final = {
    "success": ("good", "✓"),
    "failure": ("bad", "✕"),
    "timeout": ("bad", "✕"),
    "cancellation": ("warn", "■"),
}


def render(report: RunReport) -> str:
    """Return the page.

    Raises:
        ImportError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'render("html") needs jinja2: pip install "otel-pipeline-metrics[cli]"'
        ) from error
    folder = resources.files("otel_pipeline_metrics.report") / "_page"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    return template.render(
        style=_Trusted((folder / "page.css").read_text("utf-8")),
        data=_Trusted(embeddable(report)),
        **_view(report),
    )


class _Trusted(str):
    """Text of our own making that goes into the page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def embeddable(report: RunReport) -> str:
    """Return the JSON so that no string in it can end the element that it stands in."""
    text = json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _view(report: RunReport) -> dict[str, Any]:
    """Return everything that the template shows."""
    ordered = in_order(report)
    after = queues_after(report, ordered)
    found = verdict(report)
    flow: list[dict[str, Any]] = [_queue_step(queue) for queue in after.get(-1, [])]
    for index, stage in enumerate(ordered):
        flow.append(_stage_step(stage, str(stage["name"]) in found.stages))
        flow += [_queue_step(queue) for queue in after.get(index, [])]
    return {
        "head": _head(report),
        # a number stays on one line with its unit
        "verdict": found._replace(headline=found.headline.replace(" %", "\u00a0%")),
        "flow": flow,
        "stated": any(step["is"] == "stage" and step["bar"] for step in flow),
        "durations": _durations(ordered),
        "stages": [_stage_row(stage) for stage in ordered],
        "queues": [_queue_row(queue) for queue in queues_in_order(report)],
        "resources": _resources(report),
        "caches": [_cache_row(cache) for cache in report.caches],
        "errors": _errors(ordered),
        "telemetry": _telemetry(report),
    }


# --- the head -------------------------------------------------------------------------------


def _head(report: RunReport) -> dict[str, Any]:
    run = report.run
    result = run.get("result")
    tone, sign = _RESULTS.get(str(result), ("warn", "…"))
    items, total = finished(report), whole(run, "total")
    merged = names(run, "merged_from")
    facts = [
        ("Duration", console.seconds(number(run, "wall_s")), False),
        ("Started", _instant(run.get("started")), False),
        ("Items", _of_total(items, total), False),
        ("Errors", f"{error_total(report):,}", False),
        ("Trace", run.get("trace_id"), True),
        ("Run", run.get("id"), True),
        ("Merged from", f"{len(merged):,} runs" if merged else None, False),
    ]
    return {
        "pipeline": run.get("pipeline"),
        "result": result or "in progress",
        "tone": tone,
        "sign": sign,
        "error_type": run.get("error_type"),
        "partial": bool(run.get("partial")),
        "facts": [fact for fact in facts if fact[1] not in {None, console.UNKNOWN}],
    }


def _of_total(items: int | None, total: int | None) -> str | None:
    if items is None:
        return None
    return f"{items:,}" if total is None else f"{items:,} of {total:,}"


def _instant(started: object) -> str | None:
    """Return an ISO instant without the fractions that nobody reads."""
    if not isinstance(started, str):
        return None
    date, _, time = started.partition("T")
    clock, _, rest = time.partition(".")
    if not rest:
        return started.replace("T", " ").replace("+00:00", " UTC")
    offset = rest.lstrip("0123456789")
    return f"{date} {clock}{' UTC' if offset in {'+00:00', 'Z'} else offset}"


# --- the flow -------------------------------------------------------------------------------


def _stage_step(stage: dict[str, Any], marked: bool) -> dict[str, Any]:
    workers = whole(stage, "workers")
    per_s, unit = _rate(stage)
    errors = whole(stage, "errors", "total") or 0
    shares = [(state, number(stage, "share", state)) for state in STATES]
    figures = [
        (f"{console.rate(per_s)}", f"{unit} per second"),
        (console.seconds(number(stage, "duration_s", "p50")), "median duration"),
        (console.count(whole(stage, "count")), "invocations"),
    ]
    return {
        "is": "stage",
        "name": stage["name"],
        "kind": stage.get("kind"),
        "workers": None if workers is None else console.counted(workers, "worker"),
        "marked": marked,
        "errors": console.counted(errors, "error") if errors else None,
        "bar": _bar(shares),
        "figures": figures,
    }


def _rate(stage: dict[str, Any]) -> tuple[float | None, str]:
    items = number(stage, "throughput", "items_per_s")
    if items is not None:
        return items, "items"
    return number(stage, "throughput", "wall_per_s"), "invocations"


def _bar(shares: Sequence[tuple[str, float | None]]) -> dict[str, Any] | None:
    """Return the parts of a stacked bar and what they say in words; None if unknown."""
    known = [(state, share) for state, share in shares if share is not None]
    if len(known) < len(shares):
        return None
    total = max(1.0, sum(share for _, share in known))
    return {
        "parts": [(state, f"{100 * share / total:.2f}", _percent(share)) for state, share in known],
        "text": ", ".join(f"{state} {_percent(share)}" for state, share in known),
    }


def _percent(share: float | None) -> str:
    return console.UNKNOWN if share is None else f"{share * 100:.0f}\u00a0%"


def _queue_step(queue: dict[str, Any]) -> dict[str, Any]:
    average, peak = number(queue, "depth_avg"), number(queue, "depth_peak")
    capacity = whole(queue, "capacity")
    top = capacity or peak
    said = [
        f"holds {console.depth(average)} on average" if average is not None else "",
        f"{console.depth(peak)} at most" if peak is not None else "",
        f"room for {capacity:,}" if capacity is not None else "unbounded",
    ]
    waited = number(queue, "wait_s", "p50")
    return {
        "is": "queue",
        "name": queue["name"],
        "ways": _ways(names(queue, "producers"), names(queue, "consumers")),
        "depth": ", ".join(filter(None, said)),
        "wait": f"{console.seconds(waited)} median wait" if waited is not None else None,
        "fill": f"{100 * min(1.0, average / top):.1f}" if average is not None and top else None,
    }


def _ways(producers: list[str], consumers: list[str]) -> str | None:
    """Say who feeds whom where the order of the page does not."""
    if len(producers) <= 1 and len(consumers) <= 1:
        return None
    return f"from {', '.join(producers) or 'outside'} to {', '.join(consumers) or 'outside'}"


# --- durations ------------------------------------------------------------------------------

_BINS: Final = 72


class _LogScale(NamedTuple):
    """Seconds to 0..100 on a logarithmic axis."""

    low: float
    high: float

    def at(self, seconds: float) -> float:
        inside = min(max(seconds, self.low), self.high)
        return 100 * math.log(inside / self.low) / math.log(self.high / self.low)


def _durations(stages: list[dict[str, Any]]) -> dict[str, Any] | None:
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
        shape = _outline(_buckets(dig(stage, "duration_s", "sketch")), scale)
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


def _buckets(sketch: Any) -> list[tuple[float, int]]:
    """Return a sketch's buckets as (seconds, count), upwards."""
    error, buckets = number(sketch, "rel_error"), dig(sketch, "buckets")
    if error is None or not 0 < error < 1 or not isinstance(buckets, dict):
        return []
    gamma = (1 + error) / (1 - error)
    found = []
    for index, count in buckets.items():
        try:
            found.append((2 * gamma ** int(index) / (gamma + 1), int(count)))
        except (ValueError, TypeError, OverflowError):
            return []
    return sorted(found)


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
    if len(powers) < 3:  # noqa: PLR2004 - within two powers of ten there is room for more
        powers = [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in (1, 2, 5)
            if scale.low <= factor * 10.0**power <= scale.high
        ]
    if len(powers) < 2:  # noqa: PLR2004 - an axis needs two labels
        ends = scale.low * 1.1, scale.high / 1.1
        return [(f"{scale.at(value):.2f}", console.seconds(value)) for value in ends]
    return [(f"{scale.at(value):.2f}", _power(value)) for value in powers]


def _power(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= factor * 0.999:
            return f"{round(seconds / factor):,} {unit}"
    return f"{seconds:.0e} s"


# --- tables ---------------------------------------------------------------------------------


def _stage_row(stage: dict[str, Any]) -> list[str]:
    return [
        str(stage["name"]),
        console.count(whole(stage, "count")),
        *(
            console.seconds(number(stage, "duration_s", key))
            for key in ("p50", "p95", "p99", "total", "avg", "min", "max")
        ),
        console.count(whole(stage, "items", "in")),
        console.count(whole(stage, "items", "out")),
        console.count(whole(stage, "retries")),
    ]


def _queue_row(queue: dict[str, Any]) -> list[str]:
    return [
        str(queue["name"]),
        console.count(whole(queue, "got")),
        console.depth(number(queue, "depth_avg")),
        console.depth(number(queue, "depth_peak")),
        console.capacity(queue),
        *(console.seconds(number(queue, "wait_s", key)) for key in ("p50", "p95", "p99", "max")),
        console.seconds(number(queue, "put_blocked_s")),
        console.seconds(number(queue, "get_waited_s")),
    ]


def _cache_row(cache: dict[str, Any]) -> dict[str, Any]:
    ratio = number(cache, "hit_ratio")
    return {
        "cells": [*console.cache_row(cache), console.size(number(cache, "size_bytes"))],
        "fill": None if ratio is None else f"{100 * min(1.0, max(0.0, ratio)):.1f}",
    }


def _errors(stages: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return (stage, how often, per cent of its invocations, error type)."""
    rows = []
    for stage in stages:
        invocations = whole(stage, "count")
        for kind, count in (dig(stage, "errors", "by_type") or {}).items():
            part = count / invocations if invocations else None
            rows.append((str(stage["name"]), f"{count:,}", console.percent(part), str(kind)))
    return rows


def _telemetry(report: RunReport) -> list[tuple[str, str]]:
    found = report.telemetry
    facts = [
        (f"{what} {key.replace('_', ' ')}", console.count(whole(found, part, key)))
        for what, part in (("Spans", "spans"), ("Metric points", "metric_points"))
        for key in ("created", "exported", "sampled_out", "dropped", "spooled", "pending")
    ]
    collector = dig(found, "collector")
    facts.append(("Collector", str(collector) if collector else console.UNKNOWN))
    facts.append(("Flush at the end", console.seconds(number(found, "flush_s"))))
    return [fact for fact in facts if fact[1] != console.UNKNOWN]


# --- resources ------------------------------------------------------------------------------


def _resources(report: RunReport) -> dict[str, Any] | None:
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
    if len(values) < 2:  # noqa: PLR2004 - one point is no line
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

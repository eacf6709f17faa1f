"""Turn a report's windows into strips over time: coordinates within 100 by 100, and words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, number, whole
from otel_pipeline_metrics.report.console import SPLIT, UNSPLIT
from otel_pipeline_metrics.report.flow import queues_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


# rows of stages and of queues: the first ones of the flow
MOST_ROWS: Final = 30

# a stage is the busiest one only if it leads by this much, for so much of the run
_LEAD: Final = 0.05
_LASTS: Final = 0.08


class _Window(NamedTuple):
    """A window's place on the axis, its length and its data."""

    left: float
    right: float
    seconds: float
    data: Mapping[str, Any]


def timeline(report: RunReport, ordered: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the strips of a run in at least two windows; None without them.

    Args:
        report: of the run.
        ordered: its stages in the order of the flow.
    """
    windows = _windows(report)
    if len(windows) < 2:
        return None
    end = number(windows[-1].data, "end_s") or 0.0
    queues = queues_in_order(report)
    stage_rows = [_stage(stage, windows) for stage in ordered[:MOST_ROWS]]
    queue_rows = [_queue(queue, windows) for queue in queues[:MOST_ROWS]]
    rows = [row for row in [*stage_rows, *queue_rows, *_process(windows)] if row is not None]
    more = [
        f"the first {MOST_ROWS} of {len(found):,} {noun}"
        for found, noun in ((ordered, "stages"), (queues, "queues"))
        if len(found) > MOST_ROWS
    ]
    seen = {state for row in rows for state, _ in row["bands"]}
    states = UNSPLIT if "busy" in seen else SPLIT
    return {
        "rows": rows,
        "states": [state for state in states if state in seen],
        "ticks": _time_axis(end),
        "phases": _phases(windows, end),
        "window": text.duration(end / len(windows)),
        "more": f"Shown: {text.listed(more)}." if more else None,
    }


def _windows(report: RunReport) -> list[_Window]:
    found = [
        (begin, end, window)
        for window in report.windows
        if (begin := number(window, "start_s")) is not None
        and (end := number(window, "end_s")) is not None
        and 0 <= begin < end
    ]
    # the last one may be so short that a single call makes a rate of thousands a second
    if len(found) > 2 and found[-1][1] - found[-1][0] < 0.3 * (found[-2][1] - found[-2][0]):
        found.pop()
    last = max((end for _, end, _ in found), default=0.0)
    return [_Window(100 * a / last, 100 * b / last, b - a, data) for a, b, data in found]


# --- rows -----------------------------------------------------------------------------------


def _stage(stage: dict[str, Any], windows: Sequence[_Window]) -> dict[str, Any] | None:
    found = [_entry(window.data, "stages", stage) for window in windows]
    counts_items = any(number(one, "items") for one in found)
    unit = "items" if counts_items else "calls"
    rates = [number(one, f"{unit}_per_s") for one in found]
    strip = _strip(windows, rates)
    if strip is None:
        return None
    peak = f"{text.number(max(filter(None, rates), default=0.0))} {unit}/s"
    return _row("stage", stage["name"], f"up to {peak}", strip, _bands(windows, found))


def _queue(queue: dict[str, Any], windows: Sequence[_Window]) -> dict[str, Any] | None:
    depths = [number(_entry(window.data, "queues", queue), "depth") for window in windows]
    known = [depth for depth in depths if depth is not None]
    capacity = whole(queue, "capacity")
    strip = _strip(windows, depths, max([*known, capacity or 0]))
    if strip is None:
        return None
    note = f"up to {text.number(max(known))}"
    note += f", room for {capacity:,}" if capacity is not None else ""
    return {
        **_row("queue", queue["name"], note, strip, []),
        "text": f"Depth of {queue['name']} over time: {note}",
    }


def _process(windows: Sequence[_Window]) -> list[dict[str, Any] | None]:
    return [
        _level("CPU", "cpu_utilization", windows, text.percent),
        _level("Memory (RSS)", "rss_bytes", windows, text.size),
    ]


def _level(
    name: str, key: str, windows: Sequence[_Window], written: Callable[[float | None], str]
) -> dict[str, Any] | None:
    values = [number(window.data, key) for window in windows]
    strip = _strip(windows, values)
    if strip is None:
        return None
    note = f"up to {written(max(value for value in values if value is not None))}"
    return _row("process", name, note, strip, [])


def _row(kind: str, name: str, note: str, area: Any, bands: list[Any]) -> dict[str, Any]:
    return {
        "is": kind,
        "name": name,
        "note": note,
        "area": area,
        "bands": bands,
        "text": f"{name} over time: {note}",
    }


def _entry(window: Mapping[str, Any], part: str, of: Mapping[str, Any]) -> dict[str, Any] | None:
    for one in entries(window, part):
        if one.get("name") == of["name"] and one.get("kind") == of.get("kind", one.get("kind")):
            return one
    return None


# --- who was busiest ------------------------------------------------------------------------


def _phases(windows: Sequence[_Window], end: float) -> list[dict[str, str]]:
    """Return which stage was the busiest, and when that changed; none if it never did."""
    phases: list[list[Any]] = []
    for window, name in zip(windows, _busiest(windows), strict=False):
        if name is None:
            continue
        if phases and phases[-1][0] == name:
            phases[-1][2] = window.right
        else:
            phases.append([name, phases[-1][2] if phases else 0.0, window.right])
    lasting: list[list[Any]] = []
    for name, left, right in phases:
        if lasting and (lasting[-1][0] == name or right - left < 100 * _LASTS):
            lasting[-1][2] = right
        else:
            lasting.append([name, left, right])
    if len(lasting) < 2:
        return []
    return [
        {
            "name": name,
            "left": f"{left:.2f}",
            "width": f"{right - left:.2f}",
            "from": text.duration(left * end / 100),
        }
        for name, left, right in lasting
    ]


def _busiest(windows: Sequence[_Window]) -> list[str | None]:
    """Return the stage of each window that was busy for the largest part; None of equals.

    Without known waits this says something only of stages that take turns.
    """
    names: list[str | None] = []
    waits = any(
        number(one, "time_s", state)
        for window in windows
        for one in entries(window.data, "stages")
        for state in ("idle", "blocked")
    )
    for window in windows:
        shares = []
        for one in entries(window.data, "stages"):
            busy = number(one, "time_s", "busy") or 0.0
            spent = sum(number(one, "time_s", state) or 0.0 for state in UNSPLIT)
            shares.append((busy / max(spent, window.seconds), str(one.get("name"))))
        shares.sort(reverse=True)
        if not waits and sum(share for share, _ in shares) > 1.02:
            return []
        second = shares[1][0] if len(shares) > 1 else 0.0
        names.append(shares[0][1] if shares and shares[0][0] > second + _LEAD else None)
    return names


# --- shapes ---------------------------------------------------------------------------------


def _strip(
    windows: Sequence[_Window], values: Sequence[float | None], top: float = 0.0
) -> str | None:
    """Return the SVG path of steps, with a gap where a value is unknown; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    top = max(top, *known) or 1.0
    steps = []
    for window, value in zip(windows, values, strict=True):
        if value is not None:
            height = 100 - 96 * max(0.0, value) / top
            steps.append(f"M{window.left:.2f} 100V{height:.1f}H{window.right:.2f}V100Z")
    return "".join(steps)


def _bands(
    windows: Sequence[_Window], found: Sequence[dict[str, Any] | None]
) -> list[tuple[str, str]]:
    """Return the states that a stage was in, each with a CSS polygon: the part of each window.

    A column is as high as the time of the stage's workers, or as the window if that is longer.
    """
    spent = [number(one, "time_s", "busy") or 0.0 for one in found]
    split = all(
        number(one, "time_s", "running") is not None
        for one, busy in zip(found, spent, strict=True)
        if busy
    )
    states = SPLIT if split else UNSPLIT
    if not any(number(one, "time_s", state) for one in found for state in states):
        return []
    heights = [0.0] * len(windows)
    bands = []
    for state in states:
        below = list(heights)
        for index, (window, one) in enumerate(zip(windows, found, strict=True)):
            whole_s = sum(number(one, "time_s", each) or 0.0 for each in states)
            part = (number(one, "time_s", state) or 0.0) / max(whole_s, window.seconds)
            heights[index] += 100 * part
        if heights != below:
            bands.append((state, _polygon(windows, below, heights)))
    return bands


def _polygon(windows: Sequence[_Window], low: Sequence[float], high: Sequence[float]) -> str:
    sides = [*zip(windows, high, strict=True)], [*zip(windows, low, strict=True)]
    points = [(x, y) for window, y in sides[0] for x in (window.left, window.right)]
    points += [(x, y) for window, y in reversed(sides[1]) for x in (window.right, window.left)]
    return ",".join(f"{x:.2f}% {100 - min(100.0, y):.1f}%" for x, y in points)


def _time_axis(end: float) -> list[tuple[str, str]]:
    """Return the labels of the axis from 0 to `end` seconds, as (place, text)."""
    units = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    unit, name = next(((u, n) for u, n in units if end >= 2 * u), units[-1])
    rough = end / unit / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    count = math.floor(end / unit / step + 1e-9)
    return [
        (f"{100 * step * n * unit / end:.2f}", f"{step * n:g}\u00a0{name}")
        for n in range(count + 1)
    ]

"""Render a report as one self-contained HTML page, without network and scripts.

This file turns the report into texts and coordinates; `_page/` lays them out. The template
escapes every string (jinja2's autoescape), and the page's policy forbids scripts and connections.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import get_path, get_strings, number, ratio, whole
from otel_pipeline_metrics.report import charts, console, slowest
from otel_pipeline_metrics.report.flow import (
    error_total,
    in_turn,
    items_completed,
    queues_after,
    queues_in_order,
    stages_in_flow_order,
    trace_link,
    verdict,
)
from otel_pipeline_metrics.report.merge_runs import runs_in
from otel_pipeline_metrics.report.page import fragment, page
from otel_pipeline_metrics.report.tables import Table
from otel_pipeline_metrics.report.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


_RESULTS: Final = {
    "success": ("good", "✓"),
    "failure": ("bad", "✕"),
    "timeout": ("bad", "✕"),
    "cancellation": ("warn", "■"),
}


def render(report: RunReport) -> str:
    """Return the page as text.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return page("page.html.jinja", report.to_dict(), **_view(report, ""))


def notebook(report: RunReport) -> str:
    """Return the same for the output of a notebook's cell: its style reaches nothing else there.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return fragment("notebook.html.jinja", **_view(report, f"opm-{os.urandom(4).hex()}-"))


def _view(report: RunReport, prefix: str) -> dict[str, Any]:
    """Return everything that the template shows.

    Args:
        report: the run's.
        prefix: of the elements' ids, so that two reports in a notebook have different ones.
    """
    ordered = stages_in_flow_order(report)
    after = queues_after(report, ordered)
    found = verdict(report)
    caches = console.cache_table(report)
    shares = _shares(report, ordered)
    waits = bool(console.states_of(ordered))
    flow: list[dict[str, Any]] = [_queue_step(queue) for queue in after.get(-1, [])]
    for index, stage in enumerate(ordered):
        part = shares[index] if shares else None
        flow.append(_stage_step(stage, str(stage["name"]) in found.stages, part, waits))
        flow += [_queue_step(queue) for queue in after.get(index, [])]
    return {
        "prefix": prefix,
        "head": _head(report),
        "verdict": found,
        "shares": shares,
        "flow": flow,
        "states": list(console.states_of(ordered)),
        "timeline": timeline(report, ordered),
        "slowest": slowest.table(report, ordered),
        "durations": charts.durations(ordered),
        "stages": _stage_table(ordered),
        "queues": [_queue_row(queue) for queue in queues_in_order(report)],
        "limits": console.limit_table(report),
        "resources": _resources(report),
        "cache_head": [cell.capitalize() for cell in (*caches.head, "size")],
        "caches": [
            _cache_row(cache, cells)
            for cache, cells in zip(report.caches, caches.rows, strict=True)
        ],
        "errors": _errors(ordered),
        "telemetry": _telemetry(report),
    }


# --- the head -------------------------------------------------------------------------------


def _head(report: RunReport) -> dict[str, Any]:
    run = report.run
    result = run.get("result")
    tone, sign = _RESULTS.get(str(result), ("warn", "…"))
    items, total = items_completed(report, count_calls=False), whole(run, "total")
    of_total = f" of {total:,}" if total is not None else ""
    merged = runs_in(run)
    trace_id = run.get("trace_id")
    facts = [
        ("Duration", text.duration(number(run, "wall_s")), "", None),
        ("Started", _instant(run.get("started")), "", None),
        ("Items", f"{items:,}{of_total}" if items is not None else None, "", None),
        ("Errors", f"{error_total(report):,}" if report.stages else None, "", None),
        ("Trace", trace_id, "code", trace_link(report, trace_id)),
        ("Run", run.get("id"), "code", None),
        ("Merged from", f"{merged:,} runs" if merged > 1 else None, "", None),
    ]
    return {
        "pipeline": run.get("pipeline"),
        "result": result or "in progress",
        "tone": tone,
        "sign": sign,
        "error_type": run.get("error_type"),
        "partial": bool(run.get("partial")),
        "facts": [fact for fact in facts if fact[1] not in {None, text.UNKNOWN}],
    }


def _instant(started: object) -> str | None:
    """Return an ISO instant without fractions of a second."""
    if not isinstance(started, str):
        return None
    whole_s = re.sub(r"(T[\d:]+)\.\d+", r"\1", started)
    return re.sub(r"(\+00:00|Z)$", " UTC", whole_s).replace("T", " ", 1)


# --- the share of the run -------------------------------------------------------------------

# patterns that the style tells apart, without colour too
_PATTERNS: Final = 6


def _shares(report: RunReport, stages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the run's parts in the stages, then outside of them; none unless they took turns."""
    if not in_turn(report):
        return []
    found = [(str(stage["name"]), number(stage, "run_share")) for stage in stages]
    wall_s = number(report.run, "wall_s")
    found.append(("outside of stages", ratio(number(report.run, "outside_s"), wall_s)))
    total = max(1.0, sum(share or 0.0 for _, share in found))
    patterns = [f"p{index % _PATTERNS}" for index in range(len(stages))] + ["idle"]
    return [
        {
            "name": name,
            "width": f"{100 * (share or 0.0) / total:.2f}",
            "text": text.percent(share),
            "pattern": pattern,
        }
        for (name, share), pattern in zip(found, patterns, strict=True)
    ]


# --- the flow -------------------------------------------------------------------------------


def _stage_step(
    stage: dict[str, Any], marked: bool, part: dict[str, Any] | None, waits: bool
) -> dict[str, Any]:
    workers = whole(stage, "workers")
    per_s, unit = _rate(stage)
    errors = whole(stage, "errors", "total") or 0
    split = number(stage, "share", "running") is not None
    states = console.SPLIT if split else console.UNSPLIT
    shares = [(state, number(stage, "share", state)) for state in states]
    figures = [
        (text.number(per_s), f"{unit} per second"),
        (text.duration(number(stage, "duration_s", "p50")), "median duration"),
        (text.number(whole(stage, "count")), "calls"),
    ]
    return {
        "is": "stage",
        "name": stage["name"],
        "kind": stage.get("kind"),
        "workers": None if workers is None else text.counted(workers, "worker"),
        "marked": marked,
        "errors": text.counted(errors, "error") if errors else None,
        # a stage that only ran says more by its part of the run
        "bar": _bar(shares) if waits else None,
        "part": part,
        "figures": figures,
    }


def _rate(stage: dict[str, Any]) -> tuple[float | None, str]:
    items = number(stage, "throughput", "items_per_s")
    if items is not None:
        return items, "items"
    return number(stage, "throughput", "wall_per_s"), "calls"


def _bar(shares: Sequence[tuple[str, float | None]]) -> dict[str, Any] | None:
    """Return the parts of a stacked bar and their text; None if a share is unknown."""
    known = [(state, share) for state, share in shares if share is not None]
    if len(known) < len(shares):
        return None
    total = max(1.0, sum(share for _, share in known))
    return {
        "parts": [
            (state, f"{100 * share / total:.2f}", text.percent(share)) for state, share in known
        ],
        "text": ", ".join(f"{state} {text.percent(share)}" for state, share in known),
    }


def _queue_step(queue: dict[str, Any]) -> dict[str, Any]:
    average, peak = number(queue, "depth_avg"), number(queue, "depth_peak")
    capacity = whole(queue, "capacity")
    top = capacity or peak
    depth = [
        f"holds {text.number(average)} on average" if average is not None else "",
        f"{text.number(peak)} at most" if peak is not None else "",
        f"room for {capacity:,}" if capacity is not None else "unbounded",
    ]
    waited = number(queue, "wait_s", "p50")
    return {
        "is": "queue",
        "name": queue["name"],
        "ways": _ways(get_strings(queue, "producers"), get_strings(queue, "consumers")),
        "depth": ", ".join(filter(None, depth)),
        "wait": f"{text.duration(waited)} median wait" if waited is not None else None,
        "fill": f"{100 * min(1.0, average / top):.1f}" if average is not None and top else None,
    }


def _ways(producers: list[str], consumers: list[str]) -> str | None:
    """Return producers and consumers; None if the order of the page shows them."""
    if len(producers) <= 1 and len(consumers) <= 1:
        return None
    return f"from {', '.join(producers) or 'outside'} to {', '.join(consumers) or 'outside'}"


# --- tables ---------------------------------------------------------------------------------


_DURATIONS: Final = ("p50", "p95", "p99", "max", "avg", "min", "total")


def _stage_table(stages: Sequence[dict[str, Any]]) -> Table:
    """Return the durations of each stage, and the counts that any stage has."""
    counts = [
        (title, path)
        for title, *path in (("items in", "items", "in"), ("items out", "items", "out"))
        if any(whole(stage, *path) is not None for stage in stages)
    ]
    if any(whole(stage, "retries") for stage in stages):
        counts.append(("retries", ["retries"]))
    head = ("stage", "count", *_DURATIONS, *(title for title, _ in counts))
    rows = [
        (
            str(stage["name"]),
            text.number(whole(stage, "count")),
            *(text.duration(number(stage, "duration_s", key)) for key in _DURATIONS),
            *(text.number(whole(stage, *path)) for _, path in counts),
        )
        for stage in stages
    ]
    return Table(head, rows, left=1)


def _resources(report: RunReport) -> dict[str, Any] | None:
    """Return the figures of CPU, memory, disk and network; None if they were not sampled."""
    found = report.resources
    if not whole(found, "samples"):
        return None
    limits = get_path(found, "limits")
    cpus, memory = number(limits, "cpus"), number(limits, "memory_bytes")
    available = [
        *([] if cpus is None else [f"{cpus:g} CPUs"]),
        *([] if memory is None else [f"{text.size(memory)} of memory"]),
    ]
    return {
        "rows": console.resource_table(report).rows,
        "samples": text.counted(whole(found, "samples") or 0, "sample"),
        "limits": f"{text.listed(available)}, as {get_path(limits, 'source')} says"
        if available
        else None,
    }


def _queue_row(queue: dict[str, Any]) -> list[str]:
    return [
        str(queue["name"]),
        text.number(whole(queue, "got")),
        text.number(number(queue, "depth_avg")),
        text.number(number(queue, "depth_peak")),
        console.capacity(queue),
        *(text.duration(number(queue, "wait_s", key)) for key in ("p50", "p95", "p99", "max")),
        text.duration(number(queue, "put_blocked_s")),
        text.duration(number(queue, "get_waited_s")),
    ]


def _cache_row(cache: Mapping[str, Any], cells: Sequence[str]) -> dict[str, Any]:
    hit_ratio = number(cache, "hit_ratio")
    return {
        "cells": [*cells, text.size(number(cache, "size_bytes"))],
        "fill": None if hit_ratio is None else f"{100 * min(1.0, max(0.0, hit_ratio)):.1f}",
    }


def _errors(stages: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return rows of (stage, errors, per cent of its calls, error type)."""
    return [
        (
            str(stage["name"]),
            f"{count:,}",
            text.percent(ratio(count, whole(stage, "count"))),
            str(kind),
        )
        for stage in stages
        for kind, count in (get_path(stage, "errors", "by_type") or {}).items()
    ]


def _telemetry(report: RunReport) -> list[tuple[str, str]]:
    found = report.telemetry
    facts = [
        (f"{what} {key.replace('_', ' ')}", text.number(whole(found, part, key)))
        for what, part in (("Spans", "spans"), ("Metric points", "metric_points"))
        for key in ("created", "exported", "sampled_out", "dropped", "spooled", "pending")
    ]
    collector = get_path(found, "collector")
    facts.append(("Collector", str(collector) if collector else text.UNKNOWN))
    facts.append(("Flush at the end", text.duration(number(found, "flush_s"))))
    return [fact for fact in facts if fact[1] != text.UNKNOWN]

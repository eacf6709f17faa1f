"""Render a report as one self-contained HTML page, without network and scripts.

This file turns the report into texts and coordinates; `_page/` lays them out. The template
escapes every string (jinja2's autoescape), and the page's policy forbids scripts and connections.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import get_path, get_strings, number, ratio, whole
from otel_pipeline_metrics.report import charts, console
from otel_pipeline_metrics.report.flow import (
    error_total,
    items_completed,
    queues_after,
    queues_in_order,
    runs_in,
    stages_in_flow_order,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return page("page.html.jinja", report.to_dict(), **_view(report))


def page(template: str, data: dict[str, Any], **view: Any) -> str:
    """Return the template of `_page/` with what it shows, and the data for programs.

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
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found = environment.from_string((folder / template).read_text("utf-8"))
    shown = view | {
        "style": _Trusted((folder / "page.css").read_text("utf-8")),
        "data": _Trusted(embeddable(data)),
    }
    return found.render(shown)


class _Trusted(str):
    """Trusted text that jinja2 does not escape."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _shown(value: Any) -> Any:
    """Replace control characters: the page may be read in a terminal, or copied from."""
    return text.printable(value) if type(value) is str else value


def embeddable(data: dict[str, Any]) -> str:
    """Return the JSON, escaped so that no string in it can end its HTML element."""
    found = text.printable_json(json.dumps(data, ensure_ascii=False, allow_nan=False))
    for character in "<>&\u2028\u2029":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found


def _view(report: RunReport) -> dict[str, Any]:
    """Return everything that the template shows."""
    ordered = stages_in_flow_order(report)
    after = queues_after(report, ordered)
    found = verdict(report)
    caches = console.cache_table(report)
    flow: list[dict[str, Any]] = [_queue_step(queue) for queue in after.get(-1, [])]
    for index, stage in enumerate(ordered):
        flow.append(_stage_step(stage, str(stage["name"]) in found.stages))
        flow += [_queue_step(queue) for queue in after.get(index, [])]
    return {
        "head": _head(report),
        "verdict": found._replace(headline=_unbroken(found.headline)),
        "flow": flow,
        "stated": any(step["is"] == "stage" and step["bar"] for step in flow),
        "durations": charts.durations(ordered),
        "stages": [_stage_row(stage) for stage in ordered],
        "queues": [_queue_row(queue) for queue in queues_in_order(report)],
        "limits": console.limit_table(report),
        "resources": charts.resources(report),
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
    items, total = items_completed(report), whole(run, "total")
    of_total = f" of {total:,}" if total is not None else ""
    merged = runs_in(run)
    facts = [
        ("Duration", text.duration(number(run, "wall_s")), False),
        ("Started", _instant(run.get("started")), False),
        ("Items", f"{items:,}{of_total}" if items is not None else None, False),
        ("Errors", f"{error_total(report):,}", False),
        ("Trace", run.get("trace_id"), True),
        ("Run", run.get("id"), True),
        ("Merged from", f"{merged:,} runs" if merged > 1 else None, False),
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
        "bar": _bar(shares),
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
            (state, f"{100 * share / total:.2f}", _unbroken(text.percent(share)))
            for state, share in known
        ],
        "text": _unbroken(", ".join(f"{state} {text.percent(share)}" for state, share in known)),
    }


def _unbroken(line: str) -> str:
    """Keep numbers on one line with their per cent sign."""
    return line.replace(" %", "\u00a0%")


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


def _stage_row(stage: dict[str, Any]) -> list[str]:
    return [
        str(stage["name"]),
        text.number(whole(stage, "count")),
        *(
            text.duration(number(stage, "duration_s", key))
            for key in ("p50", "p95", "p99", "total", "avg", "min", "max")
        ),
        text.number(whole(stage, "items", "in")),
        text.number(whole(stage, "items", "out")),
        text.number(whole(stage, "retries")),
    ]


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


def _cache_row(cache: dict[str, Any], cells: Sequence[str]) -> dict[str, Any]:
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

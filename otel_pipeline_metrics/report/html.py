"""The report as one HTML page that needs nothing beside itself: no network, no script.

Here the report becomes texts and coordinates; `_page/` lays them out. The template escapes
every string (jinja2's autoescape), and the page's own policy forbids scripts and connections.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics.report import charts, console
from otel_pipeline_metrics.report.flow import (
    dig,
    error_total,
    items_completed,
    names,
    number,
    queues_after,
    queues_in_order,
    stages_in_flow_order,
    verdict,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


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
    ordered = stages_in_flow_order(report)
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
        "durations": charts.durations(ordered),
        "stages": [_stage_row(stage) for stage in ordered],
        "queues": [_queue_row(queue) for queue in queues_in_order(report)],
        "resources": charts.resources(report),
        "caches": [_cache_row(cache) for cache in report.caches],
        "errors": _errors(ordered),
        "telemetry": _telemetry(report),
    }


# --- the head -------------------------------------------------------------------------------


def _head(report: RunReport) -> dict[str, Any]:
    run = report.run
    result = run.get("result")
    tone, sign = _RESULTS.get(str(result), ("warn", "…"))
    items, total = items_completed(report), whole(run, "total")
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

"""Render a report as plain text, for terminals and log files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, get_path, number, whole
from otel_pipeline_metrics.analysis import caches
from otel_pipeline_metrics.report.flow import (
    error_total,
    queues_in_order,
    stages_in_flow_order,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


SPLIT: Final = ("running", "awaiting", "idle", "blocked")
UNSPLIT: Final = ("busy", "idle", "blocked")

_RESOURCES: Final = (
    ("cpu", "cpu_utilization", ("avg", "peak"), text.percent),
    ("memory (rss)", "rss_bytes", ("avg", "peak"), text.size),
    ("disk", "disk_io_bytes", ("read", "write"), text.size),
    ("network (host)", "network_io_bytes", ("receive", "transmit"), text.size),
)

_SHARES: Final = (
    ("GIL", "gil_held", "held"),
    ("wait for a CPU", "run_delay", "at"),
)

_SIZES: Final = {"half": "if half", "twice": "if twice", "four_times": "if 4 times"}

_GUARDS: Final = (
    ("forbidden_keys", "attribute", "with a forbidden key left out"),
    ("other_values", "value", "replaced by _OTHER"),
    ("cut_messages", "message", "cut"),
)


class Table(NamedTuple):
    """Cells under a head; the first `left` columns are aligned to the left."""

    head: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    left: int

    def __str__(self) -> str:
        return text.table(self.head, self.rows, left=self.left) if self.rows else ""


def render(report: RunReport) -> str:
    """Return a headline, the verdict if there is one, then the tables."""
    stages = stages_in_flow_order(report) if report.queues else report.stages
    parts = [
        headline(report),
        _verdict(report),
        str(_stage_table(stages)) or "no stage ran",
        str(queue_table(report)),
        str(limit_table(report)),
        str(resource_table(report)) or "resources: not sampled",
        str(cache_table(report)),
        # otherwise part of the verdict's advice
        ""
        if verdict(report).known
        else "\n".join(map(text.printable, caches.advise(report.to_dict()))),
        telemetry_losses(report),
    ]
    return "\n\n".join(part for part in parts if part)


def headline(report: RunReport) -> str:
    """Return the run in one line."""
    run = report.run
    result = run.get("result") or "in progress"
    line = f"run {run.get('pipeline')}: {result} in {text.duration(number(run, 'wall_s'))}"
    if run.get("error_type"):
        line += f" ({run['error_type']})"
    trace = [f"trace {run['trace_id']}"] if run.get("trace_id") else []
    return text.printable(", ".join([line, *facts(report), *trace]))


def facts(report: RunReport) -> list[str]:
    """Return the numbers of stages and errors, and whether the report is partial."""
    counts = text.counted(len(report.stages), "stage"), text.counted(error_total(report), "error")
    return [*counts, "partial"] if report.run.get("partial") else [*counts]


def _verdict(report: RunReport) -> str:
    found = verdict(report)
    if not found.known:
        return ""
    confidence = f", {found.confidence} confidence" if found.confidence else ""
    lines = [f"verdict: {found.headline}{confidence}", found.why, found.what_if, *found.advice]
    return "\n  ".join(text.printable(line) for line in lines if line)


def states_of(stages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the states worth a column each: none if all stages only ran."""
    working = [s for s in stages if number(s, "share", "busy") is not None]
    split = all(number(stage, "share", "running") is not None for stage in working)
    states = SPLIT if split else UNSPLIT
    seen = [s for s in states if any(number(stage, "share", s) for stage in working)]
    return () if seen in ([], ["running"], ["busy"]) else tuple(seen)


def own_of(stages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the column of self times, if the report has any."""
    return ("self",) if any(number(stage, "self_s") is not None for stage in stages) else ()


def _stage_table(stages: list[dict[str, Any]]) -> Table:
    states = states_of(stages)
    own = own_of(stages)
    head = (
        "stage", "kind", "duration", *own, "count", "items", "avg/item", "p50", "p95", "p99",
        *states, "errors",
    )  # fmt: skip
    return Table(head, [_stage_row(stage, own, states) for stage in stages], left=2)


def _stage_row(stage: dict[str, Any], own: Sequence[str], states: Sequence[str]) -> tuple[str, ...]:
    total = number(stage, "duration_s", "total")
    items = stage_items(stage)
    per = items or whole(stage, "count")
    return (
        stage["name"],
        stage.get("kind") or text.UNKNOWN,
        text.duration(total),
        *(text.duration(number(stage, "self_s")) for _ in own),
        text.number(whole(stage, "count")),
        text.number(items),
        text.duration(total / per if per and total is not None else None),
        *(text.duration(number(stage, "duration_s", p)) for p in ("p50", "p95", "p99")),
        *(text.percent(number(stage, "share", state)) for state in states),
        stage_errors(stage),
    )


def stage_items(stage: dict[str, Any]) -> int | None:
    """Return the items that a stage produced or, if it only takes items, took."""
    produced = whole(stage, "items", "out")
    return produced if produced is not None else whole(stage, "items", "in")


def stage_errors(stage: dict[str, Any]) -> str:
    """Return the errors with their types, then the cancelled and abandoned calls."""
    by_type = ", ".join(
        f"{kind} {count:,}" for kind, count in (get_path(stage, "errors", "by_type") or {}).items()
    )
    ended = [f"{stage[word]:,} {word}" for word in ("cancelled", "abandoned") if stage.get(word)]
    details = "; ".join(filter(None, [by_type, *ended]))
    return f"{whole(stage, 'errors', 'total') or 0:,}" + (f" ({details})" if details else "")


def queue_table(report: RunReport) -> Table:
    """Return a row for each queue, in the order of the flow."""
    head = (
        "queue", "depth avg", "peak", "capacity", "items", "wait p50", "p95", "put blocked",
    )  # fmt: skip
    rows = [
        (
            queue["name"],
            text.number(number(queue, "depth_avg")),
            text.number(number(queue, "depth_peak")),
            capacity(queue),
            text.number(whole(queue, "got")),
            text.duration(number(queue, "wait_s", "p50")),
            text.duration(number(queue, "wait_s", "p95")),
            text.duration(number(queue, "put_blocked_s")),
        )
        for queue in queues_in_order(report)
    ]
    return Table(head, rows, left=1)


def limit_table(report: RunReport) -> Table:
    """Return a row for each limit, with the stages that held it longest."""
    head = (
        "limit", "kind", "max", "usage avg", "peak", "acquired", "wait p95", "waited", "held by",
    )  # fmt: skip
    rows = [
        (
            limit["name"],
            limit.get("kind") or text.UNKNOWN,
            text.number(whole(limit, "max")),
            text.number(number(limit, "usage_avg")),
            text.number(whole(limit, "usage_peak")),
            text.number(whole(limit, "acquired")),
            text.duration(number(limit, "wait_s", "p95")),
            text.duration(number(limit, "wait_s", "total")),
            _holders(limit),
        )
        for limit in report.limits
    ]
    return Table(head, rows, left=2)


def _holders(limit: dict[str, Any]) -> str:
    """Return the stages that held a limit, with their shares of the time it was held."""
    held = [
        (seconds, one.get("stage") or "no stage")
        for one in entries(limit, "stages")
        if (seconds := number(one, "held_s"))
    ]
    total = sum(seconds for seconds, _ in held)
    held.sort(key=lambda one: -one[0])
    return ", ".join(f"{name} {text.percent(s / total)}" for s, name in held) or text.UNKNOWN


def capacity(queue: dict[str, Any]) -> str:
    """Return a queue's capacity; null in the report means unbounded."""
    found = whole(queue, "capacity")
    return "unbounded" if found is None else text.number(found)


def resource_table(report: RunReport) -> Table:
    """Return two figures for each resource; no rows if resources were not sampled."""
    found = report.resources
    rows = [
        (name, *(f"{key} {written(number(found, kind, key))}" for key in keys))
        for name, kind, keys, written in _RESOURCES
    ]
    rows += [
        (
            name,
            f"{verb} {text.percent(share)}",
            text.counted(whole(found, f"{key}_samples") or 0, "sample"),
        )
        for name, key, verb in _SHARES
        if (share := number(found, key)) is not None
    ]
    return Table(("resource", "", ""), rows if found.get("samples") else [], left=3)


def cache_table(report: RunReport) -> Table:
    """Return a row for each cache, with the hit ratios of other sizes if one is known."""
    known = any(get_path(cache, "what_if") is not None for cache in report.caches)
    sizes = _SIZES if known else {}
    head = (
        "cache", "hits", "misses", "hit ratio", *sizes.values(), "evictions", "expirations",
        "entries",
    )  # fmt: skip
    rows = [
        (
            cache["name"],
            *(text.number(whole(cache, key)) for key in ("hits", "misses")),
            text.percent(number(cache, "hit_ratio")),
            *(text.percent(number(cache, "what_if", size)) for size in sizes),
            *(text.number(whole(cache, key)) for key in ("evictions", "expirations", "entries")),
        )
        for cache in report.caches
    ]
    return Table(head, rows, left=1)


def _cache_advice(report: RunReport) -> str:
    # part of the verdict's advice if that is shown
    advice = [] if verdict(report).known else caches.advise({"caches": report.caches})
    return "\n".join(map(text.printable, advice))


def telemetry_losses(report: RunReport) -> str:
    """Return which telemetry was dropped, kept on disk or changed; "" if none was."""
    lost = [
        ((part, where), noun, fate)
        for fate, where in (("dropped", "dropped"), ("kept on disk", "spooled"))
        for part, noun in (("spans", "span"), ("metric_points", "metric point"))
    ]
    lost += [(("guards", guard), noun, fate) for guard, noun, fate in _GUARDS]
    found = ", ".join(
        f"{text.counted(amount, noun)} {fate}"
        for path, noun, fate in lost
        if (amount := whole(report.telemetry, *path))
    )
    return f"telemetry of this process so far: {found}" if found else ""

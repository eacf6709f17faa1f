"""Render a report as plain text, for terminals and log files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import (
    entries,
    get_path,
    number,
    ratio,
    stage_items,
    whole,
)
from otel_pipeline_metrics.analysis import caches
from otel_pipeline_metrics.report.flow import (
    error_total,
    queues_in_order,
    stages_in_flow_order,
    verdict,
)
from otel_pipeline_metrics.report.pools import pool_table
from otel_pipeline_metrics.report.tables import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    PLAIN,
    RED,
    YELLOW,
    Look,
    Table,
    bar,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

_DURATIONS: Final = ("p50", "p95", "p99", "max")

_SIZES: Final = {"half": "if half", "twice": "if twice", "four_times": "if 4 times"}

# verdicts that tell what took the time of a run in which little overlaps
_OF_TIME: Final = frozenset({"serial", "undecorated"})
# the numbers of those that name no stage
_FIGURES: Final = {
    "cpu": (("cpu_utilization", "avg"), "busy"),
    "gil": (("gil_held",), "held"),
    "machine": (("run_delay",), "a ready thread has no CPU for"),
}

_GUARDS: Final = (
    ("forbidden_keys", "attribute", "with a forbidden key left out"),
    ("other_values", "value", "replaced by _OTHER"),
    ("cut_messages", "message", "cut"),
)

# columns of the stages that may be left out, those of least worth first
_LEAVE: Final = (
    "kind", "p50", "p99", "of run", *SPLIT, *UNSPLIT, "p95", "self", "items/s", "max", "share",
)  # fmt: skip


def render(report: RunReport, look: Look = PLAIN) -> str:
    """Return what happened and what limited it, then the tables, as wide as there is room."""
    parts = [
        _top(report, look),
        _stages(report, look) or "no stage ran",
        queue_table(report).render(look),
        limit_table(report).render(look),
        pool_table(report).render(look),
        _telling(resource_table(report)).render(look) or "resources: not sampled",
        cache_table(report).render(look),
        # otherwise part of the verdict's advice
        ""
        if verdict(report).known
        else "\n".join(look.wrap(text.printable(line)) for line in caches.advise(report.to_dict())),
        look.wrap(telemetry_losses(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def _top(report: RunReport, look: Look) -> str:
    result = report.run.get("result")
    tone = {"success": GREEN, "failure": RED, "cancellation": YELLOW}.get(str(result), "")
    found = verdict(report)
    lines = [found.why, found.what_if, " ".join(found.advice)] if found.known else []
    lines.append(found.experiments)
    if found.known and result == "failure":
        lines.insert(0, f"verdict: {sentence(report)}")
    return "\n".join(
        [
            look.paint(look.wrap(headline(report)), f"{BOLD};{tone}" if tone else BOLD),
            *(look.wrap(text.printable(line), "  ") for line in lines if line),
            look.paint(look.wrap(details(report)), DIM),
        ]
    )


def headline(report: RunReport) -> str:
    """Return how the run ended and what took its time or, if it failed, what failed."""
    run = report.run
    result = run.get("result") or "in progress"
    line = f"run {run.get('pipeline')}: {result} in {text.duration(number(run, 'wall_s'))}"
    if run.get("error_type"):
        line += f" ({_failure(report, str(run['error_type']))})"
    found = sentence(report) if result != "failure" else ""
    return text.printable(f"{line}; {found}" if found else line)


def _failure(report: RunReport, error_type: str) -> str:
    """Return the error that ended the run, and the stages that raised such ones."""
    raised = [
        str(stage["name"])
        for stage in stages_in_flow_order(report)
        if error_type in (get_path(stage, "errors", "by_type") or {})
    ]
    return f"{error_type} in {text.listed(raised)}" if raised else error_type


def sentence(report: RunReport) -> str:
    """Return in a sentence with its number what limited the run or took its time."""
    found = verdict(report)
    if found.known and found.kind not in _OF_TIME:
        figure = _FIGURES.get(found.kind)
        share = number(report.resources, *figure[0]) if figure else None
        number_of_it = f" ({figure[1]} {text.percent(share)})" if figure and share else ""
        return f"{found.headline}{number_of_it}"
    outside = ratio(number(report.run, "outside_s"), number(report.run, "wall_s"))
    shares = [(number(stage, "run_share") or 0.0, str(stage["name"])) for stage in report.stages]
    share, name = max(shares, default=(0.0, ""), key=lambda one: one[0])
    if found.kind == "serial" and found.stages:
        share, name = next((one for one in shares if one[1] == found.stages[0]), (share, name))
    part = "most" if max(share, outside or 0.0) > 0.5 else "the largest part"
    if outside is not None and outside > share:
        return f"{part} of it ({text.percent(outside)}) was outside of stages"
    if share == 0.0 or found.kind == "undecorated":
        return found.headline if found.known else ""
    return f"{name} took {part} of it ({text.percent(share)})"


def details(report: RunReport) -> str:
    """Return the numbers of stages and errors, how sure the verdict is, and the trace."""
    trace = [f"trace {report.run['trace_id']}"] if report.run.get("trace_id") else []
    found = verdict(report)
    sure = [f"{found.confidence} confidence"] if found.known and found.confidence else []
    return text.printable(", ".join([*facts(report), *sure, *trace]))


def facts(report: RunReport) -> list[str]:
    """Return the numbers of stages and errors, and whether the report is partial."""
    counts = text.counted(len(report.stages), "stage"), text.counted(error_total(report), "error")
    return [*counts, "partial"] if report.run.get("partial") else [*counts]


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


def _stages(report: RunReport, look: Look) -> str:
    """Return the table of the stages; what does not fit of their errors follows it."""
    stages = stages_in_flow_order(report)
    table = _stage_table(report, stages, stage_errors)
    if table.fits(look):
        return table.render(look)
    table = _stage_table(report, stages, lambda s: text.number(whole(s, "errors", "total") or 0))
    notes = [
        look.wrap(text.printable(f"errors of {stage['name']}: {stage_errors(stage)}"))
        for stage in stages
        if "(" in stage_errors(stage)
    ]
    return "\n".join([table.render(look), *notes])


def _stage_table(
    report: RunReport, stages: list[dict[str, Any]], errors: Callable[[dict[str, Any]], str]
) -> Table:
    states = states_of(stages)
    own = own_of(stages)
    wall_s = number(report.run, "wall_s")
    shared = any(number(stage, "run_share") is not None for stage in stages)
    rated = any(number(stage, "throughput", "items_per_s") is not None for stage in stages)
    head = (
        "stage", "kind", "duration", *own, *(("share", "of run") if shared else ()), "count",
        "items", "avg/item", *(("items/s",) if rated else ()), "p50", "p95", "p99", "max", *states,
        "errors",
    )  # fmt: skip
    cells = [_cells(stage, states) | {"errors": errors(stage)} for stage in stages]
    marked = verdict(report).stages
    tones = {}
    for row, (stage, found) in enumerate(zip(stages, cells, strict=True)):
        tones[row, "of run"] = CYAN
        if stage["name"] in marked:
            tones[row, "stage"] = YELLOW
        if not found["errors"].startswith("0"):
            tones[row, "errors"] = RED
    outside_s = number(report.run, "outside_s")
    if stages and outside_s is not None:
        part = ratio(outside_s, wall_s)
        cells.append(
            {"stage": "outside", "duration": text.duration(outside_s)}
            | {"share": text.percent(part), "of run": bar(part).ljust(6)}
        )
        tones |= {(len(stages), title): DIM for title in head}
    rows = [tuple(one.get(title, "") for title in head) for one in cells]
    return Table(head, rows, left=2, leave=_LEAVE, tones=tones)


def _cells(stage: dict[str, Any], states: Sequence[str]) -> dict[str, str]:
    """Return what the columns show of a stage, by their titles."""
    total = number(stage, "duration_s", "total")
    items = stage_items(stage)
    per = items or whole(stage, "count")
    share = number(stage, "run_share")
    return {
        "stage": stage["name"],
        "kind": stage.get("kind") or text.UNKNOWN,
        "duration": text.duration(total),
        "self": text.duration(number(stage, "self_s")),
        "share": text.percent(share),
        "of run": bar(share).ljust(6),
        "count": text.number(whole(stage, "count")),
        "items": text.number(items),
        "avg/item": text.duration(total / per if per and total is not None else None),
        "items/s": text.number(number(stage, "throughput", "items_per_s")),
        **{p: text.duration(number(stage, "duration_s", p)) for p in _DURATIONS},
        **{state: text.percent(number(stage, "share", state)) for state in states},
    }


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
        "queue", "depth avg", "peak", "capacity", "items", "wait p50", "wait p95",
        "put blocked",
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
    leave = ("wait p95", "wait p50", "peak", "put blocked")
    return Table(head, rows, left=1, leave=leave)


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
    leave = ("kind", "usage avg", "peak", "wait p95", "held by", "max")
    return Table(head, rows, left=2, leave=leave)


def _holders(limit: Mapping[str, Any]) -> str:
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


def _telling(table: Table) -> Table:
    """Leave out resources that were not used, cannot be read or are the whole host's."""
    silent = {text.UNKNOWN, text.size(0)}
    rows = [
        row
        for row in table.rows
        if "host" not in row[0] and not {cell.partition(" ")[2] for cell in row[1:]} <= silent
    ]
    return table._replace(head=("", "", ""), rows=rows)


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
    leave = (*reversed(tuple(sizes.values())), "expirations", "evictions", "entries")
    return Table(head, rows, left=1, leave=leave)


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

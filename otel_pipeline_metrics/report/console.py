"""The report as plain text: readable in a terminal and in a log file alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics.report.flow import (
    dig,
    error_total,
    number,
    queues_in_order,
    stages_in_flow_order,
    verdict,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


UNKNOWN = "-"


def render(report: RunReport) -> str:
    """Return a head line, the verdict if there is one, then the tables."""
    parts = [
        headline(report),
        _verdict(report),
        _stages(stages_in_flow_order(report) if report.queues else report.stages),
        _queues(queues_in_order(report)),
        _resources(report.resources),
        _caches(report.caches),
        telemetry_losses(report),
    ]
    return "\n\n".join(part for part in parts if part)


def headline(report: RunReport) -> str:
    """Return the run in one line."""
    run = report.run
    result = run.get("result") or "in progress"
    line = (
        f"run {printable(str(run.get('pipeline')))}: {result} in {seconds(number(run, 'wall_s'))}"
    )
    if run.get("error_type"):
        line += f" ({run['error_type']})"
    errors = error_total(report)
    line += f", {counted(len(report.stages), 'stage')}, {counted(errors, 'error')}"
    if run.get("partial"):
        line += ", partial"
    if run.get("trace_id"):
        line += f", trace {run['trace_id']}"
    return line


def counted(amount: int, noun: str) -> str:
    """Return how many of something there are, in words."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def _verdict(report: RunReport) -> str:
    found = verdict(report)
    if not found.known:
        return ""
    sure = f", {found.confidence} confidence" if found.confidence else ""
    lines = [f"verdict: {found.headline}{sure}", found.why, found.what_if or "", *found.advice]
    return "\n  ".join(printable(line) for line in lines if line)


_STATES = ("busy", "idle", "blocked")


def _stages(stages: list[dict[str, Any]]) -> str:
    if not stages:
        return "no stage ran"
    stated = any(number(stage, "share", "busy") is not None for stage in stages)
    head = (
        "stage", "kind", "duration", "count", "items", "avg/item", "p50", "p95", "p99",
        *(_STATES if stated else ()), "errors",
    )  # fmt: skip
    rows = [_stage_row(stage, _STATES if stated else ()) for stage in stages]
    return table(head, rows, left=2)


def _stage_row(stage: dict[str, Any], states: Sequence[str]) -> tuple[str, ...]:
    total = number(stage, "duration_s", "total")
    items = stage_items(stage)
    per = items or whole(stage, "count")
    return (
        stage["name"],
        stage.get("kind") or UNKNOWN,
        seconds(total),
        count(whole(stage, "count")),
        count(items),
        seconds(total / per if per and total is not None else None),
        *(seconds(number(stage, "duration_s", p)) for p in ("p50", "p95", "p99")),
        *(percent(number(stage, "share", state)) for state in states),
        stage_errors(stage),
    )


def stage_items(stage: dict[str, Any]) -> int | None:
    """Return the items that a stage gave out or, if it only takes, took."""
    given = whole(stage, "items", "out")
    return given if given is not None else whole(stage, "items", "in")


def stage_errors(stage: dict[str, Any]) -> str:
    """Return the errors with their types, then what else ended early."""
    by_type = ", ".join(
        f"{kind} {count:,}" for kind, count in (dig(stage, "errors", "by_type") or {}).items()
    )
    extra = [f"{stage[word]:,} {word}" for word in ("cancelled", "abandoned") if stage.get(word)]
    said = "; ".join(filter(None, [by_type, *extra]))
    return f"{whole(stage, 'errors', 'total') or 0:,}" + (f" ({said})" if said else "")


QUEUE_HEAD = (
    "queue", "depth avg", "peak", "capacity", "items", "wait p50", "p95", "put blocked",
)  # fmt: skip


def _queues(queues: list[dict[str, Any]]) -> str:
    return table(QUEUE_HEAD, queue_rows(queues), left=1) if queues else ""


def queue_rows(queues: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return rows under `QUEUE_HEAD`."""
    return [
        (
            queue["name"],
            depth(number(queue, "depth_avg")),
            depth(number(queue, "depth_peak")),
            capacity(queue),
            count(whole(queue, "got")),
            seconds(number(queue, "wait_s", "p50")),
            seconds(number(queue, "wait_s", "p95")),
            seconds(number(queue, "put_blocked_s")),
        )
        for queue in queues
    ]


def _resources(resources: dict[str, Any]) -> str:
    if not resources.get("samples"):
        return "resources: not sampled"
    return table(("resource", "", ""), resource_rows(resources), left=3)


def resource_rows(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what was used as (what, first, second)."""

    def of(kind: str, key: str, text: Callable[[float | None], str]) -> str:
        return f"{key} {text(number(resources, kind, key))}"

    return [
        ("cpu", of("cpu_utilization", "avg", percent), of("cpu_utilization", "peak", percent)),
        ("memory (rss)", of("rss_bytes", "avg", size), of("rss_bytes", "peak", size)),
        ("disk", of("disk_io_bytes", "read", size), of("disk_io_bytes", "write", size)),
        (
            "network (host)",
            of("network_io_bytes", "receive", size),
            of("network_io_bytes", "transmit", size),
        ),
    ]


CACHE_HEAD = ("cache", "hits", "misses", "hit ratio", "evictions", "expirations", "entries")


def _caches(caches: list[dict[str, Any]]) -> str:
    return table(CACHE_HEAD, [cache_row(cache) for cache in caches], left=1) if caches else ""


def cache_row(cache: dict[str, Any]) -> tuple[str, ...]:
    """Return a row under `CACHE_HEAD`."""
    return (
        cache["name"],
        count(whole(cache, "hits")),
        count(whole(cache, "misses")),
        percent(number(cache, "hit_ratio")),
        *(count(whole(cache, key)) for key in ("evictions", "expirations", "entries")),
    )


def telemetry_losses(report: RunReport) -> str:
    """Return what of the telemetry is missing or was kept back; empty where nothing was."""
    found = report.telemetry
    said = [
        f"{counted(amount, noun)} {fate}"
        for fate, where in (("dropped", "dropped"), ("kept on disk", "spooled"))
        for part, noun in (("spans", "span"), ("metric_points", "metric point"))
        if (amount := whole(found, part, where))
    ]
    said += [
        f"{counted(amount, noun)} {fate}"
        for guard, noun, fate in _GUARDS
        if (amount := whole(found, "guards", guard))
    ]
    return f"telemetry of this process so far: {', '.join(said)}" if said else ""


_GUARDS = (
    ("forbidden_keys", "attribute", "with a forbidden key left out"),
    ("other_values", "value", "taken for _OTHER"),
    ("cut_messages", "message", "cut"),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return rows under a head, the first `left` columns to the left, the others to the right."""
    lines = []
    every = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    for row in every:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """Return the text without what would move a terminal's cursor or colour the rest."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


_MINUTE = 60.0


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it."""
    if value is None:
        return UNKNOWN
    if round(value) >= _MINUTE:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{value * 1e9:.0f} ns"


def size(value: float | None) -> str:
    """Return bytes in the binary unit that suits them."""
    if value is None:
        return UNKNOWN
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(amount) >= 1024 and len(units) > 1:  # the binary step
        amount /= 1024
        units.pop(0)
    return f"{_three_digits(amount) if units[0] != 'B' else round(amount)} {units[0]}"


def _three_digits(value: float) -> str:
    """Return about three digits, never an exponent."""
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"


def rate(value: float | None) -> str:
    """Return how many a second."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # three digits


def percent(value: float | None) -> str:
    """Return a ratio in per cent."""
    return UNKNOWN if value is None else f"{value * 100:.1f} %"


def depth(value: float | None) -> str:
    """Return a queue's depth: whole, or with one digit where it is an average."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def capacity(queue: dict[str, Any]) -> str:
    """Return a queue's capacity, which is null where it has none."""
    found = whole(queue, "capacity")
    return "unbounded" if found is None else f"{found:,}"


def count(value: int | None) -> str:
    """Return a count with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,}"

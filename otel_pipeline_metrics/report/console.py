"""The report as plain text: readable in a terminal and in a log file alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report._report import RunReport

UNKNOWN = "-"


def render(report: RunReport) -> str:
    """Return a head line, the table of stages, then resources, then caches."""
    parts = [headline(report), _stages(report.stages), _resources(report.resources)]
    if report.caches:
        parts.append(_caches(report.caches))
    return "\n\n".join(part for part in parts if part)


def headline(report: RunReport) -> str:
    """Return the run in one line."""
    run = report.run
    line = f"run {run['pipeline']}: {run['result'] or 'in progress'} in {seconds(run['wall_s'])}"
    if run["error_type"]:
        line += f" ({run['error_type']})"
    errors = sum(stage["errors"]["total"] for stage in report.stages)
    line += f", {len(report.stages)} stages, {errors:,} errors"
    if run["partial"]:
        line += ", partial"
    if run["trace_id"]:
        line += f", trace {run['trace_id']}"
    return line


def _stages(stages: list[dict[str, Any]]) -> str:
    if not stages:
        return "no stage ran"
    head = (
        "stage", "kind", "duration", "count", "items", "avg/item", "p50", "p95", "p99", "errors",
    )  # fmt: skip
    rows = [_stage_row(stage) for stage in stages]
    return table(head, rows, left=2)


def _stage_row(stage: dict[str, Any]) -> tuple[str, ...]:
    duration = stage["duration_s"]
    items = stage["items"]["out"] if stage["items"]["out"] is not None else stage["items"]["in"]
    per = items or stage["count"]
    errors = stage["errors"]
    by_type = ", ".join(f"{kind} {count:,}" for kind, count in errors["by_type"].items())
    extra = [f"{stage[word]:,} {word}" for word in ("cancelled", "abandoned") if stage[word]]
    said = "; ".join(filter(None, [by_type, *extra]))
    return (
        stage["name"],
        stage["kind"] or UNKNOWN,
        seconds(duration["total"]),
        f"{stage['count']:,}",
        UNKNOWN if items is None else f"{items:,}",
        seconds(duration["total"] / per if per else None),
        seconds(duration["p50"]),
        seconds(duration["p95"]),
        seconds(duration["p99"]),
        f"{errors['total']:,}" + (f" ({said})" if said else ""),
    )


def _resources(resources: dict[str, Any]) -> str:
    if not resources.get("samples"):
        return "resources: not sampled"
    cpu, rss = resources["cpu_utilization"], resources["rss_bytes"]
    disk, network = resources["disk_io_bytes"], resources["network_io_bytes"]
    rows = [
        ("cpu", f"avg {percent(cpu['avg'])}", f"peak {percent(cpu['peak'])}"),
        ("memory (rss)", f"avg {size(rss['avg'])}", f"peak {size(rss['peak'])}"),
        ("disk", f"read {size(disk.get('read'))}", f"write {size(disk.get('write'))}"),
        (
            "network (host)",
            f"receive {size(network.get('receive'))}",
            f"transmit {size(network.get('transmit'))}",
        ),
    ]
    return table(("resource", "", ""), rows, left=3)


def _caches(caches: list[dict[str, Any]]) -> str:
    head = ("cache", "hits", "misses", "hit ratio", "evictions", "expirations", "entries")
    rows = [
        (
            cache["name"],
            f"{cache['hits']:,}",
            f"{cache['misses']:,}",
            percent(cache["hit_ratio"]),
            *(count(cache[key]) for key in ("evictions", "expirations", "entries")),
        )
        for cache in caches
    ]
    return table(head, rows, left=1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return rows under a head, the first `left` columns to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


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
    while abs(amount) >= 1024 and len(units) > 1:  # noqa: PLR2004 - the binary step
        amount /= 1024
        units.pop(0)
    return f"{_three_digits(amount) if units[0] != 'B' else round(amount)} {units[0]}"


def _three_digits(value: float) -> str:
    """Return about three digits, never an exponent."""
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0  # noqa: PLR2004
    return f"{value:.{decimals}f}"


def percent(value: float | None) -> str:
    """Return a ratio in per cent."""
    return UNKNOWN if value is None else f"{value * 100:.1f} %"


def count(value: int | None) -> str:
    """Return a count with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,}"

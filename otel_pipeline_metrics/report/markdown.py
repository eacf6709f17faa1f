"""Render a report as Markdown with GitHub's tables, for a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, whole
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import runs_in, stages_in_flow_order, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


# an underscore within a word is not emphasis
_SPECIAL: Final = re.compile(r"([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w))")


def render(report: RunReport) -> str:
    """Return the verdict, then tables of stages, queues, limits, resources and caches."""
    parts = [
        f"### {escaped(report.run.get('pipeline'))}: {_result(report)}",
        _facts(report),
        _verdict(report),
        table(_stage_table(report), str) or "No stage ran.",
        table(console.queue_table(report)),
        table(console.limit_table(report)),
        table(console.resource_table(report)) or "Resources were not sampled.",
        table(console.cache_table(report)),
        escaped(console.telemetry_losses(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(given: object) -> str:
    """Escape text so that neither Markdown nor HTML finds markup in it."""
    one_line = " ".join(str(given).split())
    return _SPECIAL.sub(r"\\\1", one_line)


def _result(report: RunReport) -> str:
    run = report.run
    took = text.duration(number(run, "wall_s"))
    error = f" ({escaped(run['error_type'])})" if run.get("error_type") else ""
    return f"{escaped(run.get('result') or 'in progress')} in {took}{error}"


def _facts(report: RunReport) -> str:
    run = report.run
    facts = console.facts(report)
    if run.get("merged_from"):
        facts.append(f"merged from {text.counted(runs_in(run), 'run')}")
    if run.get("trace_id"):
        facts.append(f"trace {_code(run['trace_id'])}")
    return ", ".join(facts)


def _verdict(report: RunReport) -> str:
    found = verdict(report)
    confidence = f", {escaped(found.confidence)} confidence" if found.confidence else ""
    lines = [f"> **{escaped(found.headline)}**{confidence}"]
    lines += [f"> {escaped(found.why)}"] if found.why else []
    lines += [f"> - {escaped(line)}" for line in [found.what_if, *found.advice] if line]
    return "\n".join(lines)


def _stage_table(report: RunReport) -> console.Table:
    marked, stages = verdict(report).stages, stages_in_flow_order(report)
    states = console.states_of(stages)
    own = console.own_of(stages)
    head = (
        "stage", "kind", "count", "items", "p50", "p95", "p99", "total", *own, *states, "errors",
    )  # fmt: skip
    rows = [_stage_row(stage, own, states, stage["name"] in marked) for stage in stages]
    return console.Table(head, rows, left=2)


def _stage_row(
    stage: dict[str, Any], own: Sequence[str], states: Sequence[str], marked: bool
) -> tuple[str, ...]:
    name = escaped(stage["name"])
    return (
        f"**{name}** (bottleneck)" if marked else name,
        escaped(stage.get("kind") or text.UNKNOWN),
        text.number(whole(stage, "count")),
        text.number(console.stage_items(stage)),
        *(text.duration(number(stage, "duration_s", p)) for p in ("p50", "p95", "p99", "total")),
        *(text.duration(number(stage, "self_s")) for _ in own),
        *(text.percent(number(stage, "share", state)) for state in states),
        escaped(console.stage_errors(stage)),
    )


def _code(given: object) -> str:
    """Return text as a code span, whatever backticks are in it."""
    one_line = " ".join(str(given).split())
    longest = max((len(run) for run in re.findall("`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"


def table(table: console.Table, written: Callable[[str], str] = escaped) -> str:
    """Return a table as GitHub reads it; "" without rows."""
    rule = [":---" if column < table.left else "---:" for column in range(len(table.head))]
    rows = [[written(cell) for cell in row] for row in table.rows]
    lines = ("| " + " | ".join(row) + " |" for row in (table.head, rule, *rows))
    return "\n".join(lines) if rows else ""

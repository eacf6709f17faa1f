"""Render a report as Markdown with GitHub's tables, for a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, stage_items, whole
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import stages_in_flow_order, verdict
from otel_pipeline_metrics.report.merge_runs import runs_in
from otel_pipeline_metrics.report.pools import pool_table
from otel_pipeline_metrics.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


# What GitHub and GitLab link or replace in plain text, after Markdown: mentions, addresses,
# references to issues and commits, emoji. A backslash does not prevent it, code does.
_AUTOMATIC: Final = re.compile(
    r"@|://|www\.|[#!$%&^~]\d|\bGH-\d|:[a-z][\w+-]*:|\b(?=[a-f]*\d)[0-9a-f]{7,40}\b",
    re.IGNORECASE,
)
# neither a bar, which would end the cell of a table, nor a backtick, which would end the code
_WORD: Final = re.compile(r"[^\s|`]+")
# a heading, a list or an underline of the line before
_BLOCK: Final = re.compile(r"\A(?:[-+=#]|\d{1,9}(?=[.)]))")
# an underscore within a word is not emphasis
_SPECIAL: Final = re.compile(r"([\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_]))")


_DURATIONS: Final = ("p50", "p95", "p99", "max", "total")


def render(report: RunReport) -> str:
    """Return the verdict, then tables of stages, queues, limits, resources and caches."""
    parts = [
        f"### {escaped(report.run.get('pipeline'))}: {_result(report)}",
        _facts(report),
        _verdict(report),
        table(_stage_table(report), str) or "No stage ran.",
        table(console.queue_table(report)),
        table(console.limit_table(report)),
        table(pool_table(report)),
        table(console.resource_table(report)) or "Resources were not sampled.",
        table(console.cache_table(report)),
        escaped(console.telemetry_losses(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(given: object) -> str:
    """Escape text so that nothing finds markup in it: no Markdown, HTML, mention or link."""
    line = text.printable(" ".join(str(given).split()))
    done, parts = 0, []
    for word in _WORD.finditer(line):
        if _AUTOMATIC.search(word[0]):
            parts += [_SPECIAL.sub(r"\\\1", line[done : word.start()]), f"`{word[0]}`"]
            done = word.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\1", line[done:])])


def _paragraph(given: object) -> str:
    """Escape text that begins a line."""
    return _BLOCK.sub(_escaped_begin, escaped(given))


def _escaped_begin(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdecimal() else f"\\{found[0]}"


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
    lines += [f"> {_paragraph(found.why)}"] if found.why else []
    told = [found.what_if, found.experiments, *found.advice]
    lines += [f"> - {_paragraph(line)}" for line in told if line]
    return "\n".join(lines)


def _stage_table(report: RunReport) -> Table:
    marked, stages = verdict(report).stages, stages_in_flow_order(report)
    states = console.states_of(stages)
    own = console.own_of(stages)
    head = (
        "stage", "kind", "count", "items", *_DURATIONS, *own, *states, "errors",
    )  # fmt: skip
    rows = [_stage_row(stage, own, states, stage["name"] in marked) for stage in stages]
    return Table(head, rows, left=2)


def _stage_row(
    stage: dict[str, Any], own: Sequence[str], states: Sequence[str], marked: bool
) -> tuple[str, ...]:
    name = escaped(stage["name"])
    return (
        f"**{name}** (bottleneck)" if marked else name,
        escaped(stage.get("kind") or text.UNKNOWN),
        text.number(whole(stage, "count")),
        text.number(stage_items(stage)),
        *(text.duration(number(stage, "duration_s", p)) for p in _DURATIONS),
        *(text.duration(number(stage, "self_s")) for _ in own),
        *(text.percent(number(stage, "share", state)) for state in states),
        escaped(console.stage_errors(stage)),
    )


def _code(given: object) -> str:
    """Return text as a code span, whatever backticks are in it."""
    one_line = text.printable(" ".join(str(given).split()))
    longest = max((len(run) for run in re.findall("`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"


def table(table: Table, written: Callable[[str], str] = escaped) -> str:
    """Return a table as GitHub reads it; "" without rows."""
    rule = [":---" if column < table.left else "---:" for column in range(len(table.head))]
    rows = [[written(cell) for cell in row] for row in table.rows]
    lines = ("| " + " | ".join(row) + " |" for row in (table.head, rule, *rows))
    return "\n".join(lines) if rows else ""

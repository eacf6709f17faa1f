"""The report as Markdown for a pull request: GitHub's tables, and nothing that needs colour."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import (
    error_total,
    number,
    queues_in_order,
    stages_in_flow_order,
    verdict,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


# inside a word, an underscore is no emphasis
_SPECIAL: Final = re.compile(r"([\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w))")


def render(report: RunReport) -> str:
    """Return the verdict, then tables of stages, queues, resources and caches."""
    parts = [
        f"### {escaped(report.run.get('pipeline'))}: {_result(report)}",
        _facts(report),
        _verdict(report),
        _stages(report),
        _queues(report),
        _resources(report),
        _caches(report),
        escaped(console.telemetry_losses(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: object) -> str:
    """Return text of the user's so that Markdown and HTML take none of it for their own."""
    one_line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", one_line)


def _result(report: RunReport) -> str:
    run = report.run
    said = (
        f"{escaped(run.get('result') or 'in progress')} in {console.seconds(number(run, 'wall_s'))}"
    )
    return said + (f" ({escaped(run['error_type'])})" if run.get("error_type") else "")


def _facts(report: RunReport) -> str:
    run, errors = report.run, error_total(report)
    facts = [console.counted(len(report.stages), "stage"), console.counted(errors, "error")]
    if run.get("partial"):
        facts.append("partial")
    if run.get("merged_from"):
        facts.append(f"merged from {console.counted(len(run['merged_from']), 'run')}")
    if run.get("trace_id"):
        facts.append(f"trace {_code(run['trace_id'])}")
    return ", ".join(facts)


def _verdict(report: RunReport) -> str:
    found = verdict(report)
    sure = f", {escaped(found.confidence)} confidence" if found.confidence else ""
    lines = [f"> **{escaped(found.headline)}**{sure}"]
    lines += [f"> {escaped(found.why)}"] if found.why else []
    lines += [f"> - {escaped(said)}" for said in [found.what_if, *found.advice] if said]
    return "\n".join(lines)


def _stages(report: RunReport) -> str:
    if not report.stages:
        return "No stage ran."
    marked = verdict(report).stages
    head = (
        "stage", "kind", "count", "items", "p50", "p95", "p99", "total",
        "busy", "idle", "blocked", "errors",
    )  # fmt: skip
    return _table(
        head, [_stage(s, s["name"] in marked) for s in stages_in_flow_order(report)], left=2
    )


def _stage(stage: dict[str, Any], marked: bool) -> list[str]:
    name = escaped(stage["name"])
    return [
        f"**{name}** (bottleneck)" if marked else name,
        escaped(stage.get("kind") or console.UNKNOWN),
        console.count(whole(stage, "count")),
        console.count(console.stage_items(stage)),
        *(console.seconds(number(stage, "duration_s", p)) for p in ("p50", "p95", "p99", "total")),
        *(console.percent(number(stage, "share", s)) for s in ("busy", "idle", "blocked")),
        escaped(console.stage_errors(stage)),
    ]


def _queues(report: RunReport) -> str:
    if not report.queues:
        return ""
    rows = [[escaped(cell) for cell in row] for row in console.queue_rows(queues_in_order(report))]
    return _table(console.QUEUE_HEAD, rows, left=1)


def _resources(report: RunReport) -> str:
    if not report.resources.get("samples"):
        return "Resources were not sampled."
    return _table(("resource", "", ""), console.resource_rows(report.resources), left=3)


def _caches(report: RunReport) -> str:
    if not report.caches:
        return ""
    rows = [[escaped(cell) for cell in console.cache_row(cache)] for cache in report.caches]
    return _table(console.CACHE_HEAD, rows, left=1)


def _code(text: object) -> str:
    """Return text as code, whatever backticks it has."""
    plain = " ".join(str(text).split())
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    rule = [":---" if column < left else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))

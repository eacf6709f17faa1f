"""The commands `report`, `compare`, `merge` and `schema`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from otel_pipeline_metrics.cli.files import BadInput, load, put, ratio, reading
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.run_report import FORMATS

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.run_report import Format


_BY_SUFFIX: Final[dict[str, Format]] = {
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".md": "markdown",
}


@click.command(short_help="Show a report.")
@click.argument("file")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="By default the one that the output's suffix suggests, else console.",
)
@click.option("--output", "-o", metavar="FILE", help="Write to this file instead of the terminal.")
def report(file: str, form: str | None, output: str | None) -> None:
    """Show the report in FILE, or turn it into a page or a table."""
    found = load(file)
    chosen = form or _BY_SUFFIX.get(Path(output or "").suffix.lower(), "console")
    try:
        with reading(file):
            text = found.render(cast("Any", chosen))
    except ImportError as error:
        raise BadInput(str(error)) from None
    put(text, output)


@click.command(short_help="Compare two reports; exit code 1 on a regression.")
@click.argument("old")
@click.argument("new")
@click.option(
    "--fail-on",
    type=ratio,
    metavar="RATIO",
    default="10%",
    show_default=True,
    help="By how much a stage may get slower.",
)
@click.pass_context
def compare(context: click.Context, old: str, new: str, fail_on: float) -> None:
    """Show what has changed from OLD to NEW, and whether it is more than noise.

    The exit code is 0 if nothing got worse, 1 if something did, 2 if a file is not a report.
    """
    from otel_pipeline_metrics.report import compare as comparing

    first, second = load(old), load(new)
    with reading(old, new):
        found = comparing.compare(first, second, fail_on=fail_on)
        text = found.render()
    put(text, None)
    context.exit(found.exit_code)


@click.command(short_help="Merge several reports into one.")
@click.argument("files", nargs=-1, required=True)
@click.option("--output", "-o", metavar="FILE", help="Write to this file instead of the terminal.")
def merge(files: tuple[str, ...], output: str | None) -> None:
    """Merge the reports in FILES: of the processes of one run, or of several runs."""
    places = [os.path.realpath(file) for file in files]
    twice = next((f for f, p in zip(files, places, strict=True) if places.count(p) > 1), None)
    if twice is not None:
        raise BadInput(f"{twice} is given twice")
    reports = [load(file) for file in files]
    with reading(*files):
        text = RunReport.merge(*reports).to_json()
    put(text, output)


@click.command(short_help="Show the JSON Schema of reports.")
@click.argument("kind", type=click.Choice(("report", "collector")))
@click.option("--output", "-o", metavar="FILE", help="Write to this file instead of the terminal.")
def schema(kind: str, output: str | None) -> None:
    """Show the JSON Schema (draft 2020-12) of a JSON file.

    "report" is a run's report, "collector" what MetricsCollector.export_json() writes.
    """
    from otel_pipeline_metrics.report.schema import collector_schema, report_schema

    put(json.dumps(report_schema() if kind == "report" else collector_schema(), indent=2), output)

"""The commands `report`, `compare`, `trend`, `merge` and `schema`."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import click

from otel_pipeline_metrics.cli.files import BadInput, load, put, ratio, reading, say
from otel_pipeline_metrics.report import RunReport, console
from otel_pipeline_metrics.report.run_report import FORMAT_BY_SUFFIX, FORMATS
from otel_pipeline_metrics.report.tables import look_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics.report.run_report import Format


_output = click.option(
    "--output", "-o", metavar="FILE", help="Write to this file instead of the terminal."
)
_format = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="By default the one that the output's suffix suggests, else console.",
)
_tolerance = functools.partial(
    click.option, type=ratio, metavar="RATIO", default="10%", show_default=True
)


class _Rendered(Protocol):
    """What has a text in each format: a report, a comparison, a trend."""

    def render(self, format: Format) -> str: ...  # noqa: A002 - the word of RunReport


def _show(found: _Rendered, form: str | None, output: str | None, *files: str) -> None:
    """Write what was found in the files in the format that was asked for."""
    chosen = form or FORMAT_BY_SUFFIX.get(Path(output or "").suffix.lower(), "console")
    try:
        with reading(*files):
            if isinstance(found, RunReport) and chosen == "console" and output is None:
                # as wide as the terminal; `put` would take colours for control characters
                text = console.render(found, look_of(sys.stdout)._replace(colours=False))
            else:
                text = found.render(cast("Any", chosen))
    except ImportError as error:
        raise BadInput(str(error)) from None
    put(text, output)


@click.command(short_help="Show a report.")
@click.argument("file")
@_format
@_output
def report(file: str, form: str | None, output: str | None) -> None:
    """Show the report in FILE, or turn it into a page or a table. `-` is standard input."""
    _show(load(file), form, output, file)


@click.command(short_help="Compare two reports; exit code 1 on a regression.")
@click.argument("old")
@click.argument("new")
@_tolerance("--fail-on", help="By how much a stage may get slower.")
@_tolerance("--fail-on-throughput", help="By how much the throughput may fall.")
@click.option("--allow-missing", is_flag=True, help="Let a stage of OLD be missing in NEW.")
@_format
@_output
@click.pass_context
def compare(
    context: click.Context,
    old: str,
    new: str,
    *,
    fail_on: float,
    fail_on_throughput: float,
    allow_missing: bool,
    form: str | None,
    output: str | None,
) -> None:
    """Show what has changed from OLD to NEW, and whether it is more than noise.

    The exit code is 0 if nothing got worse, 1 if something did, 2 if a file is not a report.
    """
    from otel_pipeline_metrics.report import compare as comparing

    first, second = load(old), load(new)
    with reading(old, new):
        found = comparing.compare(
            first,
            second,
            fail_on=fail_on,
            fail_on_throughput=fail_on_throughput,
            allow_missing=allow_missing,
        )
    _show(found, form, output, old, new)
    context.exit(found.exit_code)


@click.command(short_help="Follow a pipeline over many reports.")
@click.argument("folder", metavar="DIR")
@click.option("--stage", metavar="NAME", help="Follow this stage alone.")
@click.option("--pipeline", metavar="NAME", help="Leave out reports of other pipelines.")
@click.option(
    "--fail-on",
    type=ratio,
    metavar="RATIO",
    help="Exit with 1 if a figure became worse by so much. By default nothing fails.",
)
@_format
@_output
@click.pass_context
def trend(
    context: click.Context,
    folder: str,
    *,
    stage: str | None,
    pipeline: str | None,
    fail_on: float | None,
    form: str | None,
    output: str | None,
) -> None:
    """Show what became of a pipeline over the reports in DIR, and where it changed.

    Every file in DIR and below whose name ends in .json is read; one that is not a report is left
    out. The exit code is 1 if --fail-on is given and a figure became worse, 2 without a report.
    """
    from otel_pipeline_metrics.report import trend as following

    if not Path(folder).is_dir():
        raise BadInput(f"{folder} is not a folder")
    skipped: list[str] = []
    with reading(folder):
        found = following.trend(
            _reports_in(folder, pipeline, skipped), stage=stage, fail_on=fail_on
        )
    if skipped:
        more = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        say(f"left out: {skipped[0]}{more}", err=True)
    _show(found, form, output, folder)
    context.exit(found.exit_code)


def _reports_in(folder: str, pipeline: str | None, skipped: list[str]) -> Iterator[RunReport]:
    """Read the reports one after the other; the reasons for leaving out others are collected."""
    for path in sorted(Path(folder).rglob("*.json")):
        if not path.is_file():
            skipped.append(f"{path} is no file")
            continue
        try:
            found = load(str(path))
        except BadInput as error:
            skipped.append(error.message)
            continue
        if pipeline in {None, found.run.get("pipeline")}:
            yield found


@click.command(short_help="Merge several reports into one.")
@click.argument("files", nargs=-1, required=True)
@_output
def merge(files: tuple[str, ...], output: str | None) -> None:
    """Merge the reports in FILES: of the processes of one run, or of several runs."""
    from otel_pipeline_metrics.report.run_report import merge_reports

    places = [os.path.realpath(file) for file in files]
    often = Counter(places)
    twice = next((f for f, p in zip(files, places, strict=True) if often[p] > 1), None)
    if twice is not None:
        raise BadInput(f"{twice} is given twice")
    named = files if len(files) <= 4 else (*files[:2], f"{len(files) - 2:,} more")
    with reading(*named):
        # one after the other, since thousands may be given
        text = merge_reports(load(file) for file in files).to_json()
    put(text, output)


@click.command(short_help="Show the JSON Schema of reports.")
@click.argument("kind", type=click.Choice(("report", "collector", "service")))
@_output
def schema(kind: str, output: str | None) -> None:
    """Show the JSON Schema (draft 2020-12) of a JSON file.

    "report" is a run's report, "collector" what MetricsCollector.export_json() writes, "service"
    what get_comprehensive_metrics() returns.
    """
    from otel_pipeline_metrics.report.schema import collector_schema, report_schema

    if kind == "service":
        from otel_pipeline_metrics.service import comprehensive_schema

        found = comprehensive_schema()
    else:
        found = report_schema() if kind == "report" else collector_schema()
    put(json.dumps(found, indent=2), output)

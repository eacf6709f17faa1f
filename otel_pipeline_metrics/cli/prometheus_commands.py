"""The commands `rules` and `dashboards`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from otel_pipeline_metrics.cli.files import BadInput, say


@click.command(short_help="Write rules and alerts for Prometheus.")
@click.argument("directory")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another threshold or time, such as queue_full_share=0.8; docs/alerts.md lists them.",
)
def rules(directory: str, settings: tuple[str, ...]) -> None:
    """Write recording and alerting rules for Prometheus into DIRECTORY.

    A file that is there already is replaced. The exit code is 0, or 2 if a name or value of --set
    is wrong, or if the file cannot be written.
    """
    from otel_pipeline_metrics.dashboards.rules import FILE_NAME, render

    given: dict[str, str] = {}
    for each in settings:
        name, equals, value = each.partition("=")
        if not equals:
            raise BadInput(f"--set must be NAME=VALUE, not {each!r:.80}")
        given[name.strip()] = value.strip()
    try:
        text = render(given)
    except ValueError as error:
        raise BadInput(f"--set: {error}") from None
    path = Path(directory) / FILE_NAME
    _write(path, text)
    say(f"{path}: load it by rule_files in Prometheus's configuration")


@click.command(short_help="Write dashboards for Grafana.")
@click.argument("directory")
def dashboards(directory: str) -> None:
    """Write three dashboards for Grafana into DIRECTORY: pipeline, service and telemetry.

    A file that is there already is replaced. The exit code is 0, or 2 if a file cannot be written.
    """
    package = files("otel_pipeline_metrics.dashboards")
    for name in ("pipeline", "service", "telemetry"):
        path = Path(directory) / f"otel-pipeline-metrics-{name}.json"
        _write(path, package.joinpath(f"{name}.json").read_text(encoding="utf-8"))
        say(f"{path}: import it in Grafana, or provision the folder")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from None

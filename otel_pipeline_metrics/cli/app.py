"""The group of commands; each is defined in a file of its kind and listed here."""

from __future__ import annotations

import click

from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics.cli.files import NAME
from otel_pipeline_metrics.cli.report_commands import compare, merge, report, schema, trend
from otel_pipeline_metrics.cli.service_commands import ops
from otel_pipeline_metrics.cli.telemetry_commands import doctor, replay


@click.group(
    name=NAME,
    commands=[report, compare, trend, merge, schema, doctor, replay, ops],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name=NAME)
def app() -> None:
    """Show, compare, follow and merge reports; check telemetry; sum up operations."""

"""The group of commands. A new one is a file of its own with a line here."""

from __future__ import annotations

import sys
from typing import Any

import click

from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics.cli.report_commands import compare, merge, report
from otel_pipeline_metrics.cli.telemetry_commands import doctor, replay


class _Group(click.Group):
    """A group whose output any terminal takes."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                # a name that the terminal has no letters for becomes "?" instead of a fault
                reconfigure(errors="replace")
        return super().invoke(context)


@click.group(cls=_Group, name="opm", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="opm")
def app() -> None:
    """Reports of pipeline runs: show, compare, merge. Telemetry: check it, send what was kept."""


app.add_command(report)
app.add_command(compare)
app.add_command(merge)
app.add_command(doctor)
app.add_command(replay)

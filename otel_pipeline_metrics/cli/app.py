"""The group of commands; each is defined in a file of its kind and listed here."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

import click

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics.cli.files import NAME, BadInput, say_lines
from otel_pipeline_metrics.cli.prometheus_commands import dashboards, rules
from otel_pipeline_metrics.cli.report_commands import compare, merge, report, schema, trend
from otel_pipeline_metrics.cli.service_commands import ops
from otel_pipeline_metrics.cli.telemetry_commands import doctor, replay
from otel_pipeline_metrics.cli.top import top

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group(
    name=NAME,
    commands=[report, compare, trend, merge, schema, doctor, replay, ops, top, rules, dashboards],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name=NAME)
def app() -> None:
    """Show, compare, follow and merge reports; check telemetry; sum up operations; watch; alert."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or those of the process; return the exit code.

    Every error is one line on stderr, without a traceback.
    """
    try:
        return app(arguments, standalone_mode=False) or 0
    except click.Abort:
        return _fail(BadInput("interrupted"), 130)
    except click.ClickException as error:
        return _fail(error, error.exit_code)
    except OSError as error:
        return _fail(BadInput(f"cannot write the output: {error.strerror or error}"), 2)
    except Exception as error:
        errors.logger.debug("the command failed", exc_info=True)
        return _fail(BadInput(f"internal error: {type(error).__name__}: {error}"), 2)


def _fail(error: click.ClickException, code: int) -> int:
    message = io.StringIO()
    error.show(message)
    with contextlib.suppress(OSError):
        # click's own messages may quote the name of a file
        say_lines(message.getvalue().rstrip("\n"), err=True)
    # Python would try to write once more what a full device refused, and end with code 120
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code

"""The command `ops`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.cli.files import BadInput, say, say_lines

_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


class _Age(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer click
    """An age such as `30d`, in seconds."""

    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the seconds of `30d`, `12h`, `90m`, `45s` or `2w`."""
        matched = _AGE.fullmatch(str(value).strip())
        if matched is None:
            self.fail(f"{value!r} is not an age such as 30d, 12h or 90m", param, ctx)
        return float(matched[1]) * _SECONDS[matched[2]]


@click.command(short_help="Sum up the operations in a folder.")
@click.argument("directory")
@click.option(
    "--delete-older",
    type=_Age(),
    metavar="AGE",
    help="Delete files of operations that are older, such as 30d; by the time in their name.",
)
def ops(directory: str, delete_older: float | None) -> None:
    """Sum up the operations that a MetricsManager keeps in DIRECTORY.

    A line for each type and name of operation: how many there were, how many failed, and how long
    they took. The exit code is 0, or 2 if the folder cannot be read.
    """
    from otel_pipeline_metrics.service.operation_files import OperationFiles
    from otel_pipeline_metrics.service.operation_summary import summarise

    folder = Path(directory)
    try:
        if delete_older is not None:
            removed = OperationFiles(folder).expire(delete_older)
            say(f"{text.counted(removed, 'file')} deleted")
        found = summarise(folder)
    except OSError as error:
        raise BadInput(f"cannot read {directory}: {error.strerror or error}") from None
    say_lines(found.render())

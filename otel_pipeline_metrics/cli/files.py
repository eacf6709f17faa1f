"""What comes in and goes out: files that may be anything, and errors in one line."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from otel_pipeline_metrics._core.files import write_atomically
from otel_pipeline_metrics.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Iterator


class BadInput(click.ClickException):
    """Something given is not what it should be: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Write the message as one line."""
        click.echo(f"opm: {' '.join(self.message.split())}", file=file, err=True)


def load(path: str) -> RunReport:
    """Read a report.

    Raises:
        BadInput: there is none, or it cannot be read.
    """
    try:
        return RunReport.load(path)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(str(error)) from None


@contextmanager
def reading(*paths: str) -> Iterator[None]:
    """Say which files are to blame where a report's inside is not what a report's should be."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = str(error) if type(error) is ValueError else f"not a whole report: {error!r}"
        raise BadInput(f"{', '.join(paths)}: {said}") from None


def put(text: str, output: str | None) -> None:
    """Write text to a file, whole or not at all, or to the terminal.

    Raises:
        BadInput: the file cannot be written.
    """
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        written = write_atomically(output, text if text.endswith("\n") else text + "\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot write {output}: {reason}") from None
    click.echo(f"written to {written}", err=True)


def ratio(text: str) -> float:
    """Return the part of something that `10%` or `0.1` says.

    Raises:
        BadParameter: it says none.
    """
    plain = text.strip()
    try:
        found = float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise click.BadParameter(f"{text!r} is no ratio such as 10% or 0.1")
    if found >= 1 and not plain.endswith("%"):
        raise click.BadParameter(f"{text!r} would be {found * 100:g} %: write 10% or 0.1")
    return found

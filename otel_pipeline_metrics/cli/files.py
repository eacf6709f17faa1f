"""Read and write the command's files; errors are one line and exit code 2."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.files import write_atomically
from otel_pipeline_metrics._core.validation import read_ratio
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.run_report import read_report

if TYPE_CHECKING:
    from collections.abc import Iterator


# the main name; the short one, `opm`, is a command of other projects too
NAME: Final = "otel-pipeline-metrics"
# characters of an error
MAX_LINE: Final = 1000


class BadInput(click.ClickException):
    """Input that the command cannot use: one line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Write the message as one line."""
        line = f"{NAME}: {' '.join(self.message.split())}"
        # it may quote the file, which may be one long word
        say(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…", err=True, file=file)


def say(line: str, *, err: bool = False, file: Any = None) -> None:
    """Write one line to the terminal, without characters that would control it."""
    click.echo(text.printable(line), err=err, file=file)


def say_lines(lines: str, *, err: bool = False) -> None:
    """Write lines of which each is one: what they quote has no end of a line in it."""
    click.echo(text.printable(lines, "\n\t"), err=err)


def load(path: str) -> RunReport:
    """Read a report from a file, or from standard input if the path is `-`.

    Raises:
        BadInput: the file cannot be read, or is not a report.
    """
    try:
        return read_report(_stdin(), "standard input") if path == "-" else RunReport.load(path)
    except OSError as error:
        path = "standard input" if path == "-" else path
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(str(error)) from None


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise OSError("it is closed")
    return sys.stdin.buffer


@contextmanager
def reading(*paths: str) -> Iterator[None]:
    """Turn errors about the values in a report into bad input that names its files."""
    try:
        yield
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        reason = str(error) if type(error) is ValueError else f"not a whole report: {error!r}"
        raise BadInput(f"{', '.join(paths)}: {reason}") from None


def put(content: str, output: str | None) -> None:
    """Write text to a file, whole or not at all, or to the terminal.

    Raises:
        BadInput: the file cannot be written.
    """
    if output is None:
        say_lines(content.removesuffix("\n"))
        return
    try:
        written = write_atomically(output, content.removesuffix("\n") + "\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot write {output}: {reason}") from None
    say(f"written to {written}", err=True)


def ratio(given: str) -> float:
    """Return the ratio that `10%` or `0.1` means.

    Raises:
        BadParameter: the text is not a positive ratio, or a number of per cent without `%`.
    """
    try:
        return read_ratio(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None

"""The command `top`: look at a process that goes on, from another terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import click

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.process import attaching
from otel_pipeline_metrics.cli.files import BadInput, say, say_lines
from otel_pipeline_metrics.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


# what one picture may have
MAX_BYTES: Final = 32 * 1024 * 1024
# a process that is stopped, or holds the GIL, sends nothing meanwhile
ANSWER_S: Final = 10.0

_HOW: Final = "configure(attach=True) or OTEL_PIPELINE_METRICS_ATTACH=true lets it"


class Picture(NamedTuple):
    """What a process shows at a moment."""

    title: str
    reports: list[RunReport]


@click.command(short_help="Look at a process that goes on.")
@click.argument("pid", type=click.IntRange(min=1), required=False)
def top(pid: int | None) -> None:
    """Show what a process is doing now, as `run(live=True)` does in its own terminal.

    Without PID, the one process that can be looked at. The process has to allow it, by
    configure(attach=True) or OTEL_PIPELINE_METRICS_ATTACH=true, and belong to the same user.
    Ctrl-C ends the view, and changes nothing there. Where stdout is no terminal, one picture is
    written. The exit code is 0, or 2 if there is no such process.
    """
    try:
        attaching.check_system()
    except OSError as error:
        raise BadInput(str(error)) from None
    path = _socket_of(pid)
    with _connected(path) as connection:
        pictures = _pictures(connection)
        if sys.stdout.isatty():
            _watch(pictures)
            say(f"process {path.name} has ended, or looks away")
            return
        connection.settimeout(ANSWER_S)
        try:
            _print(next(pictures))
        except StopIteration:
            raise BadInput(f"process {path.name} has ended") from None
        except TimeoutError:
            raise BadInput(f"process {path.name} does not answer for {ANSWER_S:g} s") from None


# --- the connection -------------------------------------------------------------------------


def _socket_of(pid: int | None) -> Path:
    """Return the socket of a process; without its id, of the only one.

    Raises:
        BadInput: there is none, or there are several.
    """
    found: dict[int, Path] = {}
    refused: list[str] = []
    for folder in attaching.folders():
        try:
            attaching.remove_stale(folder)
            for each in attaching.pids_in(folder):
                found.setdefault(each, folder / str(each))
        except OSError as error:
            refused.append(str(error))
    if pid is not None and pid in found:
        return found[pid]
    if pid is None and len(found) == 1:
        return next(iter(found.values()))
    because = "".join(f"; {reason}" for reason in refused)
    if pid is not None:
        raise BadInput(f"process {pid} does not let itself be looked at: {_HOW}{because}")
    if not found:
        raise BadInput(f"no process lets itself be looked at: {_HOW}{because}")
    names = text.listed([str(each) for each in sorted(found)])
    raise BadInput(f"several processes let themselves be looked at, name one: {names}")


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        attaching.check_folder(path.parent)
        attaching.check_socket(path)
        connection.connect(os.fspath(path))
        attaching.check_peer(connection)
    except OSError as error:
        connection.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"cannot look at process {path.name}: {reason}") from None
    return connection


def _pictures(connection: socket.socket) -> Iterator[Picture]:
    """Yield what the process sends, until it ends.

    Raises:
        BadInput: it sends something else.
        TimeoutError: the connection has a timeout, and it sends nothing for so long.
    """
    received = bytearray()
    while True:
        try:
            part = connection.recv(1 << 16)
        except ConnectionError:
            return
        if not part:
            return
        received += part
        while b"\n" in part and (end := received.find(b"\n")) >= 0:
            line = bytes(received[:end])
            del received[: end + 1]
            yield _picture(line)
        if len(received) > MAX_BYTES:
            raise BadInput(f"the process sends more than {MAX_BYTES:,} bytes for one picture")


def _picture(line: bytes) -> Picture:
    try:
        data = json.loads(line)
        refused = data.get("refused")
        reports = [] if refused else [RunReport(report) for report in data["reports"]]
        title = f"{text.printable(data.get('program'))}  process {int(data.get('pid', 0))}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadInput("the process sends something that is not a picture") from None
    if refused:
        raise BadInput(f"the process refuses: {text.printable(refused)}")
    return Picture(text.printable(title), reports)


# --- the view -------------------------------------------------------------------------------


def _print(picture: Picture) -> None:
    say(picture.title)
    for report in picture.reports:
        say("")
        say_lines(report.render("console"))


def _watch(pictures: Iterator[Picture]) -> None:
    """Draw on a screen of its own, which leaves the terminal as it was."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from otel_pipeline_metrics.report.live import History, render_frame

    histories: dict[Any, History] = {}
    before = {each: signal.signal(each, _leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    terminal = Console(highlight=False)
    try:
        with Live(console=terminal, screen=True, auto_refresh=False) as view:
            for picture in pictures:
                shown: list[Any] = [Text(picture.title, style="dim")]
                ids = [report.run.get("id") for report in picture.reports]
                histories = {each: histories.get(each) or History() for each in ids}
                for each, report in zip(ids, picture.reports, strict=True):
                    shown += [Text(""), render_frame(report, histories[each])]
                view.update(Group(*shown), refresh=True)
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

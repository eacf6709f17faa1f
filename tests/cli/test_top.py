"""`opm top`: a real process looked at from a terminal, and what it refuses."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.process import attaching
from otel_pipeline_metrics.cli import top
from otel_pipeline_metrics.cli.app import app
from tests.lifecycle.attach.test_attach import PROGRAM, process, runtime
from tests.lifecycle.configure.conftest import slate
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

__all__ = ["PROGRAM", "runtime", "slate"]

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED"), reason="the system cannot tell who listens"
)

RUN = """
with opm.run("nightly", resources=False):
    for _ in range(12):
        work()
    going()
"""


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["top", *map(str, arguments)])


@pytest.mark.slow
def test_one_picture_where_stdout_is_no_terminal() -> None:
    with process(RUN) as running:
        for arguments in ((), (running.pid,)):
            result = command(*arguments)
            assert result.exit_code == 0
            assert f"process {running.pid}" in result.output
            assert "run nightly: in progress" in result.output
            assert "work" in result.output


@pytest.mark.slow
def test_of_several_processes_one_is_named() -> None:
    with process(RUN) as first, process(RUN) as second:
        result = command()
        assert result.exit_code == 2
        pids = sorted([first.pid, second.pid])
        assert f"name one: {pids[0]} and {pids[1]}" in result.output
        assert command(second.pid).exit_code == 0


def test_without_a_process_it_says_how() -> None:
    assert "no process lets itself be looked at: configure(attach=True)" in command().output
    result = command(1)
    assert result.exit_code == 2
    assert "process 1 does not let itself be looked at" in result.output
    assert command("zero").exit_code == 2
    assert command(-1).exit_code == 2


@contextmanager
def terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command in a pseudo-terminal; yield the process and the terminal's other end."""
    ours, theirs = os.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "otel_pipeline_metrics", "top", *map(str, arguments)],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield running, ours
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def shown(end: int, until: str | None) -> str:
    """Return what a terminal was sent, until a text or its end."""
    got, deadline = b"", time.monotonic() + 30
    while until is None or until.encode() not in got:
        assert time.monotonic() < deadline, got
        if select.select([end], [], [], 0.5)[0]:
            try:
                part = os.read(end, 65536)
            except OSError:  # Linux says so once nobody holds the other end
                break
            if not part:
                break
            got += part
    return got.decode()


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_quitting_leaves_the_terminal_as_it_was(way: signal.Signals) -> None:
    with process(RUN) as running, terminal(running.pid) as (view, end):
        text = shown(end, "12 calls")
        assert text.startswith("\x1b[?1049h")
        assert "nightly" in text
        view.send_signal(way)
        assert view.wait(30) == (0 if way == signal.SIGINT else 128 + way)
        after = shown(end, None)
        # the cursor is back, and so is what the terminal showed before; nothing comes after it
        assert "\x1b[?25h" in after
        assert after.endswith("\x1b[?1049l")
        assert running.poll() is None


@pytest.mark.slow
def test_the_end_of_the_process_ends_the_view() -> None:
    with process(RUN) as running, terminal() as (view, end):
        shown(end, "12 calls")
        running.kill()
        assert view.wait(30) == 0
        assert f"process {running.pid} has ended" in shown(end, None).rpartition("\x1b[?1049l")[2]


# --- a folder and a process that are not to be trusted ------------------------------------------


@contextmanager
def answering(folder: Path, *answers: bytes) -> Iterator[None]:
    """Stand in for a process: a socket that sends these bytes to each who connects."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "4711"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                connection, _ = listener.accept()
                with connection:
                    for answer in answers:
                        try:
                            connection.sendall(answer)
                        except OSError:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()
            path.unlink()


def picture(**more: Any) -> bytes:
    data = {"pid": 4711, "program": "p.py", "reports": [samples.full_data()], **more}
    return json.dumps(data).encode() + b"\n"


def test_what_a_process_sends_is_cleaned(runtime: Path) -> None:
    made = samples.full_data()
    made["run"]["pipeline"] = "name\x1b[2J"
    made["stages"][0]["name"] = "stage\x1b]0;title\x07"
    with answering(runtime, picture(program="p\x1b[31m", reports=[made])):
        result = command(4711)
    assert result.exit_code == 0
    assert "stage\ufffd]0;title\ufffd" in result.output
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


@pytest.mark.slow
def test_what_a_process_sends_is_cleaned_on_a_terminal(runtime: Path) -> None:
    made = samples.full_data()
    made["run"]["pipeline"] = "name\x1b[2J"
    for stage in made["stages"]:
        stage["name"] = "[bold]\x1b]0;title\x07"
    sent = picture(program="p\x1b[31m", reports=[made])
    with answering(runtime, sent), terminal(4711) as (view, end):
        text = shown(end, None)
        view.wait(30)
    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert "p\x1b[31m" not in text
    assert "[bold]\ufffd]0;title\ufffd" in text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "process 4711 has ended"),
        (b"no JSON\n", "something that is not a picture"),
        (b"[]\n", "something that is not a picture"),
        (b'{"reports": 5}\n', "something that is not a picture"),
        (b'{"reports": [{"schema": "other"}]}\n', "something that is not a picture"),
        (b"[" * 200_000 + b"\n", "something that is not a picture"),
        (b'{"refused": "why\x1b"}\n'.replace(b"\x1b", b"\\u001b"), "refuses: why\ufffd"),
    ],
    ids=range(7),
)
def test_an_answer_that_is_no_picture_is_one_line(answer: bytes, says: str, runtime: Path) -> None:
    with answering(runtime, answer):
        result = command(4711)
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.splitlines()) == 1


def test_an_answer_without_an_end_is_cut_off(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "MAX_BYTES", 100_000)
    with answering(runtime, *[b"x" * 65536] * 50):
        result = command(4711)
    assert result.exit_code == 2
    assert "more than 100,000 bytes" in result.output


def test_a_process_that_says_nothing_is_given_up(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "ANSWER_S", 0.1)
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(runtime / "4711"))
        silent.listen()
        result = command(4711)
    assert result.exit_code == 2
    assert "process 4711 does not answer for 0.1 s" in result.output


@pytest.mark.parametrize("fault", ["mode", "link"])
def test_a_folder_that_others_may_use_is_not_looked_into(
    fault: str, runtime: Path, tmp_path: Path
) -> None:
    with answering(runtime, picture()):
        if fault == "mode":
            runtime.chmod(0o750)
        else:
            runtime.rename(tmp_path / "moved")
            runtime.symlink_to(tmp_path / "moved")
        result = command(4711)
        if fault == "link":
            runtime.unlink()
            (tmp_path / "moved").rename(runtime)
    assert result.exit_code == 2
    assert ("must have mode 0700" if fault == "mode" else "is not a folder") in result.output


def test_a_process_of_another_user_is_not_looked_at(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise attaching.NotTrustedError("the other end belongs to the user 1234")

    with answering(runtime, picture()):
        monkeypatch.setattr(attaching, "check_peer", refuse)
        result = command(4711)
    assert result.exit_code == 2
    assert "cannot look at process 4711: the other end belongs to the user 1234" in result.output


def test_what_is_stale_is_removed(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(runtime / "4711"))
    assert command(4711).exit_code == 2
    assert list(runtime.iterdir()) == []


def test_it_sees_this_very_process() -> None:
    opm.configure(exporter="none", attach=True)
    with opm.run("mine", resources=False), opm.stage("s"):
        assert "run mine: in progress" in command().output

"""Test where a file is written to: beside its place, through a link, into a pipe."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import files, settings
from otel_pipeline_metrics._core.files import read_whole, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- regular files --------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_file_has_the_mode_that_open_would_give_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "new.json", "{}")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new.json") == 0o666 & ~umask


def test_the_umask_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads make files meanwhile, which would be open to everyone."""
    monkeypatch.delattr(os, "umask")
    (tmp_path / "old.json").touch()
    for name in ("new.json", "old.json"):
        assert write_atomically(tmp_path / name, "{}").read_text() == "{}"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "old.json"
    path.touch()
    path.chmod(mode)
    write_atomically(path, "{}")
    assert (mode_of(path), path.read_text()) == (mode, "{}")


def test_what_replaces_a_private_file_is_private_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.json"
    path.touch()
    path.chmod(0o600)
    modes: list[int] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(path, "{}")
    assert modes == [0o600]


@pytest.mark.parametrize("name", ["r" * 245 + ".json", "r" * 255, "ä" * 127])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, "{}")
    write_atomically(tmp_path / name, "{}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    link = tmp_path / "latest.json"
    link.symlink_to("real.json")
    assert write_atomically(link, "new") == link
    assert link.is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_a_link_to_nothing_is_followed_and_its_folder_made(tmp_path: Path) -> None:
    link = tmp_path / "a" / "latest.json"
    link.parent.mkdir()
    link.symlink_to("../later/report.json")
    write_atomically(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "later" / "report.json").read_text() == "new"


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a", "{}")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("error", [errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_cannot_be_replaced_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """As a single file that a container mounts, or one in a folder of somebody else's."""
    path = tmp_path / "mounted.json"
    path.write_text("a longer text than the new one")
    inode = path.stat().st_ino

    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("pathlib.Path.replace", refused)
    write_atomically(path, "{}")
    assert (path.read_text(), path.stat().st_ino) == ("{}", inode)
    assert [one.name for one in tmp_path.iterdir()] == ["mounted.json"]


def test_a_full_disk_is_no_reason_to_write_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_a_letter_that_utf8_lacks_does_not_cost_the_file(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / "x", "a\udcffb").read_text() == "a\\udcffb"


# --- what is not a regular file -------------------------------------------------------------------


def make_device(path: Path, minor: int) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("wb").close()
    except OSError:
        pytest.skip("this system allows no device here")


def test_a_device_stays_one(tmp_path: Path) -> None:
    null = tmp_path / "null"
    make_device(null, 3)
    write_atomically(null, "{}")
    assert null.is_char_device()
    (tmp_path / "link").symlink_to("null")
    write_atomically(tmp_path / "link", "{}")
    assert null.is_char_device()
    assert (tmp_path / "link").is_symlink()


def test_a_full_device_is_an_error_and_stays_one(tmp_path: Path) -> None:
    full = tmp_path / "full"
    make_device(full, 7)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(full, "{}")
    assert full.is_char_device()


def test_whoever_reads_a_fifo_gets_the_whole_text(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # more than a pipe holds
    text = "0123456789" * 100_000
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    got: list[bytes] = []

    def read() -> None:
        while part := os.read(reader, 65536):
            got.append(part)

    thread = threading.Thread(target=read)
    # opened by the writer first, or the reader would see an end at once
    keep_open = os.open(fifo, os.O_WRONLY)
    thread.start()
    write_atomically(fifo, text)
    os.close(keep_open)
    thread.join()
    os.close(reader)
    assert b"".join(got).decode() == text
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Move the clock by each pause instead of waiting; return the pauses."""
    now = [100.0]
    made: list[float] = []

    def sleep(seconds: float) -> None:
        made.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(files.time, "sleep", sleep)
    monkeypatch.setattr(files.clock, "monotonic", lambda: now[0])
    return made


def test_a_fifo_that_nobody_reads_is_an_error_after_a_second(
    tmp_path: Path, pauses: list[float]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="no process reads from this FIFO"):
        write_atomically(fifo, "{}")
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert sum(pauses) == pytest.approx(1.0, abs=0.03)


def test_a_reader_may_come_within_that_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sleep = files.time.sleep
    readers: list[int] = []

    def come(seconds: float) -> None:
        sleep(seconds)
        if len(pauses) == 3:
            readers.append(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))

    monkeypatch.setattr(files.time, "sleep", come)
    write_atomically(fifo, "{}")
    assert os.read(readers[0], 100) == b"{}"
    os.close(readers[0])
    assert len(pauses) == 3


@pytest.mark.parametrize("with_poll", [True, False])
def test_a_reader_that_does_not_read_is_given_up_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, with_poll: bool
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    now = [100.0]
    waits: list[float] = []

    class Poll:
        def register(self, *_: int) -> None:
            pass

        def poll(self, timeout_ms: float) -> list[Any]:
            waits.append(timeout_ms / 1000)
            now[0] += 0.4
            return []

    class Select:
        POLLOUT = 4

        def select(self, *given: Any) -> tuple[list[int], ...]:
            Poll().poll(given[3] * 1000)
            return [], [], []

    fake = Select()
    if with_poll:
        fake.poll = Poll  # type: ignore[attr-defined]
    monkeypatch.setattr(files, "select", fake)
    monkeypatch.setattr(files.clock, "monotonic", lambda: now[0])
    with pytest.raises(TimeoutError, match="only a part of the text within 1 s"):
        write_atomically(fifo, "0123456789" * 100_000)
    os.close(reader)
    assert waits == pytest.approx([1.0, 0.6, 0.2])


def test_a_socket_and_a_directory_are_errors(tmp_path: Path) -> None:
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        with pytest.raises(OSError, match="it is a socket"):
            write_atomically(place, "{}")
        assert place.is_socket()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a directory"):
        write_atomically(tmp_path / "folder", "{}")


# --- the report of a run --------------------------------------------------------------------------


def fifo_without_reader(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [fifo_without_reader, directory, circle, listening])
def test_a_report_without_its_place_is_one_line_and_a_private_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], None],
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    place = tmp_path / "report.json"
    make(place)
    before = os.umask(0)
    try:
        kind = place.lstat().st_mode
        with opm.run("r", report=place, resources=False) as run:
            pass
    finally:
        os.umask(before)
    assert place.lstat().st_mode == kind
    (written,) = elsewhere.iterdir()
    assert (mode_of(written), opm.RunReport.load(written)) == (0o600, run.report)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(rf"the report could not be written to {place} \(.+\); .+{written}", line)


def test_the_place_is_that_of_the_time_when_the_run_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shown = io.StringIO()
    monkeypatch.setattr(settings, "_current", settings.Config(console=shown))
    run = opm.run("r", report="report.json", resources=False)
    with run:
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert shown.getvalue().endswith(f"report: {tmp_path}/report.json\n")
    monkeypatch.chdir(tmp_path)
    with opm.run("r", report="report.json", resources=False):
        pass
    assert shown.getvalue().endswith("report: report.json\n")
    assert (tmp_path / "report.json").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_working_directory_that_was_removed_costs_only_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opm.run("r", report="report.json", resources=False) as run:
        pass
    (written,) = tmp_path.iterdir()
    assert opm.RunReport.load(written) == run.report


TO_STDOUT = """
import sys
import otel_pipeline_metrics as opm

print("before", flush=True)
with opm.run("r", report=sys.argv[1], resources=False):
    pass
print("after", flush=True)
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to_file", [True, False])
def test_the_output_of_the_program_may_be_the_place(
    tmp_path: Path, name: str, *, to_file: bool
) -> None:
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", TO_STDOUT, name],
            stdout=file if to_file else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    text = out.read_text() if to_file else done.stdout
    first, *report, last = text.splitlines()
    assert (first, report[0], report[-1], last) == ("before", "{", "}", "after")
    assert done.stderr == ""


# --- reading --------------------------------------------------------------------------------------


def test_a_fifo_that_nobody_writes_to_is_given_up_after_a_second(
    tmp_path: Path, pauses: list[float]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="no process writes to this FIFO"):
        read_whole(fifo, 10)
    assert sum(pauses) == pytest.approx(1.0, abs=0.03)


def test_a_pipe_is_read_until_its_writer_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the writer pauses: `opm report <(ssh ...)`."""
    reading, writing = os.pipe()
    parts = [b"a" * 70_000, b"b"]

    def wait(_: int) -> None:
        if parts:
            os.set_blocking(writing, False)
            part = parts[0]
            parts[0] = part[os.write(writing, part) :]
            if not parts[0]:
                del parts[0]
        else:
            os.close(writing)

    monkeypatch.setattr(files, "_wait", wait)
    assert read_whole(f"/dev/fd/{reading}", 100_000) == b"a" * 70_000 + b"b"
    os.close(reading)


def test_a_device_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    assert read_whole("/dev/null", 10) == b""
    assert read_whole("/dev/zero", 5_000_000) == b"\0" * 5_000_000
    # a terminal has nothing until somebody types
    keyboard, terminal = os.openpty()
    assert read_whole(os.ttyname(terminal), 10) == b""
    os.close(keyboard)
    os.close(terminal)
    with pytest.raises(IsADirectoryError):
        read_whole(tmp_path, 10)

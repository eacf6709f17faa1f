"""A process that lets itself be looked at: who may, what they get, and what stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.process import attaching
from otel_pipeline_metrics._lifecycle import attach
from tests.support.process import ROOT, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED"), reason="the system cannot tell who connects"
)

SECONDS = 20.0


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test's processes; its path must be short."""
    folder = tmp_path_factory.mktemp("x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder / "otel-pipeline-metrics"


@contextmanager
def looking(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(path))
        yield connection


def first_picture(path: Path) -> dict[str, Any]:
    with looking(path) as connection, connection.makefile("rb") as lines:
        found: dict[str, Any] = json.loads(lines.readline())
    return found


PROGRAM = """
import os, sys, threading, time
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.process import attaching
opm.configure(exporter="none", console="off", attach=True)

@opm.stage
def work():
    pass

def going():
    print("going", flush=True)
    sys.stdin.readline()

"""


@contextmanager
def process(body: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that listens, until it is told to end."""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + body],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        if line != "going\n":
            running.kill()
            pytest.fail(f"{line!r}: {running.communicate()[1]}")
        yield running
    finally:
        running.kill()
        running.communicate()


def end(running: subprocess.Popen[str]) -> str:
    """Let a program go on to its end; return what it wrote."""
    out, errors = running.communicate("\n", timeout=SECONDS)
    assert running.returncode == 0, errors
    return out


# --- where ------------------------------------------------------------------------------------


def test_nothing_listens_unless_asked(runtime: Path) -> None:
    opm.configure(exporter="none")
    assert not runtime.exists()
    assert "opm-attach" not in {thread.name for thread in threading.enumerate()}


def test_it_listens_while_it_is_asked_to(runtime: Path) -> None:
    opm.configure(exporter="none", attach=True)
    path = runtime / str(os.getpid())
    assert stat.S_IMODE(runtime.lstat().st_mode) == 0o700
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    opm.configure(exporter="none", attach=True)
    assert first_picture(path)["pid"] == os.getpid()
    opm.configure(exporter="none")
    assert not runtime.exists()
    opm.configure(exporter="none", attach=True)
    assert first_picture(path)["pid"] == os.getpid()
    opm.shutdown()
    assert not runtime.exists()
    assert "opm-attach" not in {thread.name for thread in threading.enumerate()}


def test_a_variable_asks_for_it(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_ATTACH", "true")
    opm.configure(exporter="none")
    assert (runtime / str(os.getpid())).exists()
    opm.configure(exporter="none", attach=False)
    assert not runtime.exists()


@pytest.mark.parametrize("given", ["", "relative/folder", "/does/not/exist"])
def test_without_a_runtime_folder_it_is_in_the_temporary_one(
    given: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    monkeypatch.setattr(attaching.tempfile, "tempdir", str(temporary))
    opm.configure(exporter="none", attach=True)
    folder = temporary / f"otel-pipeline-metrics-{os.geteuid()}"
    assert first_picture(folder / str(os.getpid()))["pid"] == os.getpid()


@pytest.mark.parametrize("fault", ["link", "file", "mode", "owner"])
def test_a_folder_that_others_may_use_is_refused(
    fault: str,
    runtime: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    says = {
        "link": "is not a folder",
        "file": "is not a folder",
        "mode": "must have mode 0700, not 0755",
        "owner": "belongs to another user",
    }[fault]
    if fault == "link":
        tmp_path.chmod(0o700)
        runtime.symlink_to(tmp_path)
    elif fault == "file":
        runtime.write_text("")
    else:
        runtime.mkdir(mode=0o700)
    if fault == "mode":
        runtime.chmod(0o755)
    elif fault == "owner" and os.geteuid() == 0:
        os.chown(runtime, 65534, 65534)
    elif fault == "owner":
        mine = os.geteuid()
        monkeypatch.setattr(attaching.os, "geteuid", lambda: mine + 1)
    opm.configure(exporter="none", attach=True)
    assert says in caplog.text
    assert "opm-attach" not in {thread.name for thread in threading.enumerate()}
    assert not list(tmp_path.iterdir())
    if fault in {"mode", "owner"}:
        assert not list(runtime.iterdir())


def test_a_path_that_is_too_long_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    opm.configure(exporter="none", attach=True)
    opm.configure(exporter="none", attach=False)
    opm.configure(exporter="none", attach=True)
    assert caplog.text.count("`opm top` cannot look at this process") == 1


# --- who --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_kernel_is_asked_who_connects(runtime: Path) -> None:
    # Who this process is for its own check changes once it listens, so the test is another user.
    # Root always may look, so that a test of root's becomes nobody first.
    body = """
if os.geteuid() == 0:
    import tempfile
    opm.shutdown()
    os.environ["XDG_RUNTIME_DIR"] = folder = tempfile.mkdtemp(dir="/tmp")
    os.chown(folder, 65534, 65534)
    os.setgid(65534), os.setuid(65534)
    opm.configure(exporter="none", console="off", attach=True)
me = os.geteuid()
def look():
    import socket
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        path = attaching.folders()[0] / str(os.getpid())
        connection.connect(str(path))
        return connection.recv(7)
going()
print(look())
attaching.os.geteuid = lambda: me + 1
print(look())
attaching.os.geteuid = lambda: me
opm.shutdown()
if "folder" in globals():
    os.rmdir(folder)
"""
    with process(body) as running:
        assert end(running) == "b'{\"pid\":'\nb''\n"


def test_root_may_look() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        attaching.check_peer(ours)
        if os.geteuid() == 0:
            # root is at the other end; whoever we are, it may look
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(attaching.os, "geteuid", lambda: 1234)
                attaching.check_peer(ours)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(attaching.os, "geteuid", lambda: 1234567)
                with pytest.raises(attaching.NotTrustedError, match="belongs to the user"):
                    attaching.check_peer(ours)


def test_a_fifth_client_is_refused_and_a_place_is_free_again(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so small that who does not read is not dropped
    monkeypatch.setattr(attach, "picture", lambda: b'{"reports": []}\n')
    opm.configure(exporter="none", attach=True)
    path = runtime / str(os.getpid())
    with ExitStack() as clients:
        for _ in range(attach.MOST_CLIENTS - 1):
            assert clients.enter_context(looking(path)).recv(1)
        with looking(path) as last:
            assert last.recv(1)
            assert first_picture(path) == {"refused": "4 others look at it already"}
        # that it is gone shows when it is sent the next picture
        poll(
            lambda: "reports" in first_picture(path),
            timeout=SECONDS,
            what="a place for another client",
        )


# --- what they get ----------------------------------------------------------------------------


def test_a_picture_has_the_runs_in_progress(runtime: Path) -> None:
    opm.configure(exporter="none", attach=True)
    path = runtime / str(os.getpid())
    with opm.run("outer", resources=False), opm.stage("s"):
        with opm.run("inner", resources=False):
            names = [r["run"]["pipeline"] for r in first_picture(path)["reports"]]
            assert names == ["outer", "inner"]
        (report,) = first_picture(path)["reports"]
    assert opm.RunReport(report).run["pipeline"] == "outer"
    assert "sketch" not in json.dumps(report)


def test_without_a_run_it_has_what_the_process_measures(runtime: Path) -> None:
    # in a process of its own: others have used more stages than it shows
    with process("work()\ngoing()") as running:
        found = first_picture(runtime / str(running.pid))
        (report,) = found["reports"]
        assert report["run"]["pipeline"] == found["program"]
        assert [s["name"] for s in opm.RunReport(report).stages] == ["work"]
        end(running)


def test_nothing_is_read_from_a_client(runtime: Path) -> None:
    opm.configure(exporter="none", attach=True)
    with looking(runtime / str(os.getpid())) as client:
        client.setblocking(False)
        sent: list[int] = []
        with pytest.raises(BlockingIOError):
            sent.extend(iter(lambda: client.send(b"x" * 65536), 0))
        # the system's own buffer is full, and stays so while pictures come
        client.settimeout(SECONDS)
        for _ in range(2):
            assert client.recv(1 << 20).endswith(b"\n")
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.send(b"x")


@pytest.mark.slow
def test_a_slow_client_is_dropped_and_keeps_nobody_waiting(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "INTERVAL_S", 0.5)
    # more than the system keeps for a client that does not read
    monkeypatch.setattr(attach, "picture", lambda: b"x" * 1_000_000 + b"\n")
    opm.configure(exporter="none", attach=True)
    path = runtime / str(os.getpid())
    with looking(path) as slow, looking(path) as quick, quick.makefile("rb") as lines:
        for _ in range(3):
            assert len(lines.readline()) == 1_000_001
        received = 0
        while part := slow.recv(1 << 20):  # until the end that the server made
            received += len(part)
        assert received < 1_000_001
        assert len(lines.readline()) == 1_000_001


def test_an_error_while_making_a_picture_ends_nothing(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_pipeline_metrics._core import errors

    monkeypatch.setattr(errors, "raise_faults", False)
    make = attach.picture
    monkeypatch.setattr(attach, "INTERVAL_S", 0.05)
    monkeypatch.setattr(attach, "picture", lambda: 1 / 0)
    opm.configure(exporter="none", attach=True)
    with looking(runtime / str(os.getpid())) as client:
        time.sleep(0.1)
        monkeypatch.setattr(attach, "picture", make)
        assert client.recv(10)


# --- what stays behind --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["exit", "error", "sigterm", "sigterm in a run"])
def test_an_end_leaves_nothing(ending: str, runtime: Path) -> None:
    body = {
        "exit": "going()",
        "error": "going(); os.close(2); raise SystemExit(0)",
        "sigterm": "going()",
        "sigterm in a run": "with opm.run('r'): going()",
    }[ending]
    with process(body) as running:
        assert (runtime / str(running.pid)).exists()
        if ending.startswith("sigterm"):
            running.send_signal(signal.SIGTERM)
            assert running.wait(SECONDS) == -signal.SIGTERM
        else:
            end(running)
        assert not runtime.exists()


@pytest.mark.slow
def test_what_a_killed_process_left_the_next_one_removes(runtime: Path) -> None:
    with process("going()") as running:
        running.kill()
        running.wait()
    left = runtime / str(running.pid)
    assert stat.S_ISSOCK(left.lstat().st_mode)
    other = runtime / "12345"
    other.write_text("not a socket, so it is not ours to remove")
    with process("going()") as alive:
        opm.configure(exporter="none", attach=True)
        assert not left.exists()
        assert other.exists()
        assert first_picture(runtime / str(alive.pid))["pid"] == alive.pid


@pytest.mark.slow
def test_a_forked_child_closes_and_removes_nothing(runtime: Path) -> None:
    body = """
ours = {os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{n}")}
sockets = {each for each in ours if each.startswith("socket:")}
child = os.fork()
if not child:
    left = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{n}")]
    print(len(sockets), len(sockets & set(left)), flush=True)
    sys.exit(0)  # with everything that runs at an end
os.waitpid(child, 0)
going()
"""
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + body],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        # a listener and both ends of what wakes its thread
        assert running.stdout.readline() == "3 0\n"
        assert running.stdout.readline() == "going\n"
        assert first_picture(runtime / str(running.pid))["pid"] == running.pid
        running.communicate("\n", timeout=SECONDS)
        assert not runtime.exists()
    finally:
        running.kill()
        running.communicate()


@pytest.mark.slow
def test_a_forked_child_that_asks_has_a_socket_of_its_own(runtime: Path) -> None:
    body = """
child = os.fork()
opm.configure(exporter="none", console="off", attach=True)
if not child:
    going()
    opm.shutdown()
    os._exit(0)
os.waitpid(child, 0)
print(len(os.listdir(attaching.folders()[0])), os.getpid())
"""
    with process(body) as running:
        pids = sorted(int(each.name) for each in runtime.iterdir())
        assert len(pids) == 2
        assert [first_picture(runtime / str(pid))["pid"] for pid in pids] == pids
        assert end(running) == f"1 {running.pid}\n"

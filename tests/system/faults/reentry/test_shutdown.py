"""Test stages at interpreter shutdown: in exit handlers, finalizers, daemon threads, generators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.process import ROOT
from tests.system.faults.reentry.running import LIMIT_S, PRELUDE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PROGRAM = """
OUT = sys.argv[1]

def last():
    # registered first, so it is the last to run
    stats = opm.stats()["spans"]
    with open(OUT, "w") as file:
        json.dump({**stats, "calls": backend.collector.counts and
            {name: backend.collector.calls(name) for name in backend.collector.counts}}, file)

atexit.register(last)

@opm.stage("work")
def work(): pass

from tests.system.faults.backend import Backend
backend = Backend()
backend.install()
"""
CONFIGURE = "opm.configure(exporter='otlp', console=False)\n"


def end(text: str, out: Path) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Run a program to its end; return what was counted there."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + PROGRAM + text, str(out)],
        cwd=ROOT,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, Any] = json.loads(out.read_text())
    return counted, done


def test_an_exit_handler_that_runs_before_ours(tmp_path: Path) -> None:
    said, done = end(CONFIGURE + "atexit.register(work)\nwork()", tmp_path / "out")
    assert (said["calls"], said["exported"], done.stderr) == ({"work": 2}, 2, "")


def test_an_exit_handler_that_runs_after_ours(tmp_path: Path) -> None:
    """It works, but too late to be exported: its span is dropped and counted."""
    text = "atexit.register(lambda: print(work()))\n" + CONFIGURE + "work()"
    said, done = end(text, tmp_path / "out")
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert (said["calls"], said["created"], said["exported"]) == ({"work": 1}, 2, 1)
    assert said["dropped"] == 1


def test_a_run_in_an_exit_handler_that_runs_after_ours(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    text = f"""
def late():
    with opm.run("late", report={str(report)!r}, resources=False):
        work()
atexit.register(late)
{CONFIGURE}
"""
    _, done = end(text, tmp_path / "out")
    assert done.stderr == ""
    assert json.loads(report.read_text())["stages"][0]["count"] == 1


def test_threads_that_are_joined_at_the_end_are_counted(tmp_path: Path) -> None:
    """Python waits for other than daemon threads before any exit handler runs."""
    text = (
        CONFIGURE
        + """
def go():
    for _ in range(200):
        work()
        time.sleep(0.0005)
for _ in range(4):
    threading.Thread(target=go).start()
"""
    )
    said, done = end(text, tmp_path / "out")
    assert (said["calls"], done.stderr) == ({"work": 800}, "")
    assert said["exported"] == said["created"] == 800


@pytest.mark.parametrize("doing", ["work()", "opm.current_stage().add_items(1)", "next(g)"])
def test_daemon_threads_that_never_stop(doing: str, tmp_path: Path) -> None:
    text = (
        CONFIGURE
        + f"""
@opm.stage("items")
def items():
    while True:
        yield 1

def go():
    g = items()
    while True:
        with opm.stage("loop"):
            {doing}

for _ in range(4):
    threading.Thread(target=go, daemon=True).start()
time.sleep(0.2)
"""
    )
    said, done = end(text, tmp_path / "out")
    # of the spans that came too late, and, from the SDK, of a full queue
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert said["created"] == said["exported"] + said["dropped"]


def test_finalizers_at_the_very_end(tmp_path: Path) -> None:
    """Objects of the main module are freed when the interpreter is half gone."""
    text = (
        CONFIGURE
        + """
class Late:
    def __del__(self):
        with opm.stage("late"):
            work()
        print("ran", flush=True)

late = Late()
cycle = Late()
cycle.itself = cycle
"""
    )
    _, done = end(text, tmp_path / "out")
    assert (done.stdout, done.stderr) == ("ran\n" * 2, "")


@pytest.mark.parametrize("configured", [True, False])
def test_generators_left_open(configured: bool, tmp_path: Path) -> None:
    text = (
        (CONFIGURE if configured else "")
        + """
import asyncio

@opm.stage("items")
def items():
    try:
        yield 1
        yield 2
    finally:
        print("closed", flush=True)

@opm.stage("async items")
async def async_items():
    yield 1
    yield 2

async def main():
    global abandoned
    abandoned = async_items()
    await abandoned.__anext__()

held = items()
next(held)
asyncio.run(main())
other = asyncio.new_event_loop()
kept = async_items()
other.run_until_complete(kept.__anext__())
other.close()
"""
    )
    said, done = end(text, tmp_path / "out")
    assert (done.stdout, done.stderr) == ("closed\n", "")
    if configured:
        assert said["calls"]["async items"] == 1


def test_a_stage_that_is_open_at_the_end(tmp_path: Path) -> None:
    """It is not counted as finished; its span never ends."""
    text = CONFIGURE + "s = opm.stage('open')\ns.__enter__()\nwork()"
    said, done = end(text, tmp_path / "out")
    assert (said["calls"], said["created"], done.stderr) == ({"work": 1}, 1, "")

"""The live view in real processes: on a pseudo-terminal, and in a notebook's kernel."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pyte
import pytest

from tests.lifecycle.runs.test_notebook import outputs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.processes]

COLUMNS, ROWS = 100, 200


def screen_of(program: str, *, at: str | None = None, **env: str) -> list[str]:
    """Run a program on a terminal; return its screen at the end, or when `at` is first there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **env},
    )
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    found: list[str] | None = None
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the program has ended
            break
        if not data:
            break
        stream.feed(data)
        lines = [line.rstrip() for line in screen.display if line.strip()]
        if found is None and at is not None and any(at in line for line in lines):
            found = lines
    os.close(ours)
    assert child.wait(60) == 0
    return (
        found if found is not None else [line.rstrip() for line in screen.display if line.strip()]
    )


PROGRAM = """
import logging, sys, threading, time
early = logging.StreamHandler(sys.__stderr__)
logging.basicConfig(level=logging.INFO, handlers=[early])
import otel_pipeline_metrics as opm

@opm.process
def work(n):
    time.sleep(0.02)

@opm.fetch
def rows():
    for n in range(1000):
        time.sleep(0.02)
        yield n

def job(name):
    taken = rows()
    with opm.run(name, live=True, resources=False):
        for n in range(40):
            next(taken)
            work(n)
            if n % 4 == 0:
                logging.info("%s: row %d", name, n)
                print(name, "printed", n)
            if n % 10 == 0:
                late = logging.StreamHandler()
                late.handle(logging.makeLogRecord({"msg": f"{name}: late {n}"}))

jobs = [threading.Thread(target=job, args=(name,)) for name in ("one", "two")]
for each in jobs: each.start()
for each in jobs: each.join()
assert sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
assert early.stream is sys.__stderr__
"""


def test_every_line_of_two_live_runs_is_whole() -> None:
    lines = screen_of(PROGRAM, OTEL_PIPELINE_METRICS_CONSOLE="off")
    for name in ("one", "two"):
        for n in range(0, 40, 4):
            assert lines.count(f"INFO:root:{name}: row {n}") == 1
            assert lines.count(f"{name} printed {n}") == 1
        for n in range(0, 40, 10):
            assert lines.count(f"{name}: late {n}") == 1
    # the views have left nothing behind
    assert not [line for line in lines if "in flight" in line or line.startswith("so far")]


def test_stages_and_generators_in_progress_are_shown() -> None:
    program = """
import time, otel_pipeline_metrics as opm
@opm.fetch
def rows():
    for n in range(1000):
        time.sleep(0.05)
        yield n
@opm.process
def slow(row):
    time.sleep(2.5)
with opm.run("long", live=True, resources=False):
    for row in rows():
        slow(row)
        break
"""
    shown = [" ".join(line.split()) for line in screen_of(program, at="slow ")]
    assert any(line.startswith("rows 1 items ") for line in shown)
    assert any(line.startswith("slow ") and "0 calls" in line for line in shown)


def test_a_program_may_end_while_a_view_is_up() -> None:
    program = """
import sys, otel_pipeline_metrics as opm
followed = opm.track(range(1000), name="rows")
for n in followed:
    print("row", n)
    if n == 200: break
"""
    lines = screen_of(program)
    assert lines[-1] == "row 200"
    assert not any("of 1,000" in line for line in lines)


def test_a_dumb_terminal_shows_the_summary_only() -> None:
    program = "import otel_pipeline_metrics as opm\nwith opm.run('x', live=True): pass"
    lines = screen_of(program, TERM="dumb")
    assert lines[0].startswith("run x: success in ")


def test_a_notebook_updates_one_output(tmp_path: Path) -> None:
    _, cell, following = outputs(
        tmp_path,
        "import time\nimport otel_pipeline_metrics as opm\n"
        "@opm.process\ndef work(n):\n    time.sleep(0.05)",
        "with opm.run('nb', live=True, resources=False):\n"
        "    for n in opm.track(range(40), name='rows'):\n"
        "        work(n)\n        if n % 10 == 0: print('row', n)",
        "time.sleep(0.7)",
    )
    pictures = [one for one in cell if one["output_type"] == "display_data"]
    assert 1 <= len(pictures) <= 2  # of the run and of the loop, or of both
    assert "\x1b" not in pictures[0]["data"]["text/html"]
    # the last picture stays
    assert re.search("work ◆ +40 calls", pictures[0]["data"]["text/plain"])
    assert pictures[0]["data"]["text/html"].startswith("<pre")
    printed = "".join(one["text"] for one in cell if one.get("name") == "stdout")
    assert printed.split("\n") == ["row 0", "row 10", "row 20", "row 30", ""]
    assert following == []

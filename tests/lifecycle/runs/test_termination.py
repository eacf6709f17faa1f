"""Test SIGTERM during a run, in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import RunReport

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

PROGRAM = """
import os, signal, sys, time
import otel_pipeline_metrics as opm

opm.configure(exporter="console")
{before}
with opm.run("nightly", report=sys.argv[1], resources=False):
    for _ in range(3):
        with opm.stage("done"):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
"""


def run(path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_report_is_written_and_telemetry_flushed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(path)
    assert done.returncode == -signal.SIGTERM
    report = RunReport.load(path)
    assert (report.run["result"], report.run["partial"]) == ("cancellation", True)
    assert report.stages[0]["count"] == 3
    assert "pipeline.stage.duration" in done.stderr


def test_a_handler_of_the_program_stays(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(path, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))")
    assert done.returncode == 7
    assert RunReport.load(path).run["result"] == "failure"


@pytest.mark.parametrize("nested", [False, True])
def test_the_handler_is_removed_after_the_run(nested: bool) -> None:
    import otel_pipeline_metrics as opm

    before = signal.getsignal(signal.SIGTERM)
    with opm.run("outer", resources=False):
        if nested:
            with opm.run("inner", resources=False):
                assert before is not signal.getsignal(signal.SIGTERM)
        assert before is not signal.getsignal(signal.SIGTERM)
    assert before is signal.getsignal(signal.SIGTERM)


AT = """
import os, signal, sys, time
import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import run
from otel_pipeline_metrics._lifecycle import run_stats

sent = []

def terminate():
    if not sent:
        sent.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # here Python notices

{patch}
opm.configure(exporter="none", console=False)
with opm.run("nightly", report=sys.argv[1], resources=False):
    for _ in range(3000):
        with opm.stage("done"):
            if _ == 2999:
                print("last", flush=True)
print("not reached", flush=True)
"""
DRAINING = """
accept = run_stats.StageStats.add_sorted
def interrupted(self, durations):
    terminate()
    accept(self, durations)
run_stats.StageStats.add_sorted = interrupted
"""
WRITING = """
render = run.Run._data
def interrupted(self):
    terminate()
    return render(self)
run.Run._data = interrupted
"""


def terminate_at(patch: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AT.format(patch=patch), str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_batch_being_flushed_is_in_the_report(tmp_path: Path) -> None:
    """The signal waits for the batch, and not for later work."""
    path = tmp_path / "report.json"
    done = terminate_at(DRAINING, path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
    report = RunReport.load(path)
    assert report.run["result"] == "cancellation"
    # the bound at which a series is flushed; its last call flushed it
    assert (report.stages[0]["count"], report.stages[0]["in_flight"]) == (1024, 0)


def test_a_report_being_written_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = terminate_at(WRITING, path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "last\n", "")
    report = RunReport.load(path)
    assert (report.run["result"], report.run["partial"]) == ("success", False)
    assert report.stages[0]["count"] == 3000

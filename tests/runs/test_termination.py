"""SIGTERM while a run is in progress, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import RunReport

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, signal, sys, time
import otel_pipeline_metrics as opm

opm.configure(exporter="console", console=False)
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


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(path, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))")
    assert done.returncode == 7
    assert RunReport.load(path).run["result"] == "failure"


@pytest.mark.parametrize("nested", [False, True])
def test_it_is_as_before_after_the_run(nested: bool) -> None:
    import otel_pipeline_metrics as opm

    before = signal.getsignal(signal.SIGTERM)
    with opm.run("outer", resources=False):
        if nested:
            with opm.run("inner", resources=False):
                assert before is not signal.getsignal(signal.SIGTERM)
        assert before is not signal.getsignal(signal.SIGTERM)
    assert before is signal.getsignal(signal.SIGTERM)

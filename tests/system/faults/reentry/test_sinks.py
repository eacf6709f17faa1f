"""Test telemetry that cannot be delivered: a failing processor, reader, terminal or disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock
from tests.support.process import ROOT
from tests.system.faults.reentry.running import LIMIT_S, run

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PROCESSOR = """
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        if {start}: raise KeyError("start")
    def on_end(self, span):
        if {end}: raise KeyError("end")
    def force_flush(self, timeout_millis=0):
        {flush}

tracers = TracerProvider(shutdown_on_exit=False)
tracers.add_span_processor(Broken())
reader = InMemoryMetricReader()
meters = MeterProvider([reader], shutdown_on_exit=False)
opm.configure(tracer_provider=tracers, meter_provider=meters, console=False, flush_timeout=0.5)

@opm.stage("work")
def work(n):
    if n == 3: raise ValueError("mine")
    return n

results = []
with opm.run("sinks", resources=False) as r:
    for n in range(5):
        try:
            results.append(work(n))
        except ValueError as error:
            results.append(str(error))
began = time.monotonic()
opm.shutdown()
seconds = time.monotonic() - began
(runs,) = [
    point.count
    for resource in reader.get_metrics_data().resource_metrics
    for scope in resource.scope_metrics
    for metric in scope.metrics if metric.name == "pipeline.run.duration"
    for point in metric.data.data_points
]
say(results=results, count=r.report.stages[0]["count"], seconds=seconds, runs=runs)
"""


@pytest.mark.parametrize(
    ("start", "end", "flush", "faults"),
    [
        (True, False, "return True", 3),
        (False, True, "return True", 2),
        (False, False, "raise OSError", 0),
        (False, False, "time.sleep(20)", 0),
    ],
)
def test_a_span_processor_of_the_user_that_fails(
    start: bool, end: bool, flush: str, faults: int
) -> None:
    """Each place logs one error: a stage that returns, one that fails, and the run.

    The first calls are samples, and end in the same place as those that fail.
    """
    said = run(PROCESSOR.format(start=start, end=end, flush=flush), quiet=False)
    assert said["results"] == [0, 1, 2, "mine", 4]
    assert said["count"] == 5
    assert said["seconds"] < 5  # and not 20
    assert said["stderr"].count("internal error in") == faults
    assert said["runs"] == 1


TERMINAL = """
import os, sys
import otel_pipeline_metrics as opm
{closing}
opm.configure({arguments})
with opm.run("terminal", report=sys.argv[1], resources=False):
    for _ in range(10):
        with opm.stage("work"):
            pass
os.write(1, b"the end")
"""
CLOSINGS = {
    "closed": "sys.stderr.close()",
    "gone": "sys.stderr = None",
    "closed below": "os.close(2)",
    "a pipe that nobody reads": "r, w = os.pipe(); os.close(r); os.dup2(w, 2)",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
}


@pytest.mark.parametrize("arguments", ["", "console=True, exporter='none'"])
@pytest.mark.parametrize("name", CLOSINGS)
def test_a_terminal_that_fails(name: str, arguments: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL.format(closing=CLOSINGS[name], arguments=arguments), path],
        cwd=ROOT,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the end")
    assert json.loads(path.read_text())["stages"][0]["count"] == 10


NOWHERE = """
import tempfile
tempfile.tempdir = "/proc/nowhere"
opm.configure(exporter="none", console=False)
with opm.run("nowhere", report="/proc/nowhere/report.json", resources=False) as r:
    with opm.stage("work"):
        pass
say(count=r.report.stages[0]["count"], result=r.report.run["result"])
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a place where root, too, writes nothing")
def test_a_report_that_cannot_be_written_anywhere() -> None:
    said = run(NOWHERE, quiet=False)
    assert (said["count"], said["result"]) == (1, "success")
    (line,) = said["stderr"].splitlines()
    assert line.startswith("the report could not be written to /proc/nowhere/report.json (")
    assert "), nor elsewhere (" in line


def test_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations come from the monotonic clock; the age of an item is never negative."""
    unix = iter(range(2_000_000_000, 0, -1_000_000))
    monkeypatch.setattr(clock, "unix", lambda: float(next(unix)))
    with opm.run("back", resources=False) as r:
        for _ in range(3):
            with opm.stage("work") as s:
                s.event_time(1_999_000_000.0)
    (stage,) = r.report.stages
    assert stage["count"] == 3
    assert 0 <= stage["duration_s"]["total"] <= r.report.run["wall_s"] < 5

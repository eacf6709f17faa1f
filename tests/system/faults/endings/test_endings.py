"""Test every way to end with real processes: they end like the bare program and lose nothing.

Each program runs bare, with a collector that works, and with one that accepts but never answers.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from otel_pipeline_metrics import RunReport
from tests.support.process import ROOT
from tests.support.timing import own_time_at_end
from tests.system.faults.collector.running import SLACK_S, check_ledger
from tests.system.faults.collector.servers import Collector, collector
from tests.system.faults.endings.programs import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.processes, pytest.mark.slow]

TIMEOUT_S = 1.0
ATTEMPTS = 3
# Calls of the two stages in `works()`.
WORK, FAILED = 100, 10


class Ended(NamedTuple):
    """How a process ended, and what it left behind."""

    code: int
    stdout: str
    stderr: str
    # From the end of the program's own work.
    exit_s: float
    out: Path

    @property
    def last_words(self) -> str:
        """The last line of its traceback, if there is one."""
        return self.stderr.splitlines()[-1] if "Traceback" in self.stderr else ""

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads((self.out / "stats.json").read_text())
        return stats

    def report(self, name: str = "report") -> RunReport:
        return RunReport.load(self.out / f"{name}.json")


def run(name: str, out: Path, **env: str) -> Ended:
    """Run a program, which leaves its files in `out`."""
    out.mkdir(parents=True)
    text = f"from tests.system.faults.endings.prelude import *\n{PROGRAMS[name].text}"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env={**clean, **env, "OPM_OUT": str(out)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ended = own_time_at_end(process, 30)
    stdout, stderr = process.communicate()
    noted = (out / "moment").read_text()
    return Ended(process.returncode, stdout, stderr, ended - float(noted), out)


def instrumented(name: str, out: Path, endpoint: str) -> Ended:
    return run(
        name,
        out,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT=str(TIMEOUT_S),
    )


@functools.cache
def bare(name: str) -> Ended:
    with tempfile.TemporaryDirectory() as directory:
        return run(name, Path(directory) / "bare", OPM_BARE="1")


@pytest.fixture(scope="module")
def silent() -> Iterator[Collector]:
    with collector("silent", "http/protobuf") as server:
        yield server


def check_like_bare(name: str, ended: Ended, code: int | None = None) -> None:
    """Check that output, exception and exit code are the bare program's."""
    alone = bare(name)
    assert ended.code == (alone.code if code is None else code), ended.stderr
    assert ended.stdout == alone.stdout
    assert alone.last_words in ended.stderr.splitlines() or not alone.last_words
    assert ended.stderr.count("Traceback") == alone.stderr.count("Traceback"), ended.stderr


def check_report(name: str, ended: Ended) -> None:
    program = PROGRAMS[name]
    if program.result is None:
        assert not (ended.out / "report.json").exists()
        return
    run = ended.report().run
    assert (run["result"], run["partial"]) == (program.result, program.result != "success")
    stages: Mapping[str, Any] = {stage["name"]: stage for stage in ended.report().stages}
    assert stages["work"]["count"] == WORK
    # errors that end the program are inside its run or come after it
    assert stages["fails"]["count"] == stages["fails"]["errors"]["total"]
    assert FAILED <= stages["fails"]["count"] <= failures(name)


def failures(name: str) -> int:
    """Count the calls of the stage that fails, in the run and after it."""
    return FAILED + len(re.findall(r"\bfails\(\)", PROGRAMS[name].text))


@pytest.mark.parametrize("name", PROGRAMS)
def test_with_a_collector_that_works(name: str, tmp_path: Path) -> None:
    with collector("none", "http/protobuf") as server:
        ended = instrumented(name, tmp_path / "out", f"http://127.0.0.1:{server.port}")
    check_like_bare(name, ended)
    check_report(name, ended)
    if name == "os._exit":
        # documented: no code runs there, so nothing is written or sent
        assert server.spans.total() == server.points == 0
        return
    stats = ended.stats()
    check_ledger(stats)
    assert server.spans["work"] == server.calls("work") == WORK
    assert server.spans["fails"] == server.calls("fails") == failures(name)
    assert stats["spans"]["exported"] == server.spans.total()
    if "threads" not in name:  # otherwise some come after the end, and are dropped
        assert stats["spans"]["created"] == stats["spans"]["exported"]
    assert stats["metric_points"]["exported"] == server.points > 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_with_a_collector_that_is_silent(name: str, tmp_path: Path, silent: Collector) -> None:
    program = PROGRAMS[name]
    limit = program.within_s or TIMEOUT_S + SLACK_S
    for attempt in range(ATTEMPTS):
        out = tmp_path / str(attempt)
        ended = instrumented(name, out, f"http://127.0.0.1:{silent.port}")
        if ended.exit_s <= limit:
            break
    print(f"\n{name:50} {ended.code:4} {ended.exit_s:.2f} s", end=" ")
    assert ended.exit_s <= limit
    check_like_bare(name, ended, program.code)
    check_report(name, ended)
    if program.flushed:
        stats = ended.stats()
        check_ledger(stats)
        assert stats["spans"]["exported"] == stats["metric_points"]["exported"] == 0
        assert stats["spans"]["dropped"] == stats["spans"]["created"] >= WORK + failures(name)

"""Test that every call is counted and every span accounted for, in any order of events.

After each step of a random program the ledger is compared with what the program itself knows: what
it made, what the backend took, what is on disk.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core import settings as _settings
from otel_pipeline_metrics._export import exporters, flush
from otel_pipeline_metrics._export.background import wait_for
from otel_pipeline_metrics._export.delivery import delivery
from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._lifecycle import configure
from tests.lifecycle.configure.support import clean_slate
from tests.system.faults.backend import FAULTS, Backend, Fault

if TYPE_CHECKING:
    from otel_pipeline_metrics._export.flush import ExportPipeline

# A backend in the same process needs milliseconds of it, even on a busy machine.
FLUSH_S = 30.0
# Also the most that a backend that hangs may cost.
HANGING_S = 0.05
# Long, since only a failing test waits for it: a busy machine may keep a thread from its core.
PATIENCE_S = 10.0
CHILD_S = 120
NEVER_MS = "3600000"
STAGES = ("extract", "transform", "load")


@dataclass
class Configured:
    """One `configure()`, and what this program has made since."""

    export: ExportPipeline
    sampled: bool
    spool: Path | None
    flush_s: float
    created: int = 0
    # spans that an earlier configuration began and that ended here
    taken_over: int = 0
    successor: Configured | None = None
    calls: Counter[str] = field(default_factory=Counter)
    # Whether every call so far was sent to the backend.
    reported: bool = True


class Life(RuleBasedStateMachine):
    """A program's life, from `configure()` to `shutdown()`, with faults in between."""

    @initialize()
    def begin(self) -> None:
        self.slate = clean_slate()
        self.slate.__enter__()
        self.load = exporters.load
        self.directory = tempfile.TemporaryDirectory()
        self.backend = Backend()
        self.backend.install()
        self.fault: Fault = "none"
        self.current: Configured | None = None
        self.all: list[Configured] = []
        # calls before the first configure() are sent to what it configures
        self.early: Counter[str] | None = Counter()
        self.runs: list[tuple[opm.Run, Counter[str], Configured | None]] = []

    def teardown(self) -> None:
        if not hasattr(self, "slate"):
            return
        self.fails("none")
        for run, _, _ in reversed(self.runs):
            run.__exit__(None, None, None)
        exporters.load = self.load
        self.slate.__exit__(None, None, None)
        self.directory.cleanup()

    # --- steps -------------------------------------------------------------------------------

    @rule(sampled=st.booleans(), spool=st.sampled_from(["none", "room", "full"]))
    def configure(self, sampled: bool, spool: str) -> None:
        """Begin, or begin again: pending telemetry goes to the configuration from before.

        The same call again does nothing.
        """
        directory = None if spool == "none" else Path(self.directory.name) / str(len(self.all))
        before = self.current
        asked = (sampled, directory, self._flush_s)
        same = before is not None and asked == (before.sampled, before.spool, before.flush_s)
        if not same:
            self._ends()
        os.environ["OTEL_TRACES_SAMPLER"] = "always_on" if sampled else "always_off"
        opm.configure(
            exporter="otlp",
            console=False,
            flush_timeout=self._flush_s,
            spans_per_second=None,
            spool=directory,
            spool_max_bytes=1 if spool == "full" else 10**8,
        )
        export = configure._export
        assert export is not None
        if same:
            assert before is not None
            assert export is before.export
            return
        self.current = Configured(export, sampled, directory, self._flush_s)
        if before is not None:
            before.successor = self.current
        if self.early:
            self.current.calls, self.current.reported = self.early, False
        self.early = None
        self.all.append(self.current)

    @rule()
    def shutdown(self) -> None:
        self._ends()
        opm.shutdown()
        self.current = self.early = None

    def _ends(self) -> None:
        if self.current is not None:
            # what ends now and is not delivered is only in the ledger
            self.current.reported = self.fault in ("none", "partial")

    @rule(stage=st.sampled_from(STAGES), times=st.integers(1, 4), outcome=st.sampled_from("oei"))
    def call(self, stage: str, times: int, outcome: str) -> None:
        """Make calls that return, fail, or count items."""

        @opm.stage(stage)
        def work() -> None:
            if outcome == "e":
                raise KeyError(stage)
            if outcome == "i":
                opm.current_stage().add_items(3)

        for _ in range(times):
            if outcome == "e":
                with pytest.raises(KeyError):
                    work()
            else:
                work()
        self._called(stage, times)

    # before the first configure(), results beyond the backlog are dropped
    @precondition(lambda self: self.early is None)
    @rule(times=st.sampled_from([600, 1100, 2100]))
    def call_often(self, times: int) -> None:
        """Make more calls than the sinks' backlog, a batch of spans, or the queue holds."""
        for _ in range(times):
            with opm.stage("extract"):
                pass
        self._called("extract", times)

    def _called(self, stage: str, times: int) -> None:
        if self.runs:
            self.runs[-1][1][stage] += times
        if self.current is not None:
            self.current.calls[stage] += times
            self.current.created += times
            self.current.reported = False
        elif self.early is not None:
            self.early[stage] += times

    @rule()
    def begin_run(self) -> None:
        run = opm.run("life", resources=False)
        run.__enter__()
        self.runs.append((run, Counter(), self.current))
        if self.current is not None and not self.current.sampled:
            self.current.created += 1

    @precondition(lambda self: self.runs)
    @rule(error=st.sampled_from([None, KeyError("k"), KeyboardInterrupt()]))
    def end_run(self, error: BaseException | None) -> None:
        run, calls, began_in = self.runs.pop()
        run.__exit__(type(error) if error else None, error, None)
        if began_in is not None and began_in.sampled:
            ended_in = began_in
            while ended_in.successor is not None:
                ended_in = ended_in.successor
            ended_in.created += 1  # dropped there, unless the configuration is still in force
            ended_in.taken_over += ended_in is not began_in
        counted = {stage["name"]: stage["count"] for stage in run.report.stages}
        assert counted == dict(calls)
        assert run.report.run["partial"] == (error is not None)

    @precondition(lambda self: self.current is not None)
    @rule()
    def flush(self) -> None:
        assert self.current is not None
        report = self.current.export.flush(self._flush_s)
        if self.fault in ("none", "partial"):
            self.current.reported = True
        else:
            assert not report.ok or not self.current.created

    @precondition(lambda self: self.current is not None and self.current.spool is None)
    @rule(times=st.integers(1, 4))
    def fork(self, times: int) -> None:
        """Check that a child counts its own calls from zero, and takes nothing from its parent."""
        assert self.current is not None
        receiver, sender = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: there are threads
            child = os.fork()
        if not child:
            signal.alarm(CHILD_S)
            os.write(sender, json.dumps(self._in_child(times)).encode())
            os._exit(0)
        os.close(sender)
        with os.fdopen(receiver) as said:
            text = said.read()
        assert os.waitpid(child, 0)[1] == 0
        spans, taken, calls, parents = json.loads(text)
        assert spans["created"] == times
        assert spans["sampled_out"] == (0 if self.current.sampled else times)
        assert spans["exported"] == taken
        assert sum(spans.values()) == 2 * times
        assert parents == 0
        if self.fault in ("none", "partial"):
            assert calls == times

    def _in_child(self, times: int) -> list[Any]:
        collector = self.backend.collector
        before = collector.spans.total()
        parents = sum(map(collector.calls, STAGES))
        for _ in range(times):
            with opm.stage("forked"):
                pass
        opm.shutdown()
        return [
            opm.stats()["spans"],
            collector.spans.total() - before,
            collector.calls("forked"),
            sum(map(collector.calls, STAGES)) - parents,
        ]

    @rule(fault=st.sampled_from(FAULTS))
    def fails(self, fault: Fault) -> None:
        """Let the backend work, or fail in this way, from now on."""
        if fault == self.fault:
            return
        self.backend.fail(fault)
        for each in self.all:
            # exports that hung have failed now, and are kept or dropped
            assert wait_for(each.export._late, time.monotonic() + PATIENCE_S)
        self.fault = fault
        _settings.replace(dataclasses.replace(_settings.settings(), flush_timeout_s=self._flush_s))

    @property
    def _flush_s(self) -> float:
        return HANGING_S if self.fault == "hangs" else FLUSH_S

    # --- what holds after each step ----------------------------------------------------------

    @invariant()
    def nothing_is_lost_unsaid(self) -> None:
        """Check for a while: a thread empties a full queue in its own time."""
        if not hasattr(self, "all"):
            return
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._check()
            except AssertionError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.001)
            else:
                return

    def _check(self) -> None:
        for each in self.all:
            self._check_ledger(each)
        taken = sum(each.export.stats()["spans"]["exported"] for each in self.all)
        assert self.backend.collector.spans.total() == taken
        if all(each.reported for each in self.all):
            for stage in STAGES:
                calls = sum(each.calls[stage] for each in self.all)
                assert self.backend.collector.calls(stage) == calls
        assert not [said for said in errors._logged if said.startswith("internal")]

    def _check_ledger(self, each: Configured) -> None:
        stats = each.export.stats()
        for ledger in (stats["spans"], stats["metric_points"]):
            parts = {name: count for name, count in ledger.items() if name != "created"}
            assert min(parts.values()) >= 0
            assert ledger["created"] == sum(parts.values())
        spans = stats["spans"]
        assert spans["created"] == each.created
        if not each.sampled:
            assert spans["sampled_out"] == each.created - each.taken_over
        for name, kind in (("spans", "traces"), ("metric_points", "metrics")):
            kept = 0
            if each.spool is not None and each.spool.is_dir():
                kept = sum(p.items for p in Spool(each.spool, 1, 1).batches(kind))
            assert stats[name]["spooled"] == kept


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps take milliseconds, and export only if a step says so."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", NEVER_MS)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", NEVER_MS)
    monkeypatch.setattr(flush, "GRACE_S", 0.02)
    monkeypatch.setattr(flush, "WRITING_S", (0.01, 0.0))
    monkeypatch.setattr(delivery, "PAUSE_S", (0.0, 0.0))


TestLife = pytest.mark.slow(Life.TestCase)
TestLife.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)

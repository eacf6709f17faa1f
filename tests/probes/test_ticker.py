"""Test that monitors and runs share one sampling thread."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm
from otel_pipeline_metrics import ResourceMonitor
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.resources import ticker as _ticker
from tests.probes.test_monitor import HOUR, threads

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Clock
    from tests.probes.conftest import Machine


def test_overlapping_runs_share_one_thread(machine: Machine) -> None:
    """It begins with the first and ends with the last, in whatever order they end."""
    # each in a context of its own, as the tasks of a service have
    runs = [(opm.run(f"r{n}"), contextvars.copy_context()) for n in range(20)]
    assert threads() == []
    for run, context in runs:
        context.run(run.__enter__)
        assert len(threads()) == 1
    for run, context in runs[:-1]:
        context.run(run.__exit__, None, None, None)
        assert len(threads()) == 1
    last, context = runs[-1]
    context.run(last.__exit__, None, None, None)
    assert threads() == []
    with opm.run("again"):
        assert len(threads()) == 1


def test_each_interval_and_each_on_reading_has_its_own_thread(machine: Machine) -> None:
    with ResourceMonitor(HOUR), ResourceMonitor(HOUR):
        assert len(threads()) == 1
        with ResourceMonitor(2 * HOUR):
            assert len(threads()) == 2
            with ResourceMonitor(HOUR, on_reading=lambda _: None):
                assert len(threads()) == 3
    assert threads() == []


def test_monitors_that_sample_together_read_the_machine_once(
    machine: Machine, clock: Clock
) -> None:
    with ResourceMonitor(HOUR) as one, ResourceMonitor(HOUR) as other:
        clock.advance(HOUR)
        before = machine.calls.count("getrusage")
        _ticker.shared(HOUR).tick()
        assert machine.calls.count("getrusage") == before + 1
        assert one.latest is not None
        assert other.latest is not None
        assert one.latest.at == other.latest.at == 1000.0 + HOUR
        assert (one.summary().samples, other.summary().samples) == (2, 2)


def test_a_call_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "raise_faults", False)
    made: list[str] = []

    def fail() -> None:
        made.append("fails")
        raise KeyError

    ticker = _ticker.Ticker(HOUR)
    ticker.add(1, fail)
    ticker.add(2, lambda: made.append("other"))
    ticker.tick()
    ticker.tick()
    ticker.remove(1)
    ticker.remove(2)
    assert made == ["fails", "other"] * 2


def test_without_a_thread_there_are_a_first_and_a_last_sample(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one tries again."""
    monkeypatch.setattr(errors, "raise_faults", False)
    with monkeypatch.context() as refusing:

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        refusing.setattr(threading.Thread, "start", refuse)
        first = ResourceMonitor(HOUR)
        first.start()
    assert threads() == []
    with ResourceMonitor(HOUR):
        assert len(threads()) == 1
    first.stop()
    assert first.summary().samples == 2
    assert threads() == []


def test_a_forked_child_has_its_own_thread() -> None:
    """A thread that the child lacks may hold the ticker's lock."""
    code = """
import os, threading
from otel_pipeline_metrics import ResourceMonitor
from otel_pipeline_metrics._probes.resources import ticker
with ResourceMonitor(3600):
    lock = ticker.shared(3600)._lock
    thread = threading.Thread(target=lock.acquire)
    thread.start(); thread.join()
    pid = os.fork()
    if pid == 0:
        counts = [threading.active_count()]
        with ResourceMonitor(3600):
            counts.append(threading.active_count())
        counts.append(threading.active_count())
        os._exit(0 if counts == [1, 2, 1] else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ticker.shared(3600)._lock = threading.RLock()
assert status == 0, status
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)

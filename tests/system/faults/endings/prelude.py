"""Begin every program here: `from tests.system.faults.endings.prelude import *`.

The same program runs bare, where `opm` is a stand-in that does nothing, and instrumented. Two
variables control that: OPM_BARE, and OPM_OUT, a directory for the output.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.timing import own_time
from tests.system.faults.endings import bare

__all__ = [
    "BARE", "asyncio", "fails", "kill", "later", "logging", "moment", "opm", "os",
    "record_meanwhile", "report", "say_stats", "signal", "sys", "threading", "time", "works",
]  # fmt: skip

OUT = Path(os.environ["OPM_OUT"])
BARE = "OPM_BARE" in os.environ
opm: Any = bare


def say_stats() -> None:
    """Write the ledger after the last flush."""
    (OUT / "stats.json").write_text(json.dumps(opm.stats()))


if not BARE:
    import otel_pipeline_metrics as opm
    from otel_pipeline_metrics._core.process import signals

    # registered before ours, so it runs after ours
    atexit.register(say_stats)
    opm.configure(service_name="endings", console=False)
    signals.at_end.append(say_stats)


def report(name: str = "report") -> str:
    """Return the path of a run's report."""
    return str(OUT / f"{name}.json")


@opm.stage("work")
def work(number: int) -> int:
    return number * number


@opm.stage("fails")
def fails() -> None:
    raise ValueError("the pipeline's own")


def works(calls: int = 100) -> int:
    """Do the pipeline's work; every tenth call fails besides."""
    total = 0
    for number in range(calls):
        total += work(number)
        if number % 10 == 0:
            try:
                fails()
            except ValueError:
                total += 1
    return total


@opm.stage("busy")
def busy() -> None:
    """Make one more call."""


def record_meanwhile() -> None:
    """Let four threads enter a stage again and again until the end."""

    def go_on() -> None:
        while True:
            busy()
            time.sleep(0.0005)

    for _ in range(4):
        threading.Thread(target=go_on, daemon=True).start()


def moment() -> None:
    """Record that the program's own work is over: from now on the time to its exit counts."""
    (OUT / "moment").write_text(str(own_time()))


def kill(number: int = signal.SIGTERM) -> None:
    """Send this process a signal, and wait for its effect."""
    moment()
    os.kill(os.getpid(), number)
    time.sleep(1)


def later(seconds: float, number: int) -> None:
    """Send this process a signal after a while."""

    def send() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()

"""Ending within a budget: every signal in its own daemon thread, all under one deadline.

A provider's own shutdown() takes 7 to 30 seconds with a dead collector, and its force_flush()
neither keeps its timeout nor tells the truth about success. So both run in threads that the
process does not wait for, and success is counted where it happens (`export.counting`).

The threads are started beforehand and wait: from CPython 3.12 on a thread cannot be started
at interpreter shutdown (measured: 3.12.1 refuses in atexit, 3.10, 3.11 and 3.13.0 do not).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

from otel_pipeline_metrics._core.errors import log_internal_error
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


Collector = Literal["ok", "unreachable", "off"]


class BackgroundCall:
    """One call for a lane, and how it went."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._done = threading.Event()
        self.failed = False

    def run(self) -> None:
        """Make the call; False or an exception is a failure."""
        try:
            self.failed = self._call() is False
        except Exception:  # MeterProvider raises where the tracer returns False
            self.failed = True
        finally:
            self._done.set()

    def wait(self, deadline: float) -> bool:
        """Say whether the job is done, waiting for it until `deadline` on the monotonic clock."""
        return self._done.wait(max(0.0, deadline - time.monotonic()))

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return self._done.is_set()


class BackgroundThread:
    """A daemon thread that takes jobs one after the other.

    It holds nothing but its queue, so it keeps no provider alive.

    Args:
        name: of the thread.
        ready: whether a forked child may need the thread when its interpreter shuts down. From
            Python 3.12 on it then has to be started beforehand; else the first job starts it.
    """

    def __init__(self, name: str, *, ready: bool = False) -> None:
        self._name = f"opm-{name}"
        self._ready = ready
        self._closed = False
        self._start()
        forking.watch(self)

    def after_fork(self) -> None:
        """Have a thread in the child too, where it may be needed when none can be started."""
        if sys.version_info >= (3, 12) and self._ready and not self._closed:
            self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._jobs: SimpleQueue[BackgroundCall | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()

    def submit(self, call: Callable[[], object]) -> BackgroundCall:
        """Hand `call` to the thread; jobs left over from before come first."""
        job = BackgroundCall(call)
        if os.getpid() != self._pid:  # threads do not survive a fork
            try:
                self._start()
            except RuntimeError:
                # A forked child that is already shutting down cannot start a thread. The
                # exporters' own timeouts bound the call.
                job.run()
                return job
        self._jobs.put(job)
        return job

    def close(self) -> None:
        """Let the thread end after the jobs it has."""
        self._closed = True
        if os.getpid() == self._pid:
            self._jobs.put(None)


def _work(jobs: SimpleQueue[BackgroundCall | None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        try:
            job.run()
        except BaseException:  # an exporter's sys.exit must not end the lane
            log_internal_error("flush lane")


def wait_for(jobs: Iterable[BackgroundCall], deadline: float) -> bool:
    """Say whether all `jobs` are done, waiting until `deadline` at most."""
    return all(job.wait(deadline) for job in jobs)

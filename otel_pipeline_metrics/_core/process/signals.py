"""SIGTERM: reports are written and telemetry is flushed before it ends the process.

Python ends at SIGTERM without running anything. While a run lasts, or `configure()` has built
providers, and only where the program has no handler of its own, ours writes the reports so far
(`partial`), flushes within the flush timeout, and then lets the signal end the process as it
would have: the exit status is the same, and no code of the program's runs that would not have run.
"""

from __future__ import annotations

import _thread
import inspect
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from otel_pipeline_metrics._core import errors, settings
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


GRACE_S: Final = 0.4
"""Beyond the flush timeout: for the reports, and for exporters to give up."""


class Ending(Protocol):
    """A run, as far as this needs to know it."""

    def on_sigterm(self) -> None:
        """Write the report as far as it has got."""


_runs: list[Ending] = []
_always = False
_ending = False
at_end: list[Callable[[], None]] = []
"""Called after the reports are written; `configure()` puts its flush here."""


def watch(run: Ending) -> None:
    """Be ready for SIGTERM while `run` lasts."""
    _runs.append(run)
    _settle()


def forget(run: Ending) -> None:
    """Leave SIGTERM as it was once nobody wants it watched."""
    if run in _runs:
        _runs.remove(run)
    _settle()


def watch_always(always: bool) -> None:
    """Be ready for SIGTERM outside of runs too, or no longer."""
    global _always  # the one place that holds it
    _always = always
    _settle()


def _settle() -> None:
    """Put our handler in place or take it away, if nobody else's is there.

    Python lets the main thread alone do that.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    found = signal.getsignal(signal.SIGTERM)
    wanted = _always or bool(_runs)
    if wanted and found is signal.SIG_DFL:
        forking.held_back.add(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _handle)
    elif not wanted and found is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        forking.held_back.discard(signal.SIGTERM)


def _handle(number: int, frame: FrameType | None) -> None:
    """End the process, but not before its reports and telemetry are out, or the time is up.

    The thread that is interrupted here may hold any lock, of the SDK's too, so the work is done
    in another one. That is not a `threading.Thread`, whose start takes a lock as well.
    """
    global _ending  # set once
    if _ending:
        return  # the end is near, and has its limit
    if defer_if_busy(lambda: _handle(number, None), frame):
        return
    _ending = True
    done = threading.Event()
    try:
        _thread.start_new_thread(_finish, (done,))
        done.wait(settings.settings().flush_timeout_s + GRACE_S)
    except RuntimeError:
        # from Python 3.12 on, where the interpreter is ending already
        errors.logger.warning("SIGTERM came as the process was ending: it ends at once")
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _finish(done: threading.Event) -> None:
    try:
        for step in [run.on_sigterm for run in list(_runs)] + list(at_end):
            with errors.suppress_errors("ending at SIGTERM"):
                step()
    finally:
        done.set()


@forking.in_child
def _in_child() -> None:
    global _ending  # set once in each process
    # A child of a process that is ending is not ending itself.
    _ending = False
    # the parent's runs are the parent's to report
    _runs.clear()


T = TypeVar("T")

_afterwards: list[Callable[[], None]] = []


def deferring_signals(work: Callable[[], T]) -> T:
    """Do `work`, then what was put off meanwhile."""
    try:
        return _do(work)
    finally:
        if _afterwards and threading.current_thread() is threading.main_thread():
            _run_deferred()


def defer_if_busy(call: Callable[[], None], frame: FrameType | None) -> bool:
    """Have `call` made after the work that `frame`, which a signal interrupted, is part of.

    False where it is part of none.
    """
    while frame is not None:
        if frame.f_code is _do.__code__:
            _afterwards.append(call)
            return True
        frame = frame.f_back
    return False


def _do(work: Callable[[], T]) -> T:
    return work()


def _run_deferred() -> None:
    calls = _afterwards[:]
    _afterwards.clear()
    for call in calls:
        if not defer_if_busy(call, inspect.currentframe()):
            call()

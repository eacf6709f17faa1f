"""SIGTERM: reports are written and telemetry is flushed before it ends the process.

Python ends at SIGTERM without running anything. While a run lasts, or `configure()` has built
providers, and only where the program has no handler of its own, ours writes the reports so far
(`partial`), flushes within the flush timeout, and then lets the signal end the process as it
would have: the exit status is the same, and no code of the program's runs that would not have run.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from otel_pipeline_metrics import _config, _fork, _guard, _processes
from otel_pipeline_metrics._undivided import put_off

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GRACE_S: Final = 0.4
"""Beyond the flush timeout: for the reports, and for exporters to give up."""
_NUDGES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""The pauses before SIGTERM is sent to the main thread again, which has not noticed it."""


class Ending(Protocol):
    """A run, as far as this needs to know it."""

    def terminated(self) -> None:
        """Write the report as far as it has got."""


_runs: list[Ending] = []
_always = False
_ending = False
_noticed = False
_pipe: tuple[int, int] | None = None
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
    global _always  # noqa: PLW0603 - the one place that holds it
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
        _fork.held_back.add(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _handle)
    elif not wanted and found is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _fork.held_back.discard(signal.SIGTERM)


def _handle(number: int, frame: FrameType | None) -> None:
    """End the process, but not before its reports and telemetry are out, or the time is up.

    The thread that is interrupted here may hold any lock, of the SDK's too, so the work is done
    in another one. That is not a `threading.Thread`, whose start takes a lock as well.
    """
    global _ending, _noticed  # noqa: PLW0603 - set once
    _noticed = True
    if _ending:
        return  # the end is near, and has its limit
    if put_off(lambda: _handle(number, None), frame):
        return
    _ending = True
    done = threading.Event()
    try:
        _thread.start_new_thread(_finish, (done,))
        done.wait(_config.current().flush_timeout_s + GRACE_S)
    except RuntimeError:
        # from Python 3.12 on, where the interpreter is ending already
        _guard.logger.warning("SIGTERM came as the process was ending: it ends at once")
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _finish(done: threading.Event) -> None:
    try:
        for step in [run.terminated for run in list(_runs)] + list(at_end):
            with _guard.guarded("ending at SIGTERM"):
                step()
    finally:
        done.set()


def _watch_main_thread() -> None:
    """Have SIGTERM sent again to a main thread that does not notice it.

    Python runs a handler between two steps of the main thread, or where the signal interrupts a
    system call. A signal that comes just before the call is noticed after it, so an idle worker of
    a pool that is terminated would never end. The part of Python's handling that runs at once
    writes to a pipe, whose reader sends the signal once more.
    """
    global _pipe  # noqa: PLW0603 - one in each process
    if _pipe or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before != -1:
        # an event loop of the program's learns of its signals this way
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        return
    _pipe = (reader, writer)
    _thread.start_new_thread(_nudge, (reader, threading.get_ident()))


def _nudge(reader: int, main_thread: int) -> None:
    while signal.SIGTERM not in (numbers := os.read(reader, 64)):
        if not numbers:
            return
    for pause_s in _NUDGES_S:
        time.sleep(pause_s)
        if _noticed or signal.getsignal(signal.SIGTERM) is not _handle:
            return
        signal.pthread_kill(main_thread, signal.SIGTERM)


if hasattr(signal, "pthread_kill"):
    _processes.at_begin.append(_watch_main_thread)


def _close_pipe() -> None:
    """Let go of the parent's pipe: a signal to this process must not reach the parent."""
    global _pipe  # noqa: PLW0603 - one in each process
    if _pipe is None:
        return
    reader, writer = _pipe
    _pipe = None
    current = signal.set_wakeup_fd(-1)
    if current not in {-1, writer}:
        signal.set_wakeup_fd(current)
    os.close(reader)
    os.close(writer)


@_fork.in_child
def _in_child() -> None:
    global _ending, _noticed  # noqa: PLW0603 - set once in each process
    # A child of a process that is ending is not ending itself.
    _ending = _noticed = False
    _close_pipe()
    # the parent's runs are the parent's to report
    _runs.clear()

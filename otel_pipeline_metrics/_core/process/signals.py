"""Write reports and flush telemetry before SIGTERM ends the process.

Python ends at SIGTERM without running any code. A handler of ours is in place during a run, and
after `configure()` has built providers, unless the program has a handler of its own. It writes the
reports so far (`partial`), flushes within the flush timeout, and lets the signal end the process
as it would have without us: the exit status is the same, and no code of the program runs.
"""

from __future__ import annotations

import _thread
import functools
import inspect
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

from otel_pipeline_metrics._core import errors, settings
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


P = ParamSpec("P")
T = TypeVar("T")

# Beyond the flush timeout: for the reports, and for exporters to give up.
GRACE_S: Final = 0.4

# The pauses before SIGTERM is sent again to a main thread that has not noticed it.
_RESEND_AFTER_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class RunInProgress(Protocol):
    """The part of a run that SIGTERM needs."""

    def on_sigterm(self) -> None:
        """Write the report as far as the run has got."""


_runs: list[RunInProgress] = []
_always = False
_ending = False
# Whether the handler has begun to run.
_noticed = False
_pipe: tuple[int, int] | None = None

# Called after the reports are written; `configure()` adds its flush.
at_end: list[Callable[[], None]] = []


def watch(run: RunInProgress) -> None:
    """Handle SIGTERM until `forget(run)`."""
    _runs.append(run)
    _update_handler()


def forget(run: RunInProgress) -> None:
    """Stop handling SIGTERM for a run."""
    if run in _runs:
        _runs.remove(run)
    _update_handler()


def in_progress() -> list[RunInProgress]:
    """Return the runs that have begun and not ended, the first one first."""
    return list(_runs)


def watch_always(always: bool) -> None:
    """Choose whether SIGTERM is handled outside a run too."""
    global _always  # written here only
    _always = always
    _update_handler()


def _update_handler() -> None:
    """Set or remove our handler, unless the program has one of its own."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python lets the main thread alone set handlers
    found = signal.getsignal(signal.SIGTERM)
    wanted = _always or bool(_runs)
    if wanted and found is signal.SIG_DFL:
        try:
            signal.signal(signal.SIGTERM, _handle)
        except ValueError:
            return  # a subinterpreter, whose signals go to the main one
        forking.held_back.add(signal.SIGTERM)
    elif not wanted and found is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        forking.held_back.discard(signal.SIGTERM)


def _handle(number: int, frame: FrameType | None) -> None:
    """Write reports and flush telemetry within a time limit, then end the process."""
    global _ending, _noticed  # set once
    _noticed = True
    if _ending or defer_if_busy(lambda: _handle(number, None), frame):
        return
    _ending = True
    done = threading.Event()
    try:
        # The thread that the signal interrupted may hold any lock, also one of the SDK's, so
        # another thread does the work. `threading.Thread.start` would take a lock as well.
        _thread.start_new_thread(_finish, (done,))
        done.wait(settings.settings().flush_timeout_s + GRACE_S)
    except RuntimeError:
        # Python 3.12 and later, when the interpreter is already shutting down
        errors.logger.warning("SIGTERM came while the process was ending: it ends at once")
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


def _watch_main_thread() -> None:
    """Send SIGTERM again to a main thread that does not notice it.

    Python runs a handler between two steps of the main thread, or where the signal interrupts a
    system call. A signal that comes just before the call is noticed after it, so an idle worker of
    a pool would never end, and `Pool.terminate()` in its parent would wait for it. The part of
    Python's handling that runs at once writes to a pipe, whose reader sends the signal again.
    """
    global _pipe  # one in each process
    if _pipe or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before != -1:
        # the program's event loop learns of its signals this way
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
        return
    _pipe = (reader, writer)
    _thread.start_new_thread(_resend, (reader, threading.get_ident()))


def _resend(reader: int, main_thread: int) -> None:
    while signal.SIGTERM not in (numbers := os.read(reader, 64)):
        if not numbers:
            return
    for pause_s in _RESEND_AFTER_S:
        time.sleep(pause_s)
        if _noticed or signal.getsignal(signal.SIGTERM) is not _handle:
            return
        signal.pthread_kill(main_thread, signal.SIGTERM)


def _close_pipe() -> None:
    """Close the parent's pipe: a signal to this process must not reach the parent."""
    global _pipe  # one in each process
    if _pipe is None:
        return
    reader, writer = _pipe
    _pipe = None
    current = signal.set_wakeup_fd(-1)
    if current not in {-1, writer}:
        signal.set_wakeup_fd(current)
    os.close(reader)
    os.close(writer)


if hasattr(signal, "pthread_kill"):
    forking.at_begin.append(_watch_main_thread)


@forking.in_child
def _in_child() -> None:
    global _ending, _noticed  # set once in each process
    # A child of a process that is ending is not ending itself.
    _ending = _noticed = False
    _close_pipe()
    # the parent reports its runs
    _runs.clear()


# --- signals during work that must not be interrupted ---------------------------------------------

_deferred: list[Callable[[], None]] = []


def deferring_signals(work: Callable[[], T]) -> T:
    """Do `work`, then the calls that were deferred meanwhile."""
    try:
        return _do(work)
    finally:
        if _deferred and threading.current_thread() is threading.main_thread():
            _run_deferred()


def deferring(function: Callable[P, T]) -> Callable[P, T]:
    """Defer signals during a function, since the end of the process needs a lock that it takes."""

    @functools.wraps(function)
    def deferred(*args: P.args, **kwargs: P.kwargs) -> T:
        return deferring_signals(functools.partial(function, *args, **kwargs))

    return deferred


def defer_if_busy(call: Callable[[], None], frame: FrameType | None) -> bool:
    """Defer `call` if `frame` is inside `deferring_signals`; tell whether it is."""
    while frame is not None:
        if frame.f_code is _do.__code__:
            _deferred.append(call)
            return True
        frame = frame.f_back
    return False


def _do(work: Callable[[], T]) -> T:
    return work()


def _run_deferred() -> None:
    calls = _deferred[:]
    _deferred.clear()
    for call in calls:
        if not defer_if_busy(call, inspect.currentframe()):
            call()

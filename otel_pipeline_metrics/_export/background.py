"""Run calls in daemon threads that the process does not wait for.

A provider's own shutdown() takes 7 to 30 seconds with a dead collector, and its force_flush()
neither keeps its timeout nor reports failures. So both run in such threads, under one deadline,
and success is counted at the exporters (`delivery.counting_exporters`).

The threads are started beforehand and wait: from CPython 3.12 on a thread cannot be started
at interpreter shutdown (measured: 3.12.1 refuses in atexit, 3.10, 3.11 and 3.13.0 do not).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final
from weakref import WeakMethod

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.errors import log_internal_error
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# in place of the process that has the thread
_NO_THREAD: Final = -1


class BackgroundCall:
    """One call in a background thread, and its result."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        # Held until the call has ended. An exception of a signal handler in `Event.wait` could
        # leave the event's own lock held, for which the background thread would wait for ever.
        self._running = threading.Lock()
        self._running.acquire()
        # whether the call has ended
        self.done = False
        self.failed = False

    def run(self) -> None:
        try:
            self.failed = self._call() is False
        except Exception:  # MeterProvider raises where the tracer returns False
            self.failed = True
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # what eventlet's join raises where a thread's returns
            self.failed = True
        finally:
            self.done = True
            self._running.release()

    def wait(self, deadline: float) -> bool:
        """Wait until `deadline` on the monotonic clock; return whether the call is done."""
        left_s = min(max(0.0, deadline - clock.monotonic()), threading.TIMEOUT_MAX)
        if not self.done and self._running.acquire(timeout=left_s):
            self._running.release()
        return self.done


class BackgroundThread:
    """A daemon thread that makes calls one after the other.

    It holds nothing but its queue, so it keeps no provider alive.

    Args:
        name: of the thread.
        every: a period in seconds, and a method to call whenever no call has come for that long.
            The thread ends with the method's object, and is started anew in a forked child.
        ready: whether a forked child may need the thread when its interpreter shuts down. From
            Python 3.12 on it then has to be started beforehand; else the first call starts it.
    """

    def __init__(
        self,
        name: str,
        *,
        every: tuple[float, Callable[[], object]] | None = None,
        ready: bool = False,
    ) -> None:
        self._name = f"opm-{name}"
        self._every = every and (min(every[0], threading.TIMEOUT_MAX), WeakMethod(every[1]))
        self._ready = ready
        self._closed = False
        self._pid = _NO_THREAD
        # the system, or a subinterpreter, may refuse a thread
        with contextlib.suppress(RuntimeError):
            self._start()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start the thread in the child if it cannot be started when it is needed."""
        ready = sys.version_info >= (3, 12) and self._ready
        if (ready or self._every) and not self._closed:
            self._start()

    def _start(self) -> None:
        self._calls: SimpleQueue[BackgroundCall | None] = SimpleQueue()
        work = (self._calls, self._every)
        threading.Thread(target=_work, args=work, name=self._name, daemon=True).start()
        self._pid = os.getpid()

    def submit(self, function: Callable[[], object]) -> BackgroundCall:
        """Make the thread call `function` after the calls submitted before."""
        call = BackgroundCall(function)
        if os.getpid() != self._pid:  # threads do not survive a fork
            try:
                self._start()
            except RuntimeError:
                # Nor can a forked child start a thread that is already shutting down. The
                # exporters' own timeouts bound the call.
                call.run()
                return call
        self._calls.put(call)
        return call

    def close(self) -> None:
        """Let the thread end after its pending calls."""
        self._closed = True
        if os.getpid() == self._pid:
            self._calls.put(None)


def _work(
    calls: SimpleQueue[BackgroundCall | None],
    every: tuple[float, WeakMethod[Callable[[], object]]] | None,
) -> None:
    while True:
        try:
            call = calls.get(timeout=every and every[0])
        except Empty:
            method = every and every[1]()
            call = BackgroundCall(method) if method else None
            del method  # while waiting, its object is not kept alive
        if call is None:
            return
        try:
            call.run()
        except BaseException:  # an exporter's sys.exit must not end the thread
            log_internal_error("a background thread")
        del call


def wait_for(calls: Iterable[BackgroundCall], deadline: float) -> bool:
    """Wait until `deadline` at most; return whether all `calls` are done."""
    return all(call.wait(deadline) for call in calls)

"""Make calls at a fixed interval, in one thread for all that share it.

The same thread wakes at random moments in between, and sees what it had to wait for.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.resources.contention import ContentionSampler

if TYPE_CHECKING:
    from collections.abc import Callable


JOIN_S: Final = 1.0


class Ticker:
    """A daemon thread that begins with the first call to make and ends with the last.

    Args:
        interval: seconds between two rounds of calls.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._calls: dict[object, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        # held until the thread is to end: to wait for a lock costs half of waiting for an event
        self._going = threading.Lock()
        self.contention = ContentionSampler()

    def add(self, key: object, call: Callable[[], None]) -> None:
        """Make a call at each interval until `remove(key)`.

        Raises:
            RuntimeError: the system refuses a thread; the next `add` tries again.
        """
        with self._lock:
            self._calls[key] = call
            if self._thread is not None:
                return
            self._going = threading.Lock()
            self._going.acquire()
            self._thread = threading.Thread(
                target=self._run,
                args=(self._going,),
                name="otel-pipeline-metrics-resources",
                daemon=True,
            )
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise

    def remove(self, key: object) -> None:
        """Stop making a call; after the last, end the thread and wait a moment for it."""
        with self._lock:
            self._calls.pop(key, None)
            if self._calls:
                return
            thread, self._thread = self._thread, None
            if thread is not None:
                self._going.release()
        # a call may remove itself, and a thread cannot join itself
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def tick(self) -> None:
        """Make each call once; one that fails does not affect the others."""
        for call in list(self._calls.values()):
            with errors.suppress_errors("a resource sample"):
                call()

    def _run(self, going: threading.Lock) -> None:
        due = clock.monotonic() + self.interval
        while True:
            left = min(max(0.0, due - clock.monotonic()), threading.TIMEOUT_MAX)
            # to draw again after each round keeps the moments random: the pauses have no memory
            pause = self.contention.pause()
            if pause < left:
                if self._sample(partial(going.acquire, True, pause)):
                    return
                continue
            if going.acquire(timeout=left):
                return
            self.tick()
            due = clock.monotonic() + self.interval

    def _sample(self, sleep: Callable[[], bool]) -> bool:
        """Sleep until a random moment; return True if the thread is to end instead."""
        try:
            return self.contention.sample(sleep)
        except Exception:
            errors.log_internal_error("sampling the GIL and the machine")
            return sleep()


_shared: WeakValueDictionary[float, Ticker] = WeakValueDictionary()


def shared(interval: float) -> Ticker:
    """Return the process's one ticker with that interval, made if need be."""
    found = _shared.get(interval)
    if found is None:
        found = _shared[interval] = Ticker(interval)
    return found

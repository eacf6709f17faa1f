"""Run asyncio, threads or both on a clock that jumps to the next timer.

No sockets, no processes: what runs takes exactly the time it asks for, and an hour of it passes in
a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import _virtual_scheduler as scheduler
from benchmarks._virtual_scheduler import Lock, Scheduler, Thread, Waiter
from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._probes.limits import threads as limited_threads
from otel_pipeline_metrics._probes.limits import wrap as limits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Unix time when the clock shows 0."""


class _Jump:
    """A selector that passes the turn on instead of waiting."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self.waiter: Waiter | None = None

    def select(self, timeout: float | None) -> list[Any]:
        loop: Any = self._loop
        if timeout is not None and timeout <= 0:
            loop.scheduler.give_way()
            return []
        self.waiter = Waiter()
        when = None if timeout is None else loop._scheduled[0].when()
        try:
            loop.scheduler.wait_until(self.waiter, when)
        finally:
            self.waiter = None
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop for coroutines that sleep, and pass items to each other and to threads."""

    def __init__(self) -> None:
        super().__init__()
        if scheduler.current is None:
            raise RuntimeError("a loop of virtual time begins outside of it")
        self.scheduler = scheduler.current
        self._selector = _Jump(self)

    def time(self) -> float:
        return self.scheduler.now

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing, since `_Jump` has no events."""

    def _write_to_self(self) -> None:
        if self._selector.waiter is not None:
            self.scheduler.wake(self._selector.waiter)


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> Any:
        return VirtualTimeLoop()


def _choose(virtual: Callable[[Scheduler], Callable[..., Any]], real: Any) -> Any:
    """Return a function that is the virtual one in virtual time, and the real one elsewhere."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        now = scheduler.current
        return (real if now is None else virtual(now))(*args, **kwargs)

    return chosen


def _rlock() -> Any:
    return threading._PyRLock()


@contextlib.contextmanager
def replaced() -> Iterator[None]:
    """Replace what threads and loops wait with, so that modules loaded in here have it."""
    places: list[tuple[Any, str, Any]] = [
        (time, "sleep", _choose(lambda s: s.sleep, time.sleep)),
        (time, "perf_counter", _choose(lambda s: s.read, time.perf_counter)),
        (time, "monotonic", _choose(lambda s: s.read, time.monotonic)),
        (time, "time", _choose(lambda s: lambda: EPOCH + s.read(), time.time)),
        (threading, "_allocate_lock", Lock),
        (threading, "Lock", Lock),
        (threading, "RLock", _rlock),
        (threading, "Thread", Thread),
        (queue, "SimpleQueue", queue._PySimpleQueue),
        # what `queue` imported by name
        (queue, "time", _choose(lambda s: s.read, time.monotonic)),
        (limits, "_STOCK", ((Lock, "lock", limited_threads.LimitedLock), *limits._STOCK)),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    policy = asyncio.get_event_loop_policy()
    for place, name, found in places:
        setattr(place, name, found)
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
        for place, name, found in before:
            setattr(place, name, found)


@contextlib.contextmanager
def virtual_time() -> Iterator[Scheduler]:
    """Let threads, event loops and the library live on a clock of their own from 0 on."""
    found = Scheduler()
    own = (clock.now, clock.unix, clock.cpu)
    with replaced():
        clock.now = lambda: found.now
        clock.unix = lambda: EPOCH + found.now
        clock.cpu = lambda: 0.0
        scheduler.current = found
        try:
            yield found
        finally:
            scheduler.current = None
            clock.now, clock.unix, clock.cpu = own


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, with the library's clock on it."""
    with virtual_time():
        return asyncio.run(coroutine)

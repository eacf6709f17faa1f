"""Run an asyncio event loop whose clock jumps to the next timer.

Nothing but timers wakes anyone here: no sockets, no threads. What the loop runs therefore
takes exactly the time it asks for, and an hour of it passes in a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import clock

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Unix time when a loop's clock shows 0."""


class _Jump:
    """A selector that lets the clock jump instead of waiting."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        loop: Any = self._loop
        if timeout is None:
            raise RuntimeError("nothing will ever wake a task of this loop: a deadlock")
        if timeout > 0:
            loop.now = max(loop.now, loop._scheduled[0].when())
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop for coroutines that only sleep and pass items to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Jump(self)

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing, since `_Jump` has no events."""

    def _write_to_self(self) -> None:
        raise RuntimeError("another thread calls into this loop, which waits for nobody")


@contextlib.contextmanager
def virtual_clock(loop: VirtualTimeLoop) -> Iterator[None]:
    """Let the library read the loop's clock."""
    now, unix = clock.now, clock.unix
    clock.now = loop.time
    clock.unix = lambda: EPOCH + loop.now
    try:
        yield
    finally:
        clock.now, clock.unix = now, unix


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, with the library's clock on it."""
    loop = VirtualTimeLoop()
    try:
        with virtual_clock(loop):
            return loop.run_until_complete(coroutine)
    finally:
        _cancel_all(loop)
        loop.close()


def _cancel_all(loop: VirtualTimeLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

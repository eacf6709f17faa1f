"""Run an event loop in virtual time, and read reports."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.conftest import Clock

T = TypeVar("T")

STATES = ("busy", "idle", "blocked")
NOTHING = (None, None, None)
sleep = asyncio.sleep


class _Selector:
    """A selector that moves the clock to the next timer and waits for threads only."""

    def __init__(self, clock: Clock) -> None:
        self._real = selectors.DefaultSelector()
        self._clock = clock
        self.loop: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None) -> Any:
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        if timeout is not None:
            self._clock.time = max(self._clock.time, self.loop._scheduled[0].when())
            return []
        events = self._real.select(10)
        assert events, "nothing will ever wake this loop"
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on the manual clock; an hour of sleep takes no time."""

    def __init__(self, clock: Clock) -> None:
        selector: Any = _Selector(clock)
        super().__init__(selector)
        selector.loop = self
        self._clock = clock

    def time(self) -> float:
        return self._clock.time


def play(clock: Clock, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time, then cancel pending tasks."""
    loop = VirtualLoop(clock)
    try:
        return loop.run_until_complete(_played(main))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _played(main: Coroutine[Any, Any, T]) -> T:
    try:
        return await main
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def queue(size: int = 0, name: str = "q") -> asyncio.Queue[Any]:
    """Return a wrapped queue."""
    return opm.wrap_queue(asyncio.Queue(size), name=name)


async def feed(q: asyncio.Queue[Any], *pauses: float) -> None:
    """Put an item after each pause."""
    for n, pause in enumerate(pauses):
        await sleep(pause)
        await q.put(n)


def stage_of(run: opm.Run, name: str) -> dict[str, Any]:
    """Return the report's part about one stage."""
    (found,) = [stage for stage in run.report.to_dict()["stages"] if stage["name"] == name]
    return dict(found)


def queue_of(run: opm.Run, name: str) -> dict[str, Any]:
    """Return the report's part about one queue."""
    (found,) = [queue for queue in run.report.to_dict()["queues"] if queue["name"] == name]
    return dict(found)


def states(run: opm.Run, name: str) -> tuple[float | None, ...]:
    """Return the seconds busy, idle and blocked of a stage's workers, if those are known."""
    stage = stage_of(run, name)
    return NOTHING if stage["workers"] is None else tuple(stage["time_s"][s] for s in STATES)

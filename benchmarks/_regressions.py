"""Pipelines of a known speed, for the rates of false and missed regressions.

Each runs for real, on an event loop of either kind. Its calls are drawn at random anew in every
run, so two runs differ by chance.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from otel_pipeline_metrics import RunReport

Shape = Literal["sequence", "queues", "tasks", "source"]
SHAPES: Final[tuple[Shape, ...]] = ("sequence", "queues", "tasks")
# By how much a worse run is worse.
WORSE: Final = 0.2
STAGES: Final = ("fetch", "process", "write")


@dataclass(frozen=True)
class Program:
    """A pipeline; times are seconds."""

    shape: Shape
    items: int
    # of the calls' logarithm
    spread: float
    means: tuple[float, float, float]
    # of `process`
    workers: int
    # a wait for each item that no stage shows, as random as the calls
    between_s: float = 0.0

    def worse(self, rng: random.Random) -> Program:
        """Return the program with a slower limiting stage, or with a longer wait.

        A call of the stage takes a fifth longer, or an item does: it waits outside of stages, or
        one of five workers is gone.
        """
        fetch, process, write = self.means
        if self.shape != "source" and rng.random() < 0.5:
            return replace(self, means=(fetch, process * (1 + WORSE), write))
        if self.shape == "queues" and self.workers > 4 and rng.random() < 0.5:
            return replace(self, workers=self.workers - 1)
        # what comes before the first queue or task must take as long as an item
        before = 0.0 if self.shape == "sequence" else fetch
        taken = self.item_s * (1 + WORSE) - (self.item_s if self.shape == "sequence" else before)
        return replace(self, between_s=taken)

    @property
    def item_s(self) -> float:
        """The time between two items that are done."""
        fetch, process, write = self.means
        if self.shape == "sequence":
            return fetch + process + write + self.between_s
        return max(fetch + self.between_s, process / self.workers, write)


def drawn(rng: random.Random, spread: float, *, shape: Shape | None = None) -> Program:
    """Draw a program of any shape but "source", or of the given one."""
    shape = shape or rng.choice(SHAPES)
    process = math.exp(rng.uniform(math.log(0.004), math.log(0.02)))
    workers = 1 if shape == "sequence" else rng.choice((1, 2, 5))
    # the limiting stage is `process`, by half
    small = process / workers / 1.5
    means = (rng.uniform(0.2, 1.0) * small, process, rng.uniform(0.2, 1.0) * small)
    program = Program(shape, rng.choice((60, 100, 200)), spread, means, workers)
    return replace(program, between_s=process / workers * 1.5) if shape == "source" else program


class _Times:
    """Random times around a mean."""

    def __init__(self, rng: random.Random, spread: float) -> None:
        self._rng, self._spread = rng, spread

    async def sleep(self, mean: float) -> None:
        if mean:
            sigma = self._spread
            await asyncio.sleep(mean * self._rng.lognormvariate(-sigma * sigma / 2, sigma))

    async def wait(self, mean: float, shape: Shape) -> None:
        """Wait between items; customers come at random (exponential)."""
        if shape == "source":
            await asyncio.sleep(self._rng.expovariate(1 / mean))
        else:
            await self.sleep(mean)


async def run(program: Program, rng: random.Random) -> RunReport:
    """Run the program once and return its report."""
    times = _Times(rng, program.spread)

    def stage(name: str, mean: float) -> Callable[[int], Awaitable[int]]:
        @opm.stage(name)
        async def call(item: int) -> int:
            await times.sleep(mean)
            return item

        return call

    fetch, process, write = (
        stage(name, mean) for name, mean in zip(STAGES, program.means, strict=True)
    )

    async def source() -> AsyncIterator[int]:
        for item in range(program.items):
            await times.wait(program.between_s, program.shape)
            yield item

    async with opm.run("regressions", resources=False) as made:
        if program.shape == "sequence":
            async for item in source():
                await write(await process(await fetch(item)))
        elif program.shape == "tasks":
            await _in_tasks(program, source, fetch, process, write)
        else:
            await _through_queues(program, source, fetch, process, write)
    return made.report


async def _in_tasks(program: Program, source: Any, fetch: Any, process: Any, write: Any) -> None:
    """Run a task for each item, so many of them at a time."""
    room, last = asyncio.Semaphore(program.workers), asyncio.Lock()

    async def one(item: int) -> None:
        try:
            done = await process(item)
        finally:
            room.release()
        async with last:
            await write(done)

    async with _Group() as group:
        async for item in source():
            taken = await fetch(item)
            await room.acquire()
            group.start(one(taken))


class _Group:
    """Tasks that are awaited at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Any) -> None:
        self._tasks.add(asyncio.ensure_future(coroutine))

    async def __aenter__(self) -> _Group:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await asyncio.gather(*self._tasks)


async def _through_queues(
    program: Program, source: Any, fetch: Any, process: Any, write: Any
) -> None:
    """Run workers between wrapped queues."""
    pages: asyncio.Queue[Any] = opm.wrap_queue(asyncio.Queue(8), name="pages")
    rows: asyncio.Queue[Any] = opm.wrap_queue(asyncio.Queue(8), name="rows")

    async def first() -> None:
        async for item in source():
            await pages.put(await fetch(item))
        for _ in range(program.workers):
            await pages.put(None)

    async def middle() -> None:
        while (item := await pages.get()) is not None:
            await rows.put(await process(item))

    async def end() -> None:
        for _ in range(program.items):
            await write(await rows.get())

    await asyncio.gather(first(), end(), *(middle() for _ in range(program.workers)))

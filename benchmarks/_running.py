"""Run a random pipeline with the library: real stages, queues and report."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from benchmarks._pipelines import SOURCE
from benchmarks._reference import makers_of, takers_of, targets
from otel_pipeline_metrics._core import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks._pipelines import Pipeline, Stage

Queues = dict[str, Any]


class Stopwatch:
    """Seconds of all workers of a stage, measured around every get and put."""

    def __init__(self) -> None:
        self.wall = 0.0
        self.idle = 0.0
        self.blocked = 0.0

    def shares(self) -> dict[str, float]:
        idle, blocked = self.idle / self.wall, self.blocked / self.wall
        return {"busy": 1.0 - idle - blocked, "idle": idle, "blocked": blocked}


Watches = dict[str, Stopwatch]


def measured(pipeline: Pipeline, *, real_time: bool = False) -> tuple[dict[str, Any], Watches]:
    """Run a pipeline; return its report's data, and each stage's measured times."""
    before = settings.settings()
    settings.replace(settings.Config(console="off"))
    try:
        if real_time:
            return asyncio.run(_run(pipeline))
        return _virtual_time.run(_run(pipeline))
    finally:
        settings.replace(before)


async def _run(pipeline: Pipeline) -> tuple[dict[str, Any], Watches]:
    watches = {stage.name: Stopwatch() for stage in pipeline.stages}
    async with opm.run("bench", resources=False, report=None) as run:
        queues: Queues = {
            name: opm.wrap_queue(asyncio.Queue(capacity), name=name)
            for name, capacity in pipeline.capacities.items()
        }
        makers = makers_of(pipeline)
        workers = [
            worker
            for stage in pipeline.stages
            for worker in _Workers(pipeline, stage, queues, makers, watches[stage.name]).all()
        ]
        if pipeline.arrivals is not None:
            workers.append(_source(pipeline, queues, makers))
        await asyncio.gather(*workers)
    return run.report.to_dict(), watches


class _Workers:
    """The workers of one stage."""

    def __init__(
        self,
        pipeline: Pipeline,
        stage: Stage,
        queues: Queues,
        makers: dict[str, int],
        watch: Stopwatch,
    ) -> None:
        self.watch = watch
        self.pipeline = pipeline
        self.stage = stage
        self.queues = queues
        self.makers = makers
        self.service: Iterator[float] = iter(pipeline.draws[stage.name])
        self.numbers = iter(range(pipeline.items))
        self.turn = itertools.count()
        self.decorate = opm.stage(stage.name, kind="process")

    def all(self) -> list[Awaitable[None]]:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "outside": self.outside,
            "inside": self.inside,
            "loop": self.decorate(self.looping),
        }
        return [self.timed(kinds[self.stage.style]) for _ in range(self.stage.workers)]

    async def timed(self, worker: Callable[[], Awaitable[None]]) -> None:
        began = _now()
        await worker()
        # the last of several producers tells those behind, which may block it
        await _done(self.pipeline, self.stage.sinks, self.put, self.makers)
        self.watch.wall += _now() - began

    async def put(self, queue: str, item: object) -> None:
        began = _now()
        await self.queues[queue].put(item)
        self.watch.blocked += _now() - began

    async def outside(self) -> None:
        """Get and put around the stage."""
        work = self.decorate(self.work)
        going = True
        while going:
            taken, going = await self.take()
            if not taken:
                break
            await self.gap()
            await work(taken)
            await self.give()

    async def inside(self) -> None:
        """Get and put in the stage."""

        async def all_three() -> bool:
            taken, going = await self.take()
            if taken:
                await self.work(taken)
                await self.give()
            return going and taken > 0

        step = self.decorate(all_three)
        while await step():
            pass

    async def looping(self) -> None:
        """Make one call for everything."""
        going = True
        while going:
            taken, going = await self.take()
            if not taken:
                break
            await self.gap()
            await self.work(taken)
            await self.give()

    async def take(self) -> tuple[int, bool]:
        """Return how many items there are to work on, and whether more may come."""
        if self.stage.source is None:
            more = next(self.numbers, None) is not None
            return int(more), more
        queue = self.queues[self.stage.source]
        for taken in range(self.stage.takes):
            began = _now()
            item = await queue.get()
            self.watch.idle += _now() - began
            if item is None:
                return taken, False
        return self.stage.takes, True

    async def gap(self) -> None:
        if self.stage.gap_s:
            await asyncio.sleep(self.stage.gap_s)

    async def work(self, taken: int) -> None:
        await asyncio.sleep(next(self.service) * taken / self.stage.takes)

    async def give(self) -> None:
        for _ in range(self.stage.gives):
            for sink in targets(self.stage, self.turn):
                await self.put(sink, 0)


async def _source(pipeline: Pipeline, queues: Queues, makers: dict[str, int]) -> None:
    assert pipeline.arrivals is not None
    for gap_s in pipeline.draws[SOURCE]:
        await asyncio.sleep(gap_s)
        await queues[pipeline.arrivals].put(0)

    async def put(queue: str, item: object) -> None:
        await queues[queue].put(item)

    await _done(pipeline, (pipeline.arrivals,), put, makers)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _done(
    pipeline: Pipeline,
    sinks: tuple[str, ...],
    put: Callable[[str, object], Awaitable[None]],
    makers: dict[str, int],
) -> None:
    """Tell the next workers that no item follows, if this was the last producer."""
    for sink in sinks:
        makers[sink] -= 1
        if makers[sink] == 0:
            for _ in range(takers_of(pipeline, sink)):
                await put(sink, None)

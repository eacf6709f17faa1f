"""Test the time of stages that are inside of themselves, where no wait is known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import Clock


def busy(run: opm.Run, name: str) -> Any:
    return stage_of(run, name)["time_s"]["busy"]


def test_a_workers_time_counts_once_in_a_stage_inside_itself(clock: Clock) -> None:
    @opm.stage("walk")
    def walk(depth: int) -> None:
        clock.advance(1)
        if depth:
            walk(depth - 1)

    with opm.run("test", resources=False) as run:
        walk(3)
    assert (busy(run, "walk"), stage_of(run, "walk")["wall_s"]) == (4.0, 4.0 + 3.0 + 2.0 + 1.0)


def test_tasks_of_a_stage_inside_itself_are_workers_of_their_own(clock: Clock) -> None:
    @opm.stage("crawl")
    async def crawl(depth: int) -> None:
        await asyncio.sleep(1)
        if depth:
            await asyncio.gather(crawl(depth - 1), crawl(depth - 1))

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await crawl(1)
        return run

    # the first one for 2 seconds, beside two for 1 each
    assert busy(play(clock, main()), "crawl") == 4.0


def test_a_workers_time_counts_once_in_a_stage_inside_itself_by_way_of_another(
    clock: Clock,
) -> None:
    @opm.stage("outer")
    def outer(depth: int) -> None:
        clock.advance(1)
        if depth:
            between(depth)

    @opm.stage("between")
    def between(depth: int) -> None:
        outer(depth - 1)

    with opm.run("test", resources=False) as run:
        outer(1)
        outer(3)
        # not inside of the other stage
        between(1)
    assert (busy(run, "outer"), busy(run, "between")) == (2.0 + 4.0 + 1.0, 1.0 + 3.0 + 1.0)
    assert stage_of(run, "outer")["self_s"] == 2.0 + 4.0 + 1.0


def test_tasks_without_time_make_no_workers_of_the_calls_beside_them(clock: Clock) -> None:
    @opm.stage("crawl")
    async def crawl(seconds: int, *, tasks: int = 0) -> None:
        if tasks:
            made = [asyncio.create_task(crawl(0)) for _ in range(tasks)]
            await asyncio.wait(made)
            await crawl(1)
        if seconds:
            await asyncio.sleep(seconds)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await crawl(0, tasks=2)
        return run

    assert busy(play(clock, main()), "crawl") == 1.0


def test_a_task_of_a_stage_inside_itself_by_way_of_another_is_a_worker_of_its_own(
    clock: Clock,
) -> None:
    @opm.stage("outer")
    async def outer(depth: int) -> None:
        await asyncio.sleep(1)
        if depth:
            await asyncio.gather(between(depth), between(depth))

    @opm.stage("between")
    async def between(depth: int) -> None:
        await outer(depth - 1)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await outer(1)
        return run

    run = play(clock, main())
    # the first one for 2 seconds, beside two for 1 each
    assert (busy(run, "outer"), busy(run, "between")) == (4.0, 2.0)


def test_a_task_stays_inside_of_who_pulled_the_item(clock: Clock) -> None:
    @opm.stage("child")
    async def child() -> None:
        await asyncio.sleep(1)

    @opm.stage("items")
    async def items() -> AsyncGenerator[asyncio.Task[None], None]:
        async def later() -> None:
            await asyncio.sleep(1)
            await child()

        yield asyncio.create_task(later())
        yield asyncio.create_task(later())

    source = items()

    @opm.stage("first")
    async def first() -> None:
        task = await source.__anext__()
        await asyncio.sleep(0.5)
        await task

    @opm.stage("second")
    async def second() -> None:
        await asyncio.sleep(0.25)
        await source.__anext__()
        await asyncio.sleep(1)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await asyncio.gather(first(), second())
            await source.aclose()
        return run

    # the first one's child goes on from 1 to 2
    assert stage_of(play(clock, main()), "first")["self_s"] == 1.0

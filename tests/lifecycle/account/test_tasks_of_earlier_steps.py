"""Test tasks that a generator begins in one step, and that go on in a later one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Clock


@opm.fetch
async def page() -> None:
    await asyncio.sleep(2)


def own_of_pages(clock: Clock, *, steps: int) -> float:
    """Return the own time of a generator whose task is awaited in its first or second step."""

    @opm.stage("pages")
    async def pages() -> AsyncIterator[int]:
        task = asyncio.create_task(page())
        for step in range(steps):
            if step == steps - 1:
                await task
            yield step

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            async for _ in pages():
                pass
        return run

    own: float = stage_of(play(clock, main()), "pages")["self_s"]
    return own


def test_a_task_that_is_awaited_in_the_same_step_is_no_time_of_its_generator(clock: Clock) -> None:
    assert own_of_pages(clock, steps=1) == 0.0


def test_a_task_that_is_awaited_in_a_later_step_is_none_either(clock: Clock) -> None:
    assert own_of_pages(clock, steps=2) == 0.0


def test_a_task_is_inside_of_its_generator_between_items_too(clock: Clock) -> None:
    found: list[tuple[float, ...]] = []

    @opm.stage("pages")
    async def pages() -> AsyncIterator[int]:
        task = asyncio.create_task(page())
        clock.advance(3)
        yield 1
        await task
        clock.advance(4)
        yield 2

    def look(run: opm.Run) -> None:
        own = [stage_of(run, name)["self_s"] for name in ("pages", "page")]
        found.append((*own, run.report.run["outside_s"]))

    async def main() -> None:
        async with opm.run("test", resources=False) as run:
            async for _ in pages():
                await asyncio.sleep(1)
                look(run)
        look(run)

    play(clock, main())
    # the page's 2 seconds: one while the consumer works, one while its generator awaits it
    assert found == [(3.0, 1.0, 0.0), (7.0, 2.0, 1.0), (7.0, 2.0, 1.0)]


def test_a_task_is_inside_of_who_pulled_its_generator_then(clock: Clock) -> None:
    @opm.stage("pages")
    async def pages() -> AsyncIterator[int]:
        task = asyncio.create_task(page())
        yield 1
        await task
        yield 2

    @opm.stage("first")
    async def first(source: AsyncIterator[int]) -> None:
        await source.__anext__()

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            source = pages()
            await first(source)
            await source.__anext__()
        return run

    run = play(clock, main())
    # so nothing tells that the second consumer's generator only awaits it
    assert [stage_of(run, name)["self_s"] for name in ("first", "pages", "page")] == [0.0, 2.0, 2.0]

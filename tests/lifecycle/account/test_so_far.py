"""Test what a report says about a call in progress."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, queue, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Clock


def split(run: opm.Run, name: str) -> tuple[Any, ...]:
    time_s = stage_of(run, name)["time_s"]
    return tuple(time_s[state] for state in ("running", "awaiting", "idle", "blocked"))


def test_the_first_call_of_a_coroutine_is_split_while_it_goes_on(clock: Clock) -> None:
    found = []

    @opm.stage("work")
    async def work(run: opm.Run) -> None:
        clock.advance(1)
        await asyncio.sleep(2)
        clock.advance(0.5)
        found.append(split(run, "work"))

    async def main() -> None:
        async with opm.run("test", resources=False) as run:
            task = asyncio.create_task(work(run))
            await asyncio.sleep(2)
            found.append(split(run, "work"))
            await task
        found.append(split(run, "work"))

    play(clock, main())
    assert found == [(1.0, 1.0, 0.0, 0.0), (1.5, 2.0, 0.0, 0.0), (1.5, 2.0, 0.0, 0.0)]


def test_a_wait_in_progress_is_part_of_the_wall_time_once(clock: Clock) -> None:
    found = []

    async def main() -> None:
        source = queue()

        @opm.stage("work")
        async def work() -> None:
            await asyncio.sleep(1)
            await source.get()
            await asyncio.sleep(1)

        async with opm.run("test", resources=False) as run:
            task = asyncio.create_task(work())
            for after in (3, 1):
                await asyncio.sleep(after)
                found.append((stage_of(run, "work")["wall_s"], split(run, "work")))
            await source.put(1)
            await task
            found.append((stage_of(run, "work")["wall_s"], split(run, "work")))

    play(clock, main())
    assert found == [
        (3.0, (0.0, 1.0, 2.0, 0.0)),
        (4.0, (0.0, 1.0, 3.0, 0.0)),
        (5.0, (0.0, 2.0, 3.0, 0.0)),
    ]


def test_a_wait_is_forgotten_as_in_progress_once_its_call_is_over(clock: Clock) -> None:
    async def main() -> opm.Run:
        queue()

        @opm.stage("work")
        async def work(run: opm.Run) -> None:
            with opm.waiting():
                clock.advance(1)
            assert stage_of(run, "work")["wall_s"] == 1.0

        async with opm.run("test", resources=False) as run:
            await work(run)
        return run

    run = play(clock, main())
    assert stage_of(run, "work")["wall_s"] == 1.0


def test_a_wait_that_does_not_suspend_a_coroutine_is_no_running_time(clock: Clock) -> None:
    async def main() -> opm.Run:
        queue()

        @opm.stage("work")
        async def work() -> None:
            clock.advance(1)
            with opm.waiting():
                clock.advance(4)
            await asyncio.sleep(2)

        async with opm.run("test", resources=False) as run:
            await work()
        return run

    assert split(play(clock, main()), "work") == (1.0, 2.0, 0.0, 4.0)


def test_who_pulls_an_item_that_waits_is_not_charged_with_the_wait(clock: Clock) -> None:
    found = []

    async def main() -> None:
        source = queue()

        @opm.stage("items")
        async def items() -> AsyncIterator[int]:
            yield await source.get()

        @opm.stage("reader")
        async def reader() -> None:
            await asyncio.sleep(1)
            async for _ in items():
                await asyncio.sleep(1)

        async with opm.run("test", resources=False) as run:
            task = asyncio.create_task(reader())
            await asyncio.sleep(4)
            found.append(run.report.to_dict()["run"]["outside_s"])
            found.append(stage_of(run, "reader")["self_s"])
            task.cancel()

    play(clock, main())
    # both are idle from 1 to 4
    assert found == [3.0, 1.0]

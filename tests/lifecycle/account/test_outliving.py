"""Test the time of tasks that go on while the stage that began them does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, queue

if TYPE_CHECKING:
    from tests.conftest import Clock


@opm.stage("child")
async def child() -> None:
    await asyncio.sleep(2)


def times(run: opm.Run) -> dict[str, Any]:
    report = run.report.to_dict()
    seconds = report["run"]["wall_s"]
    found = {row["name"]: (row["self_s"], row["run_share"] * seconds) for row in report["stages"]}
    return {**found, "outside": report["run"]["outside_s"]}


@pytest.mark.parametrize("so_far", [False, True])
def test_a_task_that_outlives_its_stage_is_no_time_outside(clock: Clock, so_far: bool) -> None:
    @opm.stage("parent")
    async def parent() -> asyncio.Task[None]:
        task = asyncio.create_task(child())
        await asyncio.sleep(1)
        return task

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            task = await parent()
            await asyncio.sleep(0.5 if so_far else 3)
        if so_far:
            assert not task.done()
        return run

    # open from 0 to 2, or until the run ends at 1.5
    expected = 1.5 if so_far else 2.0
    assert times(play(clock, main())) == {
        "parent": (0.0, 0.0),
        "child": (expected, expected),
        "outside": 0.0 if so_far else 2.0,
    }


@pytest.mark.parametrize("rounds", [1, 3], ids=["a sample", "later calls"])
@pytest.mark.usefixtures("few_calls_sampled")
def test_a_task_that_outlives_its_stage_covers_the_stages_around(clock: Clock, rounds: int) -> None:
    @opm.stage("inner")
    async def inner() -> None:
        asyncio.create_task(child())  # noqa: RUF006 - the loop holds it while it sleeps
        await asyncio.sleep(1)

    @opm.stage("outer")
    async def outer() -> None:
        await inner()
        await asyncio.sleep(3)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            for _ in range(rounds):
                await outer()
        return run

    assert times(play(clock, main())) == {
        "outer": (2.0 * rounds, 2.0 * rounds),
        "inner": (0.0, 0.0),
        "child": (2.0 * rounds, 2.0 * rounds),
        "outside": 0.0,
    }


def test_a_task_that_outlives_its_stage_shares_with_the_next_one(clock: Clock) -> None:
    @opm.stage("parent")
    async def parent() -> None:
        asyncio.create_task(child())  # noqa: RUF006 - the loop holds it while it sleeps
        await asyncio.sleep(1)

    @opm.stage("next")
    async def after() -> None:
        await asyncio.sleep(3)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await parent()
            await after()
        return run

    # both open from 1 to 2
    assert times(play(clock, main())) == {
        "parent": (0.0, 0.0),
        "child": (2.0, 1.5),
        "next": (3.0, 2.5),
        "outside": 0.0,
    }


def test_a_task_goes_on_while_its_stage_waits_for_input(clock: Clock) -> None:
    async def main() -> opm.Run:
        source = queue()

        @opm.stage("parent")
        async def parent() -> None:
            task = asyncio.create_task(child())
            await source.get()
            await task

        async with opm.run("test", resources=False) as run:
            task = asyncio.create_task(parent())
            await asyncio.sleep(3)
            await source.put(1)
            await task
        return run

    # the stage is idle from 0 to 3, and nothing is open from 2
    assert times(play(clock, main())) == {
        "parent": (0.0, 0.0),
        "child": (2.0, 2.0),
        "outside": 1.0,
    }


def test_a_task_that_waits_while_its_stage_ends_goes_on_inside(clock: Clock) -> None:
    async def main() -> opm.Run:
        source = queue()

        @opm.stage("waiter")
        async def waiter() -> None:
            await source.get()
            await asyncio.sleep(1)

        @opm.stage("inner")
        async def inner() -> None:
            asyncio.create_task(waiter())  # noqa: RUF006 - the queue holds it
            await asyncio.sleep(1)

        @opm.stage("outer")
        async def outer() -> None:
            await inner()
            await asyncio.sleep(2)

        async with opm.run("test", resources=False) as run:
            asyncio.get_running_loop().call_later(2, source.put_nowait, 1)
            await outer()
        return run

    # idle until 2, and then open until 3, when all end
    assert times(play(clock, main())) == {
        "outer": (1.0, 1.0),
        "inner": (1.0, 1.0),
        "waiter": (1.0, 1.0),
        "outside": 0.0,
    }

"""Test waits that another task makes for a worker, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import (
    feed,
    play,
    queue,
    queue_of,
    sleep,
    stage_of,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("how", ["wait_for", "task", "wait", "gather", "shield"])
def test_a_get_in_another_task_is_the_wait_of_the_requesting_worker(  # noqa: C901 - ways
    how: str, inside: bool, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """`wait_for` uses another task until Python 3.11."""
    source = queue()

    async def get() -> Any:
        if how == "wait_for":
            return await asyncio.wait_for(source.get(), 100)
        if how == "shield":
            return await asyncio.shield(source.get())
        if how == "gather":
            (item,) = await asyncio.gather(source.get())
            return item
        task = asyncio.create_task(source.get())
        if how == "wait":
            stop = asyncio.create_task(sleep(100))
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
        return await task

    @opm.stage
    async def work() -> None:
        if inside:
            await get()
        await sleep(1)

    async def worker() -> None:
        for _ in range(2):
            if not inside:
                await get()
            await work()

    async def main() -> None:
        await asyncio.gather(worker(), feed(source, 2, 4))

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (2.0, 5.0, 0.0)
    assert stage_of(run, "work")["duration_s"]["total"] == 2.0
    assert queue_of(run, "q")["consumers"] == ["work"]


def test_puts_in_other_tasks_block_the_requesting_worker_once(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    sink = queue(1)

    @opm.stage
    async def work() -> None:
        await sleep(1)
        await asyncio.gather(*(sink.put(n) for n in range(4)))

    async def reader() -> None:
        for _ in range(4):
            await sleep(2)
            await sink.get()

    async def main() -> None:
        await asyncio.gather(work(), reader())

    with make_run() as run:
        play(clock, main())
    # three puts wait, until 2, 4 and 6
    assert states(run, "work") == (1.0, 0.0, 5.0)
    assert queue_of(run, "q")["put_blocked_s"] == 9.0
    assert queue_of(run, "q")["producers"] == ["work"]


def test_a_get_ahead_is_no_wait_during_a_call(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    async def worker() -> None:
        ahead = asyncio.create_task(source.get())
        for _ in range(2):
            await ahead
            ahead = asyncio.create_task(source.get())
            with opm.stage("work"):
                await sleep(2)
        ahead.cancel()

    async def main() -> None:
        await asyncio.gather(worker(), feed(source, 1, 4))

    with make_run() as run:
        play(clock, main())
    # idle 0-1, works 1-3, idle 3-5, works 5-7
    assert states(run, "work") == (4.0, 3.0, 0.0)
    assert stage_of(run, "work")["duration_s"]["total"] == 4.0


def test_a_join_with_a_timeout_belongs_to_no_stage(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = queue()

    async def main() -> None:
        with opm.stage("fetch"):
            await sleep(1)
        await q.put(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(q.join(), 10)
        with opm.stage("fetch"):
            await sleep(1)

    with make_run() as run:
        play(clock, main())
    assert states(run, "fetch") == (2.0, 0.0, 0.0)


def test_one_worker_of_several_stages_has_the_time_of_each(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Time between two stages counts only around a queue."""
    source, sink = queue(0, "in"), queue(1, "out")

    async def worker() -> None:
        for _ in range(2):
            item = await source.get()
            await sleep(0.25)
            with opm.stage("first"):
                await sleep(1)
            await sleep(0.125)
            with opm.stage("second"):
                await sleep(2)
            await sleep(0.5)
            await sink.put(item)

    async def reader() -> None:
        await sleep(20)
        await sink.get()
        await sink.get()

    async def main() -> None:
        await asyncio.gather(feed(source, 1, 1), worker(), reader())

    with make_run() as run:
        play(clock, main())
    assert states(run, "first") == (2.25, 1.0, 0.0)  # its own 0.25 before its first call
    # put at 4.875; the 0.25 after the second get belongs to it, like later time
    assert states(run, "second") == (5.25, 0.0, 11.25)

"""Test how a worker's time is shared out among states, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._stages.workers import snapshot
from tests.probes.queues.support import (
    NOTHING,
    feed,
    play,
    queue,
    queue_of,
    sleep,
    stage_of,
    states,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Clock


def test_get_and_put_around_the_stage_count_for_it(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    async def worker(source: asyncio.Queue[int], sink: asyncio.Queue[int]) -> None:
        for _ in range(3):
            item = await source.get()
            await sleep(0.25)
            async with opm.stage("work"):
                await sleep(1)
            await sleep(0.5)
            await sink.put(item)

    async def slow_reader(sink: asyncio.Queue[int]) -> None:
        await sleep(20)
        for _ in range(3):
            await sink.get()

    async def main() -> None:
        source, sink = queue(0, "in"), queue(1, "out")
        await asyncio.gather(feed(source, 2, 2, 2), worker(source, sink), slow_reader(sink))

    with make_run() as run:
        play(clock, main())
    # got at 2, 4 and 6, busy 1.75 each; the second put waits from 5.75 to 20, the third is
    # made at 21.75; the gets after 3.75 waited until 4 and not at all
    assert states(run, "work") == (5.25, 2.25, 14.25)
    assert stage_of(run, "work")["time_s"]["wall"] == 21.75
    assert {k: stage_of(run, "work")["duration_s"][k] for k in ("avg", "total")} == {
        "avg": 1.0,
        "total": 3.0,
    }


@pytest.mark.parametrize("form", ["decorator", "block"])
def test_get_and_put_in_the_stage_count_for_it(
    form: str, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source, sink = queue(0, "in"), queue(1, "out")

    async def step() -> None:
        await sleep(0.25)
        item = await source.get()
        await sleep(1)
        await sink.put(item)

    async def in_block() -> None:
        async with opm.stage("step"):
            await step()

    stage: Any = opm.stage(step) if form == "decorator" else in_block

    async def reader() -> None:
        for _ in range(2):
            await sleep(8)
            await sink.get()

    async def worker() -> None:
        await stage()
        await stage()

    async def main() -> None:
        await asyncio.gather(feed(source, 2, 2), worker(), reader())

    with make_run() as run:
        play(clock, main())
    # idle 0.25-2 and 3.25-4, blocked 5-8
    assert states(run, "step") == (2.5, 2.5, 3.0)
    assert stage_of(run, "step")["duration_s"]["total"] == 2.5
    assert (
        queue_of(run, "out")["put_blocked_s"],
        queue_of(run, "in")["get_waited_s"],
    ) == (3.0, 2.5)


def test_a_call_around_the_whole_loop_can_be_read_in_progress(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """It can also be read at the end of a run that does not wait for it."""
    source = queue()
    seen = []

    @opm.stage
    async def loop() -> None:
        while True:
            await source.get()
            await sleep(3)

    async def main() -> None:
        run_now = asyncio.create_task(loop())
        opm.run  # noqa: B018 - the feeder is a stage of its own

        @opm.stage
        async def other() -> None:
            await sleep(0)

        await other()
        for _ in range(2):
            await sleep(4)
            await source.put(1)
        await sleep(1)
        seen.append(series())
        run_now.cancel()

    def series() -> Any:
        (found,) = [
            times
            for series, times in snapshot.snapshot(run._scope, clock.now()).items()
            if series.key.stage == "loop"
        ]
        (time,) = found.values()
        return (time.busy, time.idle, time.blocked)

    with make_run() as run:
        play(clock, main())
    # idle 0-4, busy 4-7, idle 7-8, busy 8-9
    assert seen == [(4.0, 5.0, 0.0)]
    assert states(run, "loop") == (4.0, 5.0, 0.0)


def test_several_workers_of_one_stage_add_up(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    source = queue()

    async def worker(seconds: float) -> None:
        async for item in source:
            if item < 0:
                return
            with opm.stage("work"):
                await sleep(seconds)

    async def main() -> None:
        workers = [asyncio.create_task(worker(s)) for s in (1.0, 2.0)]
        for item in (0, 0, -1, -1):
            await source.put(item)
        await asyncio.gather(*workers)

    with make_run() as run:
        play(clock, main())
    stage = stage_of(run, "work")
    assert stage["workers"] == 2
    assert states(run, "work") == (3.0, 0.0, 0.0)
    assert stage["share"].items() >= {"busy": 1.0, "idle": 0.0, "blocked": 0.0}.items()


def test_nested_stages_each_have_the_workers_time(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    async def main() -> None:
        feeder = asyncio.create_task(feed(source, 5))
        with opm.stage("outer"):
            await sleep(1)
            with opm.stage("inner"):
                await sleep(1)
                await source.get()
            await sleep(1)
            with opm.stage("blind"):
                await sleep(1)
        await feeder

    with make_run() as run:
        play(clock, main())
    assert states(run, "outer") == (4.0, 3.0, 0.0)
    assert states(run, "inner") == (1.0, 3.0, 0.0)
    assert states(run, "blind") == NOTHING
    assert stage_of(run, "outer")["duration_s"]["total"] == 4.0


def test_a_stage_inside_itself_counts_its_time_once(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    @opm.stage
    async def again(depth: int) -> None:
        await sleep(1)
        if depth:
            await again(depth - 1)
        else:
            await source.get()

    async def main() -> None:
        await asyncio.gather(again(2), feed(source, 5))

    with make_run() as run:
        play(clock, main())
    assert states(run, "again") == (3.0, 2.0, 0.0)


def test_a_generator_stage_has_the_time_inside_it(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Its worker also has the consumer's time."""
    sink = queue(1)

    @opm.stage
    def numbers() -> Iterator[int]:
        for n in range(3):
            clock.advance(1)
            yield n

    async def produce() -> None:
        for n in numbers():
            await sleep(0.5)
            await sink.put(n)

    async def consume() -> None:
        for _ in range(3):
            await sleep(10)
            await sink.get()

    async def main() -> None:
        await asyncio.gather(consume(), produce())

    with make_run() as run:
        play(clock, main())
    # put at 1.5; blocked 3-10 and 11.5-20
    assert states(run, "numbers") == (4.5, 0.0, 15.5)
    assert stage_of(run, "numbers")["duration_s"]["total"] == 3.0


def test_an_async_generator_stage_has_the_waits_inside_it(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    @opm.stage
    async def batches() -> AsyncIterator[list[int]]:
        for _ in range(2):
            batch = [await source.get(), await source.get()]
            await sleep(1)
            yield batch

    @opm.stage
    async def store(batch: list[int]) -> None:
        await sleep(2)

    async def consume() -> None:
        async for batch in batches():
            await store(batch)

    async def main() -> None:
        await asyncio.gather(feed(source, 2, 2, 2, 2), consume())

    with make_run() as run:
        play(clock, main())
    # batches: idle 0-4, busy 4-5; store 5-7; idle 7-8, busy 8-9; store 9-11
    assert states(run, "batches") == (2.0, 5.0, 0.0)
    assert stage_of(run, "batches")["duration_s"]["total"] == 2.0
    assert states(run, "store") == (4.0, 0.0, 0.0)


def test_cancelled_workers_keep_their_time(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    source, sink = queue(0, "in"), queue(1, "out")

    @opm.stage
    async def gets() -> None:
        await sleep(1)
        await source.get()

    @opm.stage
    async def puts() -> None:
        await sleep(1)
        await sink.put(1)

    @opm.stage
    async def works() -> None:
        await sink.put(0)
        await sleep(100)

    async def main() -> None:
        tasks = [asyncio.create_task(f()) for f in (works, gets, puts)]
        await sleep(4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with make_run() as run:
        play(clock, main())
    assert states(run, "gets") == (1.0, 3.0, 0.0)
    assert states(run, "puts") == (1.0, 0.0, 3.0)
    assert states(run, "works") == (4.0, 0.0, 0.0)
    assert [stage_of(run, name)["cancelled"] for name in ("gets", "puts", "works")] == [1, 1, 1]
    assert sink.get_nowait() == 0
    assert sink.empty()


def test_the_last_wait_belongs_to_the_last_stage(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """The wait is cancelled, ended by a sentinel, or open at the end of the run."""
    source = queue()

    async def worker(name: str) -> None:
        while await source.get() is not None:
            with opm.stage(name):
                await sleep(1)

    async def main() -> None:
        tasks = [asyncio.create_task(worker(name)) for name in ("a", "b", "c")]
        for item in (1, 1, 1):
            await source.put(item)
        await sleep(5)
        await source.put(None)
        tasks[1].cancel()
        await sleep(5)
        run.__exit__(None, None, None)
        tasks[2].cancel()

    run = make_run()
    run.__enter__()
    play(clock, main())
    assert states(run, "a") == (1.0, 4.0, 0.0)
    assert states(run, "b") == (1.0, 4.0, 0.0)
    assert states(run, "c") == (1.0, 9.0, 0.0)

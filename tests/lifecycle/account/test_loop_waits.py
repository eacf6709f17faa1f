"""Test how much of what stages await is told to be a wait for the event loop, at most."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


def waited(run: opm.Run, name: str) -> tuple[Any, ...]:
    time_s = stage_of(run, name)["time_s"]
    return time_s["awaiting"], time_s["loop_wait_most"]


def coroutine(clock: Clock) -> Callable[[float], Any]:
    @opm.process
    async def parse(seconds: float) -> None:
        clock.advance(seconds)

    return parse


def plain(clock: Clock) -> Callable[[float], Any]:
    @opm.process
    def parse(seconds: float) -> None:
        clock.advance(seconds)

    async def call(seconds: float) -> None:
        parse(seconds)

    return call


def inside(clock: Clock) -> Callable[[float], Any]:
    @opm.process
    def parse(seconds: float) -> None:
        clock.advance(seconds)

    @opm.process
    async def handle(seconds: float) -> None:
        parse(seconds)

    return handle


@pytest.mark.parametrize("make", [coroutine, plain, inside])
def test_a_task_that_is_woken_while_others_compute_waited_for_the_loop(
    clock: Clock, make: Callable[[Clock], Callable[[float], Any]]
) -> None:
    parse = make(clock)

    @opm.write
    async def store() -> None:
        await asyncio.sleep(1)

    async def worker() -> None:
        await parse(3)
        await store()

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await asyncio.gather(worker(), worker())
        return run

    run = play(clock, main())
    # the first one sleeps from 3 s on and goes on at 6, since the other computes until then; the
    # second one sleeps from 6 to 7 while nothing else is to be done
    assert waited(run, "store") == (4.0, 3.0)
    assert waited(run, "parse") == (0.0, 0.0)


def test_a_wait_while_the_loop_waits_too_is_none_for_it(clock: Clock) -> None:
    @opm.process
    async def parse() -> None:
        clock.advance(1)

    @opm.write
    async def store() -> None:
        await asyncio.sleep(5)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            task = asyncio.create_task(store())
            await asyncio.sleep(0)
            await parse()
            await task
        return run

    run = play(clock, main())
    # it goes on 5 s later, and the loop was held for the first of them only
    assert waited(run, "store") == (5.0, 0.0)


def test_a_clock_that_is_set_back_makes_no_wait_negative(clock: Clock) -> None:
    @opm.write
    async def store(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    async def main(seconds: float) -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await store(seconds)
        return run

    play(clock, main(1000))
    clock.advance(-900)
    assert waited(play(clock, main(1)), "store") == (0.0, 0.0)


def test_what_was_computed_once_makes_no_later_wait_one_for_the_loop(clock: Clock) -> None:
    @opm.process
    async def parse() -> None:
        clock.advance(10)

    @opm.write
    async def store() -> None:
        await asyncio.sleep(0.5)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            await parse()
            for _ in range(10):
                await store()
        return run

    # a tenth of what the loop was held is taken to be no wait of the loop's
    assert waited(play(clock, main()), "store") == (5.0, 1.0)

"""Test the time of stages that are inside of themselves by way of a generator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Clock


def times(run: opm.Run, name: str) -> tuple[Any, ...]:
    row = stage_of(run, name)
    return row["time_s"]["busy"], row["self_s"], row["wall_s"]


def test_a_generator_that_pulls_itself(clock: Clock) -> None:
    @opm.stage("walk")
    def walk(depth: int) -> Iterator[int]:
        clock.advance(1)
        yield depth
        if depth:
            yield from walk(depth - 1)
            for item in walk(depth - 1):  # noqa: UP028 - another way
                yield item

    with opm.run("test", resources=False) as run:
        assert len(list(walk(2))) == 7
    # seven of a second each; the inner ones are open during the outer ones
    assert times(run, "walk") == (7.0, 7.0, 7.0 + 6.0 + 4.0)
    assert stage_of(run, "walk")["run_share"] == 1.0


def test_an_async_generator_that_pulls_itself(clock: Clock) -> None:
    @opm.stage("walk")
    async def walk(depth: int) -> AsyncIterator[int]:
        await asyncio.sleep(1)
        yield depth
        if depth:
            async for item in walk(depth - 1):
                yield item

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            assert [item async for item in walk(2)] == [2, 1, 0]
        return run

    run = play(clock, main())
    assert times(run, "walk") == (3.0, 3.0, 6.0)
    assert stage_of(run, "walk")["time_s"]["awaiting"] == 3.0


@pytest.mark.parametrize("so_far", [False, True])
def test_a_stage_that_pulls_a_generator_that_calls_it(clock: Clock, so_far: bool) -> None:
    found: list[tuple[Any, ...]] = []

    @opm.stage("parse")
    def parse(depth: int) -> int:
        clock.advance(1)
        if not depth and so_far:
            found.extend(times(run, name) for name in ("parse", "parts"))
        return sum(parts(depth)) + 1

    @opm.stage("parts")
    def parts(depth: int) -> Iterator[int]:
        for _ in range(min(depth, 1)):
            clock.advance(2)
            yield parse(depth - 1)

    with opm.run("test", resources=False) as run:
        assert parse(2) == 3
        if not so_far:
            # a generator that goes on elsewhere is then not inside of it
            assert list(parts(1)) == [1]
    if so_far:
        assert found == [(7.0, 3.0, 7.0 + 4.0 + 1.0), (6.0, 4.0, 6.0 + 3.0)]
    else:
        # the last one is of 3 seconds, of which 1 is the stage's
        assert times(run, "parse") == (7.0 + 1.0, 4.0, 12.0 + 1.0)
        assert times(run, "parts") == (6.0 + 3.0, 6.0, 9.0 + 3.0)
    assert stage_of(run, "parse")["callers"][-1]["stage"] == "parts"


def test_who_pulls_the_items_of_a_generator(clock: Clock) -> None:
    @opm.stage("items")
    def items() -> Iterator[int]:
        clock.advance(1)
        yield 1
        with opm.waiting(state="idle"):
            clock.advance(2)
        yield 2
        clock.advance(4)
        yield 3

    with opm.run("test", resources=False) as run:
        source = items()
        next(source)
        with opm.stage("outer"):
            next(source)
            next(source)
            clock.advance(8)
        source.close()
    row = stage_of(run, "items")
    assert sorted(row["callers"], key=str) == [
        {"stage": "outer", "wall_s": 6.0, "spawned": False},
        {"stage": None, "wall_s": 1.0, "spawned": False},
    ]
    assert stage_of(run, "outer")["self_s"] == 8.0
    # the wait
    assert run.report.run["outside_s"] == 2.0

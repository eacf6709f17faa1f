"""Test async generators that are closed late, elsewhere or by the event loop."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import current_stage, stage
from tests.stages.support import (
    anext_of,
    in_flight,
    nothing_current,
    outcomes,
    run_debugging,
    turn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.stages.conftest import Otel


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_generator_that_is_broken_out_of(
    awaits: bool, keeps: bool, otel: Otel, silence: Any
) -> None:
    """It is never closed: the garbage collector finds it, or the end of the event loop."""
    kept = []
    tidied = []

    @stage("endless")
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                await turn()
                yield 1
        finally:
            if awaits:
                await turn()
            tidied.append(True)

    async def main() -> None:
        await consumer()
        gc.collect()
        for _ in range(5):
            await turn()  # a task of its own closes a generator that was found
        assert nothing_current()

    async def consumer() -> None:
        generator = endless()
        if keeps:
            kept.append(generator)
        async for _ in generator:
            assert nothing_current()
            break
        assert nothing_current()

    run_debugging(main())
    assert tidied == [True]
    assert outcomes(otel.results, "endless") == ["abandoned"]
    assert nothing_current()
    assert in_flight("endless") == 0
    otel.span("endless")


def test_many_generators_that_are_broken_out_of(otel: Otel, silence: Any) -> None:
    """The end of the loop closes all of them together, nested ones too."""

    @stage("outer")
    async def outer() -> AsyncIterator[int]:
        async for n in inner():
            yield n

    @stage("inner")
    async def inner() -> AsyncIterator[int]:
        try:
            while True:
                await turn()
                yield 1
        finally:
            await turn()

    kept = []

    async def consumer() -> None:
        generator = outer()
        kept.append(generator)
        async for _ in generator:
            return

    async def main() -> None:
        await asyncio.gather(*[consumer() for _ in range(20)])
        assert nothing_current()

    run_debugging(main())
    assert outcomes(otel.results, "outer") == ["abandoned"] * 20
    kept.clear()
    gc.collect()
    assert outcomes(otel.results, "inner") == ["abandoned"] * 20
    assert len(otel.spans()) == 40


def test_a_generator_closed_by_another_task(otel: Otel, silence: Any) -> None:
    @stage("handed over")
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await turn()

    async def close(generator: AsyncGenerator[int, None]) -> None:
        before = current_stage()
        await generator.aclose()
        assert current_stage() is before

    async def main() -> None:
        generator: Any = numbers()
        with stage("consumer") as consumer:
            await anext_of(generator)
            await asyncio.create_task(close(generator))
            assert current_stage() is consumer
        assert nothing_current()

    run_debugging(main())
    assert outcomes(otel.results, "handed over") == ["abandoned"]
    assert otel.span("handed over").end_time <= otel.span("consumer").end_time


def test_a_cancelled_consumer(otel: Otel, silence: Any) -> None:
    @stage("waiting")
    async def waiting() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            await turn()
        yield 2

    async def consume() -> None:
        async for _ in waiting():
            pass

    async def main() -> None:
        task = asyncio.create_task(consume())
        for _ in range(3):
            await turn()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert nothing_current()

    run_debugging(main())
    assert outcomes(otel.results, "waiting") == ["cancelled"]


def test_shutdown_asyncgens_called_by_the_program(otel: Otel, silence: Any) -> None:
    @stage("by hand")
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await turn()

    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    generator: Any = numbers()
    assert loop.run_until_complete(anext_of(generator)) == 1
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert outcomes(otel.results, "by hand") == ["abandoned"]


def test_a_generator_that_outlives_its_loop(otel: Otel, silence: Any) -> None:
    """Its `finally` can no longer be awaited; undecorated, it is dropped silently too."""

    @stage("orphan")
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await turn()

    loop = asyncio.new_event_loop()
    generator: Any = numbers()
    loop.run_until_complete(anext_of(generator))
    loop.close()
    del generator
    gc.collect()
    assert nothing_current()
    assert in_flight("orphan") == 0
    assert outcomes(otel.results, "orphan") == ["abandoned"]
    otel.span("orphan")


def test_a_generator_collected_as_the_loop_ends(otel: Otel, silence: Any) -> None:
    """Asyncio cancels the task that closes it, so it gets a cancellation."""

    @stage("late")
    async def numbers() -> AsyncIterator[int]:
        while True:
            await turn()
            yield 1

    async def main() -> None:
        generator = numbers()
        async for _ in generator:
            break

    run_debugging(main())
    gc.collect()
    assert outcomes(otel.results, "late") in (["cancelled"], ["abandoned"])
    assert in_flight("late") == 0
    otel.span("late")

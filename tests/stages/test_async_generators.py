"""Async generators: as generators, whoever ends them, in whatever task, however late."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from otel_pipeline_metrics import _draining, _execution, current_stage, stage
from tests import strategies
from tests.stages.support import in_flight, nothing_current, outcomes, run_script

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel
    from tests.strategies import Operation, Step


async def turn() -> None:
    """Let the event loop run everything else once."""
    await asyncio.sleep(0)


def run(main: Awaitable[Any]) -> Any:
    async def patient() -> Any:
        # a collection of a long session's heap takes longer than asyncio's tenth of a second
        asyncio.get_running_loop().slow_callback_duration = 60
        return await main

    return asyncio.run(patient(), debug=True)


async def test_only_time_inside_counts(clock: Clock, results: Results) -> None:
    @stage("numbers")
    async def numbers() -> AsyncIterator[int]:
        clock.advance(1)
        await turn()
        clock.advance(2)
        yield 1
        clock.advance(4)
        yield 2

    async for _ in numbers():
        clock.advance(100)

    (result,) = results.of("numbers")
    assert (result.busy_s, result.outcome, result.items_out) == (7, "ok", 2)


async def test_awaited_time_inside_counts(clock: Clock, results: Results) -> None:
    @stage("waits")
    async def waits() -> AsyncIterator[int]:
        await gate.wait()
        yield 1

    gate = asyncio.Event()
    first = asyncio.ensure_future(anext_of(waits()))
    await turn()
    clock.advance(5)
    gate.set()
    assert await first == 1
    gc.collect()
    await turn()
    await turn()
    assert results.durations("waits") == [5]


async def anext_of(generator: AsyncIterator[Any]) -> Any:
    return await generator.__anext__()


async def test_asend_and_athrow_pass_through(results: Results) -> None:
    @stage("echo")
    async def echo() -> AsyncGenerator[Any, Any]:
        heard = yield "ready"
        try:
            yield heard
        except KeyError as error:
            yield error

    error = KeyError("k")
    generator = echo()
    assert await generator.asend(None) == "ready"
    assert await generator.asend("hello") == "hello"
    assert error is await generator.athrow(error)
    with pytest.raises(StopAsyncIteration):
        await anext_of(generator)
    assert outcomes(results, "echo") == ["ok"]


async def test_items_counts_each_yielded_value(results: Results) -> None:
    @stage("batches", items=len)
    async def batches() -> AsyncIterator[str]:
        yield "abc"
        yield "de"

    assert [batch async for batch in batches()] == ["abc", "de"]
    assert [r.items_out for r in results.of("batches")] == [5]


async def test_an_error_inside_is_the_generators(results: Results) -> None:
    error = LookupError()

    @stage("broken")
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise error

    generator = broken()
    await anext_of(generator)
    with pytest.raises(LookupError) as caught:
        await anext_of(generator)
    assert error is caught.value
    assert [(r.outcome, r.error_type) for r in results.of("broken")] == [("error", "LookupError")]


async def test_nothing_is_current_between_yields(otel: Otel) -> None:
    @stage("inside")
    async def numbers() -> AsyncIterator[int]:
        for n in range(3):
            await turn()
            assert current_stage() is not _execution.NOTHING
            yield n

    async for _ in numbers():
        assert nothing_current()
        with stage("consumer"):
            await turn()
    assert nothing_current()
    assert [s.parent for s in otel.spans() if s.name == "consumer"] == [None] * 3
    assert otel.span("inside").attributes["pipeline.stage.items.out"] == 3


async def test_awaits_while_closing(clock: Clock, results: Results, silence: Any) -> None:
    @stage("tidy")
    async def tidy() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await turn()
            clock.advance(2)
            await turn()

    async with contextlib.aclosing(tidy()) as generator:
        async for _ in generator:
            clock.advance(100)
            break
    (result,) = results.of("tidy")
    assert (result.busy_s, result.outcome) == (2, "abandoned")
    assert nothing_current()


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_broken_out_of(awaits: bool, keeps: bool, otel: Otel, silence: Any) -> None:
    """Nobody closes it: the garbage collector finds it, or the end of the event loop."""
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
            await turn()  # a generator that was found is closed in a task of its own
        assert nothing_current()

    async def consumer() -> None:
        generator = endless()
        if keeps:
            kept.append(generator)
        async for _ in generator:
            assert nothing_current()
            break
        assert nothing_current()

    run(main())
    assert tidied == [True]
    assert outcomes(otel.results, "endless") == ["abandoned"]
    assert nothing_current()
    assert in_flight("endless") == 0
    otel.span("endless")


def test_many_broken_out_of_at_once(otel: Otel, silence: Any) -> None:
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

    run(main())
    assert outcomes(otel.results, "outer") == ["abandoned"] * 20
    kept.clear()
    gc.collect()
    assert outcomes(otel.results, "inner") == ["abandoned"] * 20
    assert len(otel.spans()) == 40


def test_closed_from_another_task(otel: Otel, silence: Any) -> None:
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

    run(main())
    assert outcomes(otel.results, "handed over") == ["abandoned"]
    assert otel.span("handed over").end_time <= otel.span("consumer").end_time


def test_each_value_taken_in_another_task(otel: Otel, silence: Any) -> None:
    @stage("relayed")
    async def numbers() -> AsyncIterator[int]:
        for n in range(4):
            await turn()
            yield n

    async def main() -> None:
        generator = numbers()
        taken = [await asyncio.create_task(anext_of(generator)) for _ in range(4)]
        assert taken == [0, 1, 2, 3]
        with contextlib.suppress(StopAsyncIteration):
            await anext_of(generator)
        assert nothing_current()

    run(main())
    assert [r.items_out for r in otel.results.of("relayed")] == [4]


def test_the_consumer_is_cancelled(otel: Otel, silence: Any) -> None:
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

    run(main())
    assert outcomes(otel.results, "waiting") == ["cancelled"]


def test_shutdown_asyncgens_of_a_loop_run_by_hand(otel: Otel, silence: Any) -> None:
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


def test_the_loop_is_closed_under_it(otel: Otel, silence: Any) -> None:
    """Nobody can await its `finally` any more; undecorated, it goes without a word too."""

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


def test_found_by_the_garbage_collector_as_the_loop_ends(otel: Otel, silence: Any) -> None:
    """Asyncio then cancels the task that closes it, so cancellation is what it hears."""

    @stage("late")
    async def numbers() -> AsyncIterator[int]:
        while True:
            await turn()
            yield 1

    async def main() -> None:
        generator = numbers()
        async for _ in generator:
            break

    run(main())
    gc.collect()
    assert outcomes(otel.results, "late") in (["cancelled"], ["abandoned"])
    assert in_flight("late") == 0
    otel.span("late")


async def test_nobody_else_loses_their_asyncgen_hooks(results: Results) -> None:
    """The source is started unseen by the loop; generators that it starts are seen."""
    loop: Any = asyncio.get_running_loop()

    async def plain() -> AsyncIterator[int]:
        yield 1
        yield 2

    kept = []

    @stage("outer")
    async def outer() -> AsyncIterator[int]:
        kept.append(plain())
        yield await anext_of(kept[0])

    generator: Any = outer()
    assert await anext_of(generator) == 1
    assert kept[0] in loop._asyncgens
    assert generator in loop._asyncgens
    await kept[0].aclose()
    await generator.aclose()


async def test_no_exception_is_kept_alive() -> None:
    @stage("thrown")
    async def source() -> AsyncIterator[int]:
        yield 1

    class OwnError(Exception):
        pass

    async def throw(function: Any) -> weakref.ref[OwnError]:
        generator = function()
        await anext_of(generator)
        error = OwnError()
        alive = weakref.ref(error)
        with contextlib.suppress(OwnError):
            await generator.athrow(error)
        del error
        return alive

    gc.disable()
    try:
        assert (await throw(source))() is None
    finally:
        gc.enable()


class Batch(list[int]):
    """A list that can be referred to weakly."""


async def test_a_value_is_kept_no_longer_than_the_consumer_keeps_it() -> None:
    @stage("batches")
    async def batches() -> AsyncIterator[Batch]:
        yield Batch([1])
        yield Batch([2])

    generator: Any = batches()
    batch = await anext_of(generator)
    alive = weakref.ref(batch)
    del batch
    assert alive() is None
    await generator.aclose()


NOISELESS = """
import asyncio, gc, logging, sys
import otel_pipeline_metrics as opm
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

logging.basicConfig(level=logging.WARNING)
trace.set_tracer_provider(TracerProvider())
kept = []

@opm.fetch
async def pages(n):
    try:
        while True:
            await asyncio.sleep(0)
            yield n
    finally:
        await asyncio.sleep(0)

async def consumer(n):
    generator = pages(n)
    if n % 2:
        kept.append(generator)
    async for _ in generator:
        break

async def main():
    # a busy machine makes any step longer than asyncio's tenth of a second
    asyncio.get_running_loop().slow_callback_duration = 60
    await asyncio.gather(*[consumer(n) for n in range(10)])
    gc.collect()
    assert trace.get_current_span() is trace.INVALID_SPAN

asyncio.run(main(), debug=True)
"""


def test_a_script_says_nothing(tmp_path: Path) -> None:
    """In a process of its own, with asyncio's and Python's development modes on."""
    done = run_script(NOISELESS, tmp_path / "script.py", "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _observe(generator: Any, operation: Operation) -> tuple[Any, ...]:
    thrown = None
    if operation.name == "next":
        awaitable = generator.__anext__()
    elif operation.name == "send":
        awaitable = generator.asend(operation.argument)
    elif operation.name == "throw":
        thrown = operation.argument("thrown")
        awaitable = generator.athrow(thrown)
    else:
        awaitable = generator.aclose()
    turns = 0
    try:
        while True:
            awaitable.send(None)
            turns += 1
    except StopIteration as stop:
        return ("value", stop.value, turns)
    except BaseException as error:  # noqa: BLE001 - whatever it is, both must do the same
        return (
            *("raised", type(error), error.args, error is thrown, turns),
            *(type(error.__cause__), type(error.__context__), error.__suppress_context__),
        )


def _use_up(generator: Any) -> None:
    while generator.ag_frame is not None:
        with contextlib.suppress(StopAsyncIteration, strategies.OwnError, RuntimeError):
            _observe(generator, strategies.Operation("next"))


@settings(max_examples=400)
@given(strategies.scripts, strategies.endings, strategies.operations)
def test_behaves_like_the_undecorated_async_generator(
    script: list[Step], ending: str, operations: list[Operation]
) -> None:
    function: Callable[[], Any] = strategies.scripted_async(script, ending)
    plain, measured = function(), stage("alike async")(function)()
    for operation in operations:
        assert _observe(plain, operation) == _observe(measured, operation)
    for generator in (plain, measured):
        _use_up(generator)
    _draining.drain()
    assert in_flight("alike async") == 0
    assert nothing_current()


def test_driven_in_contexts_that_differ(otel: Otel, silence: Any) -> None:
    """Each step in a copy of the context, as some servers' streaming responses do it."""

    @stage("stream")
    async def numbers() -> AsyncIterator[int]:
        await strategies.Turn()
        yield 1
        await strategies.Turn()
        yield 2

    generator: Any = numbers()
    steps = [generator.__anext__() for _ in range(1)]
    for step in steps:
        # begun in one context, continued in another
        contextvars.copy_context().run(step.send, None)
        with pytest.raises(StopIteration):
            contextvars.copy_context().run(step.send, None)
    assert nothing_current()
    closing = generator.aclose()
    with pytest.raises(StopIteration):
        contextvars.copy_context().run(closing.send, None)
    assert nothing_current()
    assert outcomes(otel.results, "stream") == ["abandoned"]

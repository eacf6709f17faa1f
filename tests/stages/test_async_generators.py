"""Test async generators: measured like generators, in any task, however late they end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from otel_pipeline_metrics import current_stage, stage
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._stages import execution
from tests import strategies
from tests.stages.support import (
    anext_of,
    in_flight,
    nothing_current,
    outcomes,
    run_debugging,
    run_script,
    turn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel
    from tests.strategies import Operation, Step


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


async def test_an_error_inside_reaches_the_consumer(results: Results) -> None:
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
            assert current_stage() is not execution.NOOP_EXECUTION
            yield n

    async for _ in numbers():
        assert nothing_current()
        with stage("consumer"):
            await turn()
    assert nothing_current()
    assert [s.parent for s in otel.spans() if s.name == "consumer"] == [None] * 3
    assert otel.span("inside").attributes["pipeline.stage.items.out"] == 3


async def test_a_generator_that_awaits_while_closing(
    clock: Clock, results: Results, silence: Any
) -> None:
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


def test_each_value_is_taken_by_another_task(otel: Otel, silence: Any) -> None:
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

    run_debugging(main())
    assert [r.items_out for r in otel.results.of("relayed")] == [4]


async def test_asyncgen_hooks_of_others_are_kept(results: Results) -> None:
    """The loop does not see the source start, but sees generators that the source starts."""
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
    """A list that allows weak references."""


async def test_a_value_is_kept_no_longer_than_by_the_consumer() -> None:
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


def test_a_script_writes_nothing_to_stderr(tmp_path: Path) -> None:
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
    except BaseException as error:  # both must do the same
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
def test_it_behaves_like_the_undecorated_async_generator(
    script: list[Step], ending: str, operations: list[Operation]
) -> None:
    function: Callable[[], Any] = strategies.scripted_async(script, ending)
    plain, measured = function(), stage("alike async")(function)()
    for operation in operations:
        assert _observe(plain, operation) == _observe(measured, operation)
    for generator in (plain, measured):
        _use_up(generator)
    drain.drain()
    assert in_flight("alike async") == 0
    assert nothing_current()


def test_steps_in_different_contexts(otel: Otel, silence: Any) -> None:
    """Each step runs in a copy of the context, as in some servers' streaming responses."""

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

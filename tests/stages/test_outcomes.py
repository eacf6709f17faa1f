"""Test the outcomes ok, error, cancelled and abandoned, and that exceptions pass unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import stage
from tests.stages.support import in_flight, nothing_current, outcomes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import Results
    from tests.stages.conftest import Otel


class NestedError:
    """Holds an exception class."""

    class InnerError(Exception):
        """Has a qualified name of its own."""


class FalsyError(Exception):
    """Counts as false, like an error with an empty `__len__`."""

    def __len__(self) -> int:
        return 0


ENDINGS = [
    (KeyError("k"), "error", "KeyError"),
    (json.JSONDecodeError("m", "d", 0), "error", "json.decoder.JSONDecodeError"),
    (NestedError.InnerError(), "error", "tests.stages.test_outcomes.NestedError.InnerError"),
    (FalsyError(), "error", "tests.stages.test_outcomes.FalsyError"),
    (TimeoutError(), "error", "TimeoutError"),
    (asyncio.CancelledError(), "cancelled", None),
    (KeyboardInterrupt(), "cancelled", None),
    (SystemExit(3), "cancelled", None),
    (GeneratorExit(), "abandoned", None),
]


def by_function(error: BaseException) -> None:
    @stage("ends")
    def function() -> None:
        raise error

    function()


def by_coroutine(error: BaseException) -> None:
    @stage("ends")
    async def function() -> None:
        raise error

    _drive(function())


def by_generator(error: BaseException) -> None:
    @stage("ends")
    def function() -> Any:
        yield
        raise error

    list(function())


def by_async_generator(error: BaseException) -> None:
    @stage("ends")
    async def function() -> Any:
        yield
        raise error

    async def consume() -> None:
        async for _ in function():
            pass

    _drive(consume())


def by_block(error: BaseException) -> None:
    with stage("ends"):
        raise error


def by_async_block(error: BaseException) -> None:
    async def block() -> None:
        async with stage("ends"):
            raise error

    _drive(block())


def _drive(awaitable: Awaitable[Any]) -> None:
    """Run a coroutine without an event loop, which would handle SystemExit itself."""
    coroutine: Any = awaitable
    try:
        coroutine.send(None)
    except StopIteration:
        return


FORMS = [by_function, by_coroutine, by_generator, by_async_generator, by_block, by_async_block]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("error", "outcome", "error_type"), ENDINGS, ids=[type(e[0]).__name__ for e in ENDINGS]
)
def test_the_outcome_of_each_kind_of_stage(
    form: Callable[[BaseException], None],
    error: BaseException,
    outcome: str,
    error_type: str | None,
    results: Results,
) -> None:
    with pytest.raises(type(error)) as caught:
        form(error)
    assert caught.value is error
    (result,) = results.of("ends")
    assert (outcome, error_type) == (result.outcome, result.error_type)
    assert nothing_current()
    assert in_flight("ends") == 0


def test_an_ok_call_reports_only_its_duration(results: Results) -> None:
    with stage("well"):
        pass
    assert len(results.durations("well")) == 1
    assert results.of("well") == []


def test_an_error_caught_inside_is_ok(results: Results) -> None:
    with stage("handled"), contextlib.suppress(KeyError):
        raise KeyError
    assert results.of("handled") == []


def test_a_cancelled_task(results: Results) -> None:
    @stage
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        assert in_flight("waits") == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [r.outcome for r in results.of("waits")] == ["cancelled"]


def test_a_timeout_cancels_the_inner_stage_and_fails_the_outer(results: Results) -> None:
    @stage
    async def inner() -> None:
        await asyncio.Event().wait()

    @stage
    async def outer() -> None:
        await asyncio.wait_for(inner(), 0.001)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(outer())
    assert [r.outcome for r in results.of("inner")] == ["cancelled"]
    assert [r.outcome for r in results.of("outer")] == ["error"]


def test_a_coroutine_closed_early_is_abandoned(otel: Otel) -> None:
    @stage
    async def half() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        coroutine = half()
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert [r.outcome for r in otel.results.of("half")] == ["abandoned"]


def test_an_error_keeps_its_cause_and_context() -> None:
    cause = ValueError()

    @stage
    def chained() -> None:
        try:
            raise cause
        except ValueError as error:
            raise KeyError from error

    with pytest.raises(KeyError) as caught:
        chained()
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is cause


def test_a_block_raises_errors_further() -> None:
    block = stage("b")
    block.__enter__()
    assert not block.__exit__(KeyError, KeyError(), None)


class Reader:
    """Is an iterator and an async iterator over three numbers."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.left = 3
        self.error = error

    def __iter__(self) -> Reader:
        return self

    def __aiter__(self) -> Reader:
        return self

    @stage("next")
    def __next__(self) -> int:
        return self.pull(StopIteration("done"))

    @stage("anext")
    async def __anext__(self) -> int:
        return self.pull(StopAsyncIteration())

    def pull(self, end: BaseException) -> int:
        if not self.left:
            raise self.error or end
        self.left -= 1
        return self.left


async def test_the_end_of_an_iteration_is_no_error(results: Results) -> None:
    assert list(Reader()) == [2, 1, 0]
    assert [n async for n in Reader()] == [2, 1, 0]
    for name in ("next", "anext"):
        assert len(results.durations(name)) == 4
        assert outcomes(results, name) == ["ok"]  # the others have only a duration
        assert in_flight(name) == 0


async def test_other_exceptions_of_an_iterator_are_errors(results: Results) -> None:
    with pytest.raises(KeyError):
        list(Reader(KeyError()))
    with pytest.raises(OSError, match="x"):
        [n async for n in Reader(OSError("x"))]
    found = [*results.of("next"), *results.of("anext")]
    assert [r.error_type for r in found if r.outcome != "ok"] == ["KeyError", "OSError"]


@pytest.mark.parametrize(
    "pull",
    [
        lambda rows: stage("pull")(iter(rows).__next__),
        lambda rows: stage("pull")(functools.partial(next, iter(rows))),
    ],
)
def test_the_end_of_an_iterator_written_in_c(results: Results, pull: Any) -> None:
    step = pull([1])
    assert step() == 1
    with pytest.raises(StopIteration):
        step()
    assert set(outcomes(results, "pull")) == {"ok"}
    assert len(results.durations("pull")) == 2


def test_stop_iteration_of_another_function_is_an_error(results: Results) -> None:
    """An empty list here is a fault, and not the end of anything."""

    @stage("first")
    def first(rows: list[int]) -> int:
        return next(iter(rows))

    with pytest.raises(StopIteration):
        first([])
    assert outcomes(results, "first") == ["error"]

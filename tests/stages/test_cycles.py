"""Test that a finished call is freed at once, without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import current_stage, stage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator


@pytest.fixture(params=["results", "otel"])
def seen(request: pytest.FixtureRequest) -> Iterator[list[weakref.ref[Any]]]:
    """Collect references to executions, with and without spans; the garbage collector is off."""
    request.getfixturevalue(request.param)
    gc.collect()
    gc.disable()
    yield []
    gc.enable()


def note(seen: list[weakref.ref[Any]]) -> None:
    seen.append(weakref.ref(current_stage()))


def freed(seen: list[weakref.ref[Any]]) -> list[bool]:
    return [ref() is None for ref in seen]


def test_a_block_and_a_function_are_freed(seen: list[weakref.ref[Any]]) -> None:
    @stage("function")
    def function() -> None:
        note(seen)

    with stage("block"):
        note(seen)
    function()
    assert freed(seen) == [True, True]


def test_a_call_with_details_is_freed(seen: list[weakref.ref[Any]]) -> None:
    with stage("block") as s:
        note(seen)
        s.add_items(1)
        s.retry()
    del s
    assert freed(seen) == [True]


def test_a_failed_call_is_freed(seen: list[weakref.ref[Any]]) -> None:
    @stage("fails")
    def fails() -> None:
        note(seen)
        raise KeyError

    # pytest.raises would keep the traceback, and with it the frames
    with contextlib.suppress(KeyError):
        fails()
    assert freed(seen) == [True]


@pytest.mark.parametrize("taken", [1, 2])
def test_a_generator_is_freed(taken: int, seen: list[weakref.ref[Any]]) -> None:
    """Left by its consumer, or run to its end."""

    @stage("numbers")
    def numbers() -> Generator[int, None, None]:
        note(seen)
        yield 1

    source = numbers()
    assert [value for value, _ in zip(source, range(taken), strict=False)] == [1]
    source.close()
    del source
    assert freed(seen) == [True]


async def test_an_async_generator_is_freed(seen: list[weakref.ref[Any]]) -> None:
    @stage("numbers")
    async def numbers() -> AsyncGenerator[int, None]:
        note(seen)
        yield 1

    assert [value async for value in numbers()] == [1]
    assert freed(seen) == [True]

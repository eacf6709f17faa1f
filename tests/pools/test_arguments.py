"""What `workers` refuses, and how it says so."""

from __future__ import annotations

import asyncio
import functools
import queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def plain(item: int) -> int:
    return item


def generator(item: int) -> Iterator[int]:
    yield item


async def coroutine(item: int) -> int:
    return item


async def async_generator(item: int) -> AsyncIterator[int]:
    yield item


class Callable2:
    async def __call__(self, item: int) -> int:
        return item


def tasks_queue() -> Any:
    return opm.wrap_queue(asyncio.Queue[Any](), name="tasks", sentinel=None)


def threads_queue() -> Any:
    return opm.wrap_queue(queue.Queue[Any](), name="threads", sentinel=None)


ASYNC = (coroutine, async_generator, Callable2(), functools.partial(coroutine))
SYNC = (plain, generator, functools.partial(plain))


@pytest.mark.parametrize("function", [*ASYNC, *map(opm.stage, (coroutine, async_generator))])
def test_coroutines_need_queues_of_asyncio_and_async_with(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="source must be a queue of asyncio"):
        opm.workers(function, threads_queue())
    with pytest.raises(TypeError, match="sink must be a queue of asyncio"):
        opm.workers(function, tasks_queue(), threads_queue())

    pool = opm.workers(function, tasks_queue(), tasks_queue(), name="pool")

    with pytest.raises(TypeError, match="workers of 'pool' need `async with`, not `with`"), pool:
        pass


@pytest.mark.parametrize("function", [*SYNC, *map(opm.stage, (plain, generator))])
async def test_functions_need_queues_of_threads_and_with(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="source must be"):
        opm.workers(function, tasks_queue())
    with pytest.raises(TypeError, match="sink must be"):
        opm.workers(function, threads_queue(), tasks_queue())

    pool = opm.workers(function, threads_queue(), threads_queue(), name="pool")

    with pytest.raises(TypeError, match="workers of 'pool' need `with`, not `async with`"):
        async with pool:
            pass


def test_queues_come_from_wrap_queue() -> None:
    with pytest.raises(TypeError, match="source must be a queue that wrap_queue returned"):
        opm.workers(plain, queue.Queue())
    with pytest.raises(TypeError, match="sink must be a queue that wrap_queue returned"):
        opm.workers(plain, threads_queue(), queue.Queue())
    with pytest.raises(TypeError, match="source must be a queue that wrap_queue returned"):
        opm.workers(plain, None)


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (0, ValueError, "count must be at least 1, not 0"),
        (-1, ValueError, "count must not be negative"),
        (True, TypeError, "count must be an integer, not bool"),
        (2.0, TypeError, "count must be an integer, not float"),
        (None, TypeError, "count must be an integer, not NoneType"),
        ((0, 4), ValueError, "count must be at least 1"),
        ((4, 2), ValueError, r"count must be \(low, high\) with low <= high"),
        ((1, 2, 3), ValueError, r"count must be a number or \(low, high\)"),
        ((1, "2"), TypeError, "count must be an integer, not str"),
    ],
)
def test_bad_counts(count: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        opm.workers(plain, threads_queue(), count=count)


def test_bad_names_and_words() -> None:
    with pytest.raises(ValueError, match="on_error must be 'stop' or 'skip', not 'ignore'"):
        opm.workers(plain, threads_queue(), on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="on_error must be"):
        opm.workers(plain, threads_queue(), on_error=["stop"])  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="name must not be empty"):
        opm.workers(plain, threads_queue(), name="")
    with pytest.raises(TypeError, match="a stage decorates a function or a method"):
        opm.workers("plain", threads_queue())  # type: ignore[call-overload]


def test_a_pool_is_entered_once() -> None:
    source = threads_queue()
    source.put(None)
    pool = opm.workers(plain, source)
    with pool:
        pass

    with pytest.raises(RuntimeError, match="were started before"), pool:
        pass


@pytest.mark.parametrize("function", [plain, functools.partial(plain)])
def test_an_undecorated_function_becomes_a_process_stage(function: Callable[..., Any]) -> None:
    with opm.run("stages", resources=False, report=None) as run:
        for name in (None, "named"):
            source = threads_queue()
            source.put(1)
            source.put(None)
            with opm.workers(function, source, name=name) as pool:
                pass
            assert pool.name == (name or "plain")

    stages = [(s["name"], s["kind"], s["count"]) for s in run.report.stages]
    assert sorted(stages) == [("named", "process", 1), ("plain", "process", 1)]


def test_a_stage_stays_what_it_is() -> None:
    source = threads_queue()
    source.put(1)
    source.put(None)
    with opm.run("stages", resources=False, report=None) as run:
        decorated = opm.write("store")(plain)
        with opm.workers(decorated, source, name="pool") as pool:
            pass

    assert pool.name == "pool"
    stages = [(s["name"], s["kind"], s["count"]) for s in run.report.stages]
    assert stages == [("store", "write", 1)]

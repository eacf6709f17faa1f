"""Workers that are tasks: what they take, put and end with."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def wrapped(size: int = 0, sentinel: Any = None, **kwargs: Any) -> Any:
    return opm.wrap_queue(asyncio.Queue[Any](size), name="q", sentinel=sentinel, **kwargs)


def filled(*items: Any, sentinel: Any = None) -> Any:
    made = wrapped(sentinel=sentinel)
    for item in (*items, sentinel):
        made.put_nowait(item)
    return made


def content(q: Any) -> list[Any]:
    return [q.get_nowait() for _ in range(q.qsize())]


async def double(n: int) -> int:
    return 2 * n


async def test_one_item_in_one_result_out_and_the_end_once() -> None:
    source, sink = filled(1, 2, 3), wrapped()

    async with opm.workers(double, source, sink, count=4):
        pass

    assert sorted(content(sink), key=str) == [2, 4, 6, None]
    assert source.qsize() == 0


async def test_none_is_a_result_too() -> None:
    async def nothing(n: int) -> None:
        return None

    source, sink = filled(1, 2, sentinel="end"), wrapped(sentinel="over")

    async with opm.workers(nothing, source, sink):
        pass

    assert content(sink) == [None, None, "over"]


async def test_values_of_a_generator_are_put_one_by_one() -> None:
    async def parts(n: int) -> AsyncIterator[int]:
        for part in range(n):
            yield part

    source, sink = filled(3, 0, 2), wrapped()

    async with opm.workers(parts, source, sink, count=1):
        pass

    assert content(sink) == [0, 1, 2, 0, 1, None]


async def test_without_a_sink_results_are_dropped() -> None:
    seen = []

    async def keep(n: int) -> int:
        seen.append(n)
        return n

    async with opm.workers(keep, filled(1, 2)):
        pass

    assert seen == [1, 2]


async def test_the_end_is_passed_on_while_the_block_is_open() -> None:
    source, sink = wrapped(2), wrapped(1)
    results = []
    async with opm.workers(double, source, sink, count=3):
        for n in range(2):
            await source.put(n)
        await source.put(None)
        while (result := await sink.get()) is not None:
            results.append(result)

    assert sorted(results) == [0, 2]


def test_workers_work_at_the_same_time() -> None:
    async def nap(n: int) -> int:
        await asyncio.sleep(1)
        return n

    async def main() -> float:
        loop = asyncio.get_running_loop()
        source = filled(*range(8))
        async with opm.workers(nap, source, count=4):
            pass
        return loop.time()

    assert _virtual_time.run(main()) == 2.0


def test_the_end_comes_after_the_last_result() -> None:
    """One worker meets the end while another one has work for long."""

    async def nap(n: int) -> int:
        await asyncio.sleep(n)
        return n

    async def main() -> list[Any]:
        sink = wrapped()
        async with opm.workers(nap, filled(10, 1, 2), sink, count=4):
            pass
        return content(sink)

    assert _virtual_time.run(main()) == [1, 2, 10, None]


async def test_task_done_is_called_after_the_results_are_in() -> None:
    source, sink = wrapped(), wrapped()

    async with opm.workers(double, source, sink, count=2):
        for n in range(5):
            await source.put(n)
        await source.join()
        assert sorted(content(sink)) == [0, 2, 4, 6, 8]
        await source.put(None)
        await source.join()

    assert content(sink) == [None]


async def test_a_chain_of_pools_ends_from_the_first_to_the_last() -> None:
    a, b, c = wrapped(1), wrapped(1, sentinel="b"), wrapped(sentinel="c")

    async with opm.workers(double, a, b, count=2), opm.workers(double, b, c, count=3):
        for n in range(20):
            await a.put(n)
        await a.put(None)

    assert sorted(content(c), key=str) == sorted([*range(0, 80, 4), "c"], key=str)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues shut down since Python 3.13")
async def test_a_shutdown_is_the_end_too() -> None:
    source = opm.wrap_queue(asyncio.Queue[Any](), name="source")
    sink = opm.wrap_queue(asyncio.Queue[Any](), name="sink")
    async with opm.workers(double, source, sink, count=2):
        await source.put(1)
        source.shutdown()

    assert await sink.get() == 2
    with pytest.raises(asyncio.QueueShutDown):
        await sink.get()


async def test_the_first_error_is_raised_as_itself_and_the_body_cancelled() -> None:
    """The body waits in a put that nobody would ever take from."""
    error = ZeroDivisionError("two")

    async def fails(n: int) -> int:
        if n == 2:
            raise error
        return n

    source, reached, task = wrapped(1), 0, asyncio.current_task()
    with pytest.raises(ZeroDivisionError) as raised:
        async with opm.workers(fails, source, count=1):
            for n in range(100):
                await source.put(n)
                reached = n

    assert raised.value is error
    assert raised.value.__context__ is None
    assert reached < 10
    if sys.version_info >= (3, 11):
        assert task is not None
        assert task.cancelling() == 0
    await asyncio.sleep(0)  # is not cancelled any more


async def test_other_tasks_are_cancelled_by_an_error() -> None:
    ended = []

    async def work(n: int) -> None:
        if n == 2:
            await asyncio.sleep(0)
            raise ValueError(n)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    with pytest.raises(ValueError, match="2"):
        async with opm.workers(work, filled(0, 1, 2), count=3):
            pass

    assert sorted(ended) == [0, 1]


async def test_skip_goes_on_with_the_next_item() -> None:
    async def parts(n: int) -> AsyncIterator[int]:
        yield n
        if n % 2:
            raise ValueError(n)
        yield -n

    source, sink = filled(1, 2, 3, 4), wrapped()

    async with opm.workers(parts, source, sink, count=1, on_error="skip") as pool:
        pass

    assert content(sink) == [1, 2, -2, 3, 4, -4, None]
    assert pool.skipped == 2
    await source.join()


@pytest.mark.parametrize("on_error", ["stop", "skip"])
async def test_a_result_that_is_the_end_of_the_sink_is_an_error(on_error: Any) -> None:
    async def nothing(n: int) -> None:
        return None

    sink = wrapped()
    pool = opm.workers(nothing, filled(1, 2), sink, count=1, on_error=on_error, name="pool")
    if on_error == "stop":
        with pytest.raises(ValueError, match="a result of 'pool' is the sentinel of its sink"):
            async with pool:
                pass
        assert content(sink) == []
    else:
        async with pool:
            pass
        assert pool.skipped == 2
        assert content(sink) == [None]


@pytest.mark.parametrize("error", [ValueError("body"), KeyboardInterrupt()])
async def test_an_exception_of_the_body_cancels_and_passes_through(error: BaseException) -> None:
    ended, sink = [], wrapped()

    async def work(n: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    with pytest.raises(type(error)) as raised:
        async with opm.workers(work, filled(1, 2, 3), sink, count=2):
            await asyncio.sleep(0)
            raise error

    assert raised.value is error
    assert sorted(ended) == [1, 2]
    assert sink.qsize() == 0


@pytest.mark.parametrize("where", ["body", "exit"])
async def test_cancellation_from_outside_passes_through(where: str) -> None:
    ended, started = [], asyncio.Event()

    async def work(n: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    async def block() -> None:
        async with opm.workers(work, filled(1)):
            if where == "body":
                await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert ended == [1]


async def test_an_error_in_the_inner_block_ends_the_outer_one() -> None:
    async def fails(n: int) -> None:
        raise ValueError(n)

    a, b = wrapped(1), wrapped(1)

    with pytest.raises(ValueError, match="0"):
        async with opm.workers(double, a, b), opm.workers(fails, b, count=1):
            for n in range(100):
                await a.put(n)


async def test_an_error_in_the_outer_block_ends_the_inner_one() -> None:
    async def fails(n: int) -> None:
        raise ValueError(n)

    a, b = wrapped(1), wrapped(1)

    with pytest.raises(ValueError, match="0"):
        async with opm.workers(fails, a, b, count=1), opm.workers(double, b):
            for n in range(100):
                await a.put(n)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues shut down since Python 3.13")
async def test_an_error_of_the_sink_stops_even_with_skip() -> None:
    sink = wrapped()
    sink.shutdown()

    with pytest.raises(asyncio.QueueShutDown):
        async with opm.workers(double, filled(1, 2), sink, on_error="skip"):
            pass


async def test_a_function_that_is_cancelled_itself_stops() -> None:
    async def cancelled(n: int) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        async with opm.workers(cancelled, filled(1), on_error="skip"):
            await asyncio.Event().wait()


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="now"):
        async with opm.workers(double, wrapped(), count=7):
            assert len(asyncio.all_tasks()) == len(before) + 7
            raise ValueError("now")

    assert asyncio.all_tasks() == before


async def test_the_report_sees_the_stage_and_its_workers() -> None:
    async def nap(n: int) -> int:
        await asyncio.sleep(0.001)
        return n

    async with opm.run("pool", resources=False, report=None) as run:
        async with opm.workers(nap, filled(*range(12)), wrapped(), count=3):
            pass

    (stage,) = run.report.stages
    assert (stage["name"], stage["count"], stage["workers"]) == ("nap", 12, 3)

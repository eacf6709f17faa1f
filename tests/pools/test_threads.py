"""Workers that are threads: what they take, put and end with."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterator


def wrapped(size: int = 0, sentinel: Any = None) -> Any:
    return opm.wrap_queue(queue.Queue[Any](size), name="q", sentinel=sentinel)


def filled(*items: Any, sentinel: Any = None) -> Any:
    made = wrapped(sentinel=sentinel)
    for item in (*items, sentinel):
        made.put(item)
    return made


def content(q: Any) -> list[Any]:
    return [q.get_nowait() for _ in range(q.qsize())]


def double(n: int) -> int:
    return 2 * n


def test_one_item_in_one_result_out_and_the_end_once() -> None:
    source, sink = filled(1, 2, 3), wrapped()

    with opm.workers(double, source, sink, count=4):
        pass

    assert sorted(content(sink), key=str) == [2, 4, 6, None]
    assert source.qsize() == 0
    assert [t.name for t in threading.enumerate() if t.name.startswith("double")] == []


def test_none_is_a_result_too() -> None:
    source, sink = filled(1, 2, sentinel="end"), wrapped(sentinel="over")

    with opm.workers(lambda n: None, source, sink, name="nothing"):
        pass

    assert content(sink) == [None, None, "over"]


def test_values_of_a_generator_are_put_one_by_one() -> None:
    def parts(n: int) -> Iterator[int]:
        yield from range(n)

    source, sink = filled(3, 0, 2), wrapped()

    with opm.workers(parts, source, sink, count=1):
        pass

    assert content(sink) == [0, 1, 2, 0, 1, None]


@pytest.mark.parametrize("kind", [queue.SimpleQueue, queue.LifoQueue, queue.PriorityQueue])
def test_other_queues_of_threads(kind: Any) -> None:
    source = opm.wrap_queue(kind(), name="source", sentinel=99)
    sink = opm.wrap_queue(queue.SimpleQueue[Any](), name="sink", sentinel=None)
    with opm.workers(double, source, sink, count=1):
        source.put(1)
        assert sink.get() == 2
        source.put(99)

    assert sink.get() is None


def test_workers_work_at_the_same_time_and_the_end_comes_last() -> None:
    """Three wait for each other; the end is passed on after the last of them."""
    together, sink = threading.Barrier(3), wrapped()

    def meet(n: int) -> int:
        together.wait(10)
        return n

    with opm.workers(meet, filled(1, 2, 3), sink, count=3):
        pass

    assert sorted(content(sink)[:3]) == [1, 2, 3]


def test_the_end_is_passed_on_while_the_block_is_open() -> None:
    source, sink, results = wrapped(2), wrapped(1), []
    with opm.workers(double, source, sink, count=3):
        for n in range(2):
            source.put(n)
        source.put(None)
        while (result := sink.get(timeout=10)) is not None:
            results.append(result)

    assert sorted(results) == [0, 2]


def test_task_done_is_called_after_the_results_are_in() -> None:
    source, sink = wrapped(), wrapped()

    with opm.workers(double, source, sink, count=2):
        for n in range(5):
            source.put(n)
        source.join()
        assert sorted(content(sink)) == [0, 2, 4, 6, 8]
        source.put(None)
        source.join()

    assert content(sink) == [None]


def test_a_chain_of_pools_ends_from_the_first_to_the_last() -> None:
    a, b, c = wrapped(1), wrapped(1, sentinel="b"), wrapped(sentinel="c")

    with opm.workers(double, a, b, count=2), opm.workers(double, b, c, count=3):
        for n in range(20):
            a.put(n)
        a.put(None)

    assert sorted(content(c), key=str) == sorted([*range(0, 80, 4), "c"], key=str)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues shut down since Python 3.13")
def test_a_shutdown_is_the_end_too() -> None:
    source = opm.wrap_queue(queue.Queue[Any](), name="source")
    sink = opm.wrap_queue(queue.Queue[Any](), name="sink")
    with opm.workers(double, source, sink, count=2):
        source.put(1)
        source.shutdown()

    assert sink.get() == 2
    with pytest.raises(queue.ShutDown):
        sink.get()


def test_the_first_error_is_raised_as_itself_and_nobody_hangs_in_put() -> None:
    """What is put from then on is taken, dropped and counted."""
    error = ZeroDivisionError("two")

    def fails(n: int) -> int:
        if n == 2:
            raise error
        return n

    source, sink, reached = wrapped(1), wrapped(), 0
    with pytest.raises(ZeroDivisionError) as raised:
        with opm.workers(fails, source, sink, count=1) as pool:
            for n in range(100):
                source.put(n, timeout=10)
                reached = n
            source.join()

    assert raised.value is error
    assert raised.value.__context__ is None
    assert reached == 99
    assert pool.dropped == 97
    assert content(sink) == [0, 1]


def test_the_end_after_an_error_is_passed_on_for_those_behind() -> None:
    def fails(n: int) -> int:
        raise ValueError(n)

    a, b = wrapped(), wrapped()
    with pytest.raises(ValueError, match="0"):
        with opm.workers(fails, a, b, count=1), opm.workers(double, b):
            for item in (0, 1, None):
                a.put(item)


def test_an_error_behind_ends_those_before() -> None:
    """The first pool is in a put that nobody will take from."""

    def fails(n: int) -> int:
        raise ValueError(n)

    a, b = wrapped(), wrapped(1)
    with pytest.raises(ValueError, match="0"):
        with opm.workers(double, a, b, count=2), opm.workers(fails, b, count=1):
            for n in range(50):
                a.put(n)


def test_skip_goes_on_with_the_next_item() -> None:
    def parts(n: int) -> Iterator[int]:
        yield n
        if n % 2:
            raise ValueError(n)
        yield -n

    source, sink = filled(1, 2, 3, 4), wrapped()

    with opm.workers(parts, source, sink, count=1, on_error="skip") as pool:
        pass

    assert content(sink) == [1, 2, -2, 3, 4, -4, None]
    assert pool.skipped == 2
    assert source.unfinished_tasks == 0


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_result_that_is_the_end_of_the_sink_is_an_error(on_error: Any) -> None:
    sink = wrapped()
    pool = opm.workers(lambda n: None, filled(1, 2), sink, count=1, on_error=on_error, name="pool")
    if on_error == "stop":
        with pytest.raises(ValueError, match="a result of 'pool' is the sentinel of its sink"):
            with pool:
                pass
    else:
        with pool:
            pass
        assert pool.skipped == 2
        assert content(sink) == [None]


@pytest.mark.parametrize("error", [ValueError("body"), KeyboardInterrupt()])
def test_by_an_exception_threads_finish_the_item_in_hand(error: BaseException) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(n: int) -> int:
        begun.set()
        go_on.wait(10)
        done.append(n)
        return n

    source, sink = wrapped(), wrapped()
    with pytest.raises(type(error)) as raised, opm.workers(work, source, sink, count=1):
        for n in range(3):
            source.put(n)
        begun.wait(10)
        threading.Timer(0.05, go_on.set).start()
        raise error

    assert raised.value is error
    assert done == [0]
    assert source.qsize() == 2
    assert content(sink) == []


def test_waiting_threads_notice_an_exception_soon() -> None:
    source, sink = wrapped(), wrapped(1)
    sink.put("full")
    source.put(1)
    began = time.monotonic()
    with pytest.raises(ValueError, match="now"):
        # one waits in put, the others in get
        with opm.workers(double, source, sink, count=4):
            while source.qsize():
                time.sleep(0.001)
            began = time.monotonic()
            raise ValueError("now")

    assert time.monotonic() - began < 5  # 0.1 s, on a machine that is not busy


def test_what_ends_a_thread_is_raised_in_the_block() -> None:
    def leaves(n: int) -> int:
        raise SystemExit(n)

    with pytest.raises(SystemExit, match="3"), opm.workers(leaves, filled(3), on_error="skip"):
        pass


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queues shut down since Python 3.13")
def test_an_error_of_the_sink_stops_even_with_skip() -> None:
    sink = wrapped()
    sink.shutdown()

    with pytest.raises(queue.ShutDown):
        with opm.workers(double, filled(1, 2), sink, on_error="skip"):
            pass


def test_the_report_sees_the_stage_and_its_workers() -> None:
    together = threading.Barrier(3)

    def meet(n: int) -> int:
        together.wait(10)
        return n

    with opm.run("pool", resources=False, report=None) as run:
        with opm.workers(meet, filled(*range(12)), wrapped(), count=3):
            pass

    (stage,) = run.report.stages
    assert (stage["name"], stage["count"], stage["workers"]) == ("meet", 12, 3)

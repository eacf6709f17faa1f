"""Test workers that are threads, and tasks that use threads."""

from __future__ import annotations

import asyncio
import queue as thread_queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._stages.workers import account as _worker
from tests.probes.queues.support import STATES, play, queue_of, stage_of, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


def until(true: Callable[[], bool]) -> None:
    """Wait until another thread reaches the point where the clock can move."""
    for _ in range(10_000):
        if true():
            return
        time.sleep(0.0005)
    raise AssertionError("it never came")


def waiting(run: opm.Run, state: str, count: int = 1) -> Callable[[], bool]:
    return lambda: (
        sum(w.state() == state for w in list(run._scope.workers.values()) if w.waits) == count
    )


def test_a_thread_has_idle_busy_and_blocked_time(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = opm.wrap_queue(thread_queue.Queue(), name="in")
    sink = opm.wrap_queue(thread_queue.Queue(1), name="out")

    def worker() -> None:
        while (item := source.get()) is not None:
            with opm.stage("work"):
                clock.advance(1)
            sink.put(item)

    with make_run() as run:
        thread = threading.Thread(target=worker)
        thread.start()
        until(waiting(run, "idle"))
        clock.advance(2)
        source.put(1)
        until(lambda: sink.full() and waiting(run, "idle")())
        clock.advance(4)
        source.put(2)
        until(waiting(run, "blocked"))
        clock.advance(8)
        sink.get()
        until(waiting(run, "idle"))
        clock.advance(16)
        source.put(None)
        thread.join()
    assert states(run, "work") == (2.0, 22.0, 8.0)
    assert (
        queue_of(run, "out")["put_blocked_s"],
        queue_of(run, "in")["get_waited_s"],
    ) == (8.0, 22.0)


def test_several_threads_of_one_stage_add_up(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    source = opm.wrap_queue(thread_queue.Queue(), name="in")

    @opm.stage
    def work() -> None:
        source.get()

    with make_run() as run:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(waiting(run, "idle", 3))
        clock.advance(2)
        for _ in threads:
            source.put(1)
        for thread in threads:
            thread.join()
    assert stage_of(run, "work")["workers"] == 3
    assert states(run, "work") == (0.0, 6.0, 0.0)


def test_time_in_the_queue_begins_after_a_blocked_put(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = opm.wrap_queue(thread_queue.Queue(1), name="q")

    def produce() -> None:
        with opm.stage("make"):
            q.put(1)
            q.put(2)

    with make_run() as run:
        thread = threading.Thread(target=produce)
        thread.start()
        until(waiting(run, "blocked"))
        clock.advance(4)
        q.get()
        thread.join()
        clock.advance(1)
        q.get()
    assert (
        queue_of(run, "q")["wait_s"]["avg"] * 2,
        queue_of(run, "q")["wait_s"]["max"],
    ) == (5.0, 4.0)
    assert states(run, "make") == (0.0, 0.0, 4.0)


@pytest.mark.parametrize(
    ("what", "inside"), [("queue", True), ("queue", False), ("stage", False), ("both", False)]
)
def test_a_task_and_its_threads_are_one_worker(  # noqa: C901 - ways
    what: str, inside: bool, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """The task waits for the thread, which does its work."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    done: list[int] = []

    @opm.stage
    def work() -> None:
        clock.advance(1)

    async def get() -> Any:
        return await (asyncio.to_thread(q.get) if what != "stage" else _direct(q))

    async def worker() -> None:
        with opm.waiting():  # the worker is seen before its first thread
            pass
        for _ in range(3):
            if inside:
                async with opm.stage("work"):
                    await get()
                    clock.advance(1)
            else:
                await get()
                await (asyncio.to_thread(work) if what != "queue" else _direct_call(work))
            clock.advance(0.5)
            done.append(1)

    async def _direct(queue: Any) -> Any:
        return queue.get()

    async def _direct_call(function: Any) -> None:
        function()

    def feed() -> None:
        for n in range(3):
            until(lambda: len(done) == n and waiting(run, "idle")())  # noqa: B023 - called here
            clock.advance(2)
            q.put(1)

    with make_run() as run:
        if what == "stage":
            for _ in range(3):
                q.put(1)
            play(clock, worker())
            assert states(run, "work") == (4.0, 0.0, 0.0)
            assert queue_of(run, "q")["consumers"] == ["work"]
        else:
            feeder = threading.Thread(target=feed)
            feeder.start()
            play(clock, worker())
            feeder.join()
            # the half seconds belong to the last stage, if another operation follows
            assert states(run, "work") == (4.0, 6.0, 0.0)
        assert stage_of(run, "work")["workers"] == 1
        assert queue_of(run, "q")["consumers"] == ["work"]


def test_a_thread_that_its_task_does_not_await_is_a_worker(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """It begins with the task's context."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    def consumer() -> None:
        while q.get() is not None:
            with opm.stage("consume"):
                pass

    async def main() -> None:
        with opm.stage("produce"):
            clock.advance(1)
        thread = asyncio.create_task(asyncio.to_thread(consumer))
        await asyncio.sleep(0)
        until(waiting(run, "idle"))
        for _ in range(3):
            with opm.stage("produce"):
                clock.advance(2)
            q.put(1)
            until(lambda: q.empty() and waiting(run, "idle")())
        q.put(None)
        await thread

    with make_run() as run:
        play(clock, main())
    assert states(run, "produce") == (7.0, 0.0, 0.0)
    busy, idle, blocked = states(run, "consume")
    assert (busy, idle, blocked) == (0.0, 6.0, 0.0)
    assert queue_of(run, "q")["producers"] == ["produce"]
    assert queue_of(run, "q")["consumers"] == ["consume"]


def test_gets_of_many_threads_in_one_stage_never_make_its_work_negative(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")

    async def main() -> None:
        async with opm.stage("work"):
            gets = [asyncio.create_task(asyncio.to_thread(q.get)) for _ in range(4)]
            await asyncio.sleep(0)
            until(waiting(run, "idle", 4))
            clock.advance(3)
            for _ in gets:
                q.put(1)
            await asyncio.gather(*gets)
            clock.advance(1)

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (1.0, 3.0, 0.0)
    assert stage_of(run, "work")["duration_s"]["total"] == 1.0


@pytest.mark.parametrize("carry", [True, False])
def test_the_threads_of_an_executor_are_workers(
    carry: bool, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """With the caller's context and without."""
    sink = opm.wrap_queue(thread_queue.Queue(), name="out")

    @opm.stage
    def work(n: int) -> None:
        clock.advance(1)
        sink.put(n)

    with make_run() as run, ThreadPoolExecutor(1) as pool, opm.stage("main"):
        for n in range(3):
            call: Any = (copy_context().run, work, n) if carry else (work, n)
            pool.submit(*call).result()
    assert states(run, "work") == (3.0, 0.0, 0.0)
    assert [sink.get() for _ in range(3)] == [0, 1, 2]


def test_the_time_of_real_threads_adds_up() -> None:  # noqa: C901 - a pipeline
    """Each of three workers on bounded queues has three states that fill its time."""
    walls: dict[str, float] = {}
    first, second = (opm.wrap_queue(thread_queue.Queue(2), name=n) for n in ("first", "second"))

    def fetch() -> None:
        for n in range(30):
            with opm.stage("fetch"):
                time.sleep(0.0005)
            first.put(n)
        first.put(None)

    def process() -> None:
        while (item := first.get()) is not None:
            with opm.stage("process"):
                time.sleep(0.001)
            second.put(item)
        second.put(None)

    def write() -> None:
        while second.get() is not None:
            with opm.stage("write"):
                time.sleep(0.003)

    def timed(worker: Callable[[], None]) -> None:
        began = _clock.now()
        worker()
        walls[worker.__name__] = _clock.now() - began

    with opm.run("real", resources=False) as run:
        threads = [threading.Thread(target=timed, args=(w,)) for w in (fetch, process, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, wall in walls.items():
        told = stage_of(run, name)["time_s"]
        # the time before the first call belongs to no stage
        assert told["wall"] == pytest.approx(wall, rel=0.02, abs=0.05)
        assert all(told[state] >= 0 for state in STATES)
    # on a busy machine, waking up takes longer than the sleeps
    assert stage_of(run, "write")["share"]["busy"] > 0.5
    assert stage_of(run, "process")["share"]["blocked"] > 0.05


def test_many_threads_lose_no_count() -> None:
    q = opm.wrap_queue(thread_queue.Queue(3), name="q")
    count, each = 8, 300
    got: list[list[int]] = [[] for _ in range(count)]

    def produce(number: int) -> None:
        for n in range(each):
            with opm.stage("make"):
                pass
            q.put(number * each + n)

    def consume(number: int) -> None:
        for _ in range(each):
            got[number].append(q.get())
            with opm.stage("use"):
                pass

    with opm.run("many", resources=False) as run:
        threads = [
            threading.Thread(target=target, args=(n,))
            for n in range(count)
            for target in (produce, consume)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(not w.stack and not w.waits for w in run._scope.workers.values())
        assert 0 < len(run._scope.workers) < _worker.MAX_WORKERS
    assert list(range(count * each)) == sorted(item for items in got for item in items)
    found = queue_of(run, "q")
    assert (count * each, count * each) == (found["put"], found["got"])
    assert (count, count) == (stage_of(run, "make")["workers"], stage_of(run, "use")["workers"])

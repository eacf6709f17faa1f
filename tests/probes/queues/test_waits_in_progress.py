"""Test that waits which are not over count in a report, as they do in the time of a stage."""

from __future__ import annotations

import asyncio
import queue as thread_queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle.stage_times import StageTimes
from otel_pipeline_metrics._stages.workers import accounting
from tests.probes.queues.support import play, queue_of, sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.conftest import Clock

    MakeRun = Callable[[], opm.Run]


def limit_of(run: opm.Run, name: str) -> dict[str | None, float]:
    """Return how long each stage has waited at a limit."""
    (found,) = [limit for limit in run.report.to_dict()["limits"] if limit["name"] == name]
    return {row["stage"]: row["waited_s"] for row in found["stages"]}


def test_waits_at_queues(clock: Clock, make_run: MakeRun) -> None:
    async def main() -> opm.Run:
        full = opm.wrap_queue(asyncio.Queue(1), name="full")
        empty = opm.wrap_queue(asyncio.Queue(), name="empty")

        async def produce() -> None:
            for n in range(3):
                await full.put(n)

        async with make_run() as run:
            waiting = asyncio.gather(produce(), empty.get(), empty.get())
            await sleep(3)
            assert queue_of(run, "full")["put_blocked_s"] == 3.0
            assert queue_of(run, "empty")["get_waited_s"] == 6.0
            await full.get()
            await empty.put(1)
            await sleep(1)
            assert not waiting.done()
        return run

    run = play(clock, main())
    full, empty = queue_of(run, "full"), queue_of(run, "empty")
    assert (full["put_blocked_s"], full["get_waited_s"]) == (4.0, 0.0)
    assert (empty["put_blocked_s"], empty["get_waited_s"]) == (0.0, 7.0)


def test_waits_at_a_limit(clock: Clock, make_run: MakeRun) -> None:
    async def main() -> opm.Run:
        lock = opm.wrap_limit(asyncio.Lock(), name="lock")
        condition = opm.wrap_limit(asyncio.Condition(), name="condition")

        @opm.fetch
        async def fetch() -> None:
            async with lock:
                await sleep(3)

        async def wait() -> None:
            async with condition:
                await condition.wait()

        async with make_run() as run:
            await lock.acquire()
            waiting = asyncio.gather(fetch(), lock.acquire(), wait())
            await sleep(3)
            assert limit_of(run, "lock") == {"fetch": 3.0, None: 3.0}
            lock.release()
            await sleep(2)
            assert not waiting.done()
        return run

    run = play(clock, main())
    assert limit_of(run, "lock") == {"fetch": 3.0, None: 5.0}
    # who waits in a condition waits for no permit
    assert limit_of(run, "condition") == {None: 0.0}


def test_a_wait_of_no_stage_has_a_row(clock: Clock, make_run: MakeRun) -> None:
    async def main() -> opm.Run:
        lock = opm.wrap_limit(asyncio.Lock(), name="lock")
        async with make_run() as run:
            async with opm.stage("holds"):
                await lock.acquire()
            waiting = asyncio.ensure_future(lock.acquire())
            await sleep(2)
            assert not waiting.done()
        return run

    assert limit_of(play(clock, main()), "lock") == {"holds": 0.0, None: 2.0}


def test_a_wait_that_outlives_its_run_counts_once(clock: Clock, make_run: MakeRun) -> None:
    q: Any = opm.wrap_queue(thread_queue.Queue(), name="q")
    run, later = make_run(), make_run()

    async def main() -> None:
        slow: Any = opm.wrap_queue(asyncio.Queue(), name="slow")
        with run:
            getting = asyncio.ensure_future(slow.get())
            await sleep(2)
        with later:
            await sleep(3)
            await slow.put(1)
            await getting
            q.put(1)

    play(clock, main())
    assert queue_of(run, "slow")["get_waited_s"] == 2.0
    assert queue_of(later, "slow")["get_waited_s"] == 0.0


def test_a_wait_for_a_task_of_an_executor_is_the_tasks_own(clock: Clock, make_run: MakeRun) -> None:
    begun, over = threading.Event(), threading.Event()

    def task() -> None:
        begun.set()
        assert over.wait(60)

    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="pool") as pool:
        first, second = pool.submit(task), pool.submit(task)
        assert begun.wait(60)
        waiter = threading.Thread(target=second.result)
        waiter.start()
        while not any(worker.waits for worker in list(run._scope.workers.values())):
            waiter.join(0.001)
        clock.advance(2)
        # it is counted as the task begins
        assert limit_of(run, "pool") == {None: 0.0}
        over.set()
        waiter.join()
        first.result()
    assert limit_of(run, "pool") == {None: 2.0}


def test_a_wait_that_ends_during_a_look_counts_once(
    clock: Clock, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in progress until it is counted, and the other way round."""
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    lock = opm.wrap_limit(threading.Lock(), name="lock")
    seen: list[Any] = []
    end_wait = accounting.end_wait

    def look() -> None:
        seen.append((queue_of(run, "q")["get_waited_s"], limit_of(run, "lock")[None]))

    def end(*args: Any) -> None:
        look()
        end_wait(*args)
        look()

    monkeypatch.setattr(accounting, "end_wait", end)
    with make_run() as run, lock:
        for wait, go_on in ((q.get, lambda: q.put(1)), (lock.acquire, lock.release)):
            thread = threading.Thread(target=wait)
            thread.start()
            while not any(worker.waits for worker in list(run._scope.workers.values())):
                thread.join(0.001)
            clock.advance(2)
            go_on()
            thread.join()
    assert seen == [(2.0, 0.0)] * 2 + [(2.0, 2.0)] * 2


def test_a_wait_that_ends_while_stages_are_summed_up_counts_once(
    clock: Clock, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    summed_up = StageTimes.row

    def row(*args: Any) -> Any:
        q.put(1)
        thread.join()
        return summed_up(*args)

    with make_run() as run:
        with opm.stage("summed up"):
            pass
        thread = threading.Thread(target=q.get)
        thread.start()
        while not any(worker.waits for worker in list(run._scope.workers.values())):
            thread.join(0.001)
        clock.advance(2)
        monkeypatch.setattr(StageTimes, "row", row)
        assert queue_of(run, "q")["get_waited_s"] == 2.0

"""Test that the workers of an executor are a limit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout  # another one before Python 3.11
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain
from tests.probes.limits.support import (
    in_thread,
    limit_of,
    numbers,
    stages_of,
    until,
    waiting,
)
from tests.probes.queues.support import STATES, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock


class Steps:
    """Tasks that begin and end when a test says so."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self._over: dict[int, threading.Event] = {}

    def task(self, number: int) -> int:
        self.begun.append(number)
        assert self._event(number).wait(30)
        return number

    def _event(self, number: int) -> threading.Event:
        return self._over.setdefault(number, threading.Event())

    def end(self, number: int) -> None:
        until(lambda: number in self.begun)
        self._event(number).set()


def test_tasks_wait_for_a_free_thread(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    steps = Steps()
    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        with opm.stage("submits"):
            first, second = pool.submit(steps.task, 1), pool.submit(steps.task, 2)
        until(lambda: steps.begun == [1])
        clock.advance(3)
        steps.end(1)
        until(lambda: steps.begun == [1, 2])
        assert first.result() == 1
        assert repr(first).startswith("<Future at ")
        clock.advance(2)
        steps.end(2)
        assert second.result() == 2
    # the pool has shut down, so both tasks have been counted
    assert numbers(run) == (1, 1.0, 1, 2, 3.0)
    assert stages_of(run) == {"submits": (3.0, 5.0)}
    assert limit_of(run)["kind"] == "thread pool"


def test_who_waits_for_a_task_is_blocked_until_it_begins(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    steps = Steps()
    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        pool.submit(steps.task, 1)
        seen: list[Any] = []

        @opm.stage
        def asks(how: str) -> None:
            future = pool.submit(steps.task, 2)
            seen.append(getattr(future, how)())

        threads = [threading.Thread(target=asks, args=("result",))]
        threads[0].start()
        until(waiting)
        clock.advance(3)
        steps.end(1)
        until(lambda: 2 in steps.begun)
        clock.advance(4)
        steps.end(2)
        threads[0].join()
    assert seen == [2]
    assert states(run, "asks") == (4.0, 0.0, 3.0)
    # a wait in `result()` is the task's, which is counted once
    assert limit_of(run)["wait_s"]["total"] == 3.0


@pytest.mark.parametrize(("around", "after"), [(False, "busy"), (True, "idle")])
def test_who_waits_for_a_task_that_has_begun_is_not_blocked_in_a_collection(
    around: bool, after: str, clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """The worker logs the end of its wait only once the task is over."""
    steps = Steps()

    @opm.stage
    def asks() -> None:
        with opm.waiting("idle") if around else contextlib.nullcontext():
            pool.submit(steps.task, 2).result()

    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        pool.submit(steps.task, 1)
        thread = in_thread(asks)
        until(lambda: waiting() == 1 + around)
        clock.advance(2)
        drain.drain_scope(run._scope)
        clock.advance(1)
        steps.end(1)
        until(lambda: 2 in steps.begun)
        seen = []
        for _ in range(2):
            clock.advance(4)
            drain.drain_scope(run._scope)
            seen.append(dict(zip(STATES, states(run, "asks"), strict=True)))
        steps.end(2)
        thread.join()
    none = dict.fromkeys(STATES, 0.0)
    assert seen == [none | {"blocked": 3.0, after: seconds} for seconds in (4.0, 8.0)]
    assert dict(zip(STATES, states(run, "asks"), strict=True)) == seen[-1]


def test_who_waits_for_the_exception_too(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    steps = Steps()

    def fails() -> None:
        steps.task(2)
        raise KeyError("mine")

    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        pool.submit(steps.task, 1)
        seen: list[BaseException | None] = []

        @opm.stage
        def asks() -> None:
            seen.append(pool.submit(fails).exception())

        thread = threading.Thread(target=asks)
        thread.start()
        until(waiting)
        clock.advance(3)
        steps.end(1)
        steps.end(2)
        thread.join()
    assert [type(error) for error in seen] == [KeyError]
    assert states(run, "asks") == (0.0, 0.0, 3.0)


def test_a_wait_that_times_out_is_blocked_to_its_end(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    steps = Steps()
    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        pool.submit(steps.task, 1)
        future = pool.submit(steps.task, 2)
        with opm.stage("asks"):
            with pytest.raises((TimeoutError, FutureTimeout)):
                future.result(0.001)
            assert future.cancel()
        steps.end(1)
    assert isinstance(future, Future)
    # a cancelled task never had a thread
    assert numbers(run)[3] == 1


def test_the_stage_that_runs_in_a_thread_has_what_no_stage_submitted(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    def work(number: int) -> int:
        clock.advance(1)
        return number

    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        assert list(pool.map(work, range(3))) == [0, 1, 2]
    assert stages_of(run)["work"][1] == 3.0
    assert limit_of(run)["acquired"] == 3


def test_in_an_event_loop(make_run: Callable[[], opm.Run]) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with opm.wrap_executor(ThreadPoolExecutor(2), name="x") as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(5)))

    with make_run() as run:
        assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    assert limit_of(run)["acquired"] == 5
    assert limit_of(run)["max"] == 2


def test_without_a_name_it_has_that_of_its_class(make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run, opm.wrap_executor(ThreadPoolExecutor(3)) as pool:
        pool.submit(abs, -1).result()
    assert limit_of(run, "ThreadPoolExecutor")["max"] == 3


def test_an_executor_of_another_kind(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    class Here(Executor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            clock.advance(1)
            future.set_result(function(*args, **kwargs))
            return future

    with make_run() as run, opm.stage("work"):
        pool = opm.wrap_executor(Here(), name="x")
        assert pool.submit(abs, -1).result() == 1
        clock.advance(1)
    assert numbers(run) == (None, 0.0, 1, 1, 1.0)
    assert limit_of(run)["kind"] == "executor"


@pytest.mark.slow
@pytest.mark.processes
def test_a_pool_of_processes(make_run: Callable[[], opm.Run]) -> None:
    pool = opm.wrap_executor(ProcessPoolExecutor(2), name="x")
    with make_run() as run, pool, opm.stage("submits"):
        assert list(pool.map(abs, range(-6, 0))) == [6, 5, 4, 3, 2, 1]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
    found = limit_of(run)
    assert (found["kind"], found["max"], found["acquired"]) == ("process pool", 2, 7)
    assert found["usage_peak"] == 2


class Results:
    """A `submit` whose futures a test completes."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def __call__(self, *_: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


def test_processes_begin_tasks_in_order(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    """What begins in a process is derived: as many tasks as processes, the earliest first."""
    with make_run() as run, opm.wrap_executor(ProcessPoolExecutor(2), name="x") as pool:
        results = Results()
        pool.submit._submit = results  # type: ignore[attr-defined]
        with opm.stage("submits"):
            for _ in range(4):
                pool.submit(abs, 1)
        clock.advance(2)
        results.futures[0].set_result(None)  # the third one begins
        clock.advance(1)
        assert results.futures[3].cancel()
        results.futures[1].set_exception(KeyError())
        clock.advance(1)
        results.futures[2].set_result(None)
    assert numbers(run) == (2, (2 + 3 + 2) / 4, 2, 3, 2.0)
    assert stages_of(run) == {"submits": (2.0, 7.0)}


def test_a_task_that_processes_refuse_is_not_counted(make_run: Callable[[], opm.Run]) -> None:
    pool = opm.wrap_executor(ProcessPoolExecutor(1), name="x")
    pool.shutdown()
    with make_run() as run:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="after shutdown"):
                pool.submit(abs, 1)
    processes: Any = pool.submit._processes  # type: ignore[attr-defined]
    assert not processes._running
    assert not processes._waiting
    assert limit_of(run)["usage_peak"] <= 1


def test_a_future_keeps_neither_the_function_nor_the_run() -> None:
    class Argument:
        def __call__(self) -> int:
            return 7

    with opm.wrap_executor(ThreadPoolExecutor(1), name="x") as pool:
        function = Argument()
        future = pool.submit(function)
        assert future.result() == 7
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None
    assert future.result() == 7


@pytest.mark.parametrize("how", ["done", "cancelled"])
def test_a_future_of_a_process_keeps_neither(how: str) -> None:
    class Argument:
        def __call__(self) -> int:
            return 7

    with opm.wrap_executor(ProcessPoolExecutor(1), name="x") as pool:
        results = Results()
        pool.submit._submit = results  # type: ignore[attr-defined]
        pool.submit(abs, -1)
        function = Argument()
        future = pool.submit(function)
        results.futures[0].set_result(None)
        if how == "done":
            future.set_result(7)
        else:
            assert future.cancel()
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None

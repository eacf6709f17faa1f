"""Raise at every line of ours, as a signal handler may, and look at what is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import run, stage, wrap_limit, wrap_queue
from otel_pipeline_metrics._core import drain, series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._stages.workers.finding import worker_of_context
from tests.support.interrupting import strike_at, strike_at_every_line, striking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.conftest import Clock, Results

pytestmark = [
    pytest.mark.slow,
    # a coroutine that was never awaited, since it was interrupted
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning"
    ),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let no interrupted coroutine warn in a later test."""
    yield
    gc.collect()


@stage("plain")
def plain() -> None:
    """Do nothing."""


@stage("outer")
def outer() -> None:
    plain()
    plain()


@stage("sized", items=len)
def sized() -> list[int]:
    return [1, 2]


@stage("numbers")
def numbers() -> Iterator[int]:
    yield 1
    yield 2


@stage("task")
async def task() -> None:
    await asyncio.sleep(0)


def pulls() -> None:
    for _ in numbers():
        plain()


def blocks() -> None:
    with stage("says more") as s:
        s.add_items(1)
    with stage("bare"):
        pass


def tasks() -> None:
    async def main() -> None:
        await asyncio.gather(task(), task(), task())

    asyncio.run(main())


def flushes() -> None:
    plain()
    drain.drain()


def modules() -> list[ModuleType]:
    ours = ("otel_pipeline_metrics._stages", "otel_pipeline_metrics._core")
    more = ("otel_pipeline_metrics._lifecycle.run_stats",)
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith((*ours, *more)) and getattr(module, "__file__", None)
    ]


def left_over(context: contextvars.Context) -> list[str]:
    """Return what an interrupted call has left behind."""
    drain.drain()
    if sys.exc_info()[0] is not None:
        return [f"{sys.exc_info()[1]!r} is still handled"]
    found = [f"{each.key.stage} is in flight" for each in series.all_series() if each.active]
    cell = context.get(series.active_cell)
    if cell is not None and cell[1] is not None:
        found.append("a call is current")
    if "overlapping" in gc_safety.extras or series.process_scope.shares.concurrent:
        found.append("calls overlap")
    if drain._drain_lock.locked():
        found.append("the flush is locked")
    return found


# It comes again if it was interrupted as it was taken: other sinks know that.
last: Any = None


def counts(results: Results) -> dict[str, int]:
    global last  # the last batch
    drain.drain()
    found: dict[str, int] = {}
    for batch in results.batches:
        if batch is last:
            continue
        last = batch
        count = len(batch.durations) + len(batch.results)
        found[batch.key.stage] = found.get(batch.key.stage, 0) + count
    results.batches.clear()
    return found


@pytest.mark.parametrize("call", [plain, outer, sized, pulls, blocks, tasks, flushes])
def test_what_a_signal_handler_raises_costs_one_invocation_at_most(
    call: Callable[[], object], results: Results
) -> None:
    """Nothing is in flight, current or open afterwards, and the next call is counted as always."""
    for _ in range(101):  # the first 100 are samples, which take other ways
        call()
    counts(results)
    call()
    expected = counts(results)
    struck = modules()
    with striking():
        for n in range(10_000):
            context = contextvars.copy_context()
            if not context.run(strike_at, n, call, *struck):
                break
            assert left_over(context) == [], n
            found = counts(results)
            # what had not begun yet is not missing
            begun = {name: min(1, count) for name, count in expected.items()}
            assert all(found.get(name, 0) <= expected[name] for name in found), (n, found)
            call()
            assert counts(results) == expected, (n, begun)
    assert n > 20


def test_an_interrupted_flush_loses_nothing(results: Results) -> None:
    """What it would have handed on is flushed next time, once."""
    waiting = wrap_queue(queue.Queue[int](), name="q")
    lock = wrap_limit(threading.Lock(), name="l")

    def work() -> None:
        for number in range(3):
            plain()
            waiting.put(number)
            waiting.get()
            with lock:
                pass

    def delivered(_: int = 0) -> None:
        drain.drain()
        batches = {id(batch): batch for batch in results.batches}.values()
        queued = {id(batch): batch for batch in results.queue_batches}.values()
        limits = {id(batch): batch for batch in results.limit_batches}.values()
        assert sum(len(batch.durations) for batch in batches if batch.key.stage == "plain") == 3
        assert sum(len(batch.waits) for batch in queued) == 3
        assert sum(batch.passed for batch in limits) == 3
        for kept in (results.batches, results.queue_batches, results.limit_batches):
            kept.clear()
        work()

    work()
    delivered()
    assert strike_at_every_line(drain.drain, delivered, *modules()) > 50


def test_an_interrupted_flush_changes_no_time_that_is_measured_later(
    results: Results, clock: Clock
) -> None:
    waiting = wrap_queue(queue.Queue[int](), name="in")
    going = wrap_queue(queue.Queue[int](), name="out")

    @stage("works")
    def works() -> None:
        number = waiting.get()
        clock.advance(0.25)
        going.put(number)

    def work() -> None:
        for number in range(3):
            waiting.put(number)
            works()
            clock.advance(0.125)

    def measured(_: int = 0) -> float:
        # what was struck is over with the next items
        work()
        drain.drain()
        results.batches.clear()
        work()
        drain.drain()
        found = sum(sum(b.time) for b in results.batches if b.key.stage == "works")
        work()
        return found

    def after(strikes: int) -> None:
        drain.drain()
        workers = [each for scope in series.scopes for each in scope.workers.values()]
        assert not any(worker.account.opened for worker in workers), strikes
        assert measured() == pytest.approx(expected), strikes

    # its workers have seen no other test's clock
    with run("struck", resources=False):
        expected = measured()
        # three calls, and the time after each
        assert expected == 1.125
        assert strike_at_every_line(drain.drain, after, *modules()) > 50


def test_an_interrupted_run_of_steps_leaves_nothing_open(results: Results, clock: Clock) -> None:
    """Its worker's time is that of the next items."""
    waiting = wrap_queue(queue.Queue[int](), name="in")
    ran: list[bool] = []

    @stage("many")
    def many() -> Iterator[int]:
        for number in range(3):
            clock.advance(1)
            yield number

    def work() -> None:
        for _ in many():
            clock.advance(0.125)
            worker = worker_of_context.get()
            ran.append(worker is not None and worker.run is not None)
        waiting.put(1)

    def measured() -> float:
        work()
        drain.drain()
        results.batches.clear()
        work()
        drain.drain()
        return sum(sum(batch.time) for batch in results.batches if batch.key.stage == "many")

    with run("struck", resources=False), striking():
        while measured() != 3.375:
            # the first steps are samples
            pass
        # of the rest, the other tests tell
        struck = [each for each in modules() if "._stages." in each.__name__]
        for n in range(10_000):
            if not strike_at(n, work, *struck):
                break
            workers = [each for scope in series.scopes for each in scope.workers.values()]
            assert not any(worker.stack or worker.run for worker in workers), n
            assert not any(each.active for each in series.all_series()), n
            current = series.active_cell.get()
            assert current is None or current[4] is None or current[1] is None, n
            assert measured() == pytest.approx(3.375), n
    assert n > 100
    assert any(ran)

"""Test the logs of workers: what is in them, how long they get, and who empties them."""

from __future__ import annotations

import asyncio
import os
import queue as thread_queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, series, stage_time
from otel_pipeline_metrics._stages.workers import finding
from tests.probes.queues.support import states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock

# A log is flushed after so many calls, items or events of one kind, which log a few events each.
BOUND = 4 * drain.PENDING_BOUND


@opm.stage
def work() -> None:
    """Nothing."""


def numbers() -> Iterator[int]:
    @opm.stage
    def endless() -> Iterator[int]:
        while True:
            yield 1

    return endless()


def uses(q: Any) -> dict[str, Callable[[], object]]:
    source = numbers()

    def wait() -> None:
        with opm.waiting():
            """Nothing."""

    def call_with_items() -> None:
        with opm.stage("block") as s:
            s.add_items(1)

    return {
        "call": work,
        "block": call_with_items,
        "generator": lambda: next(source),
        "put": lambda: q.put(1),
        "hand-off": lambda: (q.put(1), q.get()),
        "sentinel": lambda: (q.put(None), q.get()),
        "wait": wait,
    }


@pytest.mark.parametrize("kind", [thread_queue.Queue, thread_queue.SimpleQueue])
@pytest.mark.parametrize("use", list(uses(None)))
def test_no_log_grows_without_bound(use: str, kind: Any) -> None:
    q = opm.wrap_queue(kind(), name="q", sentinel=None)
    act, longest = uses(q)[use], 0
    worker = finding.current_worker(waits=True)
    for _ in range(BOUND + drain.PENDING_BOUND):
        act()
        longest = max(longest, len(worker.log))
    assert 0 < longest <= BOUND


async def test_two_consumers_in_turn_both_have_their_logs_flushed() -> None:
    """One of them might get every item at which a flush is due."""
    q = opm.wrap_queue(asyncio.Queue(), name="q")
    longest = 0

    async def consume(mine: asyncio.Event, other: asyncio.Event) -> None:
        nonlocal longest
        for _ in range(BOUND // 2):
            await mine.wait()
            mine.clear()
            await q.put(1)
            await q.get()
            other.set()
            longest = max(longest, len(finding.current_worker(waits=True).log))

    first, second = asyncio.Event(), asyncio.Event()
    first.set()
    await asyncio.gather(consume(first, second), consume(second, first))
    assert longest <= BOUND


def test_a_plain_call_makes_no_execution_and_one_event() -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    q.put(1)
    q.get()
    drain.drain()
    seen = []

    @opm.stage
    def look() -> None:
        cell: Any = series.active_cell.get()
        seen.append(cell[3])

    for _ in range(stage_time.ALL_SAMPLED + 1):
        look()
    drain.drain()
    seen.clear()
    look()
    assert seen == [None]
    assert len(finding.current_worker(waits=True).log) == 1


def test_time_between_calls_is_told_apart(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run:
        q = opm.wrap_queue(thread_queue.Queue(), name="q")
        for n in range(3):
            q.put(n)
        for _ in range(3):
            q.get()
            clock.advance(1)
            with opm.stage("work"):
                clock.advance(4)
            clock.advance(2)
            q.put(1)
        drain.drain()
        (times,) = [t for t in run._scope.times.values() if t.key.stage == "work"]
        (spent,) = times.states.values()
    assert (spent.busy, spent.between, spent.is_task) == (21.0, 9.0, False)
    assert states(run, "work") == (21.0, 0.0, 0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_a_forked_child_begins_with_an_empty_log(clock: Clock) -> None:
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    q.put(1)
    q.get()
    work()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            work()
            workers = list(series.process_scope.workers.values())
            drain.drain()
            sums = [t.queued for t in series.process_scope.times.values()]
            os.write(write, repr((len(workers), sums)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "(1, [False])"
    os.waitpid(pid, 0)


def test_an_ended_run_keeps_no_worker(make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run:
        q = opm.wrap_queue(thread_queue.Queue(), name="q")
        q.put(1)
        q.get()
        work()
        scope = run._scope
        assert len(scope.workers) == 1
    assert run.report is not None
    assert not scope.workers


def test_a_call_that_began_at_zero_on_the_clock_has_its_time(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """A program in virtual time may begin there."""
    clock.time = 0.0
    with make_run() as run:
        q = opm.wrap_queue(thread_queue.Queue(), name="q")
        with opm.stage("loop"):
            clock.advance(2)
            q.put(1)
            clock.advance(1)
            q.get()
    assert states(run, "loop") == (3.0, 0.0, 0.0)

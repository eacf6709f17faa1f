"""Test that an internal error neither loses an item nor reaches a put or a get."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue as thread_queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import clock, errors, hooks, series
from otel_pipeline_metrics._probes.queues import around, probe, stamps
from otel_pipeline_metrics._stages.workers import account, accounting, finding, replay, worker

if TYPE_CHECKING:
    from collections.abc import Callable


class BrokenError(Exception):
    """A staged internal error."""


def broken(*args: Any, **kwargs: Any) -> Any:
    raise BrokenError


def broken_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock, "now", broken)
    patch.setattr(clock, "unix", broken)


class _NowAndThen:
    """A clock that fails at every third reading."""

    def __init__(self) -> None:
        self.looks = 0
        self.real = clock.now

    def clock(self) -> float:
        self.looks += 1
        return broken() if self.looks % 3 == 0 else self.real()  # type: ignore[no-any-return]


now_and_then = _NowAndThen()


def broken_now_and_then(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock, "now", now_and_then.clock)


def broken_at(place: Any, *names: str) -> Callable[[pytest.MonkeyPatch], None]:
    def breaks(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(place, name, broken)

    breaks.__name__ = "_".join(names)
    return breaks


class Tracing:
    """Tracing that fails to make spans."""

    def __getattr__(self, name: str) -> Any:
        return broken


def broken_tracing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hooks, "tracing", Tracing())


FAULTS = [
    broken_clock,
    broken_now_and_then,
    broken_tracing,
    broken_at(accounting, "current_worker"),
    broken_at(finding, "current_worker"),
    broken_at(accounting, "watch"),
    broken_at(accounting, "note_put", "note_got"),
    broken_at(accounting, "begin_wait"),
    broken_at(accounting, "end_wait"),
    broken_at(accounting, "on_join"),
    broken_at(worker.Worker, "note", "inside"),
    broken_at(worker.Worker, "tell_begins", "count_wait"),
    broken_at(worker.Worker, "enlist", "settle"),
    broken_at(account.Account, "take", "put_back"),
    broken_at(replay, "replay"),
    broken_at(worker, "owner_here"),
    broken_at(accounting.Accounting, "replay"),
    broken_at(accounting, "_enter", "_leave"),
    broken_at(accounting.Accounting, "wait_begins"),
    broken_at(accounting.Accounting, "wait_ends"),
    broken_at(series, "current_scope"),
    broken_at(worker, "current_call"),
    broken_at(series.RunScope, "add_queue"),
    broken_at(probe.Probe, "depth"),
    broken_at(probe.Probe, "count_put", "count_got"),
    broken_at(probe.Probe, "series"),
    broken_at(stamps.OrderedStamps, "add", "take"),
    broken_at(stamps.IdentityStamps, "add", "take"),
    broken_at(around.AroundProbe, "enter"),
    broken_at(around.AroundProbe, "entered", "withdraw", "take"),
    broken_at(around.AroundProbe, "begin_get", "end_get"),
]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def fault(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, loud_faults: None
) -> Callable[[], None]:
    """Return a function that breaks a part of the library, with errors only logged."""

    def breaks() -> None:
        errors.raise_faults = False
        request.param(monkeypatch)

    return breaks


def work() -> None:
    with opm.waiting():
        pass
    if clock.now not in {broken, now_and_then.clock}:  # other tests cover stages
        work_in_stage()


@opm.stage
def work_in_stage() -> None:
    with opm.waiting():
        pass


@pytest.mark.parametrize("kind", [asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue])
def test_tasks_get_every_item_despite_errors(kind: Any, fault: Callable[[], None]) -> None:
    async def produce(q: Any) -> None:
        for n in range(10):
            work()
            await q.put(n)

    async def main() -> list[int]:
        q = opm.wrap_queue(kind(2), name="q")
        producer = asyncio.create_task(produce(q))
        found = []
        for n in range(10):
            found.append(await (q.get() if n % 2 else asyncio.wait_for(q.get(), 60)))
            work()
            q.task_done()
        q.put_nowait("last")
        assert q.get_nowait() == "last"
        q.task_done()
        await q.join()
        await producer
        return found

    fault()
    assert list(range(10)) == sorted(asyncio.run(main()))


@pytest.mark.parametrize("kind", [thread_queue.Queue, thread_queue.SimpleQueue])
def test_threads_get_every_item_despite_errors(kind: Any, fault: Callable[[], None]) -> None:
    import threading

    q = opm.wrap_queue(kind(), name="q")
    found = []

    def consume() -> None:
        for _ in range(10):
            found.append(q.get())
            work()
            if kind is thread_queue.Queue:
                q.task_done()

    fault()
    thread = threading.Thread(target=consume)
    thread.start()
    for n in range(10):
        work()
        q.put(n)
    if kind is thread_queue.Queue:
        q.join()
    thread.join()
    with pytest.raises(thread_queue.Empty):
        q.get(timeout=0)
    assert list(range(10)) == found


def test_processes_get_every_item_despite_errors(fault: Callable[[], None]) -> None:
    q = opm.wrap_queue(multiprocessing.get_context("spawn").Queue(), name="q")
    fault()
    for n in range(5):
        q.put(n)
    assert list(range(5)) == [q.get(timeout=60) for _ in range(5)]
    q.close()
    q.join_thread()


def test_an_internal_error_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors.raise_faults = False
    monkeypatch.setattr(finding, "current_worker", broken)
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    for n in range(3):
        q.put(n)
    (record,) = caplog.records
    assert record.getMessage().startswith("internal error in asking a queue")
    assert [q.get() for _ in range(3)] == [0, 1, 2]


def test_an_error_of_the_users_items_is_raised() -> None:
    """Items that cannot be compared raise the same error as in the bare queue."""
    q = opm.wrap_queue(thread_queue.PriorityQueue(), name="q")
    q.put({})
    with pytest.raises(TypeError, match="'<' not supported between instances of 'dict' and 'dict'"):
        q.put({})

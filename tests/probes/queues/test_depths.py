"""Test that the average depth of a queue counts all its items, and only the time of the run."""

from __future__ import annotations

import asyncio
import collections
import multiprocessing
import queue as thread_queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.queues import held, registry
from otel_pipeline_metrics.analysis.recent import since
from tests.probes.queues.support import queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

    MakeRun = Callable[[], opm.Run]

QUEUES = [
    asyncio.Queue,
    asyncio.LifoQueue,
    asyncio.PriorityQueue,
    thread_queue.Queue,
    thread_queue.LifoQueue,
    thread_queue.PriorityQueue,
    thread_queue.SimpleQueue,
]


def depth_of(run: opm.Run, name: str = "q") -> Any:
    return queue_of(run, name)["depth_avg"]


def wrapped(make: Callable[[], Any], *before: object) -> Any:
    """Return a wrapped queue, with items that were in it before."""
    raw = make()
    for item in before:
        raw.put_nowait(item)
    return opm.wrap_queue(raw, name="q", sentinel=None)


@pytest.mark.parametrize("make", QUEUES)
def test_items_that_are_left_count_as_well(
    make: Callable[[], Any], clock: Clock, make_run: MakeRun
) -> None:
    q = wrapped(make)
    with make_run() as run:
        for item in (1000.5, 1001.5, 1002.5):
            q.put_nowait(item)
        clock.advance(2)
        assert depth_of(run) == 3.0
        q.get_nowait()
        clock.advance(2)
        assert depth_of(run) == 2.5
    clock.advance(5)
    assert depth_of(run) == 2.5


@pytest.mark.parametrize("make", QUEUES)
def test_time_before_the_run_does_not_count(
    make: Callable[[], Any], clock: Clock, make_run: MakeRun
) -> None:
    q, run = wrapped(make), make_run()
    for item in (1000.5, 1001.5):
        q.put_nowait(item)
        clock.advance(100)
    with run:
        clock.advance(1)
        q.get_nowait()
        clock.advance(1)
        q.get_nowait()
        clock.advance(2)
    assert depth_of(run) == 3.0 / 4.0
    assert queue_of(run, "q")["wait_s"]["max"] > 100.0


@pytest.mark.parametrize("make", QUEUES)
def test_sentinels_are_no_items(make: Callable[[], Any], clock: Clock, make_run: MakeRun) -> None:
    last = float("inf")
    q: Any = opm.wrap_queue(make(), name="q", sentinel=last)
    with make_run() as run:
        q.put_nowait(1000.5)
        q.put_nowait(last)
        q.put_nowait(last)
        clock.advance(4)
    assert depth_of(run) == 1.0
    (probe,) = registry.queues.alive("q")
    assert tuple(held._content(probe)) == (1, 1, 1000.0)


def test_what_was_put_by_a_run_before_is_shared_out(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as first:
        q.put(1)
        q.put(2)
        clock.advance(4)
    with make_run() as second:
        q.get()
        clock.advance(2)
    assert (depth_of(first), depth_of(second)) == (2.0, 1.0)


def test_of_what_several_runs_put_each_counts_its_share(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as outer:
        q.put("of the outer one")
        with make_run():
            q.put("of the inner one")
        clock.advance(2)
    assert depth_of(outer) == 1.0


def test_items_that_were_removed_from_the_content_are_not_in_it(
    clock: Clock, make_run: MakeRun
) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as run:
        for n in range(3):
            q.put(n)
            clock.advance(1)
        q.queue.popleft()
    # one and two seconds, and a third item like these
    assert depth_of(run) == (1.0 + 2.0) * 3.0 / 2.0 / 3.0


def test_a_run_counts_no_more_than_it_put(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as outer:
        q.put("of the outer one")
        with make_run() as inner:
            q.put("of the inner one")
            clock.advance(1)
        with make_run() as reader:
            q.get()
            q.get()
    # what is in the queue as a run begins is in it, whoever put it
    assert (depth_of(inner), depth_of(reader)) == (2.0, None)
    assert depth_of(outer) is None  # its item was got, and when is the other run's to know


def test_items_of_unknown_time_are_taken_to_be_like_the_others(
    clock: Clock, make_run: MakeRun
) -> None:
    same = "same"
    q = wrapped(thread_queue.SimpleQueue)
    with make_run() as run:
        for item in ("a", "b", same, same):
            q.put(item)
        clock.advance(1)
        for _ in range(4):
            q.get()
        clock.advance(3)
    assert depth_of(run) == 1.0


@pytest.mark.parametrize("left", [False, True])
def test_the_depth_is_unknown_if_most_times_are(
    left: bool, clock: Clock, make_run: MakeRun
) -> None:
    same = "same"
    q = wrapped(thread_queue.SimpleQueue)
    with make_run() as run:
        for item in ("a", same, same):
            q.put(item)
        clock.advance(1)
        for _ in range(0 if left else 3):
            q.get()
    assert depth_of(run) is None


def test_items_from_before_the_wrapping_are_of_unknown_time(
    clock: Clock, make_run: MakeRun
) -> None:
    q = wrapped(thread_queue.Queue, "a", "b")
    with make_run() as run:
        q.put("c")
        clock.advance(1)
        assert depth_of(run) is None
        q.get()
        q.get()
    assert depth_of(run) is None


def test_discarded_items_are_of_unknown_time(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as run:
        for n in range(3):
            q.put(n)
        clock.advance(1)
        q.get()
        q.queue.clear()
        clock.advance(1)
    assert depth_of(run) is None


def test_a_queue_that_is_gone_holds_nothing(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(thread_queue.Queue)
    with make_run() as run:
        q.put(1)
        clock.advance(1)
        q.get()
        del q
        clock.advance(3)
    assert depth_of(run) == 0.25


def test_items_that_another_process_gets_are_of_unknown_time(
    clock: Clock, make_run: MakeRun
) -> None:
    q: Any = opm.wrap_queue(multiprocessing.Queue(), name="q")
    with make_run() as run:
        q.put(1)
        # as another process does
        assert q._opm_queue.get(timeout=60).item == 1
        clock.advance(1)
    assert depth_of(run) is None
    q.close()
    q.join_thread()


def test_stamps_that_other_threads_change_are_looked_at_again(
    clock: Clock, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = wrapped(thread_queue.Queue)
    stamps = q._opm_probe.stamps

    class Changing:
        fails = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(stamps, name)

        def times(self, sentinel: object, step: int) -> Any:
            self.fails -= 1
            if self.fails >= 0:
                raise RuntimeError("deque mutated during iteration")
            return stamps.times(sentinel, step)

    with make_run() as run:
        q.put(1)
        clock.advance(1)
        monkeypatch.setattr(q._opm_probe, "stamps", Changing())
        assert depth_of(run) == 1.0
        monkeypatch.setattr(q._opm_probe.stamps, "fails", 100)
        assert depth_of(run) is None


def test_an_item_whose_put_waits_is_not_in_the_queue(clock: Clock) -> None:
    class Full(collections.deque):  # type: ignore[type-arg]
        def put(self, item: object) -> None:
            seen.append(held._content(registry.queues.alive("full")[0]))
            self.append(item)

        get = collections.deque.popleft

    seen: list[Any] = []
    q = opm.wrap_queue(Full(), name="full")
    q.put("a")
    clock.advance(1)
    q.put("b")
    assert [tuple(each) for each in seen] == [(0, 0, 0.0), (1, 1, 1000.0)]


def test_a_depth_that_was_unknown_leaves_that_of_the_latest_time_unknown() -> None:
    def report(wall_s: float, depth: float | None) -> dict[str, Any]:
        return {"run": {"wall_s": wall_s}, "queues": [{"name": "q", "depth_avg": depth}]}

    def latest(now: float | None, before: float | None) -> Any:
        return since(report(4.0, now), report(2.0, before))["queues"][0]["depth_avg"]

    assert (latest(3.0, 2.0), latest(3.0, None), latest(None, 2.0)) == (4.0, None, None)


def test_what_is_left_in_other_queues_of_the_name_does_not_count(
    clock: Clock, make_run: MakeRun
) -> None:
    earlier = wrapped(thread_queue.Queue)
    earlier.put("left")
    clock.advance(10)
    with make_run() as run:
        q = wrapped(thread_queue.Queue)
        q.put("a")
        clock.advance(1)
        q.get()
        clock.advance(1)
    assert depth_of(run) == 0.5
    assert earlier.qsize() == 1


@pytest.mark.parametrize("make", [asyncio.LifoQueue, thread_queue.LifoQueue])
def test_items_below_those_that_move_count_as_well(
    make: Callable[[], Any], clock: Clock, make_run: MakeRun
) -> None:
    q = wrapped(make)
    q.put_nowait("below")
    clock.advance(10)
    with make_run() as run:
        for _ in range(2):
            clock.advance(1)
            q.put_nowait("above")
            clock.advance(1)
            q.get_nowait()
    assert depth_of(run) == 1.5


def test_runs_that_only_put_have_a_depth_together(clock: Clock, make_run: MakeRun) -> None:
    reports = []
    for items in (1, 3):
        q = wrapped(thread_queue.Queue)
        with make_run() as run:
            for _ in range(items):
                q.put("left")
            clock.advance(1)
        reports.append(run.report)
    assert [report.queues[0]["depth_avg"] for report in reports] == [1.0, 3.0]
    assert opm.RunReport.merge(*reports).queues[0]["depth_avg"] == 2.0


def test_a_full_queue_at_which_all_wait_is_full(clock: Clock, make_run: MakeRun) -> None:
    q = wrapped(lambda: thread_queue.Queue(1))
    q.put("a")
    clock.advance(10)
    with make_run() as run:
        with pytest.raises(thread_queue.Full):
            q.put("b", timeout=0.001)
        clock.advance(1)
    assert depth_of(run) == 1.0


@pytest.mark.parametrize("make", QUEUES)
def test_of_a_large_queue_some_items_are_looked_at(
    make: Callable[[], Any], clock: Clock, make_run: MakeRun
) -> None:
    """The program waits meanwhile."""
    count = 20_500
    q = wrapped(make)
    looked_at = [0]
    for number in range(count):
        q.put_nowait(number)
        clock.advance(0.001)
    probe = next(iter(registry.queues.alive("q")))
    times = probe.times

    def counted(step: int) -> list[float | None]:
        found: list[float | None] = times(step)
        looked_at.append(len(found))
        return found

    with make_run() as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(probe), "times", lambda _, step: counted(step))
        clock.advance(10)
        for _ in range(count // 2):
            q.get_nowait()
        clock.advance(10)
        # exact, but for the sample
        assert depth_of(run) == pytest.approx(count * 0.75, rel=2e-3)
    assert 1000 <= max(looked_at) <= 2000


def test_what_a_run_does_as_it_begins_is_no_part_of_it(
    clock: Clock, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = wrapped(thread_queue.Queue)
    q.put("before")
    contents = held._contents

    def slow(name: str) -> dict[Any, Any]:
        clock.advance(5)
        return contents(name)

    monkeypatch.setattr(held, "_contents", slow)
    with make_run() as run:
        monkeypatch.setattr(held, "_contents", contents)
        q.put("in the run")
        clock.advance(1)
        assert depth_of(run) == 2.0

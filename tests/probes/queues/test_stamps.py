"""Test that the queue holds the user's own items, and that their times are right."""

from __future__ import annotations

import asyncio
import gc
import heapq
import queue as thread_queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, observed, series
from otel_pipeline_metrics._probes.queues import hooked, probe
from tests.probes.queues.support import play, queue_of, states
from tests.probes.queues.test_queue_numbers import waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock, Results

FIRST_OUT = [asyncio.Queue, thread_queue.Queue]
LAST_OUT = [asyncio.LifoQueue, thread_queue.LifoQueue]
BY_PRIORITY = [asyncio.PriorityQueue, thread_queue.PriorityQueue]
KINDS: list[Any] = [*FIRST_OUT, *LAST_OUT, *BY_PRIORITY]


def content(raw: Any) -> Any:
    return raw._queue if isinstance(raw, asyncio.Queue) else raw.queue


def counted(name: str = "q") -> observed.QueueSeries:
    return series.process_scope.queues[name]


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    series.process_scope.queues.clear()


# --- what others see of the queue ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_holds_the_users_own_items(kind: Any) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    items = [(1, object()), (2, object())]
    for item in items:
        q.put_nowait(item)
    assert [a is b for a, b in zip(content(q), items, strict=True)] == [True, True]
    assert content(q) is content(raw)
    assert raw.get_nowait() in items


class ByUrgency(thread_queue.PriorityQueue[Any]):
    """A subclass that reads each item."""

    def _put(self, item: Any) -> None:
        heapq.heappush(self.queue, (item["urgency"], item["id"], item))

    def _get(self) -> Any:
        return heapq.heappop(self.queue)[2]


def test_a_subclass_reads_the_item(clock: Clock, results: Results) -> None:
    q = opm.wrap_queue(ByUrgency(), name="q")
    for n, urgency in enumerate((3, 1, 2)):
        q.put({"urgency": urgency, "id": n})
        clock.advance(1)
    assert [q.get()["urgency"] for _ in range(3)] == [1, 2, 3]
    assert waits(results) == [1.0, 2.0, 3.0]


def test_a_put_that_was_patched_before_the_import_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python's own is written out, and only that one."""
    noted = []

    def note(self: Any, item: Any) -> None:
        noted.append(item)
        self.queue.append(item)

    monkeypatch.setattr(thread_queue.Queue, "_put", note)
    monkeypatch.setattr(hooked, "_FIRST_OUT", {(note, thread_queue.Queue._get)})  # type: ignore[attr-defined]
    q = opm.wrap_queue(thread_queue.Queue(), name="q")
    q.put(1)
    assert (noted, q.get()) == ([1], 1)


def test_an_attribute_is_set_on_the_wrapped_queue() -> None:
    raw: Any = thread_queue.Queue(1)
    q = opm.wrap_queue(raw, name="q")
    q.put(1)
    q.maxsize = 2
    q.put(2)
    assert (raw.maxsize, raw.qsize()) == (2, 2)
    q.note = "mine"
    assert raw.note == "mine"
    del q.note
    assert not hasattr(raw, "note")
    assert dir(q) == dir(raw)


# --- pairs that are certain, and those that are not ---------------------------------------------


@pytest.mark.parametrize(("kinds", "expected"), [(FIRST_OUT, [3.0] * 3), (LAST_OUT, [1, 3, 5])])
def test_the_order_tells_several_puts_of_one_object_apart(
    kinds: list[Any], expected: list[float], clock: Clock, results: Results
) -> None:
    """The order tells its puts apart."""
    for kind in kinds:
        q = opm.wrap_queue(kind(), name=kind.__module__)
        for _ in range(3):
            q.put_nowait(1)
            clock.advance(1)
        for _ in range(3):
            q.get_nowait()
            clock.advance(1)
        assert waits(results, kind.__module__) == expected


@pytest.mark.parametrize("kind", BY_PRIORITY)
def test_several_puts_of_one_object_by_priority_have_no_known_wait(
    kind: Any, clock: Clock, results: Results
) -> None:
    """Which of its puts a get belongs to is unknown until none is left."""
    q = opm.wrap_queue(kind(), name="q")
    for item in (1, 1, 2):
        q.put_nowait(item)
        clock.advance(1)
    assert [q.get_nowait(), q.get_nowait()] == [1, 1]
    assert waits(results) == []
    q.put_nowait(1)
    clock.advance(5)
    assert [q.get_nowait(), q.get_nowait()] == [1, 2]
    assert waits(results) == [5.0, 6.0]
    assert (counted().put, counted().got) == (4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_items_from_before_the_wrapping_have_no_known_wait(
    kind: Any, clock: Clock, results: Results
) -> None:
    raw = kind()
    for item in (10, 20, 30):
        raw.put_nowait(item)
    q = opm.wrap_queue(raw, name="q")
    q.put_nowait(15)
    clock.advance(4)
    got = [q.get_nowait() for _ in range(4)]
    assert sorted(got) == [10, 15, 20, 30]
    assert (counted().put, counted().got) == (1, 4)
    assert waits(results) == [4.0]


@pytest.mark.parametrize("kind", BY_PRIORITY)
def test_a_second_put_of_an_item_from_before_has_no_known_wait(
    kind: Any, clock: Clock, results: Results
) -> None:
    raw = kind()
    raw.put_nowait(1)
    q = opm.wrap_queue(raw, name="q")
    clock.advance(1)
    q.put_nowait(1)
    q.get_nowait()
    q.get_nowait()
    assert (counted().got, waits(results)) == (2, [])


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_replaced_another_has_no_known_wait(
    kind: Any, clock: Clock, results: Results
) -> None:
    """The size is the same, the item is another."""
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    q.put_nowait("a")
    clock.advance(1)
    content(raw)[0] = "b"
    assert q.get_nowait() == "b"
    q.put_nowait("a")
    clock.advance(2)
    assert q.get_nowait() == "a"
    assert waits(results) == [2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_was_added_directly_has_no_known_wait(
    kind: Any, clock: Clock, results: Results
) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    q.put_nowait("a")
    clock.advance(1)
    content(raw).insert(0, "a")
    assert [q.get_nowait(), q.get_nowait()] == ["a", "a"]
    assert waits(results) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_put_again_after_a_clear_is_timed_from_then(
    kind: Any, clock: Clock, results: Results
) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    q.put_nowait("a")
    q.put_nowait("b")
    content(raw).clear()
    clock.advance(1)
    q.put_nowait("a")
    clock.advance(2)
    assert q.get_nowait() == "a"
    assert waits(results) == [2.0]


class Weightless(asyncio.Queue[Any]):
    """A subclass that is never full."""

    def qsize(self) -> int:
        return 0


def test_items_have_no_known_wait_if_the_size_is_wrong(clock: Clock, results: Results) -> None:
    q = opm.wrap_queue(Weightless(), name="q")
    for _ in range(2):
        q.put_nowait(1)
        clock.advance(1)
    assert [q.get_nowait(), q.get_nowait()] == [1, 1]
    assert (counted().put, counted().got, waits(results)) == (2, 2, [])


# --- what a stamp keeps alive -------------------------------------------------------------------


class Item:
    """An item with weak references and an order."""

    def __lt__(self, other: Any) -> bool:
        return id(self) < id(other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["get", "raw get", "clear"])
def test_an_item_lives_no_longer_than_in_the_bare_queue(how: str, kind: Any) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    item = Item()
    dead = weakref.ref(item)
    q.put_nowait(item)
    del item
    gc.disable()
    try:
        if how == "clear":
            content(raw).clear()
            # the next put or get releases it
            q.put_nowait(1)
        else:
            (raw if how == "raw get" else q).get_nowait()
        assert dead() is None
    finally:
        gc.enable()


class Closing:
    """An item whose destructor reads its queue, like a pooled connection's."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def __lt__(self, other: Any) -> bool:
        return False

    def __del__(self) -> None:
        self.queue.qsize()


@pytest.mark.parametrize("kind", [thread_queue.Queue, thread_queue.PriorityQueue])
def test_a_destructor_may_use_the_queue(kind: Any) -> None:
    """Stamps of items that left unseen are released once the queue's lock is free."""

    def work() -> None:
        raw = kind()
        q = opm.wrap_queue(raw, name="q")
        q.put(Closing(raw))
        raw.queue.clear()
        q.put(1)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


# --- raw references -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_items_through_raw_references_count(kind: Any, clock: Clock, results: Results) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    raw.put_nowait(1)
    clock.advance(1)
    assert q.get_nowait() == 1
    q.put_nowait(2)
    clock.advance(2)
    assert raw.get_nowait() == 2
    raw.put_nowait(3)
    clock.advance(4)
    assert raw.get_nowait() == 3
    assert (counted().put, counted().got, counted().depth_peak) == (3, 3, 1)
    assert waits(results) == [1.0, 2.0, 4.0]


def test_the_wait_of_a_worker_at_a_raw_reference_is_not_seen(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    raw: Any = asyncio.Queue(1)
    q = opm.wrap_queue(raw, name="q")

    async def main() -> None:
        with opm.stage("work"):
            getting = asyncio.create_task(raw.get())
            await asyncio.sleep(4)
            await q.put(1)
            assert await getting == 1

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (4.0, 0.0, 0.0)
    assert (queue_of(run, "q")["got"], queue_of(run, "q")["get_waited_s"]) == (1, 0.0)


def test_pending_waits_of_raw_references_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the library's code there runs under the queue's lock, and cannot flush them."""
    monkeypatch.setattr(probe, "WAITS_BOUND", 5)
    # their number is looked at whenever a flush is due
    monkeypatch.setattr(hooked, "FLUSH_MASK", 0)
    raw: Any = thread_queue.Queue()
    opm.wrap_queue(raw, name="q")
    q = opm.wrap_queue(thread_queue.Queue(), name="other")  # noqa: F841 - of another name
    for n in range(9):
        raw.put(n)
        raw.get()
    assert (counted().got, len(counted().waits)) == (9, 5)
    drain.drain()


def test_a_queue_can_be_wrapped_again_once_its_stand_in_is_gone(
    clock: Clock, results: Results
) -> None:
    raw: Any = thread_queue.Queue()
    first = opm.wrap_queue(raw, name="first")
    first.put(1)
    del first
    second = opm.wrap_queue(raw, name="second")
    second.put(2)
    clock.advance(3)
    assert [second.get(), second.get()] == [1, 2]
    assert (counted("first").put, counted("first").got) == (1, 0)
    assert (counted("second").put, counted("second").got) == (1, 2)
    assert waits(results, "second") == [3.0]


def test_a_method_that_was_set_on_the_instance_is_called(clock: Clock, results: Results) -> None:
    raw: Any = thread_queue.Queue()
    seen = []
    insert = raw._put
    raw._put = lambda item: (seen.append(item), insert(item))
    for name in ("q", "r"):
        q = opm.wrap_queue(raw, name=name)
        q.put(name)
        clock.advance(2)
        assert q.get() == name
        assert waits(results, name) == [2.0]
        del q
    assert seen == ["q", "r"]

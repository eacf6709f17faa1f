"""Test queues of which only the interface is known."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import queue as thread_queue
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, observed, series
from otel_pipeline_metrics._probes.queues import registry
from tests.probes.queues.support import play, queue_of, states
from tests.probes.queues.test_queue_numbers import waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


class Least:
    """A queue with a put and a get only."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: deque[Any] = deque()

    def put(self, item: Any, urgent: bool = False) -> str:
        (self.items.appendleft if urgent else self.items.append)(item)
        return "receipt"

    def get(self) -> Any:
        return self.items.popleft()


class Awaited(Least):
    """A queue whose put and get are coroutines, with a size."""

    __slots__ = ("room",)
    maxsize = 1

    async def put(self, item: Any, urgent: bool = False) -> str:  # type: ignore[override]
        while self.full():  # noqa: ASYNC110 - the least
            await asyncio.sleep(1)
        return super().put(item, urgent)

    async def get(self) -> Any:
        while self.empty():  # noqa: ASYNC110 - the least
            await asyncio.sleep(1)
        return super().get()

    def get_nowait(self) -> Any:
        return super().get()

    async def join(self) -> str:
        return "joined"

    def __len__(self) -> int:
        return len(self.items)

    def empty(self) -> bool:
        return not self.items

    def full(self) -> bool:
        return len(self.items) >= self.maxsize


def counted(name: str = "q") -> observed.QueueSeries:
    drain.drain_workers(series.process_scope)
    return series.process_scope.queues[name]


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    series.process_scope.queues.clear()


def test_a_put_and_a_get_are_enough(clock: Clock, results: Results) -> None:
    q = opm.wrap_queue(Least(), name="q", sentinel=None)
    assert q.put("a") == "receipt"
    clock.advance(1)
    assert q.put(item="b", urgent=True) == "receipt"
    clock.advance(2)
    q.put(urgent=True, item=None)
    assert [q.get(), q.get(), q.get()] == [None, "b", "a"]
    with pytest.raises(IndexError):
        q.get()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'item'"):
        q.put()  # type: ignore[call-arg]
    for name in ("put_nowait", "get_nowait", "join", "qsize", "__len__"):
        assert not hasattr(q, name)
    assert (counted().put, counted().got) == (2, 2)
    assert waits(results) == [2.0, 3.0]
    assert "q" not in registry.sizes()


def test_coroutines_count_for_the_worker_that_requests_them(
    clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]
) -> None:
    async def main() -> None:
        q = opm.wrap_queue(Awaited(), name="q")
        assert inspect.iscoroutinefunction(q.put) or sys.version_info < (3, 12)
        assert len(q) == 0

        async def make() -> None:
            for item in ("a", "b"):
                async with opm.stage("make"):
                    assert await asyncio.wait_for(q.put(item), 60) == "receipt"

        async def use() -> None:
            await asyncio.sleep(4)
            for _ in range(2):
                async with opm.stage("use"):
                    await q.get()
            q.items.append("raw")
            assert q.get_nowait() == "raw"
            assert await q.join() == "joined"

        await asyncio.gather(make(), use())

    with make_run() as run:
        play(clock, main())
    found = queue_of(run, "q")
    assert (found["put"], found["got"], found["capacity"], found["depth_peak"]) == (2, 3, 1, 1)
    assert (found["put_blocked_s"], found["get_waited_s"]) == (4.0, 1.0)
    assert states(run, "make") == (0.0, 0.0, 4.0)
    assert found["wait_s"]["max"] == 4.0
    assert [len(span.links) for span in otel.spans() if span.name == "use"] == [1, 1]


@pytest.mark.parametrize(("missing", "named"), [("put", "has no put$"), ("get", "has no get$")])
def test_the_error_names_what_is_missing(missing: str, named: str) -> None:
    kind = type("Half", (), dict.fromkeys({"put", "get"} - {missing}, print))
    with pytest.raises(TypeError, match=f"queue must have put and get, or .*Half {named}"):
        opm.wrap_queue(kind(), name="q")


class Talkative(thread_queue.Queue[Any]):
    """A subclass with its own put and get, and more."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def put(self, item: Any, *more: Any, note: str = "") -> None:  # type: ignore[override]
        self.calls.append((item, note))
        super().put(item, *more)

    def get(self, *more: Any) -> Any:
        self.calls.append("get")
        return super().get(*more)

    def put_many(self, *items: Any) -> None:
        for item in items:
            self.put(item)

    def __len__(self) -> int:
        return self.qsize()

    def __contains__(self, item: Any) -> bool:
        return item in self.queue

    def __iter__(self) -> Iterator[Any]:
        while self.qsize():
            yield self.get()


def test_a_subclass_with_its_own_put_and_get_is_measured(clock: Clock, otel: Otel) -> None:
    q = opm.wrap_queue(Talkative(), name="q")
    with opm.stage("make"):
        q.put(1, note="first")
    clock.advance(1)
    q.put_many(2, 3)
    assert (len(q), bool(q), 3 in q, 4 in q) == (3, True, True, False)
    with opm.stage("use"):
        assert list(q) == [1, 2, 3]
    assert q.calls == [(1, "first"), (2, ""), (3, ""), "get", "get", "get"]
    assert not q
    assert (counted().put, counted().got, counted().depth_peak) == (3, 3, 3)
    assert counted().waits == [1.0, 0.0, 0.0]
    assert counted().consumers == {"use": None}
    assert len(otel.span("use").links) == 1


class Sized(asyncio.Queue[Any]):
    """A subclass with asyncio's own put and get, and more."""

    def __len__(self) -> int:
        return self.qsize()


def test_a_length_is_there_if_the_wrapped_class_has_one() -> None:
    q, other = (opm.wrap_queue(Sized(), name="q") for _ in range(2))
    assert (len(q), bool(q)) == (0, False)
    q.put_nowait(1)
    assert (len(q), bool(q), len(other)) == (1, True, 0)
    assert type(q) is type(other)
    with pytest.raises(TypeError, match="has no len"):
        len(opm.wrap_queue(asyncio.Queue(), name="q"))  # type: ignore[arg-type]


@pytest.mark.parametrize("own_first", [True, False])
def test_an_instance_with_its_own_put_does_not_change_others_of_its_class(own_first: bool) -> None:
    class Plain(thread_queue.Queue[Any]):
        """A class without stand-ins yet."""

    own, plain = Plain(), Plain()
    seen: list[Any] = []
    own.put = lambda *args: seen.append(args)  # type: ignore[method-assign, assignment]
    pair = [own, plain] if own_first else [plain, own]
    for n, raw in enumerate(pair):
        opm.wrap_queue(raw, name="q").put(n)
    assert seen == [(0,) if own_first else (1,)]
    assert plain.queue[0] == (1 if own_first else 0)


class Elsewhere(thread_queue.Queue[Any]):
    """A subclass that keeps its items somewhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self.items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self.items.pop()


def test_a_subclass_that_keeps_its_items_elsewhere_is_counted(results: Results) -> None:
    q = opm.wrap_queue(Elsewhere(), name="q", sentinel=None)
    for item in (1, None, 2):
        q.put(item)
    assert [q.get() for _ in range(3)] == [2, None, 1]
    assert (counted().put, counted().got, waits(results)) == (2, 2, [])


def test_an_object_in_the_queue_twice_has_no_known_wait(clock: Clock, results: Results) -> None:
    """The order in which its puts got in is unknown."""
    q: Any = opm.wrap_queue(thread_queue.SimpleQueue(), name="q")
    for item in (1, 1, 2):
        q.put(item)
        clock.advance(1)
    for _ in range(3):
        q.get()
    q.put(1)
    clock.advance(5)
    q.get()
    assert waits(results) == [1.0, 5.0]


def test_items_without_a_seen_put_have_no_known_wait(clock: Clock, results: Results) -> None:
    raw: Any = thread_queue.SimpleQueue()
    raw.put(1)
    q: Any = opm.wrap_queue(raw, name="q")
    q.put(1)
    clock.advance(1)
    assert [q.get(), q.get()] == [1, 1]
    assert waits(results) == []
    q.put(1)
    raw.put(1)
    clock.advance(1)
    assert [q.get(), q.get()] == [1, 1]
    assert waits(results) == []
    q.put(1)
    clock.advance(4)
    assert q.get() == 1
    assert waits(results) == [4.0]


def test_an_item_that_left_by_a_raw_reference_is_released(clock: Clock, results: Results) -> None:
    raw: Any = thread_queue.SimpleQueue()
    q: Any = opm.wrap_queue(raw, name="q")
    for _ in range(100):
        q.put(object())
        raw.get()
    assert len(q._opm_probe._entries) < 3
    item = object()
    q.put(item)
    clock.advance(1)
    assert q.get() is item
    q.put(item)
    clock.advance(2)
    assert q.get() is item
    assert waits(results)[-1] == 2.0


def test_a_put_that_fails_leaves_no_stamp(clock: Clock, results: Results) -> None:
    class Full(Least):
        full = True

        def put(self, item: Any, urgent: bool = False) -> str:
            if self.full:
                raise thread_queue.Full
            return super().put(item, urgent)

    q = opm.wrap_queue(Full(), name="q")
    with pytest.raises(thread_queue.Full):
        q.put("a")
    clock.advance(1)
    Full.full = False
    q.put("a")
    clock.advance(2)
    assert q.get() == "a"
    assert (counted().put, counted().got, waits(results)) == (1, 1, [2.0])


class Meddling(Least):
    """Its items are got before its put returns."""

    __slots__ = ("fails", "got", "wrapped")

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    def put(self, item: Any, urgent: bool = False) -> str:
        super().put(item)
        assert self.wrapped.get() == item
        if self.fails:
            raise RuntimeError
        return "receipt"


def test_an_item_that_is_got_before_its_put_returns_has_no_known_wait(
    clock: Clock, results: Results
) -> None:
    """Its put may have waited, so the time of the item is unknown."""
    raw = Meddling()
    raw.wrapped = q = opm.wrap_queue(raw, name="q")
    q.put("a")
    assert (counted().put, counted().got, waits(results)) == (1, 1, [])


def test_a_put_that_fails_after_its_item_was_got_counts() -> None:
    """A stream's sender that is cancelled too late does that."""
    raw = Meddling(fails=True)
    raw.wrapped = q = opm.wrap_queue(raw, name="q")
    with pytest.raises(RuntimeError):
        q.put("a")
    assert (counted().put, counted().got) == (1, 1)


def test_a_put_that_never_waits_is_timed_at_its_beginning(clock: Clock, results: Results) -> None:
    class Simple(thread_queue.SimpleQueue[Any]):
        wrapped: Any

        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item)
            assert self.wrapped.get() == item

    raw = Simple()
    raw.wrapped = q = opm.wrap_queue(raw, name="q")
    q.put("a")
    assert (counted().put, counted().got, waits(results)) == (1, 1, [0.0])


@pytest.mark.slow
def test_a_managers_queue_is_counted_without_times() -> None:
    """Every process puts into it, and small numbers are the same object everywhere."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        q: Any = opm.wrap_queue(manager.Queue(2), name="q")
        q.put(1)
        q.put([1])
        assert [q.get(), q.get(timeout=10)] == [1, [1]]
        assert (counted().put, counted().got, counted().depth_peak) == (2, 2, 2)
        assert counted().waits == []

"""Test that each stated wait is exact, whatever is done to a queue."""

from __future__ import annotations

import asyncio
import queue as thread_queue
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import observed, series

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

FIRST_OUT = [asyncio.Queue, thread_queue.Queue]
LAST_OUT = [asyncio.LifoQueue, thread_queue.LifoQueue]
BY_PRIORITY = [asyncio.PriorityQueue, thread_queue.PriorityQueue]
SENTINEL = 7


class OwnPriorities(thread_queue.PriorityQueue[Any]):
    """A subclass whose order is not that of its class."""

    def _put(self, item: Any) -> None:
        super()._put((-item, item))

    def _get(self) -> Any:
        return super()._get()[1]


class Latest(asyncio.Queue[Any]):
    """A subclass that drops the oldest item when it is full."""

    def _put(self, item: Any) -> None:
        if len(self._queue) == 2:  # type: ignore[attr-defined]
            self._queue.popleft()  # type: ignore[attr-defined]
        super()._put(item)


class Unique(asyncio.Queue[Any]):
    """A subclass that ignores a put of an item that it holds already."""

    def _init(self, maxsize: int) -> None:
        self._queue: Any = set()

    def _put(self, item: Any) -> None:
        self._queue.add(item)

    def _get(self) -> Any:
        return self._queue.pop()


class Entry(NamedTuple):
    """An item in the queue, as far as the test knows."""

    item: Any
    put_at: float | None
    # whether the content was never changed directly since the put
    seen: bool = True


class Model:
    """The items in the queue and their times, without the order in which they come out."""

    def __init__(self, kind: Any) -> None:
        self.order = "first" if kind in FIRST_OUT else "last" if kind in LAST_OUT else None
        self.entries: list[Entry] = []
        self.put = self.got = 0
        # whether each item's put was seen, and the content was never changed directly since
        self.known = True

    def waits_of(self, item: Any, now: float) -> tuple[set[float | None], bool]:
        """Remove an item that was got; return its possible waits, and whether it must be known."""
        found = [n for n, entry in enumerate(self.entries) if entry.item is item]
        if self.order is not None:
            found = found[:1] if self.order == "first" else found[-1:]
        since = {self.entries[n].put_at for n in found}
        sure = len(found) == 1 and (self.entries[found[0]].seen if self.order else self.known)
        if len(found) > 1:
            self.entries = [Entry(e.item, None) if e.item is item else e for e in self.entries]
            since = {None}
        if found:
            del self.entries[found[0]]
        if not self.entries:
            self.known = True
        return {None if at is None else now - at for at in since}, sure


ordinary = st.integers(-2, 2)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put", "put", "raw put"]), ordinary),
        st.tuples(st.sampled_from(["get", "get", "get", "raw get", "sentinel"]), st.just(0)),
        st.tuples(st.sampled_from(["clear", "append", "remove"]), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", [*FIRST_OUT, *LAST_OUT, *BY_PRIORITY, OwnPriorities])
@given(operations=operations, before=st.lists(ordinary, max_size=4))
@example(operations=[("put", 1), ("put", 1), ("get", 0), ("get", 0)], before=[])
@example(operations=[("put", 1), ("get", 0), ("get", 0)], before=[1])
@example(operations=[("put", 1), ("clear", 0), ("put", 1), ("get", 0)], before=[])
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_wait_is_exact_or_unknown(
    kind: Any,
    operations: list[tuple[str, int]],
    before: list[int],
    clock_of: Callable[[], Clock],
) -> None:
    clock, model = clock_of(), Model(kind)
    raw = kind()
    for item in before:
        raw.put_nowait(item)
        model.entries.append(Entry(item, None))
    # the content of a plain priority queue is read where it is needed
    model.known = not before or kind in BY_PRIORITY
    series.process_scope.queues.pop("q", None)
    q = opm.wrap_queue(raw, name="q", sentinel=SENTINEL)
    touched = False
    for number, (name, item) in enumerate(operations):
        clock.advance(number + 1)
        if name in {"clear", "append", "remove"}:
            # one at a time: two that leave the size as it was cannot be seen
            if not touched:
                touched = behind_its_methods(raw, name, model)
        elif name.endswith("get"):
            if raw.qsize():
                touched = False
                get(raw if name.startswith("raw") else q, model, clock)
        else:
            touched = False
            known = name != "sentinel"
            one = item if known else SENTINEL
            (raw if name.startswith("raw") else q).put_nowait(one)
            model.entries.append(Entry(one, clock.time if known else None))
            model.put += known
        counted = series.process_scope.queues.get("q") or observed.QueueSeries("q")
        assert (counted.put, counted.got) == (model.put, model.got)
        assert q.qsize() == len(model.entries)


def get(queue: Any, model: Model, clock: Clock) -> None:
    counted = series.process_scope.queues.get("q") or observed.QueueSeries("q")
    stated = len(counted.waits)
    item = queue.get_nowait()
    counted = series.process_scope.queues.get("q") or counted
    new = counted.waits[stated:]
    possible, sure = model.waits_of(item, clock.time)
    if item == SENTINEL:
        assert new == []
        return
    model.got += 1
    assert len(new) <= 1
    if new:
        assert possible == {new[0]}
    elif sure:
        assert possible == {None}


def behind_its_methods(raw: Any, name: str, model: Model) -> bool:
    """Change the content directly; return whether the size changed."""
    if type(raw) is OwnPriorities:
        return False
    content = raw._queue if isinstance(raw, asyncio.Queue) else raw.queue
    size = len(content)
    if name == "clear":
        content.clear()
        model.entries.clear()
    elif name == "append":
        item = 1000.0 + len(content)  # the greatest, at the end of a heap too
        content.append(item)
        model.entries.append(Entry(item, None))
    elif content:
        gone = content.pop()
        (n, *_) = [n for n in reversed(range(size)) if model.entries[n].item is gone]
        del model.entries[n]
        if model.order is None:
            same = [e for e in model.entries if e.item is gone]
            if same:  # which of them it was
                model.entries = [
                    Entry(e.item, None) if e.item is gone else e for e in model.entries
                ]
    if len(content) != size:
        model.known = not content
        model.entries = [entry._replace(seen=False) for entry in model.entries]
    return len(content) != size


@pytest.mark.parametrize("kind", [Latest, Unique])
@given(operations=operations)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_subclasses_that_drop_and_refuse(
    kind: Any, operations: list[tuple[str, int]], clock_of: Callable[[], Clock]
) -> None:
    """Each stated wait is the time of one of the puts of that item."""
    clock, raw = clock_of(), kind()
    series.process_scope.queues.pop("q", None)
    q = opm.wrap_queue(raw, name="q")
    got_in: list[tuple[Any, float]] = []
    for number, (name, item) in enumerate(operations):
        clock.advance(number + 1)
        if name.endswith("put"):
            had = list(raw._queue)
            q.put_nowait(item)
            if kind is Latest or item not in had:
                got_in.append((item, clock.time))
            if kind is Latest:
                got_in = got_in[-raw.qsize() :]
        elif name.endswith("get") and raw.qsize():
            got = q.get_nowait()
            counted = series.process_scope.queues["q"]
            (n, *_) = [n for n, (other, _) in enumerate(got_in) if other == got]
            _, at = got_in.pop(n)
            stated, counted.waits[:] = list(counted.waits), []
            assert stated in ([], [clock.time - at])

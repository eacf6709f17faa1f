"""Test that a wrapped queue behaves like the bare one: results, errors, order."""

from __future__ import annotations

import asyncio
import queue as thread_queue
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from tests.probes.queues.support import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock

SHUTDOWN = sys.version_info >= (3, 13)

ASYNC = [asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue]
SYNC = [thread_queue.Queue, thread_queue.LifoQueue, thread_queue.PriorityQueue]

# of all kinds: None, no order, no hash, no truth, equal ones
items = st.one_of(
    st.integers(-3, 3),
    st.integers(-3, 3),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from([None, float("nan"), "s"]),
    st.builds(dict),
    st.builds(list),
    st.builds(object),
)

_sync_names = [
    "put_nowait", "put_nowait", "put_nowait", "get_nowait", "get_nowait", "put", "get",
    "put_for", "get_for", "put_wrong", "get_wrong", "qsize", "empty", "full", "task_done", "join",
]  # fmt: skip
_shutdown = ["shutdown", "shutdown_now"] if SHUTDOWN else []


def operations(names: list[str]) -> Any:
    return st.lists(st.tuples(st.sampled_from(names + _shutdown), items), max_size=25)


def outcome(call: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    try:
        return "returned", call(*args)
    except Exception as error:  # to compare them
        return "raised", (type(error), str(error), error.__context__)


def do(queue: Any, name: str, item: Any) -> Any:
    """Perform one operation that cannot wait forever."""
    if name in {"put", "put_wrong", "put_for"}:
        return queue.put(item, *{"put": (False,), "put_for": (True, 0)}.get(name, (True, -1)))
    if name in {"get", "get_wrong", "get_for"}:
        return queue.get(*{"get": (False,), "get_for": (True, 0)}.get(name, (True, -1)))
    if name == "join":
        return queue.unfinished_tasks or queue.join()
    if name.startswith("shutdown"):
        return queue.shutdown(immediate=name.endswith("now"))
    return getattr(queue, name)(*([item] if name == "put_nowait" else []))


@pytest.mark.parametrize("kind", SYNC)
@given(operations=operations(_sync_names), maxsize=st.integers(-1, 3))
@settings(max_examples=300, deadline=None)
def test_thread_queues_behave_like_the_bare_one(
    kind: Any, operations: list[tuple[str, Any]], maxsize: int
) -> None:
    bare, wrapped = kind(maxsize), opm.wrap_queue(kind(maxsize), name="q")
    for name, item in operations:
        assert same(outcome(do, bare, name, item), outcome(do, wrapped, name, item)), (name, item)
    assert bare.maxsize == wrapped.maxsize
    assert bare.unfinished_tasks == wrapped.unfinished_tasks


@given(operations=operations(["put_nowait", "get_nowait", "put", "get", "get_wrong", "get_for"]))
@settings(max_examples=200, deadline=None)
def test_a_simple_queue_behaves_like_the_bare_one(operations: list[tuple[str, Any]]) -> None:
    bare: Any = thread_queue.SimpleQueue()
    wrapped: Any = opm.wrap_queue(thread_queue.SimpleQueue(), name="q")
    for name, item in operations:
        if name.startswith("shutdown"):
            continue
        assert same(outcome(do, bare, name, item), outcome(do, wrapped, name, item)), (name, item)


def same(expected: tuple[str, Any], found: tuple[str, Any]) -> bool:
    how, what = expected
    if how == "returned":
        # the same object, since it may be neither equal to itself nor hashable
        return found[0] == how and (found[1] is what or (type(what) is int and found[1] == what))
    return expected == found


_async_names = [
    "put_nowait", "put_nowait", "get_nowait", "start_put", "start_put", "start_get", "start_get",
    "cancel", "turn", "qsize", "empty", "full", "task_done", "start_join",
]  # fmt: skip


@pytest.mark.parametrize("kind", ASYNC)
@given(operations=operations(_async_names), maxsize=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_asyncio_queues_behave_like_the_bare_one(
    kind: Any, operations: list[tuple[str, Any]], maxsize: int
) -> None:
    """Tasks wait in gets, puts and joins, and some are cancelled there."""

    def run(queue: Any) -> list[Any]:
        with asyncio.Runner() if sys.version_info >= (3, 11) else _Runner() as runner:
            return runner.run(story(queue, operations))

    expected = run(kind(maxsize))
    found = run(opm.wrap_queue(kind(maxsize), name="q"))
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert same(one, other)


async def story(queue: Any, operations: list[tuple[str, Any]]) -> list[Any]:
    """Return the result of each operation and task, and the remaining items."""
    told: list[Any] = []
    tasks: list[Any] = []
    for name, item in operations:
        arguments = [item] if "put" in name else []
        if name.startswith("start_"):
            tasks.append(asyncio.ensure_future(getattr(queue, name[6:])(*arguments)))
        elif name == "cancel" and tasks:
            tasks[len(told) % len(tasks)].cancel()
        elif name == "turn":
            await asyncio.sleep(0)
        elif name != "cancel":
            told.append(outcome(do, queue, name, item))
    for _ in range(5):
        await asyncio.sleep(0)
    told += [end_of(task) for task in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    told.append(("left", queue.qsize()))
    return told


def end_of(task: Any) -> tuple[str, Any]:
    if not task.done():
        return "waits", None
    if task.cancelled():
        return "cancelled", None
    if task.exception() is not None:
        return "raised", repr(task.exception())
    return "returned", task.result()


class _Runner:
    """A runner, which Python 3.10 does not have."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing."""

    def run(self, main: Any) -> Any:
        return asyncio.run(main)


def kinds() -> list[Any]:
    return [*ASYNC, *SYNC, thread_queue.SimpleQueue]


@pytest.mark.parametrize("kind", kinds())
def test_a_wrapped_queue_is_an_instance_of_the_bare_class(kind: Any) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    assert isinstance(q, kind)
    assert q.__class__ is kind
    assert repr(raw) in repr(q)
    assert "'q'" in repr(q)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        q.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("kind", ASYNC)
def test_coroutine_functions_of_a_wrapped_queue_are_recognised(kind: Any) -> None:
    import inspect

    q = opm.wrap_queue(kind(), name="q")
    recognised = (
        inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    )
    assert recognised(q.get)
    assert recognised(q.put)
    assert recognised(q.join)


@pytest.mark.parametrize("kind", kinds())
def test_an_item_put_into_the_bare_queue_comes_out_unchanged(kind: Any) -> None:
    raw = kind()
    raw.put_nowait((1, "before"))
    q = opm.wrap_queue(raw, name="q")
    raw.put_nowait((2, "after"))
    q.put_nowait((3, "wrapped"))
    found = [q.get_nowait() for _ in range(3)]
    assert sorted(found) == [(1, "before"), (2, "after"), (3, "wrapped")]


def test_priorities_hold_between_bare_and_wrapped_items() -> None:
    raw: Any = thread_queue.PriorityQueue()
    q = opm.wrap_queue(raw, name="q")
    for n in (5, 1, 4):
        raw.put(n)
    for n in (3, 0, 2):
        q.put(n)
    assert list(range(6)) == [q.get() for _ in range(6)]


class UniqueQueue(asyncio.Queue[Any]):
    """A queue that does not put an item that it already has."""

    def _init(self, maxsize: int) -> None:
        self._queue: Any = set()

    def _put(self, item: Any) -> None:
        self._queue.add(item)

    def _get(self) -> Any:
        return self._queue.pop()


def test_a_subclass_may_hash_and_compare_items() -> None:
    q = opm.wrap_queue(UniqueQueue(), name="q")
    for item in ("a", "b", "a"):
        q.put_nowait(item)
    assert q.qsize() == 2
    assert {"a", "b"} == {q.get_nowait(), q.get_nowait()}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((object(), "q"), TypeError, "queue must have .*; builtins.object has no put and no get"),
        ((None, "q"), TypeError, "queue must have put and get"),
        ((asyncio.Queue, "q"), TypeError, "queue must be a queue, not a class: <class"),
        ((thread_queue.Queue(), ""), ValueError, "name must not be empty"),
        ((thread_queue.Queue(), "x" * 129), ValueError, "name must be at most 128"),
        ((thread_queue.Queue(), None), TypeError, "name must be a string, not NoneType"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, error: type[Exception], match: str) -> None:
    queue, name = arguments
    with pytest.raises(error, match=match):
        opm.wrap_queue(queue, name=name)


@pytest.mark.parametrize("kind", kinds())
def test_a_wrapped_queue_cannot_be_wrapped_again(kind: Any) -> None:
    raw = kind()
    q = opm.wrap_queue(raw, name="q")
    for again in (q, raw):
        with pytest.raises(TypeError, match="queue is instrumented already"):
            opm.wrap_queue(again, name="r")
    q.put_nowait(1)
    del q
    q = opm.wrap_queue(raw, name="r")
    q.put_nowait(2)
    assert {1, 2} == {q.get_nowait(), q.get_nowait()}


@pytest.mark.skipif(not SHUTDOWN, reason="came with Python 3.13")
@pytest.mark.parametrize("kind", ASYNC)
async def test_async_iteration_lasts_until_shutdown(kind: Any) -> None:
    q = opm.wrap_queue(kind(), name="q")
    for n in range(3):
        q.put_nowait(n)
    q.shutdown()
    assert {0, 1, 2} == {n async for n in q}
    with pytest.raises(asyncio.QueueShutDown):
        await q.get()
    with pytest.raises(asyncio.QueueShutDown):
        await q.put(1)
    assert [n async for n in q] == []


@pytest.mark.skipif(not SHUTDOWN, reason="came with Python 3.13")
async def test_a_shutdown_wakes_waiting_tasks() -> None:
    q, full = opm.wrap_queue(asyncio.Queue(), name="q"), opm.wrap_queue(asyncio.Queue(1), name="f")
    full.put_nowait(0)
    waiting = [asyncio.ensure_future(c) for c in (q.get(), anext(q, "end"), full.put(1))]
    await asyncio.sleep(0)
    q.shutdown()
    full.shutdown()
    got, ended, put = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(got, asyncio.QueueShutDown)
    assert ended == "end"
    assert isinstance(put, asyncio.QueueShutDown)


@pytest.mark.skipif(not SHUTDOWN, reason="came with Python 3.13")
@pytest.mark.parametrize("kind", SYNC)
def test_iteration_lasts_until_shutdown(kind: Any) -> None:
    q = opm.wrap_queue(kind(), name="q")
    for n in range(3):
        q.put(n)
    q.shutdown()
    assert {0, 1, 2} == set(q)
    with pytest.raises(thread_queue.ShutDown):
        q.get()
    with pytest.raises(thread_queue.ShutDown):
        q.put(1)


def test_async_iteration_before_python_3_13(clock: Clock) -> None:
    """It lasts until the consumer leaves it."""
    q = opm.wrap_queue(asyncio.Queue(), name="q")

    async def main() -> list[Any]:
        found = []
        asyncio.get_running_loop().call_later(5, q.put_nowait, None)
        for n in range(3):
            q.put_nowait(n)
        async for item in q:
            if item is None:
                break
            found.append(item)
        return found

    loop = VirtualLoop(clock)
    assert loop.run_until_complete(main()) == [0, 1, 2]
    loop.close()


@pytest.mark.parametrize("timeout", ["1", object(), 1j])
def test_a_bad_timeout_raises_the_same_error_as_in_the_bare_queue(timeout: Any) -> None:
    bare: Any = thread_queue.Queue(1)
    wrapped = opm.wrap_queue(thread_queue.Queue(1), name="q")
    for queue in (bare, wrapped):
        with pytest.raises(TypeError):
            queue.put(1, timeout=timeout)
        with pytest.raises(TypeError):
            queue.get(timeout=timeout)


def test_full_and_empty_are_raised_after_a_real_timeout() -> None:
    q = opm.wrap_queue(thread_queue.Queue(1), name="q")
    with pytest.raises(thread_queue.Empty) as empty:
        q.get(timeout=0.001)
    q.put(1)
    with pytest.raises(thread_queue.Full) as full:
        q.put(2, timeout=0.001)
    # one exception, not one during the handling of another
    assert (empty.value.__context__, full.value.__context__) == (None, None)
    assert q.qsize() == 1


def test_a_cancelled_get_takes_nothing_and_a_cancelled_put_leaves_nothing(clock: Clock) -> None:
    """The cancellation comes at every moment around the item's arrival."""

    async def get_cancelled_after(turns: int) -> tuple[Any, int]:
        q = opm.wrap_queue(asyncio.Queue(1), name="q")
        getter = asyncio.ensure_future(q.get())
        await asyncio.sleep(0)
        q.put_nowait("item")
        for _ in range(turns):
            await asyncio.sleep(0)
        getter.cancel()
        (got,) = await asyncio.gather(getter, return_exceptions=True)
        return got, q.qsize()

    async def put_cancelled_after(turns: int) -> tuple[Any, int]:
        q = opm.wrap_queue(asyncio.Queue(1), name="q")
        q.put_nowait("first")
        putter = asyncio.ensure_future(q.put("second"))
        await asyncio.sleep(0)
        q.get_nowait()
        for _ in range(turns):
            await asyncio.sleep(0)
        putter.cancel()
        (put,) = await asyncio.gather(putter, return_exceptions=True)
        return put, q.qsize()

    loop = VirtualLoop(clock)
    for turns in range(4):
        got, left = loop.run_until_complete(get_cancelled_after(turns))
        assert (got, left) == ("item", 0) or (isinstance(got, asyncio.CancelledError) and left)
        put, left = loop.run_until_complete(put_cancelled_after(turns))
        assert (put, left) == (None, 1) or (isinstance(put, asyncio.CancelledError) and not left)
    loop.close()

"""Stand in for asyncio's and queue's queues, with puts and gets that are measured.

The wrapped queue's own methods never run inside a guard, and the measurements always do: an
internal error neither loses an item nor reaches a put or a get.
"""

from __future__ import annotations

import asyncio
import inspect
import queue as thread_queue
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import errors, hooks, series
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._probes.queues.blocking import may_block
from otel_pipeline_metrics._probes.queues.probe import Got, Probe, Put, QueueWait, joined
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._stages.workers.account import GOT, PUT
from otel_pipeline_metrics._stages.workers.finding import requesting_worker, worker_of_context
from otel_pipeline_metrics._stages.workers.worker import task_of
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._stages.workers.worker import Worker


F = TypeVar("F", bound="Callable[..., Any]")

# The exceptions of a queue that is shut down exist since Python 3.13.
SHUT_DOWN = (
    getattr(asyncio, "QueueShutDown", asyncio.QueueEmpty),
    getattr(thread_queue, "ShutDown", thread_queue.Empty),
)

_OWN = frozenset({"_opm_probe", "_opm_queue"})


def coroutine_function(function: F) -> F:
    """Mark a function that returns a coroutine as a coroutine function."""
    if hasattr(inspect, "markcoroutinefunction"):
        marked: F = inspect.markcoroutinefunction(function)
        return marked
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


class Slotted:
    """The base of all stand-ins, those whose other attributes are fixed too.

    Its own attributes have a prefix, so that they hide none of the wrapped object's, such as
    `_queue` of asyncio.
    """

    __slots__ = ("__weakref__", "_opm_probe", "_opm_queue")

    _opm_queue: Any
    _opm_probe: Probe

    def __init__(self, queue: Any, probe: Probe) -> None:
        object.__setattr__(self, "_opm_queue", queue)
        object.__setattr__(self, "_opm_probe", probe)

    @property  # type: ignore[misc]  # isinstance(q, asyncio.Queue) must stay true
    def __class__(self) -> type:
        return type(self._opm_queue)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._opm_queue, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._opm_queue, name)

    def __dir__(self) -> list[str]:
        return dir(self._opm_queue)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the wrapped object, if that can be pickled."""
        return type(self), (self._opm_queue, self._opm_probe)

    def __repr__(self) -> str:
        return f"<instrumented {self._opm_probe.name!r} {self._opm_queue!r}>"


class Instrumented(Slotted):
    """The base of the stand-ins for objects that may have any other attribute."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # a copy has no attributes yet
            raise AttributeError(name)
        return getattr(self._opm_queue, name)


def watch(probe: Probe) -> None:
    """Account for workers from now on, and report the queue for as long as it exists."""
    with errors.suppress_errors("instrumenting a queue"):
        accounting.watch()
        sink.add_probe("queues", registry.install_queues)
    registry.register(probe, probe.name)


# By the identity of the wrapped object, which its stand-in keeps alive.
wrapped: weakref.WeakValueDictionary[int, Slotted] = weakref.WeakValueDictionary()


class InstrumentedAsyncQueue(Instrumented):
    """An instrumented `asyncio.Queue`, `LifoQueue` or `PriorityQueue`.

    The class of the wrapped queue has asyncio's own put and get. The coroutines keep the worker
    that requested them, since `asyncio.wait_for`, `create_task` and `gather` may run them in other
    tasks. Without a wait they do what asyncio's do, without a second coroutine.
    """

    # functions instead of methods: `__getattr__` makes it slow to look up anything in here
    __slots__ = ("get", "put")

    put: Callable[[Any], Coroutine[Any, Any, None]]
    get: Callable[[], Coroutine[Any, Any, Any]]

    def __init__(self, queue: Any, probe: Probe) -> None:
        super().__init__(queue, probe)
        object.__setattr__(self, "put", _async_put(queue, probe))
        object.__setattr__(self, "get", _async_get(queue, probe))

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        worker = requesting_worker()
        _put_now(self._opm_queue.put_nowait, self._opm_probe, item, worker)

    def get_nowait(self) -> Any:
        """Get an item as the wrapped queue does."""
        return _get_now(self._opm_queue.get_nowait, self._opm_probe, requesting_worker())

    @coroutine_function
    def join(self) -> Coroutine[Any, Any, None]:
        """Wait as the wrapped queue does; the time belongs to no stage."""
        return self._opm_join(requesting_worker())

    async def _opm_join(self, worker: Worker | None) -> None:
        try:
            await self._opm_queue.join()
        finally:
            joined(worker)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.get()
        except SHUT_DOWN:
            raise StopAsyncIteration from None


def _async_put(  # noqa: C901 - the hot path
    queue: Any, probe: Probe
) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return the `put` of a stand-in for an asyncio queue."""
    mine, current = worker_of_context.get, series.active_cell.get
    name, sentinel, chores = probe.name, probe.sentinel, probe.chores

    async def run(item: Any, worker: Worker | None, cell: Cell | None) -> None:
        if worker is not None and hooks.tracing is None:
            try:
                queue.put_nowait(item)
            except asyncio.QueueFull:
                # the wait is outside of this block, so that its own error has no context
                pass
            else:
                # `has_put` written out, as `requesting_worker` is below: every item comes here
                if (
                    worker.plain
                    and not worker.stack
                    and (cell is None or cell[4] is None)
                    and item is not sentinel
                ):
                    worker.log.append((probe.at, PUT, name, None, 0.0))
                    if chores:
                        probe.do_chores()
                else:
                    probe.has_put(item, worker)
                return
        producer = probe.producer(item, worker)
        if queue.full():
            with QueueWait(probe, "blocked", worker), Put(probe, item, producer):
                await queue.put(item)
        else:
            with Put(probe, item, producer):
                queue.put_nowait(item)
        if probe.chores:
            probe.do_chores()

    @coroutine_function
    def put(item: Any) -> Coroutine[Any, Any, None]:
        """Put an item as the wrapped queue does."""
        worker, cell = mine(), current()
        if (
            worker is None
            or not worker.plain
            or worker.thread != get_ident()
            or worker.loop is None
            or worker.owner != id(task_of(worker.loop))
            or worker.scope is not (series.default_scope if cell is None else cell[0].scope)
        ):
            worker = requesting_worker()
        return run(item, worker, cell)

    return put


def _async_get(queue: Any, probe: Probe) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Return the `get` of a stand-in for an asyncio queue."""
    mine, current = worker_of_context.get, series.active_cell.get
    name, sentinel, chores = probe.name, probe.sentinel, probe.chores

    async def run(worker: Worker | None) -> Any:
        if probe.linked or worker is None:
            if not queue.empty():
                return _get_now(queue.get_nowait, probe, worker)
        else:
            try:
                item = queue.get_nowait()
            except asyncio.QueueEmpty:
                pass
            else:
                if worker.plain and not worker.stack and item is not sentinel:
                    worker.log.append((probe.at, GOT, name, None, 0.0))
                    if chores:
                        probe.do_chores()
                else:
                    probe.after_get(item, None, worker)
                return item
        with QueueWait(probe, "idle", worker), Got(probe) as got:
            item = await queue.get()
        return probe.after_get(item, got.link, worker)

    @coroutine_function
    def get() -> Coroutine[Any, Any, Any]:
        """Get an item as the wrapped queue does."""
        worker, cell = mine(), current()
        if (
            worker is None
            or not worker.plain
            or worker.thread != get_ident()
            or worker.loop is None
            or worker.owner != id(task_of(worker.loop))
            or worker.scope is not (series.default_scope if cell is None else cell[0].scope)
        ):
            worker = requesting_worker()
        return run(worker)

    return get


def _put_now(
    put: Callable[..., None], probe: Probe, item: Any, worker: Worker | None, *args: Any
) -> None:
    """Put an item without waiting."""
    producer = None if hooks.tracing is None else probe.producer_for(item, worker)
    if producer is None:
        put(item, *args)
    else:
        with Put(probe, item, producer):
            put(item, *args)
    if worker is not None:
        probe.has_put(item, worker)


def _get_now(get: Callable[..., Any], probe: Probe, worker: Worker | None, *args: Any) -> Any:
    """Get an item without waiting."""
    if not probe.linked:
        item = get(*args)
        link = None
    else:
        with Got(probe) as got:
            item = get(*args)
        link = got.link
    if link is None and worker is not None:
        probe.has_got(item, worker)
        return item
    return probe.after_get(item, link, worker)


class BlockingQueue(Instrumented):
    """The base of the stand-ins for queues whose put and get block their thread."""

    __slots__ = ()

    put: Callable[..., None]
    get: Callable[..., Any]

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Get an item as the wrapped queue does."""
        return self.get(False)

    def join(self) -> None:
        """Wait as the wrapped queue does; the time belongs to no stage."""
        try:
            self._opm_queue.join()
        finally:
            joined(None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except SHUT_DOWN:
            raise StopIteration from None


class InstrumentedThreadQueue(BlockingQueue):
    """An instrumented `queue.Queue`, `LifoQueue` or `PriorityQueue`.

    The class of the wrapped queue has the library's own put and get.
    """

    # functions instead of methods, as in `InstrumentedAsyncQueue`
    __slots__ = ("get", "put")

    def __init__(self, queue: Any, probe: Probe) -> None:
        super().__init__(queue, probe)
        object.__setattr__(self, "put", _thread_put(queue, probe))
        object.__setattr__(self, "get", _thread_get(queue, probe))


def _thread_put(queue: Any, probe: Probe) -> Callable[..., None]:
    """Return the `put` of a stand-in for a queue of threads."""

    def put(item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        worker = requesting_worker()
        # for a bad timeout it raises its own error
        waits = block and (timeout is None or may_block(timeout))
        try:
            if worker is None or hooks.tracing is not None:
                _put_now(queue.put, probe, item, worker, block and not waits, timeout)
                return
            queue.put(item, block and not waits, timeout)
        except thread_queue.Full:
            # the wait is outside of this block, so that its own error has no context
            if not waits:
                raise
        else:
            probe.has_put(item, worker)
            return
        with QueueWait(probe, "blocked", worker), Put(probe, item, probe.producer(item, worker)):
            queue.put(item, True, timeout)
        if probe.chores:
            probe.do_chores()

    return put


def _thread_get(queue: Any, probe: Probe) -> Callable[..., Any]:
    """Return the `get` of a stand-in for a queue of threads."""

    def get(block: bool = True, timeout: float | None = None) -> Any:
        """Get an item as the wrapped queue does."""
        worker = requesting_worker()
        waits = block and (timeout is None or may_block(timeout))
        try:
            if worker is None or probe.linked:
                return _get_now(queue.get, probe, worker, block and not waits, timeout)
            item = queue.get(block and not waits, timeout)
        except thread_queue.Empty:
            if not waits:
                raise
        else:
            probe.has_got(item, worker)
            return item
        with QueueWait(probe, "idle", worker), Got(probe) as got:
            item = queue.get(True, timeout)
        return probe.after_get(item, got.link, worker)

    return get

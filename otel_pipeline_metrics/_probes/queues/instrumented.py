"""Stand in for asyncio's and queue's queues, with puts and gets that are measured.

The wrapped queue's own methods never run inside a guard, and the measurements always do: an
internal error neither loses an item nor reaches a put or a get.
"""

from __future__ import annotations

import asyncio
import inspect
import queue as thread_queue
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import errors, hooks
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._probes.queues.probe import (
    Got,
    Probe,
    Put,
    QueueWait,
    joined,
    requesting_worker,
)
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

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
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - the mark before Python 3.12
    return function


class Instrumented:
    """The base of all stand-ins; every other attribute is the wrapped object's.

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

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # a copy has no attributes yet
            raise AttributeError(name)
        return getattr(self._opm_queue, name)

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


def watch(probe: Probe) -> None:
    """Account for workers from now on, and report the queue for as long as it exists."""
    with errors.suppress_errors("instrumenting a queue"):
        accounting.watch()
        sink.add_probe("queues", registry.install_queues)
    registry.register(probe, probe.name)


# By the identity of the wrapped object, which its stand-in keeps alive.
wrapped: weakref.WeakValueDictionary[int, Instrumented] = weakref.WeakValueDictionary()


class InstrumentedAsyncQueue(Instrumented):
    """An instrumented `asyncio.Queue`, `LifoQueue` or `PriorityQueue`.

    The class of the wrapped queue has asyncio's own put and get. The coroutines keep the worker
    that requested them, since `asyncio.wait_for`, `create_task` and `gather` may run them in other
    tasks. Without a wait they do what asyncio's do, without a second coroutine.
    """

    __slots__ = ()

    @coroutine_function
    def put(self, item: Any) -> Coroutine[Any, Any, None]:
        """Put an item as the wrapped queue does."""
        return self._opm_put(item, requesting_worker())

    @coroutine_function
    def get(self) -> Coroutine[Any, Any, Any]:
        """Get an item as the wrapped queue does."""
        return self._opm_get(requesting_worker())

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        self._opm_put_nowait(item, self._opm_probe.producer(item))

    def get_nowait(self) -> Any:
        """Get an item as the wrapped queue does."""
        return self._opm_get_nowait(None)

    @coroutine_function
    def join(self) -> Coroutine[Any, Any, None]:
        """Wait as the wrapped queue does; the time belongs to no stage."""
        return self._opm_join(requesting_worker())

    async def _opm_put(self, item: Any, worker: Worker | None) -> None:
        queue, probe = self._opm_queue, self._opm_probe
        if hooks.tracing is None and worker is not None:
            try:
                queue.put_nowait(item)
            except asyncio.QueueFull:
                pass
            else:
                probe.has_put(item, worker)
                return
        producer = probe.producer(item, worker)
        if not queue.full():
            self._opm_put_nowait(item, producer)
            return
        with QueueWait(probe, "blocked", worker), Put(probe, item, producer):
            await queue.put(item)
        if probe.chores:
            probe.do_chores()

    def _opm_put_nowait(self, item: Any, producer: Any) -> None:
        if producer is None:
            self._opm_queue.put_nowait(item)
        else:
            with Put(self._opm_probe, item, producer):
                self._opm_queue.put_nowait(item)
        if self._opm_probe.chores:
            self._opm_probe.do_chores()

    async def _opm_get(self, worker: Worker | None) -> Any:
        queue, probe = self._opm_queue, self._opm_probe
        if not probe.linked and worker is not None:
            try:
                item = queue.get_nowait()
            except asyncio.QueueEmpty:
                pass
            else:
                probe.has_got(item, worker)
                return item
        elif not queue.empty():
            return self._opm_get_nowait(worker)
        with QueueWait(probe, "idle", worker), Got(probe) as got:
            item = await queue.get()
        return probe.after_get(item, got.link, worker)

    def _opm_get_nowait(self, worker: Worker | None) -> Any:
        probe = self._opm_probe
        if not probe.linked:
            return probe.after_get(self._opm_queue.get_nowait(), None, worker)
        with Got(probe) as got:
            item = self._opm_queue.get_nowait()
        return probe.after_get(item, got.link, worker)

    async def _opm_join(self, worker: Worker | None) -> None:
        try:
            await self._opm_queue.join()
        finally:
            joined(worker)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    @coroutine_function
    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._opm_next(requesting_worker())

    async def _opm_next(self, worker: Worker | None) -> Any:
        try:
            return await self._opm_get(worker)
        except SHUT_DOWN:
            raise StopAsyncIteration from None


class InstrumentedThreadQueue(Instrumented):
    """An instrumented `queue.Queue`, `LifoQueue` or `PriorityQueue`.

    The class of the wrapped queue has the library's own put and get.
    """

    __slots__ = ()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        probe = self._opm_probe
        producer = probe.producer(item)
        if producer is None:
            self._opm_put(item, block, timeout)
        else:
            with Put(probe, item, producer):
                self._opm_put(item, block, timeout)
        if probe.chores:
            probe.do_chores()

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        self.put(item, False)

    def _opm_put(self, item: Any, block: bool, timeout: float | None) -> None:
        put = self._opm_queue.put
        if not block or (timeout is not None and not may_block(timeout)):
            # it does not wait, or raises its own error for a bad timeout
            put(item, block, timeout)
            return
        try:
            put(item, False)
        except thread_queue.Full:
            pass
        else:
            return
        with QueueWait(self._opm_probe, "blocked", None):
            put(item, True, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Get an item as the wrapped queue does."""
        probe, get = self._opm_probe, self._opm_queue.get
        if not block or (timeout is not None and not may_block(timeout)):
            with Got(probe) as got:
                item = get(block, timeout)
            return probe.after_get(item, got.link)
        try:
            if probe.linked:
                with Got(probe) as got:
                    item = get(False)
                link = got.link
            else:
                item, link = get(False), None
        except thread_queue.Empty:
            pass
        else:
            return probe.after_get(item, link)
        with QueueWait(probe, "idle", None), Got(probe) as got:
            item = get(True, timeout)
        return probe.after_get(item, got.link)

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


def get_or_wait(queue: Any, probe: Probe, block: bool, timeout: float | None) -> Any:
    """Return an item of a thread or process queue; count a wait if the queue is empty."""
    if not block or not may_block(timeout):
        return queue.get(block, timeout)
    try:
        return queue.get(False)
    except thread_queue.Empty:
        # the wait is outside of this block, so that its own error has no context
        pass
    with QueueWait(probe, "idle", None):
        return queue.get(True, timeout)


def may_block(timeout: Any) -> bool:
    """Tell whether a get or put with this timeout may wait and raises no error for it."""
    try:
        return timeout is None or bool(timeout >= 0)
    except TypeError:
        return False

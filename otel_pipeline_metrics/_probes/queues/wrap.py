"""Instrument asyncio, thread and process queues with `wrap_queue`."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing.queues
import queue as thread_queue
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import cardinality, errors
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.queues.instrumented import (
    Envelope,
    InstrumentedQueue,
    QueueWait,
    wrapped,
)
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from otel_pipeline_metrics._core.series import QueueSeries
    from otel_pipeline_metrics._stages.workers.worker import Worker


F = TypeVar("F", bound="Callable[..., Any]")
Q = TypeVar("Q")

# The exceptions of a queue that is shut down exist since Python 3.13.
_SHUT_DOWN = (
    getattr(asyncio, "QueueShutDown", asyncio.QueueEmpty),
    getattr(thread_queue, "ShutDown", thread_queue.Empty),
)


def _coroutine_function(function: F) -> F:
    """Mark a function that returns a coroutine as a coroutine function."""
    if hasattr(inspect, "markcoroutinefunction"):
        marked: F = inspect.markcoroutinefunction(function)
        return marked
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - the mark before Python 3.12
    return function


def requesting_worker() -> Worker | None:
    """Return the current worker, for a coroutine that another task may run."""
    try:
        accounting.watch()
        return accounting.current_worker(waits=True)
    except Exception:  # the user's call of the queue goes on
        errors.log_internal_error("asking a queue")
        return None


class InstrumentedAsyncQueue(InstrumentedQueue):
    """An instrumented `asyncio.Queue`, `LifoQueue` or `PriorityQueue`.

    Its coroutines keep the worker that requested them, since `asyncio.wait_for`, `create_task`
    and `gather` may run them in other tasks.
    """

    @_coroutine_function
    def put(self, item: Any) -> Coroutine[Any, Any, None]:
        """Put an item as the wrapped queue does."""
        return self._put(item, requesting_worker())

    @_coroutine_function
    def get(self) -> Coroutine[Any, Any, Any]:
        """Get an item as the wrapped queue does."""
        return self._get(requesting_worker())

    @_coroutine_function
    def join(self) -> Coroutine[Any, Any, None]:
        """Wait as the wrapped queue does; the time belongs to no stage."""
        return self._join(requesting_worker())

    async def _put(self, item: Any, worker: Worker | None) -> None:
        envelope, series = self._before_put(item, worker)
        if self._queue.full():
            with QueueWait(self._name, "blocked", worker):
                await self._queue.put(envelope)
        else:
            await self._queue.put(envelope)
        self._after_put(envelope, series)

    async def _get(self, worker: Worker | None) -> Any:
        if not self._queue.empty():
            return self._after_get(await self._queue.get(), worker)
        with QueueWait(self._name, "idle", worker):
            envelope = await self._queue.get()
        return self._after_get(envelope, worker)

    async def _join(self, worker: Worker | None) -> None:
        try:
            await self._queue.join()
        finally:
            _joined(worker)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    @_coroutine_function
    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._next(requesting_worker())

    async def _next(self, worker: Worker | None) -> Any:
        try:
            return await self._get(worker)
        except _SHUT_DOWN:
            raise StopAsyncIteration from None


class InstrumentedThreadQueue(InstrumentedQueue):
    """An instrumented `queue.Queue`, `LifoQueue`, `PriorityQueue` or `SimpleQueue`."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        envelope, series = self._before_put(item)
        if not block or not may_block(timeout):
            # it does not wait, or raises its own error for a bad timeout
            self._queue.put(envelope, block, timeout)
        elif not self.try_put(envelope):
            with QueueWait(self._name, "blocked", None):
                self._queue.put(envelope, True, timeout)
        self._after_put(envelope, series)

    def try_put(self, envelope: Envelope) -> bool:
        try:
            self._queue.put(envelope, False)
        except thread_queue.Full:
            return False
        return True

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Get an item as the wrapped queue does."""
        if not block or not may_block(timeout):
            return self._after_get(self._queue.get(block, timeout))
        try:
            envelope = self._queue.get(False)
        except thread_queue.Empty:
            pass
        else:
            return self._after_get(envelope)
        with QueueWait(self._name, "idle", None):
            envelope = self._queue.get(True, timeout)
        return self._after_get(envelope)

    def join(self) -> None:
        """Wait as the wrapped queue does; the time belongs to no stage."""
        try:
            self._queue.join()
        finally:
            _joined(None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except _SHUT_DOWN:
            raise StopIteration from None


class InstrumentedProcessQueue(InstrumentedThreadQueue):
    """An instrumented multiprocessing `Queue` or `JoinableQueue`.

    A feeder thread pickles each item once it is in the queue; an item's time begins then.
    `clock.now()` is one clock for all processes of a machine.
    """

    def capacity(self) -> int | None:
        """Return the maximum number of items; None if it is unbounded."""
        bound = int(getattr(self._queue, "_maxsize", SEM_VALUE_MAX))  # there is no public attribute
        # an unbounded queue has the platform's largest semaphore as its bound
        return None if bound == SEM_VALUE_MAX else bound

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        super().put(obj, block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """Put an item as the wrapped queue does."""
        self.put(obj, False)

    def _before_put(
        self, item: Any, worker: Worker | None = None
    ) -> tuple[Envelope, QueueSeries | None]:
        envelope, series = super()._before_put(item, worker)
        envelope.put_at = None
        return envelope, series

    def _after_put(self, envelope: Envelope, series: QueueSeries | None) -> None:
        envelope.stamp()
        super()._after_put(envelope, series)


def may_block(timeout: Any) -> bool:
    """Tell whether a get or put with this timeout may wait and raises no error for it."""
    try:
        return timeout is None or bool(timeout >= 0)
    except TypeError:
        return False


def _joined(worker: Worker | None) -> None:
    try:
        accounting.on_join(worker)
    except Exception:  # the join has ended all the same
        errors.log_internal_error("joining a queue")


def wrap_queue(queue: Q, *, name: str) -> Q:
    """Return an instrumented queue with the interface and order of `queue`.

    Takes asyncio's and queue's `Queue`, `LifoQueue` and `PriorityQueue`, `SimpleQueue`, and
    multiprocessing's `Queue` and `JoinableQueue`. Use the returned object on both sides; an item
    that is put into the wrapped queue directly comes out unchanged, without a time.

    Args:
        queue: the queue to instrument.
        name: `pipeline.queue.name`, up to 128 characters. Queues of one name are reported
            together.

    Raises:
        TypeError: `queue` is of another kind, or instrumented already.
        ValueError: `name` is empty or too long.
    """
    distinct = cardinality.instrument_names.name("queue names", check_name(name, "name"))
    instrumented: Any = _instrumented(queue, distinct)
    result: Q = instrumented
    return result


def _instrumented(queue: Any, name: str) -> InstrumentedQueue:
    if issubclass(type(queue), InstrumentedQueue) or id(queue) in wrapped:
        raise TypeError(f"queue is instrumented already: {queue!r}")
    if isinstance(queue, asyncio.Queue):
        return InstrumentedAsyncQueue(queue, name)
    if isinstance(queue, (thread_queue.Queue, thread_queue.SimpleQueue)):
        return InstrumentedThreadQueue(queue, name)
    if isinstance(queue, multiprocessing.queues.Queue):
        return InstrumentedProcessQueue(queue, name)
    raise TypeError(
        "queue must be an asyncio, queue or multiprocessing queue, "
        f"not {type(queue).__module__}.{type(queue).__qualname__}"
    )

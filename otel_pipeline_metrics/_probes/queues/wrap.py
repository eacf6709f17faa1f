"""`wrap_queue`: instrument asyncio, thread and process queues."""

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
    _wrapped,
)
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from otel_pipeline_metrics._core.series import QueueSeries
    from otel_pipeline_metrics._stages.workers.worker import Worker


F = TypeVar("F", bound="Callable[..., Any]")
Q = TypeVar("Q")

# asyncio's and queue's exception of a queue that is shut down, which Python 3.13 brought
_SHUT_DOWN = (
    getattr(asyncio, "QueueShutDown", asyncio.QueueEmpty),
    getattr(thread_queue, "ShutDown", thread_queue.Empty),
)


def _coroutine_function(function: F) -> F:
    """Mark a function that returns a coroutine as what it stands for."""
    if hasattr(inspect, "markcoroutinefunction"):
        marked: F = inspect.markcoroutinefunction(function)
        return marked
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - the mark before Python 3.12
    return function


def requesting_worker() -> Worker | None:
    """Return the worker here, for a coroutine that another task may run."""
    try:
        accounting.watch()
        return accounting.current_worker(waits=True)
    except Exception:  # a fault of ours must not keep anyone from a queue
        errors.log_internal_error("asking a queue")
        return None


class InstrumentedAsyncQueue(InstrumentedQueue):
    """For `asyncio.Queue`, `LifoQueue` and `PriorityQueue`.

    Its coroutines know the worker that asked for them: `asyncio.wait_for`, `create_task` and
    `gather` may run them in tasks of their own.
    """

    @_coroutine_function
    def put(self, item: Any) -> Coroutine[Any, Any, None]:
        """As the wrapped queue's."""
        return self._put(item, requesting_worker())

    @_coroutine_function
    def get(self) -> Coroutine[Any, Any, Any]:
        """As the wrapped queue's."""
        return self._get(requesting_worker())

    @_coroutine_function
    def join(self) -> Coroutine[Any, Any, None]:
        """As the wrapped queue's; the time is no stage's."""
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
    """For `queue.Queue`, `LifoQueue`, `PriorityQueue` and `SimpleQueue`."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        if not block or not may_block(timeout):
            # it does not wait, and has its own words for a timeout that is none
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
        """As the wrapped queue's."""
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
        """As the wrapped queue's; the time is no stage's."""
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
    """For multiprocessing's `Queue` and `JoinableQueue`.

    A feeder thread pickles each item once it is in, so that is when its time in the queue
    begins. `clock.now()` is one clock for all processes of a machine.
    """

    def capacity(self) -> int | None:
        """Return how many items it holds at most; None if that is unbounded."""
        bound = int(getattr(self._queue, "_maxsize", SEM_VALUE_MAX))  # no public way to tell
        # an unbounded one is bounded by the platform's largest semaphore
        return None if bound == SEM_VALUE_MAX else bound

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the wrapped queue's."""
        super().put(obj, block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """As the wrapped queue's."""
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
    """Tell whether a get or put with this timeout may wait, and is not refused."""
    try:
        return timeout is None or bool(timeout >= 0)
    except TypeError:
        return False


def _joined(worker: Worker | None) -> None:
    try:
        accounting.on_join(worker)
    except Exception:  # the queue is joined, whatever we make of it
        errors.log_internal_error("joining a queue")


def wrap_queue(queue: Q, *, name: str) -> Q:
    """Return `queue` instrumented, with its whole interface and order.

    Takes asyncio's and queue's `Queue`, `LifoQueue` and `PriorityQueue`, `SimpleQueue`, and
    multiprocessing's `Queue` and `JoinableQueue`. Use the returned object on both sides; what
    is put into the wrapped queue itself is handed out as it is, without a time.

    Args:
        queue: to be instrumented.
        name: `pipeline.queue.name`, up to 128 characters. Queues of one name are reported
            together.

    Raises:
        TypeError: `queue` is of another kind, or instrumented already.
        ValueError: `name` is empty or too long.
    """
    distinct = cardinality.instrument_names.name("queue names", check_name(name, "name"))
    wrapped: Any = _instrumented(queue, distinct)
    result: Q = wrapped
    return result


def _instrumented(queue: Any, name: str) -> InstrumentedQueue:
    if issubclass(type(queue), InstrumentedQueue) or id(queue) in _wrapped:
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

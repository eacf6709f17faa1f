"""Instrumented queues: depth, capacity, time in the queue, time blocked in a put.

A wrapped queue stands in for the one it wraps. Every item travels in an envelope that tells
when it was put and by whose span, so that time in the queue is exact in any order (FIFO, LIFO,
priority) and the stage that takes the item can link to the one that made it.
"""

from __future__ import annotations

import asyncio
import multiprocessing.queues
import queue as thread_queue
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics import _clock, _guard, _series, _workers
from otel_pipeline_metrics._model import check_name
from otel_pipeline_metrics._probes import queues
from otel_pipeline_metrics._waiting import waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from otel_pipeline_metrics._series import QueueSeries

Q = TypeVar("Q")

# asyncio's and queue's exception of a queue that is shut down, which Python 3.13 brought
_SHUT_DOWN = (
    getattr(asyncio, "QueueShutDown", asyncio.QueueEmpty),
    getattr(thread_queue, "ShutDown", thread_queue.Empty),
)


class Envelope:
    """An item under way. Compares as its item does, for the sake of priority queues."""

    __slots__ = ("item", "producer", "put_at")

    def __init__(self, item: Any, put_at: float, producer: Any) -> None:
        self.item = item
        self.put_at = put_at
        self.producer = producer
        """The span context of the stage that put it, or None."""

    def __lt__(self, other: Any) -> bool:
        return bool(self.item < (other.item if isinstance(other, Envelope) else other))

    def __gt__(self, other: Any) -> bool:
        return bool(self.item > (other.item if isinstance(other, Envelope) else other))


class InstrumentedQueue:
    """What all kinds have in common; what is not here is the wrapped queue's own."""

    def __init__(self, queue: Any, name: str) -> None:
        self._queue = queue
        self._name = name
        _stamp_at_insertion(queue)
        queues.register(self, name)

    @property  # type: ignore[misc]  # isinstance(q, asyncio.Queue) is to stay true
    def __class__(self) -> type:
        return type(self._queue)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def __repr__(self) -> str:
        return f"<instrumented {self._name!r} {self._queue!r}>"

    def depth(self) -> int | None:
        """Return how many items are in it; None where the platform cannot tell."""
        try:
            return int(self._queue.qsize())
        except (NotImplementedError, OSError, ValueError):
            return None  # multiprocessing's on macOS, or a closed one

    def capacity(self) -> int | None:
        """Return how many items it holds at most; None if that is unbounded."""
        inner: Any = self._queue
        if isinstance(inner, multiprocessing.queues.Queue):
            bound = int(getattr(inner, "_maxsize", SEM_VALUE_MAX))  # no public way to tell
            # an unbounded one is bounded by the platform's largest semaphore
            return None if bound == SEM_VALUE_MAX else bound
        return int(getattr(inner, "maxsize", 0)) or None

    def put_nowait(self, item: Any) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        self._queue.put_nowait(envelope)
        self._after_put(series)

    def get_nowait(self) -> Any:
        """As the wrapped queue's."""
        return self._after_get(self._queue.get_nowait())

    def _before_put(self, item: Any) -> tuple[Envelope, QueueSeries]:
        _workers.watch()
        series = _series.current_scope().add_queue(self._name)
        producer = None
        try:
            producer = _producer(series)
        except Exception:  # noqa: BLE001 - the item goes its way without its producer
            _guard.fault("putting into a queue")
        return Envelope(item, _clock.now(), producer), series

    def _after_put(self, series: QueueSeries) -> None:
        try:
            series.put += 1
            series.depth_peak = max(series.depth_peak, self.depth() or 0)
        except Exception:  # noqa: BLE001 - the item is in, whatever we make of it
            _guard.fault("after putting into a queue")

    def _after_get(self, envelope: Any) -> Any:
        if not isinstance(envelope, Envelope):
            return envelope  # put into the wrapped queue itself
        try:
            scope = _series.current_scope()
            series = scope.add_queue(self._name)
            series.got += 1
            waited = max(0.0, _clock.now() - envelope.put_at)
            series.waits.append(waited)
            _taken(self._name, series, envelope, waited)
            if len(series.waits) >= _series.PENDING_BOUND:
                _series.drain_queue(scope, series)
        except Exception:  # noqa: BLE001 - the item is the user's, whatever we make of it
            _guard.fault("getting from a queue")
        return envelope.item


class InstrumentedAsyncQueue(InstrumentedQueue):
    """For `asyncio.Queue`, `LifoQueue` and `PriorityQueue`."""

    async def put(self, item: Any) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        if self._queue.full():
            with waiting("blocked") as wait:
                try:
                    await self._queue.put(envelope)
                finally:
                    series.blocked += _clock.now() - wait.began
        else:
            await self._queue.put(envelope)
        self._after_put(series)

    async def get(self) -> Any:
        """As the wrapped queue's."""
        _workers.watch()
        if not self._queue.empty():
            return self._after_get(await self._queue.get())
        series = _series.current_scope().add_queue(self._name)
        with waiting("idle") as wait:
            try:
                envelope = await self._queue.get()
            finally:
                series.idle += _clock.now() - wait.began
        return self._after_get(envelope)

    async def join(self) -> None:
        """As the wrapped queue's; the time is no stage's."""
        try:
            await self._queue.join()
        finally:
            _workers.skip()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.get()
        except _SHUT_DOWN:
            raise StopAsyncIteration from None


class InstrumentedThreadQueue(InstrumentedQueue):
    """For `queue.Queue`, `LifoQueue`, `PriorityQueue`, `SimpleQueue` and multiprocessing's."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        try:
            self._queue.put(envelope, False)
        except thread_queue.Full:
            if not block:
                raise
            with waiting("blocked") as wait:
                try:
                    self._queue.put(envelope, True, timeout)
                finally:
                    series.blocked += _clock.now() - wait.began
        self._after_put(series)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As the wrapped queue's."""
        _workers.watch()
        try:
            return self._after_get(self._queue.get(False))
        except thread_queue.Empty:
            if not block:
                raise
        series = _series.current_scope().add_queue(self._name)
        with waiting("idle") as wait:
            try:
                envelope = self._queue.get(True, timeout)
            finally:
                series.idle += _clock.now() - wait.began
        return self._after_get(envelope)

    def join(self) -> None:
        """As the wrapped queue's; the time is no stage's."""
        try:
            self._queue.join()
        finally:
            _workers.skip()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except _SHUT_DOWN:
            raise StopIteration from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process, which a multiprocessing queue alone can."""
        return _instrumented, (self._queue, self._name)


def wrap_queue(queue: Q, *, name: str) -> Q:
    """Return `queue` instrumented, with its whole interface and order.

    Takes asyncio's and queue's `Queue`, `LifoQueue` and `PriorityQueue`, `SimpleQueue`, and
    multiprocessing's `Queue`. Use the returned object on both sides; what is put into the
    wrapped queue itself is handed out as it is, without a time.

    Args:
        queue: to be instrumented.
        name: `pipeline.queue.name`, up to 128 characters. Queues of one name are reported
            together.

    Raises:
        TypeError: `queue` is of another kind, or instrumented already.
        ValueError: `name` is empty or too long.
    """
    wrapped: Any = _instrumented(queue, check_name(name, "name"))
    result: Q = wrapped
    return result


def _instrumented(queue: Any, name: str) -> InstrumentedQueue:
    if issubclass(type(queue), InstrumentedQueue):
        raise TypeError(f"queue is instrumented already: {queue!r}")
    _workers.watch()
    if isinstance(queue, asyncio.Queue):
        return InstrumentedAsyncQueue(queue, name)
    kinds = (thread_queue.Queue, thread_queue.SimpleQueue, multiprocessing.queues.Queue)
    if isinstance(queue, kinds):
        return InstrumentedThreadQueue(queue, name)
    raise TypeError(
        "queue must be an asyncio, queue or multiprocessing queue, "
        f"not {type(queue).__module__}.{type(queue).__qualname__}"
    )


def _stamp_at_insertion(queue: Any) -> None:
    """Let an item's time in the queue begin when a blocked put gets it in.

    `_put` is what asyncio's and queue's queues offer to subclasses for just that moment.
    """
    insert = getattr(queue, "_put", None)
    if not callable(insert):
        return

    def stamped(envelope: Any) -> None:
        if isinstance(envelope, Envelope):
            envelope.put_at = _clock.now()
        insert(envelope)

    queue._put = stamped  # noqa: SLF001 - as said


def _producer(series: QueueSeries) -> Any:
    """Note the stage that puts; return its span's context."""
    worker = _workers.here()
    worker.at_queue()
    execution = _series.executing()
    if execution is not None and execution.worker is worker:
        if execution.series is not None:
            series.producers[execution.series.key.stage] = None
        return None if execution.span is None else execution.span.get_span_context()
    if worker.stage is not None:
        series.producers[worker.stage.key.stage] = None
    return worker.context


def _taken(name: str, series: QueueSeries, envelope: Envelope, waited: float) -> None:
    """Note the stage that gets, or let the one that the worker enters next be noted."""
    worker = _workers.here()
    worker.at_queue()
    link = None
    if envelope.producer is not None and envelope.producer.is_valid:
        link = (envelope.producer, name, waited)
    execution = _series.executing()
    if execution is not None and execution.worker is worker:
        if execution.series is not None:
            series.consumers[execution.series.key.stage] = None
        if link is not None:
            execution.link(link)
        return
    worker.got_from[name] = series
    if link is not None:
        worker.add_link(link)

"""Instrumented queues: depth, capacity, time in the queue, time blocked in a put.

A wrapped queue stands in for the one it wraps. Every item travels in an envelope that tells
when it was put and by whose span, so that time in the queue is exact in any order (FIFO, LIFO,
priority) and the stage that takes the item can link to the one that made it.

What the wrapped queue does never runs inside a guard, and what we do beside it always does: no
fault of ours loses an item or reaches a put or a get.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing.queues
import queue as thread_queue
import weakref
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import cardinality, clock, drain, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.records import check_name
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._probes.resources.instruments import install_queues
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._stages.workers import worker as _worker
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType

    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._core.series import QueueSeries
    from otel_pipeline_metrics._stages.workers.worker import Wait, Worker


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


class Envelope:
    """An item under way. Compares and hashes as its item does, for the sake of the queue."""

    __slots__ = ("item", "producer", "put_at")

    def __init__(self, item: Any, put_at: float | None = None, producer: Any = None) -> None:
        self.item = item
        self.put_at = put_at
        """None while that is not known."""
        self.producer = producer
        """The span context of the stage that put it, or None."""

    def __lt__(self, other: Any) -> bool:
        return bool(self.item < (other.item if isinstance(other, Envelope) else other))

    def __gt__(self, other: Any) -> bool:
        return bool(self.item > (other.item if isinstance(other, Envelope) else other))

    def __eq__(self, other: object) -> bool:
        return bool(self.item == (other.item if isinstance(other, Envelope) else other))

    def __hash__(self) -> int:
        return hash(self.item)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process: a multiprocessing queue does so once the item is in."""
        self.stamp()
        return Envelope, (self.item, self.put_at, self.producer)

    def stamp(self) -> None:
        """Say that it is in the queue, unless that was said before. Never raises."""
        if self.put_at is None:
            try:
                self.put_at = clock.now()
            except Exception:  # noqa: BLE001 - the item goes its way without its time
                errors.fault("the time of a put")


class _Wait:
    """`with`: the worker here, or the one that asked, waits at a queue."""

    __slots__ = ("_began", "_name", "_series", "_state", "_wait", "_worker")

    def __init__(self, name: str, state: WaitState, worker: Worker | None) -> None:
        self._name = name
        self._state: WaitState = state
        self._worker = worker
        self._wait: Wait | None = None

    def __enter__(self) -> None:
        """Begin to wait. Never raises."""
        try:
            self._series = _series.current_scope().add_queue(self._name)
            self._began = clock.now()
            worker = self._worker or _worker.here(waits=True)
            self._wait = accounting.begin_wait(worker, self._state, self._began)
        except Exception:  # noqa: BLE001 - a fault of ours must not keep anyone waiting
            errors.fault("beginning to wait at a queue")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop waiting. Never raises."""
        if self._wait is None:
            return
        try:
            now = clock.now()
            seconds = now - self._began
            accounting.end_wait(self._wait, now)
            # counted without a call in between: threads share these
            if self._state == "idle":
                self._series.idle += seconds
            else:
                self._series.blocked += seconds
                accounting.has_put(self._wait.worker)
        except Exception:  # noqa: BLE001 - as above
            errors.fault("ending to wait at a queue")


def _asking() -> Worker | None:
    """Return the worker here, for a coroutine that another task may run."""
    try:
        accounting.watch()
        return _worker.here(waits=True)
    except Exception:  # noqa: BLE001 - a fault of ours must not keep anyone from a queue
        errors.fault("asking a queue")
        return None


class InstrumentedQueue:
    """What all kinds have in common; what is not here is the wrapped queue's own."""

    def __init__(self, queue: Any, name: str) -> None:
        self._queue = queue
        self._name = name
        _stamp_at_insertion(queue)
        _wrapped[id(queue)] = self
        registry.register(self, name)

    @property  # type: ignore[misc]  # isinstance(q, asyncio.Queue) is to stay true
    def __class__(self) -> type:
        return type(self._queue)

    def __getattr__(self, name: str) -> Any:
        if name == "_queue":  # not set yet: a copy in the making
            raise AttributeError(name)
        return getattr(self._queue, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process, if the wrapped queue does."""
        return _instrumented, (self._queue, self._name)

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
        return max(0, int(getattr(self._queue, "maxsize", 0))) or None

    def put_nowait(self, item: Any) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        self._queue.put_nowait(envelope)
        self._after_put(envelope, series)

    def get_nowait(self) -> Any:
        """As the wrapped queue's."""
        return self._after_get(self._queue.get_nowait())

    def _before_put(
        self, item: Any, worker: Worker | None = None
    ) -> tuple[Envelope, QueueSeries | None]:
        envelope, series = Envelope(item), None
        try:
            accounting.watch()
            envelope.put_at = now = clock.now()
            series = _series.current_scope().add_queue(self._name)
            envelope.producer = accounting.putting(series, now, worker)
        except Exception:  # noqa: BLE001 - the item goes its way without its producer
            errors.fault("putting into a queue")
        return envelope, series

    def _after_put(self, envelope: Envelope, series: QueueSeries | None) -> None:
        if series is None:
            return
        try:
            series.put += 1
            series.last_put = envelope.put_at
            if series.first_put is None:
                series.first_put = envelope.put_at
            depth = self.depth() or 0
            series.depth_peak = max(series.depth_peak, depth)
        except Exception:  # noqa: BLE001 - the item is in, whatever we make of it
            errors.fault("after putting into a queue")

    def _after_get(self, envelope: Any, worker: Worker | None = None) -> Any:
        if not isinstance(envelope, Envelope):
            return envelope  # put into the wrapped queue itself
        try:
            accounting.watch()
            scope = _series.current_scope()
            series = scope.add_queue(self._name)
            series.got += 1
            now, link, producer = clock.now(), None, envelope.producer
            if envelope.put_at is not None:
                waited = max(0.0, now - envelope.put_at)
                series.waits.append(waited)
                if producer is not None and producer.is_valid:
                    link = (producer, self._name, waited)
            accounting.got(series, link, now, worker)
            if len(series.waits) >= drain.PENDING_BOUND:
                drain.drain_queue(scope, series)
        except Exception:  # noqa: BLE001 - the item is the user's, whatever we make of it
            errors.fault("getting from a queue")
        return envelope.item


class InstrumentedAsyncQueue(InstrumentedQueue):
    """For `asyncio.Queue`, `LifoQueue` and `PriorityQueue`.

    Its coroutines know the worker that asked for them: `asyncio.wait_for`, `create_task` and
    `gather` may run them in tasks of their own.
    """

    @_coroutine_function
    def put(self, item: Any) -> Coroutine[Any, Any, None]:
        """As the wrapped queue's."""
        return self._let_in(item, _asking())

    @_coroutine_function
    def get(self) -> Coroutine[Any, Any, Any]:
        """As the wrapped queue's."""
        return self._let_out(_asking())

    @_coroutine_function
    def join(self) -> Coroutine[Any, Any, None]:
        """As the wrapped queue's; the time is no stage's."""
        return self._empty_out(_asking())

    async def _let_in(self, item: Any, worker: Worker | None) -> None:
        envelope, series = self._before_put(item, worker)
        if self._queue.full():
            with _Wait(self._name, "blocked", worker):
                await self._queue.put(envelope)
        else:
            await self._queue.put(envelope)
        self._after_put(envelope, series)

    async def _let_out(self, worker: Worker | None) -> Any:
        if not self._queue.empty():
            return self._after_get(await self._queue.get(), worker)
        with _Wait(self._name, "idle", worker):
            envelope = await self._queue.get()
        return self._after_get(envelope, worker)

    async def _empty_out(self, worker: Worker | None) -> None:
        try:
            await self._queue.join()
        finally:
            _joined(worker)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    @_coroutine_function
    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._next(_asking())

    async def _next(self, worker: Worker | None) -> Any:
        try:
            return await self._let_out(worker)
        except _SHUT_DOWN:
            raise StopAsyncIteration from None


class InstrumentedThreadQueue(InstrumentedQueue):
    """For `queue.Queue`, `LifoQueue`, `PriorityQueue` and `SimpleQueue`."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the wrapped queue's."""
        envelope, series = self._before_put(item)
        if not block or not _is_patience(timeout):
            # it does not wait, and has its own words for a timeout that is none
            self._queue.put(envelope, block, timeout)
        elif not self._has_put(envelope):
            with _Wait(self._name, "blocked", None):
                self._queue.put(envelope, True, timeout)
        self._after_put(envelope, series)

    def _has_put(self, envelope: Envelope) -> bool:
        try:
            self._queue.put(envelope, False)
        except thread_queue.Full:
            return False
        return True

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As the wrapped queue's."""
        if not block or not _is_patience(timeout):
            return self._after_get(self._queue.get(block, timeout))
        try:
            envelope = self._queue.get(False)
        except thread_queue.Empty:
            pass
        else:
            return self._after_get(envelope)
        with _Wait(self._name, "idle", None):
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
    begins. `_clock.now()` is one clock for all processes of a machine.
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


_wrapped: weakref.WeakValueDictionary[int, InstrumentedQueue] = weakref.WeakValueDictionary()
"""By the identity of the wrapped queue, which its instrumented one keeps alive."""


def _is_patience(timeout: Any) -> bool:
    """Tell whether a get or put with this timeout may wait, and is not refused."""
    try:
        return timeout is None or bool(timeout >= 0)
    except TypeError:
        return False


def _joined(worker: Worker | None) -> None:
    try:
        accounting.skip(worker)
    except Exception:  # noqa: BLE001 - the queue is joined, whatever we make of it
        errors.fault("joining a queue")


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
    distinct = cardinality.names.name("queue names", check_name(name, "name"))
    wrapped: Any = _instrumented(queue, distinct)
    result: Q = wrapped
    return result


def _instrumented(queue: Any, name: str) -> InstrumentedQueue:
    if issubclass(type(queue), InstrumentedQueue) or id(queue) in _wrapped:
        raise TypeError(f"queue is instrumented already: {queue!r}")
    with errors.guarded("instrumenting a queue"):
        accounting.watch()
        sink.add_probe("queues", install_queues)
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


class _Stamp:
    """Lets an item's time in the queue begin when it gets in, as after a blocked put.

    It stands for `_put`, which asyncio's and queue's queues offer to subclasses for just that
    moment.
    """

    __slots__ = ("_insert", "_queue")

    def __init__(self, queue: Any) -> None:
        own = vars(queue).get("_put")
        self._insert = own or type(queue)._put  # noqa: SLF001 - as said
        # weakly: the queue has us, and shall not have to wait for the garbage collector
        self._queue = weakref.ref(queue) if own is None else None

    def __call__(self, item: Any) -> None:
        if isinstance(item, Envelope):
            item.put_at = None
            item.stamp()
        if self._queue is None:
            self._insert(item)
        else:
            self._insert(self._queue(), item)


def _stamp_at_insertion(queue: Any) -> None:
    if callable(getattr(queue, "_put", None)) and not isinstance(queue._put, _Stamp):  # noqa: SLF001
        queue._put = _Stamp(queue)  # noqa: SLF001 - see `_Stamp`

"""Measure depth, capacity, time in the queue and time blocked in a put.

Every item travels in an envelope with the time of its put and the span that put it. So the time
in the queue is exact in any order (FIFO, LIFO, priority), and the stage that takes the item can
link to the stage that made it.

The wrapped queue's own methods never run inside a guard, and the measurements always do: an
internal error neither loses an item nor reaches a put or a get.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, drain, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from types import TracebackType

    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._core.series import QueueSeries
    from otel_pipeline_metrics._stages.workers.worker import OpenWait, Worker


class Envelope:
    """An item in a queue; it compares and hashes like its item."""

    __slots__ = ("item", "producer", "put_at")

    def __init__(self, item: Any, put_at: float | None = None, producer: Any = None) -> None:
        self.item = item
        # None until the item is in the queue
        self.put_at = put_at
        # the span context of the stage that put it, or None
        self.producer = producer

    def __lt__(self, other: Any) -> bool:
        return bool(self.item < (other.item if isinstance(other, Envelope) else other))

    def __gt__(self, other: Any) -> bool:
        return bool(self.item > (other.item if isinstance(other, Envelope) else other))

    def __eq__(self, other: object) -> bool:
        return bool(self.item == (other.item if isinstance(other, Envelope) else other))

    def __hash__(self) -> int:
        return hash(self.item)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process; a multiprocessing queue does so once the item is in."""
        self.stamp()
        return Envelope, (self.item, self.put_at, self.producer)

    def stamp(self) -> None:
        """Set the time of the put, unless it is set already. Never raises."""
        if self.put_at is None:
            try:
                self.put_at = clock.now()
            except Exception:  # the item goes on without its time
                errors.log_internal_error("the time of a put")


class QueueWait:
    """A `with` block in which the given or the current worker waits at a queue."""

    __slots__ = ("_began", "_name", "_series", "_state", "_wait", "_worker")

    def __init__(self, name: str, state: WaitState, worker: Worker | None) -> None:
        self._name = name
        self._state: WaitState = state
        self._worker = worker
        self._wait: OpenWait | None = None

    def __enter__(self) -> None:
        """Begin the wait. Never raises."""
        try:
            self._series = _series.current_scope().add_queue(self._name)
            self._began = clock.now()
            worker = self._worker or accounting.current_worker(waits=True)
            self._wait = accounting.begin_wait(worker, self._state, self._began)
        except Exception:  # the user's put or get goes on
            errors.log_internal_error("beginning to wait at a queue")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the wait. Never raises."""
        if self._wait is None:
            return
        try:
            now = clock.now()
            seconds = now - self._began
            accounting.end_wait(self._wait, now)
            # threads share these, so there is no call between reading and writing them
            if self._state == "idle":
                self._series.idle += seconds
            else:
                self._series.blocked += seconds
                accounting.after_put(self._wait.worker)
        except Exception:
            errors.log_internal_error("ending to wait at a queue")


class InstrumentedQueue:
    """The base of all kinds; every other attribute is the wrapped queue's."""

    def __init__(self, queue: Any, name: str) -> None:
        self._queue = queue
        self._name = name
        with errors.suppress_errors("instrumenting a queue"):
            accounting.watch()
            sink.add_probe("queues", registry.install_queues)
        _stamp_at_insertion(queue)
        wrapped[id(queue)] = self
        registry.register(self, name)

    @property  # type: ignore[misc]  # isinstance(q, asyncio.Queue) must stay true
    def __class__(self) -> type:
        return type(self._queue)

    def __getattr__(self, name: str) -> Any:
        if name == "_queue":  # a copy has no attributes yet
            raise AttributeError(name)
        return getattr(self._queue, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process, if the wrapped queue does."""
        return type(self), (self._queue, self._name)

    def __repr__(self) -> str:
        return f"<instrumented {self._name!r} {self._queue!r}>"

    def depth(self) -> int | None:
        """Return the number of items; None if the platform does not tell."""
        try:
            return int(self._queue.qsize())
        except (NotImplementedError, OSError, ValueError):
            return None  # multiprocessing's queue on macOS, or a closed queue

    def capacity(self) -> int | None:
        """Return the maximum number of items; None if it is unbounded."""
        return max(0, int(getattr(self._queue, "maxsize", 0))) or None

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        envelope, series = self._before_put(item)
        self._queue.put_nowait(envelope)
        self._after_put(envelope, series)

    def get_nowait(self) -> Any:
        """Get an item as the wrapped queue does."""
        return self._after_get(self._queue.get_nowait())

    def _before_put(
        self, item: Any, worker: Worker | None = None
    ) -> tuple[Envelope, QueueSeries | None]:
        envelope, series = Envelope(item), None
        try:
            accounting.watch()
            envelope.put_at = now = clock.now()
            series = _series.current_scope().add_queue(self._name)
            envelope.producer = accounting.on_put(series, now, worker)
        except Exception:  # the item goes on without its producer
            errors.log_internal_error("putting into a queue")
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
        except Exception:  # the item is in the queue all the same
            errors.log_internal_error("after putting into a queue")

    def _after_get(self, envelope: Any, worker: Worker | None = None) -> Any:
        if not isinstance(envelope, Envelope):
            return envelope  # an item that was put into the wrapped queue directly
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
            accounting.on_get(series, link, now, worker)
            if len(series.waits) >= drain.PENDING_BOUND:
                drain.drain_queue(scope, series)
        except Exception:  # the user gets the item all the same
            errors.log_internal_error("getting from a queue")
        return envelope.item


# By the identity of the wrapped queue, which its instrumented queue keeps alive.
wrapped: weakref.WeakValueDictionary[int, InstrumentedQueue] = weakref.WeakValueDictionary()


class _Stamp:
    """A replacement of a queue's `_put` that sets the time when an item gets in.

    After a blocked put, that is later than the call. The queues of asyncio and queue call `_put`
    at that moment, and offer it to subclasses.
    """

    __slots__ = ("_insert", "_queue")

    def __init__(self, queue: Any) -> None:
        own = vars(queue).get("_put")
        self._insert = own or type(queue)._put  # noqa: SLF001 - offered to subclasses
        # weakly, since the queue refers to this object and must be freed without the collector
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

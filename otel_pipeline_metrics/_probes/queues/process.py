"""Stand in for multiprocessing's queues; the stamp travels in the item's pickle."""

from __future__ import annotations

import functools
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from typing import Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._probes.queues.blocking import get_or_wait, put_or_wait
from otel_pipeline_metrics._probes.queues.instrumented import (
    BlockingQueue,
    watch,
    wrapped,
)
from otel_pipeline_metrics._probes.queues.probe import Probe


class Envelope:
    """An item that moves between processes, with the time of its put."""

    __slots__ = ("item", "producer", "put_at")

    def __init__(self, item: Any, put_at: float | None = None, producer: Any = None) -> None:
        self.item = item
        # None until the item is in the queue
        self.put_at = put_at
        # the span context of the stage that put it, or None
        self.producer = producer

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process; the feeder thread does so once the item is in."""
        self.stamp()
        return Envelope, (self.item, self.put_at, self.producer)

    def stamp(self) -> None:
        """Set the time of the put, unless it is set already. Never raises."""
        if self.put_at is None:
            try:
                self.put_at = clock.now()
            except Exception:  # the item goes on without its time
                errors.log_internal_error("the time of a put")


class ProcessProbe(Probe):
    """The counts at a process queue; other processes have copies of the sentinel."""

    __slots__ = ()

    def is_sentinel(self, item: Any) -> bool:
        """Tell whether this is the value that does not count as an item."""
        sentinel = self.sentinel
        if item is sentinel:
            return True
        try:
            return type(item) is type(sentinel) and bool(item == sentinel)
        except Exception:  # the item's own comparison failed, so they are not equal
            return False


class InstrumentedProcessQueue(BlockingQueue):
    """An instrumented multiprocessing `Queue` or `JoinableQueue`.

    A feeder thread pickles each item once it is in the queue; an item's time begins then.
    `clock.now()` is one clock for all processes of a machine.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process, if the wrapped queue does."""
        probe = self._opm_probe
        return instrument, (self._opm_queue, probe.name, probe.sentinel)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        probe = self._opm_probe
        producer = probe.producer(obj)
        if probe.is_sentinel(obj):
            put_or_wait(self._opm_queue, probe, obj, block, timeout)
            return
        envelope = Envelope(obj, None, producer)
        put_or_wait(self._opm_queue, probe, envelope, block, timeout)
        envelope.stamp()
        try:
            if envelope.put_at is not None:
                probe.count_put(envelope.put_at, probe.depth() or 0)
        except Exception:  # the item is in the queue all the same
            errors.log_internal_error("after putting into a queue")
        if probe.chores:
            probe.do_chores()

    def put_nowait(self, obj: Any) -> None:
        """Put an item as the wrapped queue does."""
        self.put(obj, False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Get an item as the wrapped queue does."""
        probe = self._opm_probe
        found = get_or_wait(self._opm_queue, probe, block, timeout)
        stamp, item, link = None, found, None
        if isinstance(found, Envelope):
            item, stamp = found.item, (found.item, found.put_at, found.producer)
        try:
            if not probe.is_sentinel(item):
                link = probe.count_got(stamp)
        except Exception:  # the user gets the item all the same
            errors.log_internal_error("getting from a queue")
        return probe.after_get(item, link)


def instrument(queue: Any, name: str, sentinel: object) -> InstrumentedProcessQueue:
    """Return an instrumented process queue; also unpickles one in another process."""
    probe = ProcessProbe(name, sentinel, queue.qsize, functools.partial(_capacity, queue))
    stand_in = InstrumentedProcessQueue(queue, probe)
    watch(probe)
    wrapped[id(queue)] = stand_in
    return stand_in


def _capacity(queue: Any) -> int | None:
    bound = int(getattr(queue, "_maxsize", SEM_VALUE_MAX))  # there is no public attribute
    # an unbounded queue has the platform's largest semaphore as its bound
    return None if bound == SEM_VALUE_MAX else bound

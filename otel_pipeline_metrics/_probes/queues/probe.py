"""Count items, waits and depth at one queue, and which stages put and get.

Nothing here runs around the user's call, and nothing here raises: an internal error neither
loses an item nor reaches a put or a get.
"""

from __future__ import annotations

import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from otel_pipeline_metrics._core import clock, drain, errors, hooks
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.observed import QueueSeries
from otel_pipeline_metrics._probes.queues.stamps import FORGOTTEN_BOUND, known_times
from otel_pipeline_metrics._stages.workers import accounting, finding
from otel_pipeline_metrics._stages.workers.account import GOT, PUT
from otel_pipeline_metrics._stages.workers.finding import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._probes.queues.stamps import Stamp, Stamps
    from otel_pipeline_metrics._stages.workers.worker import OpenWait, Worker


class NoSentinel(enum.Enum):
    """The default of `wrap_queue`'s `sentinel`; a pickled copy is the same object."""

    NOTHING = enum.auto()


NOTHING: Final[Literal[NoSentinel.NOTHING]] = NoSentinel.NOTHING

# Waits kept while only raw references to a queue are used and no reader is attached, as far as one
# looks: whenever a flush is due.
WAITS_BOUND: Final = 16 * drain.PENDING_BOUND

# Every so many items, what waits for the flush is flushed; a power of two less one.
FLUSH_MASK: Final = drain.PENDING_BOUND - 1


class Put:
    """A `with` block of a wrapped put, which tells `_put` the producer."""

    __slots__ = ("_before", "item", "probe", "producer", "seen")

    def __init__(self, probe: Probe, item: Any, producer: Any) -> None:
        self.probe = probe
        self.item = item
        self.producer = producer
        # whether the queue's own `_put` was called for this item
        self.seen = False

    def __enter__(self) -> Put:
        self._before = putting.get()
        putting.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        putting.set(self._before)


class Got:
    """A `with` block of a wrapped get, in which `_get` leaves the link."""

    __slots__ = ("_before", "link", "probe", "seen")

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        # the link to the producer of the item
        self.link: Link | None = None
        # whether the queue's own `_get` was called in this block
        self.seen = False

    def __enter__(self) -> Self:
        self._before = getting.get()
        getting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        getting.set(self._before)


class PutOfOwn(Put):
    """A `with` block of a put that a subclass defines, and that may not call `_put`."""

    __slots__ = ()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__(kind)
        probe = self.probe
        try:
            if kind is None and not self.seen and not probe.is_sentinel(self.item):
                probe.count_put(clock.now(), probe.depth() or 0)
        except Exception:  # the item is in the queue all the same
            errors.log_internal_error("after putting into a queue")
        if probe.chores:
            probe.do_chores()


class GotOfOwn(Got):
    """A `with` block of a get that a subclass defines, and that may not call `_get`."""

    __slots__ = ("_worker",)

    def __init__(self, probe: Probe, worker: Worker | None) -> None:
        super().__init__(probe)
        self._worker = worker

    def got(self, item: Any) -> Any:
        """Count the item unless it was counted already; return it."""
        try:
            if not self.seen and not self.probe.is_sentinel(item):
                self.probe.count_got(None)
        except Exception:  # the user gets the item all the same
            errors.log_internal_error("getting from a queue")
        return self.probe.after_get(item, self.link, self._worker)


# The wrapped put that is in progress; each task and each thread has its own.
putting: ContextVar[Put | None] = ContextVar("opm_putting", default=None)
getting: ContextVar[Got | None] = ContextVar("opm_getting", default=None)


class Getting(Protocol):
    """A `with` block of a get."""

    def got(self, item: Any) -> Any:
        """Count the item; return it."""


class Probe:
    """The counts at one queue; its `size` and `capacity` read the queue."""

    __slots__ = (
        "__weakref__", "_capacity", "_size", "asks", "at", "chores", "linked", "name", "sentinel",
        "stamps",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        sentinel: object,
        size: Callable[[], int | None],
        capacity: Callable[[], int | None],
    ) -> None:
        self.name = name
        self.sentinel = sentinel
        self._size = size
        self._capacity = capacity
        # whether an item ever had a producer to link to; before that, no get looks for one
        self.linked = False
        # whether the queue's own methods have more to find out than an item's time
        self.asks = False
        # `clock.now()` of the last item that got in or out
        self.at = 0.0
        # the times of the items in the queue, if they are kept beside it
        self.stamps: Stamps | None = None
        # errors to log and stamps to release once the queue's lock is free
        self.chores: list[Any] = []

    def depth(self) -> int | None:
        """Return the number of items; None if the queue does not tell."""
        try:
            return self._size()
        except Exception:  # multiprocessing's on macOS, a closed queue, any queue's own error
            return None

    def capacity(self) -> int | None:
        """Return the maximum number of items; None if it is unbounded or unknown."""
        return self._capacity()

    def times(self, step: int) -> list[float | None]:
        """Return when every `step`-th item was put, as known; None stands for a sentinel."""
        return [] if self.stamps is None else known_times(self.stamps, self.sentinel, step)

    def is_sentinel(self, item: Any) -> bool:
        """Tell whether this is the value that does not count as an item."""
        return item is self.sentinel

    def series(self) -> QueueSeries:
        """Return the counts of the current scope."""
        # `current_scope()` written out, since this is called four times for each item
        found = _series.active_cell.get()
        scope = _series.default_scope if found is None else found[0].scope
        return scope.queues.get(self.name) or scope.add_queue(self.name)

    # called before and after the queue's own put and get, by the task or thread that calls them

    def put_by(self, item: Any, worker: Worker | None = None) -> Worker | None:
        """Account for the worker that is about to put; return it."""
        worker = worker or requesting_worker()
        try:
            if worker is not None:
                accounting.note_put(None if self.is_sentinel(item) else self.name, worker)
        except Exception:  # the item goes on without its producer
            errors.log_internal_error("putting into a queue")
        return worker

    def producer(self, item: Any, worker: Worker | None = None) -> Any:
        """Account for the worker that is about to put; return its stage's span context."""
        worker = self.put_by(item, worker)
        return None if hooks.tracing is None else self.producer_for(item, worker)

    def producer_for(self, item: Any, worker: Worker | None) -> Any:
        """Return the span context of the stage that a worker puts for; None for a sentinel."""
        if worker is None or self.is_sentinel(item):
            return None
        try:
            found = accounting.producer_of(worker)
        except Exception:  # the item goes on without its producer
            errors.log_internal_error("putting into a queue")
            return None
        if found is not None:
            self.linked = self.asks = True
        return found

    def after_get(self, item: Any, link: Link | None, worker: Worker | None = None) -> Any:
        """Account for the worker that has got an item; return the item."""
        worker = worker or requesting_worker()
        try:
            if worker is not None:
                accounting.note_got(None if self.is_sentinel(item) else self.name, link, worker)
        except Exception:  # the user gets the item all the same
            errors.log_internal_error("getting from a queue")
        if self.chores:
            self.do_chores()
        return item

    def has_put(self, item: Any, worker: Worker) -> None:
        """Account for a worker that has put: the quick way, if there was no wait."""
        cell = _series.active_cell.get()
        if (
            worker.plain
            and not worker.stack
            and (cell is None or cell[4] is None)
            and item is not self.sentinel
        ):
            worker.log.append((self.at, PUT, self.name, None, 0.0))
        else:
            self.put_by(item, worker)
        if self.chores:
            self.do_chores()

    def has_got(self, item: Any, worker: Worker) -> None:
        """Account for a worker that has got an item: the quick way, if there was no wait."""
        if worker.plain and not worker.stack and item is not self.sentinel:
            worker.log.append((self.at, GOT, self.name, None, 0.0))
            if self.chores:
                self.do_chores()
        else:
            self.after_get(item, None, worker)

    def put_around(self, item: Any, worker: Worker | None = None) -> AbstractContextManager[Any]:
        """Return a `with` block for a put of unknown behaviour."""
        self.asks = True
        return PutOfOwn(self, item, self.producer(item, worker))

    def get_around(self, worker: Worker | None = None) -> AbstractContextManager[Getting]:
        """Return a `with` block for a get of unknown behaviour."""
        self.asks = True
        return GotOfOwn(self, worker)

    # called by the queue's hooks, under its lock: no call here may log or flush

    def count_put(self, now: float, size: int) -> None:
        """Count an item that was put."""
        series = self.series()
        # queues of one name share these, so there is no call between reading and writing them
        series.put += 1
        if not series.put & FLUSH_MASK:
            self.flush_later(series)
        series.last_put = now
        if series.first_put is None:
            series.first_put = now
        if size > series.depth_peak:  # noqa: PLR1730 - a call of `max` costs as much as the other lines
            series.depth_peak = size

    def count_got(self, stamp: Stamp | None) -> Link | None:
        """Count an item that was got, and its wait if that is certain; return its link."""
        series = self.series()
        series.got += 1
        if not series.got & FLUSH_MASK:
            self.flush_later(series)
        if stamp is None or stamp[1] is None:
            return None
        waited, waits, producer = clock.now() - stamp[1], series.waits, stamp[2]
        if waited < 0.0:  # noqa: PLR1730 - a call of `max` costs more
            waited = 0.0
        if len(waits) < WAITS_BOUND:
            waits.append(waited)
        if producer is None or not producer.is_valid:
            return None
        return producer, self.name, waited

    def flush_later(self, series: QueueSeries) -> None:
        """Have the waits, and what the workers logged, flushed once the queue's lock is free."""
        if len(self.chores) < FORGOTTEN_BOUND:
            self.chores.append(series)
        if len(series.waits) >= WAITS_BOUND:
            # from now on `count_got` looks at each
            self.asks = True

    def failed(self, error: Exception) -> None:
        """Keep an internal error, which is being handled, until it can be logged."""
        if errors.from_signal_handler(error):
            raise  # noqa: PLE0704 - the program's own error, meant to interrupt it
        if len(self.chores) < FORGOTTEN_BOUND:
            self.chores.append(error)

    def do_chores(self) -> None:
        """Do what the queue's lock deferred: log errors, release stamps, flush."""
        while self.chores:
            chore = self.chores.pop()
            if isinstance(chore, QueueSeries):
                try:
                    drain.drain_queue(_series.current_scope(), chore)
                except Exception:
                    errors.log_internal_error("flushing a queue")
            elif isinstance(chore, Exception):
                try:
                    raise chore  # noqa: TRY301 - the log takes the error that is handled
                except Exception:
                    errors.log_internal_error("counting the items of a queue")


class QueueWait:
    """A `with` block in which the given or the current worker waits at a queue."""

    __slots__ = ("_began", "_probe", "_series", "_state", "_wait", "_worker")

    def __init__(self, probe: Probe, state: WaitState, worker: Worker | None) -> None:
        self._probe = probe
        self._state: WaitState = state
        self._worker = worker
        self._wait: OpenWait | None = None

    def __enter__(self) -> None:
        """Begin the wait. Never raises."""
        try:
            self._series = self._probe.series()
            self._began = clock.now()
            worker = self._worker or finding.current_worker(waits=True)
            self._wait = accounting.begin_wait(worker, self._state, self._began)
            self._wait.at = self._series, self._state
        except Exception:  # the user's put or get goes on
            errors.log_internal_error("beginning to wait at a queue")

    def __exit__(self, *_: object) -> None:
        """End the wait. Never raises."""
        if self._wait is None:
            return
        try:
            now = clock.now()
            seconds = now - self._began
            # threads share these, so there is no call between reading and writing them, nor
            # between the moments in which a report has this wait as one in progress and as over
            self._wait.at = None
            if self._state == "idle":
                self._series.idle += seconds
            else:
                self._series.blocked += seconds
            accounting.end_wait(self._wait, now)
            if self._state != "idle":
                accounting.after_put(self._wait.worker)
        except Exception:
            errors.log_internal_error("ending to wait at a queue")


def joined(worker: Worker | None) -> None:
    """Account for a worker whose join of a queue has ended. Never raises."""
    try:
        if hooks.workers is not None:
            accounting.on_join(worker)
    except Exception:  # the join has ended all the same
        errors.log_internal_error("joining a queue")


def capacity_of(queue: Any) -> int | None:
    """Return a queue's positive `maxsize`; None if there is none."""
    try:
        return max(0, int(getattr(queue, "maxsize", 0) or 0)) or None
    except (TypeError, ValueError):
        # `maxsize` means something else at this class
        return None

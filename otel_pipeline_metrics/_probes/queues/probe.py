"""What is counted at one instrumented queue: items, waits, depth, and who feeds whom.

Nothing here runs around the user's call, and nothing here raises: an internal error neither
loses an item nor reaches a put or a get.
"""

from __future__ import annotations

import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from otel_pipeline_metrics._core import clock, drain, errors, hooks
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.queues.stamps import FORGOTTEN_BOUND
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._core.series import QueueSeries
    from otel_pipeline_metrics._probes.queues.stamps import Stamp
    from otel_pipeline_metrics._stages.workers.worker import OpenWait, Worker


class NoSentinel(enum.Enum):
    """The default of `wrap_queue`'s `sentinel`. Pickles, and stays the only one of its kind."""

    NOTHING = enum.auto()


NOTHING: Final[Literal[NoSentinel.NOTHING]] = NoSentinel.NOTHING

WAITS_BOUND: Final = 16 * drain.PENDING_BOUND
"""Waits kept while only raw references to a queue are used and no reader is attached."""


class Put:
    """`with`: a wrapped put in progress, so that the queue's own `_put` knows the producer."""

    __slots__ = ("_before", "item", "probe", "producer", "seen")

    def __init__(self, probe: Probe, item: Any, producer: Any) -> None:
        self.probe = probe
        self.item = item
        self.producer = producer
        self.seen = False
        """Whether the queue's own `_put` was called for it."""

    def __enter__(self) -> Put:
        self._before = putting.get()
        putting.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        putting.set(self._before)


class Got:
    """`with`: a wrapped get in progress, so that the queue's own `_get` can leave the link."""

    __slots__ = ("_before", "link", "probe", "seen")

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.link: Link | None = None
        """To the producer of the item."""
        self.seen = False
        """Whether the queue's own `_get` was called for it."""

    def __enter__(self) -> Self:
        self._before = getting.get()
        getting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        getting.set(self._before)


class PutOfOwn(Put):
    """`with`: a put of a subclass's own, which may not call the queue's `_put`."""

    __slots__ = ()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__(kind)
        probe = self.probe
        try:
            if kind is None and not self.seen and not probe.is_sentinel(self.item):
                probe.count_put(clock.now(), probe.depth() or 0)
        except Exception:  # the item is in, whatever we make of it
            errors.log_internal_error("after putting into a queue")
        if probe.chores:
            probe.do_chores()


class GotOfOwn(Got):
    """`with`: a get of a subclass's own, which may not call the queue's `_get`."""

    __slots__ = ("_worker",)

    def __init__(self, probe: Probe, worker: Worker | None) -> None:
        super().__init__(probe)
        self._worker = worker

    def got(self, item: Any) -> Any:
        """Count the item that came, if nothing has; return it."""
        try:
            if not self.seen and not self.probe.is_sentinel(item):
                self.probe.count_got(None)
        except Exception:  # the item is the user's, whatever we make of it
            errors.log_internal_error("getting from a queue")
        return self.probe.after_get(item, self.link, self._worker)


putting: ContextVar[Put | None] = ContextVar("opm_putting", default=None)
"""The wrapped put that the code here is in; tasks and threads each have their own."""
getting: ContextVar[Got | None] = ContextVar("opm_getting", default=None)


class Getting(Protocol):
    """A get in progress."""

    def got(self, item: Any) -> Any:
        """Count the item that came; return it."""


class Probe:
    """Counts at one queue. The queue's hooks keep it, so it refers to the queue weakly."""

    __slots__ = ("__weakref__", "_capacity", "_size", "chores", "linked", "name", "sentinel")

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
        self.linked = False
        """Whether an item ever had a producer to link to; until then no get looks for one."""
        self.chores: list[Any] = []
        """Errors to log and stamps to release, once the queue's lock is free."""

    def depth(self) -> int | None:
        """Return how many items are in the queue; None where nobody can tell."""
        try:
            return self._size()
        except Exception:  # the queue's own: multiprocessing's on macOS, a closed one, any
            return None

    def capacity(self) -> int | None:
        """Return how many items it holds at most; None if that is unbounded or unknown."""
        return self._capacity()

    def is_sentinel(self, item: Any) -> bool:
        """Tell whether this is the value that is not counted as an item."""
        return item is self.sentinel

    def series(self) -> QueueSeries:
        """Return what is counted in the scope here."""
        # `current_scope()`, written out: asked four times for each item
        found = _series.active_cell.get()
        scope = _series.default_scope if found is None else found[0].scope
        return scope.queues.get(self.name) or scope.add_queue(self.name)

    # what a wrapped put and get do in the caller's place, before and after the queue's own

    def producer(self, item: Any, worker: Worker | None = None) -> Any:
        """Account for the worker that is about to put; return its stage's span context."""
        try:
            if hooks.workers is None:
                accounting.watch()
            counted = None if self.is_sentinel(item) else self.series()
            found = accounting.on_put(counted, clock.now(), worker)
        except Exception:  # the item goes its way without its producer
            errors.log_internal_error("putting into a queue")
            return None
        if found is not None:
            self.linked = True
        return found

    def after_get(self, item: Any, link: Link | None, worker: Worker | None = None) -> Any:
        """Account for the worker that has got an item; return the item."""
        try:
            if hooks.workers is None:
                accounting.watch()
            if self.is_sentinel(item):
                accounting.on_get(None, None, clock.now(), worker)
            else:
                series = self.series()
                accounting.on_get(series, link, clock.now(), worker)
                if len(series.waits) >= drain.PENDING_BOUND:
                    drain.drain_queue(_series.current_scope(), series)
        except Exception:  # the item is the user's, whatever we make of it
            errors.log_internal_error("getting from a queue")
        if self.chores:
            self.do_chores()
        return item

    def put_around(self, item: Any, worker: Worker | None = None) -> AbstractContextManager[Any]:
        """Return what a put is made within that may do anything, as a subclass's own."""
        return PutOfOwn(self, item, self.producer(item, worker))

    def get_around(self, worker: Worker | None = None) -> AbstractContextManager[Getting]:
        """Return what a get is made within that may do anything, as a subclass's own."""
        return GotOfOwn(self, worker)

    # what the queue's hooks do under its lock: no call here may log or flush

    def count_put(self, now: float, size: int) -> None:
        """Count an item that got in."""
        series = self.series()
        # counted without a call in between: queues of one name share these
        series.put += 1
        series.last_put = now
        if series.first_put is None:
            series.first_put = now
        if size > series.depth_peak:  # noqa: PLR1730 - a call costs as much as all the rest here
            series.depth_peak = size

    def count_got(self, stamp: Stamp | None) -> Link | None:
        """Count an item that got out, and its wait if that is certain; return its link."""
        series = self.series()
        series.got += 1
        if stamp is None or stamp[1] is None:
            return None
        waited, waits, producer = clock.now() - stamp[1], series.waits, stamp[2]
        if waited < 0.0:  # noqa: PLR1730 - as in `count_put`
            waited = 0.0
        if len(waits) < WAITS_BOUND:
            waits.append(waited)
        if producer is None or not producer.is_valid:
            return None
        return producer, self.name, waited

    def failed(self, error: Exception) -> None:
        """Keep an internal error until it can be logged; called while it is handled."""
        if errors.from_signal_handler(error):
            raise  # noqa: PLE0704 - the program's own, which is to interrupt what runs now
        if len(self.chores) < FORGOTTEN_BOUND:
            self.chores.append(error)

    def do_chores(self) -> None:
        """Do what had to wait for the queue's lock to be free."""
        while self.chores:
            chore = self.chores.pop()
            if isinstance(chore, Exception):
                try:
                    raise chore  # noqa: TRY301 - logged as what is being handled
                except Exception:
                    errors.log_internal_error("counting the items of a queue")


class QueueWait:
    """`with`: the worker here, or the one that asked, waits at a queue."""

    __slots__ = ("_began", "_probe", "_series", "_state", "_wait", "_worker")

    def __init__(self, probe: Probe, state: WaitState, worker: Worker | None) -> None:
        self._probe = probe
        self._state: WaitState = state
        self._worker = worker
        self._wait: OpenWait | None = None

    def __enter__(self) -> None:
        """Begin to wait. Never raises."""
        try:
            self._series = self._probe.series()
            self._began = clock.now()
            worker = self._worker or accounting.current_worker(waits=True)
            self._wait = accounting.begin_wait(worker, self._state, self._began)
        except Exception:  # an internal error must not keep anyone waiting
            errors.log_internal_error("beginning to wait at a queue")

    def __exit__(self, *_: object) -> None:
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
                accounting.after_put(self._wait.worker)
        except Exception:
            errors.log_internal_error("ending to wait at a queue")


def requesting_worker() -> Worker | None:
    """Return the worker here, for a coroutine that another task may run."""
    try:
        if hooks.workers is None:
            accounting.watch()
        return accounting.worker_at_queue()
    except Exception:  # an internal error must not keep anyone from a queue
        errors.log_internal_error("asking a queue")
        return None


def joined(worker: Worker | None) -> None:
    """Account for a worker whose join of a queue is over. Never raises."""
    try:
        if hooks.workers is not None:
            accounting.on_join(worker)
    except Exception:  # the queue is joined, whatever we make of it
        errors.log_internal_error("joining a queue")


def capacity_of(queue: Any) -> int | None:
    """Return a queue's positive `maxsize`; None if there is none."""
    try:
        return max(0, int(getattr(queue, "maxsize", 0) or 0)) or None
    except (TypeError, ValueError):
        # `maxsize` means something else at this class
        return None

"""Take stamps before and after put and get, for queues whose inside is unknown.

The methods of gevent's and C's queues cannot be replaced on an instance, and other objects only
have a known interface. Items that pass through a raw reference to such a queue are not counted.
"""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.queues.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._stages.workers.worker import Worker


class _Entry:
    """The stamp of one object, which may be in the queue several times."""

    __slots__ = ("count", "item", "pair", "producer", "put_at")

    def __init__(self, item: Any, producer: Any) -> None:
        self.item = item
        self.producer = producer
        # None until the time is known
        self.put_at: float | None = None
        self.count = 1
        # whether it is certain which put and which get belong together
        self.pair = True


class AroundProbe(Probe):
    """The counts at a queue before and after its put and get; stamps go by identity."""

    __slots__ = (
        "_entries",
        "_in_progress",
        "_lock",
        "_never_waits",
        "_shared",
        "_stamped",
        "_unknown",
    )

    def __init__(
        self,
        name: str,
        sentinel: object,
        size: Callable[[], int | None],
        capacity: Callable[[], int | None],
        *,
        never_waits: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__(name, sentinel, size, capacity)
        # An item whose put may wait gets in at some time before the put ends. If it is got before
        # that end, its time in the queue is unknown.
        self._never_waits = never_waits
        # Other processes put and get unseen, and an item may be identical to one of theirs: a
        # small number is the same object in every unpickled copy.
        self._shared = shared
        # A signal handler or a destructor may put while this thread is in here.
        self._lock = threading.RLock()
        forking.watch(self)
        self._entries: dict[int, _Entry] = {}
        self._stamped = 0
        # puts and gets in progress, whose items may be in the queue or not
        self._in_progress = 0
        # items in the queue without a stamp, as far as its size shows
        self._unknown = 0

    def put_around(self, item: Any, worker: Worker | None = None) -> PutAround:
        """Return a `with` block for a put."""
        return PutAround(self, item, worker)

    def get_around(self, worker: Worker | None = None) -> GetAround:
        """Return a `with` block for a get."""
        return GetAround(self, worker)

    def enter(self, item: Any, producer: Any) -> _Entry:
        """Keep a stamp for an item that is about to be put."""
        with self._lock:
            self._in_progress += 1
            self._stamped += 1
            found = self._entries.get(id(item))
            if found is None:
                found = self._entries[id(item)] = _Entry(item, producer)
                found.put_at = clock.now() if self._never_waits else None
            else:
                found.count += 1
                found.pair = False
            return found

    def entered(self, entry: _Entry, now: float, size: int | None) -> None:
        """Record the end of a put; it is the time of the item if none is known yet."""
        with self._lock:
            self._in_progress -= 1
            if entry.put_at is None:
                entry.put_at = now
            self._compare(size)
            if size is not None and size <= 1 and not self._in_progress:
                # the queue holds at most this item
                self._unknown = 0

    def withdraw(self, entry: _Entry) -> bool:
        """Remove the stamp of an item that did not get in; False if it was got already."""
        with self._lock:
            self._in_progress -= 1
            if not entry.count:
                # cancelled after the item got in: a stream's sender resumes only later
                return False
            if self._entries.get(id(entry.item)) is entry:
                self._drop_one(entry)
            return True

    def begin_get(self) -> None:
        """Record that an item may have left the queue and still have its stamp."""
        # there is no call between reading and writing it, so it needs no lock
        self._in_progress += 1

    def end_get(self) -> None:
        """Record the end of a get."""
        self._in_progress -= 1

    def take(self, item: Any) -> tuple[Any, float | None, Any] | None:
        """Return the stamp of an item that was got, if it is certain."""
        with self._lock:
            found = self._entries.get(id(item))
            if found is None:
                self._unknown = max(0, self._unknown - 1)
            else:
                self._drop_one(found)
            self._compare(self.depth())
            if found is None or self._unknown or not found.pair or self._shared:
                return None
            return item, found.put_at, found.producer

    def times(self, step: int) -> list[float | None]:
        """Return when every `step`-th item was put, as known; None stands for a sentinel."""
        if self._shared:
            return []
        with self._lock:
            found = list(islice(self._entries.values(), 0, None, step))
        times: list[float | None] = []
        for entry in found:
            if entry.put_at is None:
                continue  # its put may still wait for room
            if entry.item is self.sentinel:
                times += [None] * entry.count
            elif entry.pair:
                times.append(entry.put_at)
        return times

    def _drop_one(self, entry: _Entry) -> None:
        self._stamped -= 1
        entry.count -= 1
        if not entry.count:
            del self._entries[id(entry.item)]

    def _compare(self, size: int | None) -> None:
        """Compare the stamps with the size, which raw references may have changed."""
        if size is None:
            return
        if self._stamped > size + self._in_progress:
            # unknown items left through a raw reference
            self._entries = {}
            self._stamped = 0
            self._unknown = size + self._in_progress
        elif size > self._stamped + self._unknown:
            self._unknown = size - self._stamped

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may have held it."""
        self._lock = threading.RLock()
        self._in_progress = 0


class PutAround:
    """A `with` block of a put."""

    __slots__ = ("_entry", "_item", "_probe", "_worker")

    def __init__(self, probe: AroundProbe, item: Any, worker: Worker | None) -> None:
        self._probe = probe
        self._item = item
        self._worker = worker
        self._entry: _Entry | None = None

    def __enter__(self) -> PutAround:
        """Keep the stamp before the put, since a get could come first. Never raises."""
        probe, item = self._probe, self._item
        producer = probe.producer(item, self._worker)
        try:
            self._entry = probe.enter(item, producer)
        except Exception:  # the item goes on without its time
            errors.log_internal_error("the time of a put")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Count the item, or remove its stamp if it did not get in. Never raises."""
        probe, entry = self._probe, self._entry
        if entry is None:
            return
        try:
            if kind is not None and probe.withdraw(entry):
                return
            now, size = clock.now(), probe.depth()
            if kind is None:
                probe.entered(entry, now, size)
            if not probe.is_sentinel(self._item):
                probe.count_put(now, size or 0)
        except Exception:  # the item is in the queue all the same
            errors.log_internal_error("after putting into a queue")
        if probe.chores:
            probe.do_chores()


class GetAround:
    """A `with` block of a get."""

    __slots__ = ("_probe", "_worker")

    def __init__(self, probe: AroundProbe, worker: Worker | None) -> None:
        self._probe = probe
        self._worker = worker

    def __enter__(self) -> GetAround:
        """Begin the get. Never raises."""
        try:
            self._probe.begin_get()
        except Exception:  # the user's call of the queue goes on
            errors.log_internal_error("getting from a queue")
        return self

    def __exit__(self, *_: object) -> None:
        """End the get. Never raises."""
        try:
            self._probe.end_get()
        except Exception:
            errors.log_internal_error("getting from a queue")

    def got(self, item: Any) -> Any:
        """Count the item; return it."""
        probe = self._probe
        link: Link | None = None
        try:
            stamp = probe.take(item)
            if not probe.is_sentinel(item):
                link = probe.count_got(stamp)
        except Exception:  # the user gets the item all the same
            errors.log_internal_error("getting from a queue")
        return probe.after_get(item, link, self._worker)

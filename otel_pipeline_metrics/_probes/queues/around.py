"""Stamps taken around put and get, for queues whose inside cannot be seen.

gevent's and C's queues let nothing be replaced on an instance, and of other objects nothing is
known. What goes through a raw reference to one is not counted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.queues.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._stages.workers.worker import Worker


class _Entry:
    """The stamp of one object, that may be in the queue several times."""

    __slots__ = ("count", "item", "pair", "producer", "put_at")

    def __init__(self, item: Any, producer: Any) -> None:
        self.item = item
        self.producer = producer
        self.put_at: float | None = None
        """None until it is known when it got in."""
        self.count = 1
        self.pair = True
        """Whether it is certain which put and which get belong together."""


class AroundProbe(Probe):
    """Counts at a queue around its put and get; its stamps belong to items by identity."""

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
        # An item whose put may wait gets in at some time before the end of the put. Who gets it
        # before that end gets it without a time.
        self._never_waits = never_waits
        # Other processes put and get unseen, and an object that comes back may be an equal one
        # of theirs: small numbers are one object everywhere.
        self._shared = shared
        # A signal handler or a destructor may put while this thread is in here.
        self._lock = threading.RLock()
        forking.watch(self)
        self._entries: dict[int, _Entry] = {}
        self._stamped = 0
        self._in_progress = 0
        """Puts and gets: their items may be in the queue or not."""
        self._unknown = 0
        """Items in the queue without a stamp, as far as its size has told."""

    def put_around(self, item: Any, worker: Worker | None = None) -> PutAround:
        """Return what a put is made within."""
        return PutAround(self, item, worker)

    def get_around(self, worker: Worker | None = None) -> GetAround:
        """Return what a get is made within."""
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
        """Note the end of a put, and with it when the item got in if that is not known yet."""
        with self._lock:
            self._in_progress -= 1
            if entry.put_at is None:
                entry.put_at = now
            self._compare(size)
            if size is not None and size <= 1 and not self._in_progress:
                # there is nothing in it but this item, if that
                self._unknown = 0

    def withdraw(self, entry: _Entry) -> bool:
        """Take back the stamp of an item that did not get in; False if somebody has got it."""
        with self._lock:
            self._in_progress -= 1
            if not entry.count:
                # cancelled when it was over: a stream's sender hears of its success later
                return False
            if self._entries.get(id(entry.item)) is entry:
                self._drop_one(entry)
            return True

    def begin_get(self) -> None:
        """Note that an item may be out of the queue and still have its stamp."""
        # without the lock: there is no call in between, so no thread comes in between
        self._in_progress += 1

    def end_get(self) -> None:
        """Note the end of what `begin_get` noted."""
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

    def _drop_one(self, entry: _Entry) -> None:
        self._stamped -= 1
        entry.count -= 1
        if not entry.count:
            del self._entries[id(entry.item)]

    def _compare(self, size: int | None) -> None:
        """Compare the stamps with the queue, which raw references may have filled or emptied."""
        if size is None:
            return
        if self._stamped > size + self._in_progress:
            # items left without a get of ours, and nobody knows which
            self._entries = {}
            self._stamped = 0
            self._unknown = size + self._in_progress
        elif size > self._stamped + self._unknown:
            self._unknown = size - self._stamped

    def after_fork(self) -> None:
        """Go on in a forked child, without the threads that were in here."""
        self._lock = threading.RLock()
        self._in_progress = 0


class PutAround:
    """`with`: a put in progress."""

    __slots__ = ("_entry", "_item", "_probe", "_worker")

    def __init__(self, probe: AroundProbe, item: Any, worker: Worker | None) -> None:
        self._probe = probe
        self._item = item
        self._worker = worker
        self._entry: _Entry | None = None

    def __enter__(self) -> PutAround:
        """Keep the stamp before the put, or a get could come first. Never raises."""
        probe, item = self._probe, self._item
        producer = probe.producer(item, self._worker)
        try:
            self._entry = probe.enter(item, producer)
        except Exception:  # the item goes its way without its time
            errors.log_internal_error("the time of a put")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Count the item, or take back its stamp if it did not get in. Never raises."""
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
        except Exception:  # the item is in, whatever we make of it
            errors.log_internal_error("after putting into a queue")


class GetAround:
    """`with`: a get in progress."""

    __slots__ = ("_probe", "_worker")

    def __init__(self, probe: AroundProbe, worker: Worker | None) -> None:
        self._probe = probe
        self._worker = worker

    def __enter__(self) -> GetAround:
        """Begin. Never raises."""
        try:
            self._probe.begin_get()
        except Exception:  # an internal error must not keep anyone from a queue
            errors.log_internal_error("getting from a queue")
        return self

    def __exit__(self, *_: object) -> None:
        """End. Never raises."""
        try:
            self._probe.end_get()
        except Exception:
            errors.log_internal_error("getting from a queue")

    def got(self, item: Any) -> Any:
        """Count the item that came; return it."""
        probe = self._probe
        link: Link | None = None
        try:
            stamp = probe.take(item)
            if not probe.is_sentinel(item):
                link = probe.count_got(stamp)
        except Exception:  # the item is the user's, whatever we make of it
            errors.log_internal_error("getting from a queue")
        return probe.after_get(item, link, self._worker)

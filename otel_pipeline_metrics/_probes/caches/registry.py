"""Keep the registered caches and their totals, which never fall."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.caches.what_if import FunctionSketch

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._probes.caches.reading import Reuse

# Unregistered names whose totals are remembered.
_MAX_RETIRED: Final = 1_000


class MonotonicTotals:
    """Totals that never fall, from counts that restart when a cache is cleared."""

    def __init__(self, *offset: int) -> None:
        self._offset = offset
        self._last = (0,) * len(offset)

    def update(self, *counts: int) -> tuple[int, ...]:
        # One falling count means that all were cleared: hits may have fallen while misses,
        # cleared as well, are already above their last value.
        if any(count < last for count, last in zip(counts, self._last, strict=True)):
            self._offset = self.totals
        self._last = counts
        return self.totals

    def restart(self) -> None:
        """Make the totals zero at the present counts."""
        self._offset = tuple(-count for count in self._last)

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(self._offset, self._last, strict=True)))


class _Entry:
    """One registered cache; its methods need the registry's lock."""

    def __init__(self, name: str, read: Callable[[], object], before: _Entry | None) -> None:
        self.name = name
        # None once the cache is unregistered or its source replaced
        self.read: Callable[[], object] | None = read
        self.applied = 0
        self.latest: CacheReading | None = None
        # The series of a name must not fall, so a new source adds to the old one's totals.
        offsets = ((0, 0), (0,), (0,), (0, 0, 0)) if before is None else before.totals
        self._counts = [MonotonicTotals(*offset) for offset in offsets]

    def restart(self) -> None:
        """Count from zero: a forked child leaves earlier counts to its parent."""
        for counts in self._counts:
            counts.restart()
        self.latest = None

    @property
    def totals(self) -> tuple[tuple[int, ...], ...]:
        return tuple(counts.totals for counts in self._counts)

    def apply(self, reading: CacheReading) -> CacheReading:
        """Return the reading with totals that never fall in place of the source's counts."""
        self.applied += 1
        requests, evictions, expirations, reuse = self._counts
        hits, misses = requests.update(reading.hits, reading.misses)
        self.latest = replace(
            reading,
            hits=hits,
            misses=misses,
            evictions=_updated(evictions, reading.evictions),
            expirations=_updated(expirations, reading.expirations),
            reuse=_reuse(reuse, reading.reuse),
        )
        return self.latest


def _updated(totals: MonotonicTotals, count: int | None) -> int | None:
    return None if count is None else totals.update(count)[0]


def _reuse(totals: MonotonicTotals, found: Reuse | None) -> Reuse | None:
    if found is None:
        return None
    lost, near, far = totals.update(found.lost, found.near, found.far)
    return replace(found, lost=lost, near=near, far=far)


class _Retired:
    """The totals of an unregistered cache; its source may be garbage collected."""

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry
        self._key = None if entry.read is None else _identity(entry.read)
        entry.read = None

    def resumes(self, read: Callable[[], object]) -> bool:
        """Tell whether these totals already hold the counts that `read` gives."""
        return self._key is not None and self._key == _identity(read)


def _identity(read: Callable[[], object]) -> tuple[ref[Any], str] | None:
    try:
        return ref(getattr(read, "__self__", read)), getattr(read, "__name__", "")
    except TypeError:  # the object allows no weak reference
        return None


class _Manual:
    """A cache whose counts the program records itself."""

    def __init__(self, name: str) -> None:
        self._lock = threading.RLock()
        self._counts = CacheReading(name, 0, 0)
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def add(self, counts: CacheReading, *, cumulative: bool) -> None:
        with self._lock:
            self._counts = counts.plus(None if cumulative else self._counts)

    def read(self) -> CacheReading:
        return self._counts


def takes_no_lock(read: Callable[[], object] | None) -> bool:
    """Tell whether reading a source certainly takes no lock."""
    if isinstance(read, BuiltinMethodType):  # `cache_info` of `functools.lru_cache`
        return True
    return isinstance(getattr(read, "__self__", None), (CountedCache, FunctionSketch, _Manual))


class _Registry:
    """All registered caches; sources are called without the lock."""

    def __init__(self) -> None:
        # re-entrant, since a signal handler may read while its thread does
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._retired: dict[str, _Retired] = {}
        self._manual: dict[str, _Manual] = {}
        forking.watch(self)

    def after_fork(self) -> None:
        """Count from zero, starting at the counts of the fork."""
        self._lock = threading.RLock()
        for entry in self._entries.values():
            # a lock may be held by a thread of the parent; then the last reading is the start
            if takes_no_lock(entry.read):
                self.read_source(entry)
            entry.restart()
        for retired in self._retired.values():
            retired.entry.restart()

    def register(self, name: str, read: Callable[[], object]) -> None:
        old = self._entries.get(name)
        if old is not None:
            if old.read is not None and sources.same(old.read, read):
                return
            self.read_source(old)  # the total includes the old source's last counts
        with self._lock:
            self._manual.pop(name, None)
            self._open(name, read)

    def _open(self, name: str, read: Callable[[], object]) -> None:
        old = self._entries.get(name)
        retired = self._retired.pop(name, None)
        if old is not None:
            old.read = None
        elif retired is not None:
            old = retired.entry
            if retired.resumes(read):
                old.read = read
                self._entries[name] = old
                return
        self._entries[name] = _Entry(name, read, old)

    def unregister(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is None:
            return
        self.read_source(entry)
        with self._lock:
            if self._entries.get(name) is not entry:
                return
            del self._entries[name]
            self._manual.pop(name, None)
            while len(self._retired) >= _MAX_RETIRED:
                del self._retired[next(iter(self._retired))]
            self._retired[name] = _Retired(entry)

    def record(self, counts: CacheReading, *, cumulative: bool) -> None:
        """Take checked counts of a cache: those since the last call, or totals."""
        name = counts.name
        with self._lock:
            manual = self._manual.get(name)
            if manual is None and name not in self._entries:
                manual = self._manual[name] = _Manual(name)
                self._open(name, manual.read)
        if manual is not None:
            manual.add(counts, cumulative=cumulative)
            return
        errors.warn_once(
            f"manual cache {name}",
            "cache %r is registered with a source of its own; counts that record_cache() gets "
            "under this name are ignored",
            name,
        )

    def read_all(self, *, by_hand: bool = True) -> list[CacheReading]:
        """Return a reading of every cache that can be read, in the order of registration.

        Args:
            by_hand: also of those whose counts the program records itself.
        """
        with self._lock:
            entries = [
                entry
                for entry in self._entries.values()
                if by_hand or not isinstance(getattr(entry.read, "__self__", None), _Manual)
            ]
        return [reading for reading in map(self.read_source, entries) if reading is not None]

    def read_source(self, entry: _Entry) -> CacheReading | None:
        """Return a reading of one source; None if reading fails."""
        applied, read = entry.applied, entry.read
        if read is None:
            return None
        try:
            reading = sources.parse(entry.name, read())
        except BaseException as error:  # a user's source may raise anything
            if errors.raised_into(error):
                raise
            errors.warn_once(
                f"cache {entry.name}",
                "cannot read the counts of cache %r; it is not reported until it can be read: %s",
                entry.name,
                privacy.sanitized_message(error, repr),
            )
            return None
        with self._lock:
            # Of two readings taken at the same time, the order is unknown, and an older one
            # applied last would look like a cleared cache.
            if entry.applied != applied or entry.read is None:
                return entry.latest
            return entry.apply(reading)

    def reset(self) -> None:
        """Drop every cache and its totals; for tests."""
        with self._lock:
            self._entries.clear()
            self._retired.clear()
            self._manual.clear()


caches = _Registry()
read_all = caches.read_all
reset = caches.reset

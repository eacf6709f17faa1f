"""The caches whose hits and misses are reported."""

from __future__ import annotations

import threading
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.caches.reading import CacheReading

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._probes.caches.sources import Counts

_MAX_RETIRED: Final = 1_000
"""Names whose totals are remembered after they were unregistered."""


class MonotonicTotals:
    """Totals that never fall, made of counts that start at zero again when a cache is cleared."""

    def __init__(self, *offset: int) -> None:
        self._offset = offset
        self._last = (0,) * len(offset)

    def update(self, *counts: int) -> None:
        # Counts that belong together are cleared together: hits may have fallen below what
        # they were while misses, cleared as well, have already overtaken it.
        if any(count < last for count, last in zip(counts, self._last, strict=True)):
            self._offset = self.totals
        self._last = counts

    def forget(self) -> None:
        """Begin at zero from the counts as they are."""
        self._offset = tuple(-count for count in self._last)

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(self._offset, self._last, strict=True)))


class _Entry:
    """One registered cache. Only its registry's lock makes its methods safe."""

    def __init__(self, name: str, read: Callable[[], object], before: _Entry | None) -> None:
        self.name = name
        self.read: Callable[[], object] | None = read
        """What gives the counts; None once unregistered or replaced."""
        self.applied = 0
        self.latest: CacheReading | None = None
        # A series that goes on under its name must not fall, so a new source adds to the old.
        totals = ((0, 0), (0,), (0,)) if before is None else before.totals
        self._requests, self._evictions, self._expirations = (
            MonotonicTotals(*each) for each in totals
        )

    def forget(self) -> None:
        """Begin at zero: what was counted so far is the parent's to report."""
        for rising in (self._requests, self._evictions, self._expirations):
            rising.forget()
        self.latest = None

    @property
    def totals(self) -> tuple[tuple[int, ...], ...]:
        return self._requests.totals, self._evictions.totals, self._expirations.totals

    def apply(self, counts: Counts) -> CacheReading:
        self.applied += 1
        self._requests.update(counts.hits, counts.misses)
        hits, misses = self._requests.totals
        self.latest = CacheReading(
            self.name,
            hits,
            misses,
            _updated(self._evictions, counts.evictions),
            _updated(self._expirations, counts.expirations),
            counts.entries,
            counts.size_bytes,
        )
        return self.latest


def _updated(rising: MonotonicTotals, count: int | None) -> int | None:
    if count is None:
        return None
    rising.update(count)
    return rising.totals[0]


class _Retired:
    """An unregistered cache's totals, without keeping its source alive."""

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry
        self._key = None if entry.read is None else _identity(entry.read)
        entry.read = None

    def resumes(self, read: Callable[[], object]) -> bool:
        """Whether `read` gives the counts that these totals already hold."""
        return self._key is not None and self._key == _identity(read)


def _identity(read: Callable[[], object]) -> tuple[ref[Any], str] | None:
    owner = getattr(read, "__self__", None)
    try:
        if owner is None:
            return ref(read), ""
        return ref(owner), getattr(read, "__name__", "")
    except TypeError:  # cannot be referenced weakly
        return None


class _Manual:
    """A cache whose program reports its counts itself."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: dict[str, int | None] = {"hits": 0, "misses": 0, "evictions": 0}
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def add(self, size_bytes: int | None, **counts: int) -> None:
        with self._lock:
            new = {key: (self._counts[key] or 0) + count for key, count in counts.items()}
            if size_bytes is None:
                size_bytes = self._counts.get("size_bytes")
            self._counts = {**new, "size_bytes": size_bytes}

    def read(self) -> dict[str, int | None]:
        return self._counts


def takes_no_lock(read: Callable[[], object] | None) -> bool:
    """Tell whether a source surely takes no lock, which another thread of the parent might hold."""
    if isinstance(read, BuiltinMethodType):  # `cache_info` of `functools.lru_cache`
        return True
    return isinstance(getattr(read, "__self__", None), (CountedCache, _Manual))


class _Registry:
    """All registered caches. No source is ever called while the lock is held."""

    def __init__(self) -> None:
        # Re-entrant, as a signal handler may ask while its thread does
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._retired: dict[str, _Retired] = {}
        self._manual: dict[str, _Manual] = {}
        forking.watch(self)

    def after_fork(self) -> None:
        """Begin at zero, as the counts are now or, where reading might wait, were last."""
        self._lock = threading.RLock()
        for entry in self._entries.values():
            if takes_no_lock(entry.read):
                self.read_source(entry)
            entry.forget()
        for retired in self._retired.values():
            retired.entry.forget()

    def register(self, name: str, read: Callable[[], object]) -> None:
        old = self._entries.get(name)
        if old is not None:
            if old.read is not None and sources.same(old.read, read):
                return
            self.read_source(old)  # the old source's last counts belong to the total
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

    def record(self, name: str, size_bytes: int | None, **counts: int) -> None:
        with self._lock:
            manual = self._manual.get(name)
            if manual is None and name not in self._entries:
                manual = self._manual[name] = _Manual()
                self._open(name, manual.read)
        if manual is not None:
            manual.add(size_bytes, **counts)
            return
        errors.warn_once(
            f"manual cache {name}",
            "cache %r is registered with a source of its own; counts recorded by hand under "
            "this name are left out",
            name,
        )

    def read_all(self) -> list[CacheReading]:
        with self._lock:
            entries = list(self._entries.values())
        return [reading for reading in map(self.read_source, entries) if reading is not None]

    def read_source(self, entry: _Entry) -> CacheReading | None:
        """Read one source; None if it fails."""
        applied, read = entry.applied, entry.read
        if read is None:
            return None
        try:
            counts = sources.parse(read())
        except Exception as error:  # a user's source may raise anything
            errors.warn_once(
                f"cache {entry.name}",
                "cannot read the counts of cache %r, left out until it works again: %s",
                entry.name,
                privacy.sanitized_message(error, repr),
            )
            return None
        with self._lock:
            # If another thread took a reading while we took ours, nobody knows which is newer,
            # and the older one would look like a cache that was cleared.
            if entry.applied != applied or entry.read is None:
                return entry.latest
            return entry.apply(counts)

    def reset(self) -> None:
        with self._lock:
            self._entries.clear()
            self._retired.clear()
            self._manual.clear()


caches = _Registry()


def read_all() -> list[CacheReading]:
    """Read every registered cache that can be read, in the order they were registered."""
    return caches.read_all()


def reset() -> None:
    """Forget every cache and its totals; for tests."""
    caches.reset()

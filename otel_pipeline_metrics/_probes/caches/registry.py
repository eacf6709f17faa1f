"""The caches whose hits and misses are reported."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import ref

from otel_pipeline_metrics._core import cardinality, errors, privacy
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import check_name
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.resources.reading import CacheReading
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.caches.sources import Counts


__all__ = [
    "CountedCache",
    "counted_cache",
    "read_all",
    "record",
    "register_cache",
    "reset",
    "unregister_cache",
]


K = TypeVar("K")


V = TypeVar("V")


_MAX_RETIRED: Final = 1_000
"""Names whose totals are remembered after they were unregistered."""


class _Rising:
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
        self._requests, self._evictions, self._expirations = (_Rising(*each) for each in totals)

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


def _updated(rising: _Rising, count: int | None) -> int | None:
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


def _never_waits(read: Callable[[], object] | None) -> bool:
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
            if _never_waits(entry.read):
                self._look(entry)
            entry.forget()
        for retired in self._retired.values():
            retired.entry.forget()

    def register(self, name: str, read: Callable[[], object]) -> None:
        old = self._entries.get(name)
        if old is not None:
            if old.read is not None and sources.same(old.read, read):
                return
            self._look(old)  # the old source's last counts belong to the total
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
        self._look(entry)
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
        errors.once(
            f"manual cache {name}",
            "cache %r is registered with a source of its own; counts recorded by hand under "
            "this name are left out",
            name,
        )

    def read_all(self) -> list[CacheReading]:
        with self._lock:
            entries = list(self._entries.values())
        return [reading for reading in map(self._look, entries) if reading is not None]

    def _look(self, entry: _Entry) -> CacheReading | None:
        """Read one source; None if it fails."""
        applied, read = entry.applied, entry.read
        if read is None:
            return None
        try:
            counts = sources.parse(read())
        except Exception as error:  # noqa: BLE001 - a user's source may raise anything
            errors.once(
                f"cache {entry.name}",
                "cannot read the counts of cache %r, left out until it works again: %s",
                entry.name,
                privacy.readable(error, repr),
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


_registry = _Registry()


def register_cache(name: str, source: object) -> None:
    """Report the hits, misses, evictions and size of a cache.

    A source is held until `unregister_cache` and read whenever metrics are collected, by the
    collecting thread: it should only look at memory. Counts that it already has are reported
    too. Where its counts go back to zero (`cache_clear()`), the totals reported go on from where
    they were. A source that fails is said once, left out, and taken again when it works.

    Registering a name again replaces its source; the new one's counts are added to the old
    one's, so that the series does not fall. The same source again changes nothing.

    Args:
        name: what tells this cache from others, the `cache.name` attribute; a fixed word, not
            one made from data.
        source: a function wrapped by `functools.lru_cache` or `functools.cache`, or anything
            else with a `cache_info()`; or a `counted_cache`, or a function that
            `cachetools.cached` wrapped around one; or a callable that returns a mapping with
            `hits` and `misses` and, if known, `evictions`, `expirations`, `entries` and
            `size_bytes`, or an object with such attributes (`currsize` is read as entries, as
            `functools` has it).

    Raises:
        TypeError: `name` is no string, or `source` cannot tell hits and misses.
        ValueError: `name` is empty or too long.
    """
    check_name(name, "name")
    read = sources.reader_of(source)
    _registry.register(_distinct(name), read)
    _report()


def unregister_cache(name: str) -> None:
    """Report a cache no longer and let go of its source; an unknown name is no error.

    Its series ends with the next collection, so what it counted since the one before is not
    exported. Registering the name again continues its totals.

    Raises:
        TypeError: `name` is no string.
        ValueError: `name` is empty or too long.
    """
    _registry.unregister(check_name(name, "name"))


def counted_cache(cache: MutableMapping[K, V], *, name: str | None = None) -> CountedCache[K, V]:
    """Wrap a cachetools cache (or any mutable mapping) so that its use is counted.

    Use the result wherever the cache was, as in
    `@cachetools.cached(counted_cache(TTLCache(1000, 60), name="geo"))`; what goes past it is not
    counted.

    Args:
        cache: the cache to wrap.
        name: registers the cache under this name as `register_cache` does.

    Raises:
        TypeError: `cache` is no mutable mapping, or `name` is no string.
        ValueError: `name` is empty or too long.
    """
    if not isinstance(cache, MutableMapping):
        raise TypeError(f"cache must be a mutable mapping, not {type(cache).__name__}")
    if name is not None:
        check_name(name, "name")
    counted = cache if isinstance(cache, CountedCache) else CountedCache(cache)
    if name is not None:
        register_cache(name, counted)
    return counted


def record(
    name: str, hits: int, misses: int, evictions: int = 0, size_bytes: int | None = None
) -> None:
    """Add look-ups that a program counted itself to the cache `name`, made on first use.

    Args:
        name: the cache.
        hits: hits since the last call.
        misses: misses since the last call.
        evictions: evictions since the last call.
        size_bytes: the size now; None keeps the last one.

    Raises:
        TypeError: a count is no integer, or `name` is no string.
        ValueError: a count is negative, or `name` is empty or too long.
    """
    check_name(name, "name")
    counts = {"hits": hits, "misses": misses, "evictions": evictions}
    for argument, value in {**counts, "size_bytes": size_bytes}.items():
        if value is None and argument == "size_bytes":
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{argument} must be an integer, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{argument} must not be negative, this one is {value}")
    _registry.record(_distinct(name), size_bytes, **counts)
    _report()


def _distinct(name: str) -> str:
    return cardinality.names.name("cache names", name)


def _report() -> None:
    """See to it that caches are reported, from the first one on."""
    from otel_pipeline_metrics._probes.resources.instruments import (
        install_caches,  # it imports this module
    )

    sink.add_probe("caches", install_caches)


def read_all() -> list[CacheReading]:
    """Read every registered cache that can be read, in the order they were registered."""
    return _registry.read_all()


def reset() -> None:
    """Forget every cache and its totals; for tests."""
    _registry.reset()

"""Wrap a cache that has no statistics of its own, and count its look-ups."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

# what `get` of the wrapped cache returns for a missing key
ABSENT: Final = object()


def cachetools_base(cache: object) -> Any:
    """Return cachetools' `Cache` class if `cache` is one; do not import cachetools."""
    for base in type(cache).__mro__:
        if base.__name__ == "Cache" and base.__module__.partition(".")[0] == "cachetools":
            return base
    return None


def is_timed(cache: object) -> bool:
    """Tell whether `cache` is a cachetools cache whose entries expire."""
    return cachetools_base(cache) is not None and callable(getattr(cache, "expire", None))


class CountedCache(MutableMapping[K, V]):
    """A wrapper of a cache that counts its look-ups, evictions and expirations.

    A look-up is `cache[key]` or `cache.get(key)`: one hit or one miss. `in`, `pop` and
    `setdefault` are not look-ups: `cachetools.cached` with a lock stores its result through
    `setdefault`. An eviction is an entry that was removed to make room; entries removed by
    `del`, `pop`, `popitem` and `clear` are not counted.

    Every other attribute of the cache (`maxsize`, `ttl`, ...) is reachable through the wrapper.
    It takes no lock: use the lock that guards the cache.
    """

    def __init__(self, cache: MutableMapping[K, V]) -> None:
        self._cache: Any = cache
        base = cachetools_base(cache)
        # The base class's methods only read. Those of a timed cache remove expired entries, which
        # a reading thread must not do, and which would distort a count before and after.
        self._base: Any = type(cache) if base is None else base
        self._timed = is_timed(cache)
        self._fills_itself = hasattr(cache, "__missing__") and (
            base is None or type(cache).__missing__ is not base.__missing__
        )
        self._in_bytes = base is not None and getattr(cache, "getsizeof", None) is sys.getsizeof
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._expirations = 0

    def cache_statistics(self) -> dict[str, Any]:
        """Return the counts and levels; any thread may call this.

        It only reads memory. `expirations` is None for a cache without expiry; `size_bytes` is
        known only for a cache made with `getsizeof=sys.getsizeof`. Expired entries that are not
        removed yet count as entries, since they still hold memory.
        """
        return {
            "hits": self._hits,
            "misses": self._misses,
            "evictions": self._evictions,
            "expirations": self._expirations if self._timed else None,
            "entries": self._base.__len__(self._cache),
            "size_bytes": self._base.currsize.fget(self._cache) if self._in_bytes else None,
        }

    def __getitem__(self, key: K) -> V:
        if self._fills_itself:
            return self._get_or_fill(key)
        try:
            value: V = self._cache[key]
        except KeyError:
            self._misses += 1
            raise
        self._hits += 1
        return value

    def _get_or_fill(self, key: K) -> V:
        """Look up in a cache whose `__missing__` computes, and may store, a missing value."""
        if key in self._cache:
            self._hits += 1
        else:
            self._misses += 1
        value: V = self._storing(key, self._cache.__getitem__, key)
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value or `default`; this is one look-up."""
        value = self._cache.get(key, ABSENT)
        if value is ABSENT:
            self._misses += 1
            return default
        self._hits += 1
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._storing(key, self._cache.__setitem__, key, value)

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value, storing `default` if it is missing; this is not a look-up."""
        return self._storing(key, self._cache.setdefault, key, default)

    def __delitem__(self, key: K) -> None:
        if not self._timed:
            del self._cache[key]
            return
        before = self._length()
        try:
            del self._cache[key]
        except KeyError:
            # cachetools removes an expired entry and raises all the same
            self._expirations += max(0, before - self._length())
            raise

    def pop(self, key: K, *default: Any) -> Any:
        """Remove and return the value; this is neither a look-up nor an eviction."""
        return self._cache.pop(key, *default)

    def popitem(self) -> tuple[K, V]:
        """Remove and return the entry that the cache would evict next; not an eviction."""
        with self._timer():
            self._expire()
            item: tuple[K, V] = self._cache.popitem()
        return item

    def clear(self) -> None:
        """Remove all entries; the counts stay."""
        self._cache.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._cache

    def __iter__(self) -> Iterator[K]:
        return iter(self._cache)

    def __len__(self) -> int:
        with self._timer():
            self._expire()
            return len(self._cache)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._cache!r})"

    def __getattr__(self, name: str) -> Any:
        # a copy is made without __init__, so looking up _cache here would recurse without end
        if name == "_cache" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        if name == "expire" and self._timed:
            return self._expire
        if name == "currsize":
            self._expire()
        return getattr(self._cache, name)

    def _length(self) -> int:
        length: int = self._base.__len__(self._cache)
        return length

    def _others(self, key: K) -> int:
        """Return the number of entries other than `key`."""
        return self._length() - int(self._base.__contains__(self._cache, key))

    def _timer(self) -> AbstractContextManager[Any]:
        """Return a context that stops a timed cache's clock, so that no entry expires."""
        timer: Any = self._cache.timer if self._timed else None
        return timer if hasattr(timer, "__enter__") else nullcontext()

    def _expire(self, *time: Any) -> Any:
        if not self._timed:
            return None
        before = self._length()
        expired = self._cache.expire(*time)
        self._expirations += max(0, before - self._length())
        return expired

    def _storing(self, key: K, store: Callable[..., R], *arguments: Any) -> R:
        """Call a function that may store `key`; other entries that disappear were evicted."""
        with self._timer():
            self._expire()
            before = self._others(key)
            try:
                return store(*arguments)
            finally:
                self._evictions += max(0, before - self._others(key))

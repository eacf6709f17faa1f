"""Estimate the hit ratio that an LRU cache would have at half, twice and four times its size.

In a cache that evicts the least recently used entry, a look-up hits if its reuse distance, the
number of other keys since the last access to its key, is below the size (Mattson et al.,
"Evaluation techniques for storage hierarchies", 1970). So one stack of recent keys tells the
ratios of all sizes. Here the cache itself is the middle part of that stack: a smaller LRU cache
of keys tells which hits the half size would lose, and a list of evicted keys which misses a
larger size would avoid. The user's look-up that hits pays for the former alone.

Large caches are sampled by key, as SHARDS does (Waldspurger et al., "Efficient MRC construction
with SHARDS", FAST 2015): a key is always in the sample or never, so distances among the sampled
keys are the real ones times the rate.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.caches.counted import ABSENT, CountedCache, K, R, V
from otel_pipeline_metrics._probes.caches.reading import Reuse

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping


# Up to this size every key is watched, and of a larger cache a sample of so many entries. Four
# times the size are four times as many keys, so a sketch takes 7 MB at most.
MAX_EXACT: Final = 16_384
SAMPLE: Final = 4_096

# The half size is unknown if the program removes more than this share of what it stores: the
# smaller cache cannot forget a key.
_MAX_REMOVED: Final = 0.05

_WORD: Final = 2**64 - 1


def rate_of(size: int) -> float:
    """Return the share of the keys to watch in a cache of `size` entries, 0 to 1."""
    return 1.0 if size <= MAX_EXACT else SAMPLE / size


def sampled(key: object, rate: float) -> bool:
    """Tell whether a key is in a sample of all keys; `rate` is 0 to 1.

    `hash()` of an integer is that integer, so it alone would sample neighbours together. The mix
    is that of SplitMix64 (Steele et al., "Fast splittable pseudorandom number
    generators", 2014).
    """
    mixed = hash(key) + 0x9E3779B97F4A7C15 & _WORD
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD
    return mixed ^ mixed >> 31 < rate * 2**64


def lru_size(cache: object) -> int | None:
    """Return the entries that a cachetools `LRUCache` holds.

    None for another policy: of a subclass that changes what is stored or evicted, and of a cache
    whose entries differ in size.
    """
    base = next(
        (
            base
            for base in type(cache).__mro__
            if base.__name__ == "LRUCache" and base.__module__.partition(".")[0] == "cachetools"
        ),
        None,
    )
    changing = ("__getitem__", "__setitem__", "__missing__", "popitem")
    if base is None or any(getattr(type(cache), m) is not getattr(base, m) for m in changing):
        return None
    size = getattr(cache, "maxsize", 0)
    # not through `vars(cache)`, which makes attributes of an instance slower from then on
    in_entries = getattr(cache, "getsizeof", None) is getattr(base, "getsizeof", None)
    return int(size) if in_entries and 1 <= size < math.inf else None


class Sketch:
    """The keys around an LRU cache of `size` entries, and counts of their reuse.

    Calls come in the order of the look-ups, under the lock of the cache if it has one.
    """

    def __init__(self, size: int) -> None:
        self._rate = rate_of(size)
        watched = round(size * self._rate)
        # a cache of the half size: in C, since each look-up calls it; `type` does nothing to a key
        self._half: Any = functools.lru_cache(watched // 2)(type)
        # takes a key that was found
        self.found: Any = self._half if self._rate >= 1 else self._found
        # the watched keys in the cache; None if all are
        self._watched: set[object] | None = None if self._rate >= 1 else set()
        self._unwatched_found = 0
        self._near: OrderedDict[object, None] = OrderedDict()
        self._far: OrderedDict[object, None] = OrderedDict()
        self._room = watched
        self._near_count = self._far_count = 0
        # calls of `half` for keys that were stored, and how many of them it did not have
        self._stored_calls = self._stored_misses = 0
        # calls and misses of `half` before it was cleared
        self._calls_before = self._misses_before = 0
        self._stored = self._stored_watched = self._removed = 0
        # what was reported: a reading while another thread is in here must not be less
        self._looked_up = 0
        self._reuse = Reuse()

    @property
    def hits(self) -> int:
        """The look-ups that found their key; any thread may ask."""
        found = self._half.cache_info()
        calls = self._calls_before + found.hits + found.misses - self._stored_calls
        self._looked_up = max(self._looked_up, calls + self._unwatched_found)
        return self._looked_up

    def reuse(self) -> Reuse:
        """Return the counts so far; any thread may ask."""
        self._reuse = Reuse(
            self._misses_before + self._half.cache_info().misses - self._stored_misses,
            self._near_count,
            self._far_count,
            # nearer to the share of the cache's keys than the rate itself
            self._stored / self._stored_watched if self._stored_watched else 1.0,
            self._removed <= _MAX_REMOVED * self._stored,
        ).at_least(self._reuse)
        return self._reuse

    def _found(self, key: object) -> None:
        """Take a key that was found, where not all keys are watched."""
        if key in self._watched:  # type: ignore[operator]  # not called if it is None
            self._half(key)
        else:
            self._unwatched_found += 1

    def missed(self, key: object) -> None:
        """Count a look-up that did not find `key`."""
        if key in self._near:
            self._near_count += 1
        elif key in self._far:
            self._far_count += 1

    def stored(self, key: object, *, new: bool = True) -> None:
        """Take a key that was stored or touched without a look-up."""
        self._stored += new
        if self._watched is not None:
            if not sampled(key, self._rate):
                return
            self._watched.add(key)
        self._stored_watched += new
        if new and self._near.pop(key, self) is self:
            self._far.pop(key, None)
        misses = self._half.cache_info().misses
        self._half(key)
        self._stored_calls += 1
        self._stored_misses += self._half.cache_info().misses - misses

    def evicted(self, key: object) -> None:
        """Take a key that the cache removed to make room."""
        if self._watched is not None:
            if key not in self._watched:
                return
            self._watched.discard(key)
        self._near[key] = None
        if len(self._near) > self._room:
            self._far[self._near.popitem(last=False)[0]] = None
            if len(self._far) > 2 * self._room:
                self._far.popitem(last=False)

    def removed(self, key: object, *, present: bool = True) -> None:
        """Take a key that the program removed, from caches of any size."""
        self._removed += present
        self._near.pop(key, None)
        self._far.pop(key, None)
        if self._watched is not None:
            self._watched.discard(key)

    def clear(self) -> None:
        """Forget all keys; the counts stay."""
        found = self._half.cache_info()
        self._half.cache_clear()
        self._calls_before += found.hits + found.misses
        self._misses_before += found.misses
        self._near.clear()
        self._far.clear()
        if self._watched is not None:
            self._watched.clear()


class WhatIfCache(CountedCache[K, V]):
    """A counted LRU cache that also tells the hit ratios of other sizes.

    It keeps keys of evicted entries, up to three times as many as there are entries.
    """

    def __init__(self, cache: MutableMapping[K, V], size: int) -> None:
        super().__init__(cache)
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._sketch = Sketch(self._size)
        for key in self._cache:
            self._sketch.stored(key)
        # a look-up reaches it without a detour
        self._found = self._sketch.found

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which has the counts but a sketch of its own."""
        state = {**vars(self), "_hits": self._hit_count()}
        del state["_sketch"], state["_found"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def _hit_count(self) -> int:
        # counted there alone, which is less work than here too
        return self._hits + self._sketch.hits

    def cache_statistics(self) -> dict[str, Any]:
        """Return the counts and levels; any thread may call this."""
        return {
            **super().cache_statistics(),
            "hits": self._hit_count(),
            "reuse": self._sketch.reuse(),
        }

    def __getitem__(self, key: K) -> V:
        try:
            value: V = self._cache[key]
        except KeyError:
            self._misses += 1
            self._sketch.missed(key)
            raise
        self._found(key)
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value or `default`; this is one look-up."""
        value = self._cache.get(key, ABSENT)
        if value is ABSENT:
            self._misses += 1
            self._sketch.missed(key)
            return default
        self._found(key)
        return value

    def _storing(self, key: K, store: Callable[..., R], *arguments: Any) -> R:
        new = key not in self._cache
        evicted: list[object] = []
        if new and self._cache.currsize + 1 > self._cache.maxsize:
            # as the cache itself would do next, but so that the key is known
            evicted.append(self._cache.popitem()[0])
            self._evictions += 1
        result = store(*arguments)
        with errors.suppress_errors("the what-if of a cache"):
            self._sketch.stored(key, new=new)
            for other in evicted:
                self._sketch.evicted(other)
        return result

    def __delitem__(self, key: K) -> None:
        del self._cache[key]
        self._sketch.removed(key)

    def pop(self, key: K, *default: Any) -> Any:
        """Remove and return the value; this is neither a look-up nor an eviction."""
        present = key in self._cache
        found = self._cache.pop(key, *default)
        self._sketch.removed(key, present=present)
        return found

    def popitem(self) -> tuple[K, V]:
        """Remove and return the entry that the cache would evict next; not an eviction."""
        key, value = super().popitem()
        self._sketch.removed(key)
        return key, value

    def clear(self) -> None:
        """Remove all entries; the counts stay."""
        super().clear()
        self._sketch.clear()


class FunctionSketch:
    """A function's `lru_cache`, `cached`, and the same of other sizes, which hold no results.

    `functools.lru_cache` does not tell what it evicts, so each size is simulated. All are in C
    and take no lock of ours.
    """

    def __init__(self, function: Callable[..., Any], size: int, *, typed: bool) -> None:
        self._rate = rate_of(size)
        # results that were stored since the cache was cleared, of all keys and of the watched
        self._stored = self._stored_watched = 0
        watched = function if self._rate >= 1 else self._counting(function)
        self.cached: Any = functools.lru_cache(maxsize=size, typed=typed)(watched)

        def simulated(times: float) -> Any:
            room = int(round(size * self._rate) * times)
            return functools.lru_cache(maxsize=room, typed=typed)(_nothing)

        self._half, self._twice, self._four = simulated(0.5), simulated(2), simulated(4)
        # counts before `cache_clear()`, and what was reported: a reading while another thread is
        # in here must not be less
        self._before = self._reuse = Reuse()
        self._hits_before = self._misses_before = self._hits = self._misses = 0

    def _counting(self, function: Callable[..., R]) -> Callable[..., R]:
        """Wrap the function to count what is stored; a watched key is known by its arguments."""

        def counting(*args: Any, **kwds: Any) -> R:
            result = function(*args, **kwds)
            self._stored += 1
            self._stored_watched += self._watches(args, kwds)
            return result

        return counting

    def _watches(self, args: tuple[Any, ...], kwds: dict[str, Any]) -> bool:
        return self._rate >= 1 or sampled((args, *kwds.items()), self._rate)

    def called(self, args: tuple[Any, ...], kwds: dict[str, Any]) -> None:
        """Take a call that returned."""
        if self._watches(args, kwds):
            self._half(*args, **kwds)
            self._twice(*args, **kwds)
            self._four(*args, **kwds)

    def cache_statistics(self) -> dict[str, Any]:
        """Return the counts and levels; any thread may call this."""
        found = self.cached.cache_info()
        self._hits = max(self._hits, self._hits_before + found.hits)
        self._misses = max(self._misses, self._misses_before + found.misses)
        self._reuse = self._before.plus(self._count()).at_least(self._reuse)
        # nearer to the share of the keys in question than the rate itself
        scale = self._stored / self._stored_watched if self._stored_watched else 1 / self._rate
        return {
            "hits": self._hits,
            "misses": self._misses,
            "entries": found.currsize,
            "reuse": replace(self._reuse, scale=scale),
        }

    def _count(self) -> Reuse:
        half, twice, four = (size.cache_info() for size in (self._half, self._twice, self._four))
        # what the cache itself hit of the watched keys
        hits = self.cached.cache_info().hits
        if self._rate < 1:
            hits = half.hits + half.misses - self._stored_watched
        return Reuse(lost=hits - half.hits, near=twice.hits - hits, far=four.hits - twice.hits)

    def clear(self) -> None:
        """Clear the cache and its `cache_info()`, as `lru_cache` does; the totals go on."""
        found, counts = self.cached.cache_info(), self._count()
        for size in (self.cached, self._half, self._twice, self._four):
            size.cache_clear()
        self._stored = self._stored_watched = 0
        self._hits_before += found.hits
        self._misses_before += found.misses
        self._before = self._before.plus(counts)


def _nothing(*_: Any, **__: Any) -> None:
    """Stand for the user's function where only the keys matter."""

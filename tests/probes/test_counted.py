"""Test the counting wrapper around real cachetools caches."""

from __future__ import annotations

import copy
import pickle
import random
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.caches.register import counted_cache
from otel_pipeline_metrics._probes.caches.registry import CountedCache, read_all

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def counts(cache: CountedCache[Any, Any]) -> tuple[int | None, ...]:
    """Return hits, misses, evictions and expirations."""
    return tuple(cache.cache_statistics().values())[:4]


def test_each_look_up_is_one_hit_or_one_miss() -> None:
    cache = counted_cache(cachetools.LRUCache(10))
    cache["a"] = 1

    assert cache["a"] == 1
    assert cache.get("a") == 1
    with pytest.raises(KeyError, match="b"):
        cache["b"]
    assert cache.get("b") is None
    assert cache.get("b", 5) == 5
    assert counts(cache) == (2, 3, 0, None)


def test_other_operations_are_not_look_ups() -> None:
    cache = counted_cache(cachetools.LRUCache(10))

    assert "a" not in cache
    assert cache.setdefault("a", 1) == 1
    assert cache.setdefault("a", 2) == 1
    assert "a" in cache
    assert list(cache) == ["a"]
    assert len(cache) == 1
    assert cache.pop("a") == 1
    assert cache.pop("a", 5) == 5
    with pytest.raises(KeyError):
        cache.pop("a")
    cache["b"] = 2
    assert cache.popitem() == ("b", 2)
    with pytest.raises(KeyError):
        cache.popitem()
    cache["c"] = 3
    del cache["c"]
    cache["d"] = 4
    cache.clear()
    assert counts(cache) == (0, 0, 0, None)


@pytest.mark.parametrize("lock", [None, threading.Lock()])
def test_cached_counts_one_look_up_a_call(lock: threading.Lock | None) -> None:
    """With a lock, `cached` stores through `setdefault`, which is not a look-up."""
    cache = counted_cache(cachetools.LRUCache(2), name="squares")

    @cachetools.cached(cache, lock=lock)
    def square(n: int) -> int:
        return n * n

    for n in (1, 2, 1, 3, 2):
        assert square(n) == n * n

    assert read_all() == [CacheReading("squares", 1, 4, evictions=2, entries=2)]


def test_cachedmethod_counts_one_look_up_a_call() -> None:
    class Squares:
        def __init__(self) -> None:
            self.cache: CountedCache[Any, int] = counted_cache(cachetools.LRUCache(2))

        @cachetools.cachedmethod(lambda self: self.cache)
        def square(self, n: int) -> int:
            return n * n

    squares = Squares()
    squares.square(1)
    squares.square(1)

    assert counts(squares.cache) == (1, 1, 0, None)


@pytest.mark.parametrize(
    "make",
    [
        cachetools.FIFOCache,
        cachetools.LFUCache,
        cachetools.LRUCache,
        lambda maxsize: cachetools.RRCache(maxsize, random.Random(0).choice),  # noqa: S311
        lambda maxsize: cachetools.TTLCache(maxsize, 60, Timer()),
        lambda maxsize: cachetools.TLRUCache(maxsize, lambda _k, _v, now: now + 60, Timer()),
    ],
)
def test_evictions_are_counted(make: Callable[[int], cachetools.Cache[int, int]]) -> None:
    cache = counted_cache(make(3))
    for n in range(5):
        cache[n] = n
    newest = cache.cache_statistics()["evictions"]
    cache[4] = 5
    cache.setdefault(9, 9)

    assert (newest, cache.cache_statistics()["evictions"]) == (2, 3)
    assert cache.cache_statistics()["entries"] == 3


def test_one_large_value_evicts_several() -> None:
    cache = counted_cache(cachetools.LRUCache(10, getsizeof=len))
    for key in "abcde":
        cache[key] = "xx"
    cache["f"] = "x" * 7
    with pytest.raises(ValueError, match="too large"):
        cache["g"] = "x" * 11

    assert counts(cache) == (0, 0, 4, None)
    assert list(cache) == ["e", "f"]


def test_growing_a_value_evicts_others_only() -> None:
    cache = counted_cache(cachetools.LRUCache(4, getsizeof=len))
    cache["a"] = "x"
    cache["b"] = "x"
    cache["a"] = "xxxx"

    assert counts(cache) == (0, 0, 1, None)
    assert dict(cache) == {"a": "xxxx"}


def test_expirations_of_a_ttl_cache_are_counted() -> None:
    timer = Timer()
    cache = counted_cache(cachetools.TTLCache(3, 10, timer))
    cache["a"] = 1
    cache["b"] = 2
    timer.time = 5
    cache["c"] = 3
    timer.time = 10

    assert cache.get("a") is None
    assert counts(cache) == (0, 1, 0, 0)

    cache["d"] = 4  # "a" and "b" have expired and leave room
    assert counts(cache) == (0, 1, 0, 2)

    cache["e"] = 5
    cache["f"] = 6  # nothing has expired: "c" is evicted
    assert counts(cache) == (0, 1, 1, 2)

    timer.time = 20
    assert len(cache) == 0
    assert counts(cache) == (0, 1, 1, 5)


def test_each_way_to_expire_is_counted() -> None:
    timer = Timer()
    cache = counted_cache(cachetools.TTLCache(10, 10, timer))

    def fill() -> None:
        cache["a"] = 1
        timer.time += 10

    fill()
    assert cache.expire() in ([("a", 1)], None)  # None until cachetools 5.4
    fill()
    assert cache.currsize == 0
    fill()
    with pytest.raises(KeyError):
        cache.popitem()
    fill()
    with pytest.raises(KeyError):
        del cache["a"]
    fill()
    assert cache.setdefault("a", 2) == 2
    assert counts(cache) == (0, 0, 0, 5)
    cache.clear()
    assert counts(cache) == (0, 0, 0, 5)


def test_an_expiry_between_count_and_store_is_not_an_eviction() -> None:
    """The clock moves at each reading."""

    class Running(Timer):
        def __call__(self) -> float:
            self.time += 1
            return self.time

    cache = counted_cache(cachetools.TTLCache(1000, 7, Running()))
    for n in range(50):
        cache[n] = n

    stored = cache.cache_statistics()
    assert stored["evictions"] == 0
    assert stored["expirations"] == 50 - (stored["entries"] or 0)


def test_a_tlru_cache_may_refuse_a_value() -> None:
    cache = counted_cache(cachetools.TLRUCache(3, lambda _k, value, now: now + value, Timer()))
    cache["a"] = 1
    cache["b"] = 0
    cache["c"] = 1

    assert counts(cache) == (0, 0, 0, 0)
    assert set(cache) == {"a", "c"}


def test_reading_the_counts_changes_nothing() -> None:
    """The collecting thread lacks the user's lock, so it must not expire an entry."""
    timer = Timer()
    inner: cachetools.TTLCache[str, int] = cachetools.TTLCache(3, 10, timer)
    cache = counted_cache(inner)
    cache["a"] = 1
    timer.time = 10

    assert cache.cache_statistics()["entries"] == 1
    assert counts(cache) == (0, 0, 0, 0)
    assert cachetools.Cache.__len__(inner) == 1


def test_bytes_are_known_if_getsizeof_returns_bytes() -> None:
    def size(getsizeof: Any) -> int | None:
        cache = counted_cache(cachetools.LRUCache(1000, getsizeof=getsizeof))
        cache["a"] = "x" * 10
        return cache.cache_statistics()["size_bytes"]

    assert size(sys.getsizeof) == sys.getsizeof("x" * 10)
    assert size(len) is None
    assert size(None) is None


class Loading(cachetools.LRUCache[int, int]):
    """A cache that computes and stores a missing value, as in cachetools' manual."""

    def __missing__(self, key: int) -> int:
        self[key] = key * key
        return self[key]


def test_a_cache_that_fills_itself_is_counted() -> None:
    cache = counted_cache(Loading(2))

    assert [cache[n] for n in (1, 1, 2, 3)] == [1, 1, 4, 9]
    assert cache.get(9) is None
    assert counts(cache) == (1, 4, 1, None)


def test_other_mappings_are_counted() -> None:
    plain: CountedCache[str, int] = counted_cache({})
    filling: CountedCache[str, list[int]] = counted_cache(defaultdict(list))
    with pytest.raises(KeyError):
        plain["a"]
    plain["a"] = 1
    filling["a"].append(1)

    assert plain["a"] == 1
    assert filling["a"] == [1]
    assert counts(plain) == (1, 1, 0, None)
    assert counts(filling) == (1, 1, 0, None)


def test_other_attributes_of_the_cache_are_reachable() -> None:
    inner: cachetools.TTLCache[str, int] = cachetools.TTLCache(3, 10)
    cache = counted_cache(inner)
    cache["a"] = 1

    assert isinstance(cache, MutableMapping)
    assert (cache.maxsize, cache.currsize, cache.ttl, cache.timer) == (3, 1, 10, inner.timer)
    assert repr(inner) in repr(cache)
    assert not hasattr(counted_cache(cachetools.LRUCache(1)), "expire")
    with pytest.raises(AttributeError, match="nothing"):
        cache.nothing  # noqa: B018


def test_a_copy_keeps_counts_and_entries() -> None:
    cache = counted_cache(cachetools.LRUCache(3))
    cache["a"] = 1
    cache.get("a")

    assert counts(copy.copy(cache)) == (1, 0, 0, None)
    assert dict(pickle.loads(pickle.dumps(cache))) == {"a": 1}  # noqa: S301


def test_wrapping_a_wrapper_returns_it() -> None:
    cache = counted_cache(cachetools.LRUCache(3))

    assert counted_cache(cache, name="name") is cache
    assert [reading.name for reading in read_all()] == ["name"]


@pytest.mark.parametrize("cache", [None, [], "geo", frozenset(), len])
def test_an_object_that_is_not_a_mapping_is_refused(cache: Any) -> None:
    with pytest.raises(TypeError, match=r"^cache must"):
        counted_cache(cache)


operations = st.lists(
    st.tuples(
        st.sampled_from(["get", "item", "set", "setdefault", "pop", "del", "in", "clear", "wait"]),
        st.integers(0, 5),
    )
)


@given(operations, st.sampled_from(["lru", "lfu", "ttl"]))
def test_a_wrapped_cache_behaves_like_the_bare_one(
    history: list[tuple[str, int]], kind: str
) -> None:
    """Every stored entry is still there, evicted, expired or removed."""
    timer = Timer()

    def make() -> Any:
        return {
            "lru": lambda: cachetools.LRUCache(3),
            "lfu": lambda: cachetools.LFUCache(3),
            "ttl": lambda: cachetools.TTLCache(3, 4, timer),
        }[kind]()

    def do(cache: Any, operation: str, key: int) -> object:
        actions: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get(key),
            "item": lambda: cache[key],
            "set": lambda: cache.__setitem__(key, key),
            "setdefault": lambda: cache.setdefault(key, key),
            "pop": lambda: cache.pop(key, None),
            "del": lambda: cache.__delitem__(key),
            "in": lambda: key in cache,
            "clear": cache.clear,
        }
        try:
            return actions[operation]()
        except KeyError:
            return KeyError

    bare, inner = make(), make()
    cache = counted_cache(inner)
    look_ups = 0
    for operation, key in history:
        if operation == "wait":
            timer.time += 1
            continue
        look_ups += operation in {"get", "item"}
        assert do(cache, operation, key) == do(bare, operation, key)
    hits, misses, evictions, expirations = counts(cache)
    assert hits is not None
    assert misses is not None
    assert hits + misses == look_ups
    assert (evictions or 0) >= 0
    assert (expirations or 0) >= 0
    assert OrderedDict(cache) == OrderedDict(bare)

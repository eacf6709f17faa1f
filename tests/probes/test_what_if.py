"""Test the hit ratios of other sizes against replays of traces at those sizes."""

from __future__ import annotations

import copy
import os
import pickle
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._probes.caches import registry, what_if
from otel_pipeline_metrics._probes.caches.register import counted_cache
from otel_pipeline_metrics._probes.caches.registry import read_all
from otel_pipeline_metrics._probes.caches.what_if import Sketch, WhatIfCache, sampled
from tests.probes.replaying import loop, mixed_scan, phased_scan, replayed, zipf

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._probes.caches.reading import CacheReading
    from tests.probes.replaying import Trace

FACTORS = {"half": 0.5, "twice": 2, "four_times": 4}
LENGTH = 10_000
TRACES = {
    "zipf": zipf(LENGTH, 5_000, 1.0),
    "flat zipf": zipf(LENGTH, 20_000, 0.7),
    "scan with hot set": mixed_scan(LENGTH, 100, 3_000),
    "scan after hot set": phased_scan(LENGTH, 200, 800),
    "loop": loop(LENGTH, 1_000),
}


def only() -> CacheReading:
    (reading,) = read_all()
    return reading


def ratios() -> dict[str, Any]:
    found = only().what_if
    assert found is not None
    return found


def use_cache(trace: Trace, size: int) -> None:
    cache = counted_cache(cachetools.LRUCache(size), name="c", what_if=True)
    for key in trace:
        if cache.get(key) is None:
            cache[key] = key


def use_item(trace: Trace, size: int) -> None:
    cache: Any = counted_cache(cachetools.LRUCache(size), name="c", what_if=True)

    @cachetools.cached(cache)
    def look_up(key: object) -> object:
        return key

    for key in trace:
        look_up(key)


def use_function(trace: Trace, size: int) -> None:
    look_up = opm.counted_lru_cache(size, name="c", what_if=True)(lambda key: key)
    for key in trace:
        look_up(key)


WAYS = [use_cache, use_item, use_function]


def errors_of(trace: Trace, sizes: list[int], use: Callable[[Trace, int], None]) -> list[float]:
    """Return by how much the ratios differ from a replay, at sizes where that is not steep."""
    at = replayed(trace)
    found = []
    for size in sizes:
        use(trace, size)
        before = only()
        for name, factor in FACTORS.items():
            other = int(size * factor)
            if abs(at(int(1.1 * other)) - at(int(0.9 * other))) < 0.05:
                estimate = before.what_if and before.what_if[name]
                assert estimate is not None
                found.append(abs(estimate - at(other)))
        # otherwise the totals of the name would go on
        registry.reset()
    return found


@pytest.mark.parametrize("use", WAYS)
@pytest.mark.parametrize("trace", TRACES.values(), ids=list(TRACES))
def test_each_size_is_as_if_replayed(trace: Trace, use: Callable[[Trace, int], None]) -> None:
    """Every key is watched, so there is no error at all."""
    sizes = [1, 2, 3, 7, 20, 50, 100, 150, 250, 400, 700, 1_000, 1_500, 2_500, 4_000]
    found = errors_of(trace, sizes, use)
    assert len(found) >= 20
    assert max(found) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_cache, use_function])
@pytest.mark.parametrize("shape", ["zipf", "scan with hot set", "scan after hot set", "loop"])
def test_a_sample_of_the_keys_is_within_two_points(
    shape: str, use: Callable[[Trace, int], None]
) -> None:
    """Larger caches watch a sample only."""
    trace = {
        "zipf": lambda: zipf(80_000, 60_000, 0.8),
        "scan with hot set": lambda: mixed_scan(80_000, 500, 20_000),
        "scan after hot set": lambda: phased_scan(80_000, 2_000, 15_000),
        "loop": lambda: loop(80_000, 19_000),
    }[shape]()
    sizes = [16_400, 16_800, 17_500, 18_500, 20_000, 22_000, 25_000, 30_000, 36_000]
    found = errors_of(trace, sizes, use)
    assert len(found) >= 20
    assert max(found) < 0.02


def test_memory_does_not_grow_with_a_large_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_if, "MAX_EXACT", 100)
    monkeypatch.setattr(what_if, "SAMPLE", 50)
    cache: Any = counted_cache(cachetools.LRUCache(1_000), what_if=True)
    for key in range(20_000):
        cache[key] = key
    sketch = cache._sketch
    assert len(sketch._near) == 50
    assert len(sketch._far) == 100
    assert sketch._half.cache_info().currsize == 25
    assert 20 < len(sketch._watched) < 90


def test_neighbours_are_not_sampled_together() -> None:
    """`hash()` of an integer is itself: by that alone, the first thousand would all be in."""
    for keys in (range(10_000), range(0, 10_000 << 32, 1 << 32), range(0, 70_000, 7)):
        for part in range(10):
            tenth = keys[part * 1_000 : (part + 1) * 1_000]
            assert 50 < sum(sampled(key, 0.1) for key in tenth) < 150


def test_a_key_is_always_in_the_sample_or_never() -> None:
    assert all(sampled(key, 1.0) for key in range(1_000))
    assert not any(sampled(key, 0.0) for key in range(1_000))
    assert {key for key in range(1_000) if sampled(key, 0.1)} <= {
        key for key in range(1_000) if sampled(key, 0.2)
    }


def lru_with(**methods: Any) -> Any:
    return type("Other", (cachetools.LRUCache,), methods)(4)


@pytest.mark.parametrize(
    "cache",
    [
        {},
        cachetools.LFUCache(4),
        cachetools.FIFOCache(4),
        cachetools.TTLCache(4, 60),
        cachetools.LRUCache(4, getsizeof=len),
        cachetools.LRUCache(float("inf")),
        cachetools.LRUCache(0),
        lru_with(popitem=cachetools.Cache.popitem),
        lru_with(__missing__=lambda self, key: key),
        lru_with(getsizeof=lambda self, value: 2),
    ],
    ids=["dict", "lfu", "fifo", "ttl", "sizes", "unlimited", "none", "order", "fills", "weights"],
)
def test_the_ratios_of_other_policies_are_unknown(cache: Any) -> None:
    counted = counted_cache(cache, name="c", what_if=True)
    counted.get("x")
    assert only().what_if is None
    assert only().misses == 1
    assert counted_cache(counted, what_if=True) is counted


def test_a_subclass_that_keeps_the_policy_is_known() -> None:
    class Named(cachetools.LRUCache[str, int]):
        label = "geo"

    counted_cache(Named(4), name="c", what_if=True).get("x")
    assert ratios() == {"half": 0.0, "twice": 0.0, "four_times": 0.0}


def test_before_a_look_up_and_without_the_argument_the_ratios_are_unknown() -> None:
    cache = counted_cache(cachetools.LRUCache(4), name="c", what_if=True)
    assert only().what_if is None
    cache.get("x")
    assert only().what_if is not None
    counted_cache(cachetools.LRUCache(4), name="other").get("x")
    assert read_all()[1].what_if is None


def test_what_if_must_be_told_at_the_first_call() -> None:
    counted = counted_cache(cachetools.LRUCache(4))
    with pytest.raises(ValueError, match=r"^what_if"):
        counted_cache(counted, what_if=True)
    with pytest.raises(TypeError, match=r"^what_if must be True or False"):
        counted_cache(cachetools.LRUCache(4), what_if=1)  # type: ignore[arg-type]
    known = counted_cache(cachetools.LRUCache(4), what_if=True)
    assert counted_cache(known, what_if=True) is known


def test_a_look_up_that_nothing_is_stored_for_misses_at_every_size() -> None:
    cache = counted_cache(cachetools.LRUCache(4), name="c", what_if=True)
    for _ in range(100):
        cache.get("never stored")
    assert ratios() == {"half": 0.0, "twice": 0.0, "four_times": 0.0}


def test_a_removed_key_would_be_gone_at_every_size() -> None:
    """`pop` of an evicted key removes it from larger caches too."""
    cache = counted_cache(cachetools.LRUCache(2), name="c", what_if=True)
    for key in "abc":
        cache[key] = 1  # evicts "a"
    cache.pop("a", None)
    assert cache.get("a") is None
    assert ratios()["twice"] == 0.0
    cache["a"] = 1  # evicts "b"
    assert cache.get("b") is None
    assert ratios()["twice"] == 0.5


@pytest.mark.parametrize("remove", ["pop", "del", "popitem"])
def test_half_the_size_is_unknown_if_the_program_removes_keys(remove: str) -> None:
    cache = counted_cache(cachetools.LRUCache(8), name="c", what_if=True)
    cache["a"] = 1
    assert cache["a"] == 1
    assert ratios()["half"] == 1.0
    if remove == "pop":
        cache.pop("a")
    elif remove == "del":
        del cache["a"]
    else:
        cache.popitem()
    assert ratios() == {"half": None, "twice": 1.0, "four_times": 1.0}


def test_clearing_forgets_the_keys_and_keeps_the_counts() -> None:
    cache = counted_cache(cachetools.LRUCache(2), name="c", what_if=True)
    for key in "abc":
        cache[key] = 1
    for key in "abc":  # "a" was evicted; "b" and "c" are found, but not at half the size
        cache.get(key)
    expected = {"half": 0.0, "twice": 1.0, "four_times": 1.0}
    assert ratios() == expected
    cache.clear()
    assert (only().hits, only().misses) == (2, 1)
    assert ratios() == expected
    cache.get("a")
    assert (only().hits, only().misses) == (2, 2)
    assert ratios() == {"half": 0.0, "twice": 0.75, "four_times": 0.75}


def test_entries_from_before_the_wrapping_count() -> None:
    inner: cachetools.LRUCache[str, int] = cachetools.LRUCache(4)
    inner["a"] = inner["b"] = 1
    cache = counted_cache(inner, name="c", what_if=True)
    assert cache["a"] == cache["b"] == 1
    assert (only().hits, ratios()["half"]) == (2, 1.0)


def test_storing_again_touches_but_is_no_look_up() -> None:
    cache = counted_cache(cachetools.LRUCache(4), name="c", what_if=True)
    cache["a"] = 1
    for key in "bcd":
        cache[key] = 1
    cache["a"] = 2
    assert cache.setdefault("b", 5) == 1
    assert (only().hits, only().misses, only().evictions) == (0, 0, 0)
    assert cache["a"] == 2  # second of the last two: found at half the size
    assert cache["c"] == 1  # not
    assert ratios()["half"] == 0.5


def test_copies_have_the_counts_and_a_sketch_of_their_own() -> None:
    cache = counted_cache(cachetools.LRUCache(3), what_if=True)
    cache["a"] = 1
    cache.get("a")
    cache.get("b")
    for twin in (copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):  # noqa: S301
        assert isinstance(twin, WhatIfCache)
        assert twin["a"] == 1
        found = twin.cache_statistics()
        assert (found["hits"], found["misses"]) == (2, 1)
    assert cache.cache_statistics()["hits"] == 1


@given(
    st.lists(st.tuples(st.sampled_from(["get", "item", "set", "setdefault"]), st.integers(0, 9)))
)
def test_the_cache_behaves_like_one_without_what_if(history: list[tuple[str, int]]) -> None:
    plain = counted_cache(cachetools.LRUCache(3))
    watched = counted_cache(cachetools.LRUCache(3), what_if=True)

    def do(cache: Any, operation: str, key: int) -> object:
        actions: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get(key),
            "item": lambda: cache[key],
            "set": lambda: cache.__setitem__(key, key),
            "setdefault": lambda: cache.setdefault(key, key),
        }
        try:
            return actions[operation]()
        except KeyError:
            return KeyError

    for operation, key in history:
        assert do(watched, operation, key) == do(plain, operation, key)
        assert list(watched) == list(plain)
    for name, count in plain.cache_statistics().items():
        assert watched.cache_statistics()[name] == count


def test_a_failing_sketch_does_not_fail_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(errors, "raise_faults", False)
    monkeypatch.setattr(Sketch, "stored", fail)
    cache = counted_cache(cachetools.LRUCache(2), what_if=True)
    cache["a"] = 1
    assert cache["a"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_counts_from_zero() -> None:
    cache = counted_cache(cachetools.LRUCache(2), name="c", what_if=True)
    for key in "abca":
        if cache.get(key) is None:
            cache[key] = 1
    assert (only().misses, ratios()["twice"]) == (4, 0.25)
    child = os.fork()
    if child == 0:
        cache.get("b")  # evicted before the fork, by "a"
        cache.get("new")
        found = only()
        right = (found.hits, found.misses) == (0, 2) and found.what_if == {
            "half": 0.0, "twice": 0.5, "four_times": 0.5,
        }  # fmt: skip
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0

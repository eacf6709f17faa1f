"""Test registered caches: their sources, and totals that never fall."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cachetools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._lifecycle.collector import MetricsCollector
from otel_pipeline_metrics._probes.caches import registry
from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.caches.register import (
    counted_cache,
    register_cache,
    unregister_cache,
)
from otel_pipeline_metrics._probes.caches.registry import read_all

if TYPE_CHECKING:
    from collections.abc import Callable


def only() -> CacheReading:
    (reading,) = read_all()
    return reading


def test_an_lru_cache_is_a_source() -> None:
    @functools.lru_cache(maxsize=2)
    def square(n: int) -> int:
        return n * n

    square(1)
    register_cache("squares", square)
    for n in (1, 1, 2, 3):
        square(n)

    assert CacheReading("squares", hits=2, misses=3, entries=2) == only()
    assert only().hit_ratio == 0.4


def test_the_cache_of_a_method_is_a_source() -> None:
    class Geo:
        @functools.cache  # noqa: B019 - how users do it
        def lookup(self, key: str) -> str:
            return key

    register_cache("geo", Geo.lookup.cache_info)
    geo = Geo()
    geo.lookup("a")
    geo.lookup("a")

    assert CacheReading("geo", 1, 1, entries=1) == only()


def test_a_callable_that_returns_a_mapping_is_a_source() -> None:
    full = {
        "hits": 1,
        "misses": 2,
        "evictions": 3,
        "expirations": 4,
        "entries": 5,
        "size_bytes": 6.0,
        "anything": "else",
    }
    register_cache("full", lambda: full)
    register_cache("least", lambda: {"hits": 1, "misses": 2, "evictions": None})

    assert [CacheReading("full", 1, 2, 3, 4, 5, 6), CacheReading("least", 1, 2)] == read_all()


def test_a_callable_that_returns_an_object_is_a_source() -> None:
    register_cache("object", lambda: SimpleNamespace(hits=1, misses=2, entries=3, currsize=99))

    assert CacheReading("object", 1, 2, entries=3) == only()


def test_a_function_cached_by_cachetools_is_a_source() -> None:
    @cachetools.cached(cachetools.LRUCache(10), info=True)
    def plain(n: int) -> int:
        return n

    @cachetools.cached(counted_cache(cachetools.TTLCache(10, 60)), info=True)
    def counted(n: int) -> int:
        return n

    for function in (plain, counted):
        register_cache("name", function)
        function(1)
        function(1)

        assert (only().hits, only().misses, only().entries) == (1, 1, 1)
        registry.reset()


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (cachetools.LRUCache(1), "counted_cache"),
        ({"hits": 1, "misses": 2}, "counted_cache"),
        (cachetools.cached(cachetools.LRUCache(1))(len), "info=True"),
        (cachetools.cached(cachetools.TTLCache(1, 1), info=True)(len), "lock"),
        (lambda key: key, "decorator"),
        (5, "cache_info"),
        ("geo", "cache_info"),
        (None, "cache_info"),
    ],
)
def test_other_objects_are_refused_as_a_source(source: object, hint: str) -> None:
    with pytest.raises(TypeError, match=rf"(?s)^source.*{hint}"):
        register_cache("name", source)
    assert read_all() == []


def test_a_coroutine_function_is_refused_as_a_source() -> None:
    async def source() -> dict[str, int]:
        return {}

    with pytest.raises(TypeError, match="source"):
        register_cache("name", source)


def test_a_timed_cache_with_a_lock_can_be_read() -> None:
    @cachetools.cached(cachetools.TTLCache(10, 60), lock=threading.Lock(), info=True)
    def square(n: int) -> int:
        return n * n

    register_cache("squares", square)
    square(1)

    assert CacheReading("squares", 0, 1, entries=1) == only()


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), ("", ValueError), (" ", ValueError)])
def test_names_are_checked(name: Any, error: type[Exception]) -> None:
    for call in (
        lambda: register_cache(name, dict),
        lambda: unregister_cache(name),
        lambda: counted_cache(cachetools.LRUCache(1), name=name),
        lambda: MetricsCollector().record_cache(name, 1, 1),
    ):
        with pytest.raises(error, match="name"):
            call()


def raising() -> None:
    raise KeyError("theirs")


@pytest.mark.parametrize(
    "broken",
    [
        raising,
        lambda: None,
        lambda: 5,
        lambda: (1, 2),
        lambda: {"hits": 1},
        lambda: {"hits": 1, "misses": None},
        lambda: {"hits": -1, "misses": 1},
        lambda: {"hits": True, "misses": 1},
        lambda: {"hits": 1.5, "misses": 1},
        lambda: {"hits": float("nan"), "misses": 1},
        lambda: {"hits": "1", "misses": 1},
        lambda: {"hits": 1, "misses": 1, "entries": -1},
    ],
)
def test_a_broken_source_causes_one_warning_and_recovers(
    broken: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    now = broken

    def source() -> object:
        return now()

    register_cache("broken", source)
    register_cache("other", lambda: {"hits": 1, "misses": 1})

    for _ in range(2):
        assert [reading.name for reading in read_all()] == ["other"]
    assert len(caplog.records) == 1
    assert "'broken'" in caplog.text

    now = functools.partial(dict, hits=7, misses=8)
    assert [reading.name for reading in read_all()] == ["broken", "other"]


def test_totals_go_on_when_a_cache_is_cleared() -> None:
    counts = {"hits": 10, "misses": 5, "evictions": 4, "expirations": 3}
    register_cache("cleared", lambda: counts)
    only()
    counts = {"hits": 2, "misses": 7, "evictions": 4, "expirations": 1}

    assert CacheReading("cleared", 12, 12, 4, 4) == only()
    assert CacheReading("cleared", 12, 12, 4, 4) == only()


events = st.lists(
    st.one_of(st.integers(0, 3), st.sampled_from(["clear", "replace", "unregister", "quiet"]))
)


@given(events)
def test_totals_never_fall_and_are_exact(history: list[int | str]) -> None:
    """Use a real cache: look up (numbers), clear, replace and unregister it at random.

    Counts since the last reading are lost when a cache is cleared, so it is read before.
    """
    registry.reset()
    hits = misses = 0
    known: set[object] = set()
    last = CacheReading("cache", 0, 0)
    cached = functools.cache(lambda key: key)
    register_cache("cache", cached)
    for event in history:
        if isinstance(event, int):
            cached(event)
            hits, misses = (hits + 1, misses) if event in known else (hits, misses + 1)
            known.add(event)
            continue
        if event == "clear":
            only()
            cached.cache_clear()
            known.clear()
        elif event == "replace":
            cached = functools.cache(lambda key: key)
            register_cache("cache", cached)
            known.clear()
        elif event == "unregister":
            unregister_cache("cache")
            assert read_all() == []
            register_cache("cache", cached)
        reading = only()
        assert reading.hits >= last.hits
        assert reading.misses >= last.misses
        last = reading
    assert (only().hits, only().misses) == (hits, misses)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))))
def test_totals_never_fall_whatever_a_source_says(history: list[tuple[int, int, int]]) -> None:
    registry.reset()
    counts = iter(history)

    def source() -> dict[str, int]:
        return dict(zip(("hits", "misses", "evictions"), next(counts), strict=True))

    register_cache("wild", source)
    last = CacheReading("wild", 0, 0, 0)
    for raw in history:
        reading = only()
        assert reading.hits >= max(last.hits, raw[0])
        assert reading.misses >= max(last.misses, raw[1])
        assert (reading.evictions or 0) >= max(last.evictions or 0, raw[2])
        last = reading


def test_a_new_source_adds_to_the_last_counts_of_the_old_one() -> None:
    register_cache("name", lambda: {"hits": 10, "misses": 5, "evictions": 1})
    register_cache("name", lambda: {"hits": 1, "misses": 2})
    register_cache("last", lambda: {"hits": 0, "misses": 0})

    assert [CacheReading("name", 11, 7), CacheReading("last", 0, 0)] == read_all()


def test_the_same_source_again_changes_nothing() -> None:
    counts = {"hits": 10, "misses": 5}

    class Stats:
        def read(self) -> dict[str, int]:
            return counts

    stats = Stats()

    def run(offset: int = 0) -> None:
        register_cache("method", stats.read)
        register_cache("lambda", lambda: {**counts, "evictions": offset})

    run()
    run()

    assert [CacheReading("method", 10, 5), CacheReading("lambda", 10, 5, 0)] == read_all()


def test_unregistering_releases_the_source() -> None:
    class Cache:
        def cache_info(self) -> Any:
            return SimpleNamespace(hits=3, misses=4)

    cache = Cache()
    gone = weakref.ref(cache)
    register_cache("name", cache)
    unregister_cache("name")
    unregister_cache("name")
    unregister_cache("never there")
    assert read_all() == []

    register_cache("name", cache)
    assert CacheReading("name", 3, 4) == only()

    unregister_cache("name")
    del cache
    gc.collect()
    assert gone() is None

    register_cache("name", lambda: {"hits": 1, "misses": 1})
    assert CacheReading("name", 4, 5) == only()


def test_remembered_totals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MAX_RETIRED", 2)
    for name in ("a", "b", "c"):
        register_cache(name, lambda: {"hits": 1, "misses": 1})
        unregister_cache(name)

    assert sorted(registry.caches._retired) == ["b", "c"]


def test_no_lock_is_held_while_a_source_is_read() -> None:
    """A source may wait for a thread that registers a cache."""

    def source() -> dict[str, int]:
        thread = threading.Thread(target=register_cache, args=("other", dict))
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        return {"hits": 1, "misses": 1}

    register_cache("name", source)

    assert CacheReading("name", 1, 1) == only_named("name")


def only_named(name: str) -> CacheReading:
    (reading,) = (reading for reading in read_all() if reading.name == name)
    return reading


def test_two_concurrent_readings_do_not_look_like_a_cleared_cache() -> None:
    """The slower thread read an older count."""
    inner: list[CacheReading] = []

    def source() -> dict[str, int]:
        if not inner:
            inner.append(CacheReading("placeholder", 0, 0))
            before = {"hits": 10, "misses": 10}
            inner[0] = only()
            return before
        return {"hits": 20, "misses": 20}

    register_cache("name", source)

    assert CacheReading("name", 20, 20) == only() == inner[0]
    assert CacheReading("name", 20, 20) == only()


def test_a_cache_may_be_replaced_or_unregistered_during_a_reading() -> None:
    def replaced() -> dict[str, int]:
        with registry.caches._lock:
            registry.caches._open("name", lambda: {"hits": 1, "misses": 1})
        return {"hits": 5, "misses": 5}

    register_cache("name", replaced)
    assert read_all() == []
    assert CacheReading("name", 1, 1) == only()


def test_base_exceptions_of_a_source_pass() -> None:
    def source() -> None:
        raise KeyboardInterrupt

    register_cache("name", source)

    with pytest.raises(KeyboardInterrupt):
        read_all()


def test_a_warning_repeats_after_a_reset(caplog: pytest.LogCaptureFixture) -> None:
    register_cache("name", raising)
    read_all()
    errors.reset()
    read_all()

    assert len(caplog.records) == 2

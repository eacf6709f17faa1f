"""Register caches for the cache metrics: the public functions and the instruments."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.validation import check_flag, check_name
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.caches.registry import caches
from otel_pipeline_metrics._probes.caches.what_if import WhatIfCache, lru_size
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.instruments import Snapshot, point_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


K = TypeVar("K")
V = TypeVar("V")


def register_cache(name: str, source: object) -> None:
    """Report the hits, misses, evictions and size of a cache.

    A source is held until `unregister_cache()` and read whenever metrics are collected, by the
    collecting thread, so it should only read memory. Counts from before the registration are
    reported too. When its counts return to zero (`cache_clear()`), the reported totals go on
    from where they were. A source that fails causes one warning and is not reported until it
    works again.

    Registering a name again replaces its source; the new one's counts are added to the old
    one's, so that the series does not fall. Registering the same source again changes nothing.

    Args:
        name: the `cache.name` attribute, which tells this cache from others; a fixed word, not
            one made from data.
        source: a function wrapped by `functools.lru_cache` or `functools.cache`, or anything
            else with a `cache_info()`; or a `counted_cache`, or a function that
            `cachetools.cached` wrapped around one; or a callable that returns a mapping with
            `hits` and `misses` and, if known, `evictions`, `expirations`, `entries` and
            `size_bytes`, or an object with such attributes (`currsize` counts as `entries`, for
            `functools`).

    Raises:
        TypeError: `name` is not a string, or `source` does not count hits and misses.
        ValueError: `name` is empty or too long.
    """
    name = check_name(name, "name")
    read = sources.reader_of(source)
    caches.register(cardinality.instrument_names.name("cache names", name), read)
    ensure_instruments()


def unregister_cache(name: str) -> None:
    """Stop reporting a cache and release its source; an unknown name changes nothing.

    Its series ends with the next collection, so counts since the last collection are not
    exported. Registering the name again continues its totals.

    Raises:
        TypeError: `name` is not a string.
        ValueError: `name` is empty or too long.
    """
    caches.unregister(check_name(name, "name"))


def counted_cache(
    cache: MutableMapping[K, V], *, name: str | None = None, what_if: bool = False
) -> CountedCache[K, V]:
    """Wrap a cachetools cache (or any mutable mapping) so that its use is counted.

    Use the result wherever the cache was, as in
    `@cachetools.cached(counted_cache(TTLCache(1000, 60), name="geo"))`; direct use of the wrapped
    cache is not counted.

    Args:
        cache: the cache to wrap.
        name: registers the cache under this name as `register_cache` does.
        what_if: also tell the hit ratios at half, twice and four times the size of a cachetools
            `LRUCache`, at up to half more time for a look-up; keys of up to three times as many
            evicted entries are kept for that, at most 50,000. The ratios are unknown for other
            caches, and for one with a `getsizeof`.

    Raises:
        TypeError: `cache` is not a mutable mapping, `name` is not a string or `what_if` is
            neither True nor False.
        ValueError: `name` is empty or too long, or `cache` is counted already, without
            `what_if`.
    """
    check_flag(what_if, "what_if")
    if not isinstance(cache, MutableMapping):
        raise TypeError(f"cache must be a mutable mapping, not {type(cache).__name__}")
    if name is not None:
        name = check_name(name, "name")
    if isinstance(cache, CountedCache):
        if what_if and not isinstance(cache, WhatIfCache) and lru_size(cache._cache):
            raise ValueError("what_if: this cache is counted already; give it at the first call")
        counted: CountedCache[K, V] = cache
    else:
        size = lru_size(cache) if what_if else None
        counted = CountedCache(cache) if size is None else WhatIfCache(cache, size)
    if name is not None:
        register_cache(name, counted)
    return counted


def ensure_instruments() -> None:
    """Report the caches to OpenTelemetry, from the first one on."""
    sink.add_probe("caches", install_caches)


def install_caches(instruments: InstrumentSet) -> None:
    """Report every registered cache, including those registered later."""
    snapshot = Snapshot(caches.read_all)

    def points(*fields: tuple[str, dict[str, str]]) -> Callable[[], Iterator[Point]]:
        read = snapshot.reader()

        def callback() -> Iterator[Point]:
            for reading in read():
                for field, kind in fields:
                    yield from point_of(reading, field, {defs.CACHE_NAME: reading.name, **kind})

        return callback

    instruments.observable_counter(defs.CACHE_REQUESTS, points(*_REQUESTS))
    instruments.observable_counter(defs.CACHE_EVICTIONS, points(("evictions", {})))
    instruments.observable_counter(defs.CACHE_EXPIRATIONS, points(("expirations", {})))
    instruments.observable_up_down_counter(defs.CACHE_ENTRY_COUNT, points(("entries", {})))
    instruments.observable_up_down_counter(defs.CACHE_SIZE, points(("size_bytes", {})))
    instruments.observable_gauge(defs.CACHE_HIT_RATIO, points(("hit_ratio", {})))
    read_what_if = snapshot.reader()

    def what_if() -> Iterator[Point]:
        for reading in read_what_if():
            for size, ratio in (reading.what_if or {}).items():
                if ratio is not None:
                    factor = {defs.CACHE_SIZE_FACTOR: _FACTORS[size]}
                    yield ratio, {defs.CACHE_NAME: reading.name, **factor}

    instruments.observable_gauge(defs.CACHE_WHAT_IF, what_if)


_REQUESTS: Final = (
    ("hits", {defs.CACHE_REQUEST_TYPE: "hit"}),
    ("misses", {defs.CACHE_REQUEST_TYPE: "miss"}),
)
_FACTORS: Final = {"half": "0.5", "twice": "2", "four_times": "4"}

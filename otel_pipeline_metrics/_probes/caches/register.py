"""Register caches for the cache metrics, and count look-ups in them."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, TypeVar

from otel_pipeline_metrics._core import cardinality, metric_definitions
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.caches.registry import caches
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.instruments import Snapshot, point_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._probes.caches.reading import CacheReading
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


K = TypeVar("K")
V = TypeVar("V")


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
    caches.register(_distinct(name), read)
    ensure_instruments()


def unregister_cache(name: str) -> None:
    """Report a cache no longer and let go of its source; an unknown name is no error.

    Its series ends with the next collection, so what it counted since the one before is not
    exported. Registering the name again continues its totals.

    Raises:
        TypeError: `name` is no string.
        ValueError: `name` is empty or too long.
    """
    caches.unregister(check_name(name, "name"))


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
    caches.record(_distinct(name), size_bytes, **counts)
    ensure_instruments()


def _distinct(name: str) -> str:
    return cardinality.instrument_names.name("cache names", name)


def ensure_instruments() -> None:
    """See to it that caches are reported, from the first one on."""
    sink.add_probe("caches", install_caches)


def install_caches(instruments: InstrumentSet) -> None:
    """Report every registered cache, those registered later included."""
    snapshot = Snapshot(caches.read_all)

    def points(give: Callable[[CacheReading], Sequence[Point]]) -> Callable[[], Iterator[Point]]:
        read = snapshot.reader()

        def callback() -> Iterator[Point]:
            for reading in read():
                yield from give(reading)

        return callback

    def level(field: str) -> Callable[[], Iterator[Point]]:
        return points(
            lambda reading: point_of(reading, field, {metric_definitions.CACHE_NAME: reading.name})
        )

    instruments.observable_counter(metric_definitions.CACHE_REQUESTS, points(_requests))
    instruments.observable_counter(metric_definitions.CACHE_EVICTIONS, level("evictions"))
    instruments.observable_counter(metric_definitions.CACHE_EXPIRATIONS, level("expirations"))
    instruments.observable_up_down_counter(metric_definitions.CACHE_ENTRY_COUNT, level("entries"))
    instruments.observable_up_down_counter(metric_definitions.CACHE_SIZE, level("size_bytes"))
    instruments.observable_gauge(metric_definitions.CACHE_HIT_RATIO, level("hit_ratio"))


def _requests(reading: CacheReading) -> list[Point]:
    return [
        (
            count,
            {
                metric_definitions.CACHE_NAME: reading.name,
                metric_definitions.CACHE_REQUEST_TYPE: kind,
            },
        )
        for kind, count in (("hit", reading.hits), ("miss", reading.misses))
    ]

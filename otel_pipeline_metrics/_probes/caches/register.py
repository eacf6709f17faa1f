"""Register caches for the cache metrics: the public functions and the instruments."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.counted import CountedCache
from otel_pipeline_metrics._probes.caches.registry import caches
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


def counted_cache(cache: MutableMapping[K, V], *, name: str | None = None) -> CountedCache[K, V]:
    """Wrap a cachetools cache (or any mutable mapping) so that its use is counted.

    Use the result wherever the cache was, as in
    `@cachetools.cached(counted_cache(TTLCache(1000, 60), name="geo"))`; direct use of the wrapped
    cache is not counted.

    Args:
        cache: the cache to wrap.
        name: registers the cache under this name as `register_cache` does.

    Raises:
        TypeError: `cache` is not a mutable mapping, or `name` is not a string.
        ValueError: `name` is empty or too long.
    """
    if not isinstance(cache, MutableMapping):
        raise TypeError(f"cache must be a mutable mapping, not {type(cache).__name__}")
    if name is not None:
        name = check_name(name, "name")
    counted = cache if isinstance(cache, CountedCache) else CountedCache(cache)
    if name is not None:
        register_cache(name, counted)
    return counted


def record(
    name: str, hits: int, misses: int, evictions: int = 0, size_bytes: int | None = None
) -> None:
    """Add checked counts since the last call to the cache `name`; None keeps its size."""
    caches.record(name, size_bytes, hits=hits, misses=misses, evictions=evictions)
    ensure_instruments()


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


_REQUESTS: Final = (
    ("hits", {defs.CACHE_REQUEST_TYPE: "hit"}),
    ("misses", {defs.CACHE_REQUEST_TYPE: "miss"}),
)

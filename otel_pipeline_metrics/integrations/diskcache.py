"""Report the hits and misses that a cache of diskcache counts.

from otel_pipeline_metrics.integrations.diskcache import instrument_cache

cache = instrument_cache(diskcache.Cache("/var/cache/pages"), name="pages")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import diskcache

from otel_pipeline_metrics._probes.caches.register import register_cache

if TYPE_CHECKING:
    from collections.abc import Callable

AnyCache = TypeVar("AnyCache", diskcache.Cache, diskcache.FanoutCache)


def instrument_cache(cache: AnyCache, *, name: str) -> AnyCache:
    """Have a cache count, and report its counts as `register_cache` does; return the cache.

    The counts are those of the directory, kept in its database: of all processes that use it, so
    report it in one of them.

    Args:
        cache: a `diskcache.Cache` or `FanoutCache`.
        name: the `cache.name` attribute.

    Raises:
        TypeError: `cache` is another kind, or `name` is not a string.
        ValueError: `name` is empty or too long.
    """
    if not isinstance(cache, (diskcache.Cache, diskcache.FanoutCache)):
        raise TypeError(
            "cache must be a diskcache.Cache or FanoutCache (a Deque, an Index and a DjangoCache "
            f"have one inside), not {type(cache).__name__}"
        )
    register_cache(name, _reader(cache))
    cache.stats(enable=True)
    return cache


def _reader(cache: diskcache.Cache | diskcache.FanoutCache) -> Callable[[], dict[str, int]]:
    def read() -> dict[str, int]:
        hits, misses = cache.stats(enable=True)
        return {
            "hits": hits,
            "misses": misses,
            "entries": len(cache),
            "size_bytes": cache.volume(),
        }

    return read

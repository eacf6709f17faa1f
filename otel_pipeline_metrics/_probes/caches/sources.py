"""Read checked counts from the objects that a program registers as caches."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from contextlib import suppress
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, cast

from otel_pipeline_metrics._probes.caches.counted import CountedCache, cachetools_base, is_timed
from otel_pipeline_metrics._probes.caches.reading import CacheReading, Reuse
from otel_pipeline_metrics._probes.caches.what_if import FunctionSketch

if TYPE_CHECKING:
    from collections.abc import Callable


_HINT: Final = "wrap it with counted_cache(cache), which counts them"

# By package: how to count the use of its caches, with names for the program's own.
_RECIPES: Final = {
    "aiocache": """
    ratio = cache.hit_miss_ratio = {"hits": 0, "total": 0}
    cache.plugins = [*cache.plugins, aiocache.plugins.HitMissRatioPlugin()]
    opm.register_cache(name, lambda: {**ratio, "misses": ratio["total"] - ratio["hits"]})""",
    "diskcache": """
    from otel_pipeline_metrics.integrations.diskcache import instrument_cache
    instrument_cache(cache, name=name)""",
    "django": """
    counts = collections.Counter(hits=0, misses=0)
    def count(key): counts["hits" if key in cache else "misses"] += 1; return key
    opm.register_cache(name, lambda: counts)  # and call cache.get(count(key))""",
    "joblib": """
    counts = collections.Counter(hits=0, misses=0)
    def count(*args): counts["hits" if f.check_call_in_cache(*args) else "misses"] += 1; return args
    opm.register_cache(name, lambda: counts)  # and call f(*count(...)) in place of f(...)""",
    "redis": """
    words = {"hits": "keyspace_hits", "misses": "keyspace_misses", "evictions": "evicted_keys"}
    def read(): info = client.info("stats"); return {key: info[word] for key, word in words.items()}
    opm.register_cache(name, read)  # what Redis counts, of the whole server""",
}


def reader_of(source: object) -> Callable[[], object]:
    """Return the function to call for the numbers of `source`."""
    if isinstance(source, CountedCache):
        return source.cache_statistics
    statistics = getattr(source, "cache_statistics", None)
    if isinstance(getattr(statistics, "__self__", None), FunctionSketch):
        return cast("Callable[[], object]", statistics)
    inner = getattr(source, "cache", None)
    if isinstance(inner, CountedCache):
        return inner.cache_statistics
    info = getattr(source, "cache_info", None)
    if callable(info):
        # cachetools' cache_info removes expired entries, which only its lock makes harmless
        if is_timed(inner) and getattr(source, "cache_lock", None) is None:
            raise TypeError(
                "source: reading cache_info() of a timed cache without a lock from another "
                "thread would damage it; give @cached a lock, or use counted_cache(cache)"
            )
        return _checked(info)
    recipe = _recipe(source)
    if recipe is not None:
        raise TypeError(f"source: a {type(source).__name__} tells no counts by itself; {recipe}")
    if cachetools_base(source) is not None or (
        isinstance(source, Mapping) and not callable(source)
    ):
        raise TypeError(f"source: a {type(source).__name__} counts no hits and misses; {_HINT}")
    if cachetools_base(inner) is not None:
        raise TypeError(
            "source: this function's cache counts no hits and misses; use "
            "@cached(..., info=True) or @cached(counted_cache(cache))"
        )
    if not callable(source):
        raise TypeError(
            "source must be a function with cache_info(), a counted_cache or a callable that "
            f"returns hits and misses, not {type(source).__name__}"
        )
    return _checked(source)


def _recipe(source: object) -> str | None:
    """Return what to write for a cache of a known package; None for anything else."""
    if isinstance(source, (FunctionType, MethodType)):
        return None
    for base in type(source).__mro__:
        found = _RECIPES.get(base.__module__.partition(".")[0])
        if found is not None:
            return f"for this one write{found}"
    return None


def _checked(read: Callable[..., object]) -> Callable[[], object]:
    if inspect.iscoroutinefunction(read):
        raise TypeError("source must not be a coroutine function: it is read from another thread")
    try:
        signature = inspect.signature(read)
    except (TypeError, ValueError):  # a builtin without a signature
        return read
    try:
        signature.bind()
    except TypeError:
        raise TypeError(
            "source must be callable without arguments, or have cache_info(); is this function "
            "missing its cache decorator?"
        ) from None
    return read


def same(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Tell whether two readers certainly read the same counts.

    A lambda in a function is a new object at each call, so two functions are also the same if
    their code, defaults and closures are.
    """
    if one == other:
        return True
    if not isinstance(one, FunctionType) or not isinstance(other, FunctionType):
        return False
    return (
        one.__code__ is other.__code__
        and one.__globals__ is other.__globals__
        and _identical(one.__defaults__, other.__defaults__)
        and _identical(_enclosed(one), _enclosed(other))
    )


def _enclosed(function: FunctionType) -> tuple[object, ...]:
    try:
        return tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a variable without a value yet
        return (object(),)


def _identical(one: tuple[object, ...] | None, other: tuple[object, ...] | None) -> bool:
    one, other = one or (), other or ()
    return len(one) == len(other) and all(map(operator.is_, one, other))


def parse(name: str, value: Any) -> CacheReading:
    """Return the counts in a mapping, or in an object's attributes like `CacheInfo`'s."""

    def get(field: str) -> object:
        return value.get(field) if isinstance(value, Mapping) else getattr(value, field, None)

    hits, misses = _count("hits", get("hits")), _count("misses", get("misses"))
    if hits is None or misses is None:
        raise ValueError(f"no hits and misses in a {type(value).__name__}")
    entries, reuse = get("entries"), get("reuse")
    return CacheReading(
        name,
        hits,
        misses,
        _count("evictions", get("evictions")),
        _count("expirations", get("expirations")),
        _count("entries", get("currsize") if entries is None else entries),
        _count("size_bytes", get("size_bytes")),
        reuse if isinstance(reuse, Reuse) else None,
    )


def _count(field: str, value: object) -> int | None:
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    elif not isinstance(value, bool):
        with suppress(TypeError):
            number = operator.index(value)  # type: ignore[arg-type] # numpy's integers as well
    if number is None or number < 0:
        raise ValueError(f"{field} must be a count, not {value!r}")
    return number

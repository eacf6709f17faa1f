"""Test caches of other packages: the adapter, and the lines that a refusal shows."""

from __future__ import annotations

import collections
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._probes.caches import sources
from otel_pipeline_metrics._probes.caches.registry import caches
from tests.support.process import ROOT
from tests.support.redis import needs_redis, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_pipeline_metrics._probes.caches.reading import CacheReading


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    yield
    opm.unregister_cache("pages")
    # a name that is registered again would go on from its totals
    caches.reset()


def reading() -> CacheReading:
    (found,) = (one for one in caches.read_all() if one.name == "pages")
    return found


def recipe(source: object, **names: Any) -> Callable[[str], Any]:
    """Run the lines that the refusal shows; return what gives their names."""
    with pytest.raises(TypeError, match="for this one write") as refused:
        opm.register_cache("pages", source)
    lines = textwrap.dedent(str(refused.value).partition("for this one write")[2].lstrip("\n"))
    assert len(lines.splitlines()) <= 3
    scope = {"opm": opm, "collections": collections, "name": "pages", **names}
    exec(lines, scope)  # noqa: S102 - what is documented runs
    return scope.__getitem__


def test_diskcache(tmp_path: Path) -> None:
    diskcache = pytest.importorskip("diskcache")
    from otel_pipeline_metrics.integrations.diskcache import instrument_cache

    with diskcache.FanoutCache(tmp_path / "several") as several:
        several["a"] = 1
        assert instrument_cache(several, name="pages") is several
        assert (several.get("a"), several.get("b"), several.get("c")) == (1, None, None)
        found = reading()
        assert (found.hits, found.misses, found.entries) == (1, 2, 1)
        assert found.size_bytes == several.volume() > 0
    with diskcache.Cache(tmp_path / "one") as cache:
        recipe(cache, cache=cache)
        assert cache.get("a") is None
    with pytest.raises(TypeError, match="cache must be"):
        instrument_cache({}, name="pages")  # type: ignore[type-var]


async def test_async_lru() -> None:
    async_lru = pytest.importorskip("async_lru")

    @async_lru.alru_cache(maxsize=2)
    async def double(number: int) -> int:
        return 2 * number

    opm.register_cache("pages", double)
    for number in (1, 1, 2, 3):
        await double(number)
    found = reading()
    assert (found.hits, found.misses, found.entries) == (1, 3, 2)
    await double.cache_close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_aiocache() -> None:
    aiocache = pytest.importorskip("aiocache")
    pytest.importorskip("aiocache.plugins")
    cache = aiocache.SimpleMemoryCache()
    recipe(cache, cache=cache, aiocache=aiocache)
    await cache.set("a", 1)
    assert [await cache.get(key) for key in "aab"] == [1, 1, None]
    found = reading()
    assert (found.hits, found.misses) == (2, 1)


def test_django() -> None:
    pytest.importorskip("django")
    from django.core.cache.backends.locmem import LocMemCache

    cache = LocMemCache("here", {})
    count = recipe(cache, cache=cache)("count")
    cache.set("a", 1)
    assert [cache.get(count(key)) for key in "aab"] == [1, 1, None]
    found = reading()
    assert (found.hits, found.misses) == (2, 1)


def test_joblib_memory(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    memory = joblib.Memory(tmp_path, verbose=0)
    # as in a program, where the function is of a module
    scope: dict[str, Any] = {}
    exec("def double(number): return 2 * number", scope)  # noqa: S102
    function = memory.cache(scope["double"])
    with pytest.raises(TypeError, match="for this one write"):
        opm.register_cache("pages", memory)
    count = recipe(function, f=function)("count")
    assert [function(*count(number)) for number in (1, 1, 2)] == [2, 2, 4]
    found = reading()
    assert (found.hits, found.misses) == (1, 2)


@pytest.mark.slow
@needs_redis
def test_redis() -> None:
    redis = pytest.importorskip("redis")
    with redis_server() as port, redis.Redis(port=port) as client:
        recipe(client, client=client)
        client.set("a", 1)
        assert [client.get(key) for key in "aab"] == [b"1", b"1", None]
        found = reading()
        assert (found.hits, found.misses, found.evictions) == (2, 1, 0)


def test_the_documents_show_the_same_lines() -> None:
    shown = (ROOT / "docs" / "engines.md").read_text().splitlines()
    for package, lines in sources._RECIPES.items():
        if package != "diskcache":
            assert {line.strip() for line in lines.strip().splitlines()} <= set(shown), package


def test_a_cache_with_counts_of_its_own_is_taken_whatever_it_derives_from() -> None:
    redis = pytest.importorskip("redis")

    class Cache(redis.Redis):  # type: ignore[misc, name-defined]
        def cache_info(self) -> dict[str, int]:
            return {"hits": 1, "misses": 2}

    opm.register_cache("pages", Cache())
    assert (reading().hits, reading().misses) == (1, 2)

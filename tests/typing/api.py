"""The public API as type checkers see it: read by mypy --strict, never run.

Every form of the decorator keeps the function's signature, and a context manager gives an
`Execution`.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.compare import Comparison, StageChange, compare
from otel_pipeline_metrics.report.rows import StageRow

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


assert_type(opm.flush(), opm.FlushReport)
assert_type(opm.flush(timeout=1).ok, bool)
assert_type(opm.inject({"a": "b"}, queue="q"), dict[str, str])
assert_type(opm.consume([1], queue="q"), Iterator[int])
assert_type(opm.part({}).data, dict[str, Any])
assert_type(opm.run("x", parts_timeout=1).add_part({}), bool)

# bare


@opm.stage
def bare(a: int, *, b: str = "") -> float:
    return a + len(b)


@opm.fetch
async def bare_coroutine(a: int) -> str:
    return str(a)


@opm.process
def bare_generator(a: int) -> Generator[int, str, bool]:
    sent = yield a
    assert_type(sent, str)
    return True


@opm.write
async def bare_async_generator(a: int) -> AsyncGenerator[int, str]:
    sent = yield a
    assert_type(sent, str)


@opm.stage
def bare_iterator() -> Iterator[int]:
    yield 1


@opm.fetch
async def bare_async_iterator() -> AsyncIterator[int]:
    yield 1


assert_type(bare(1, b="x"), float)
assert_type(bare_generator(1), Generator[int, str, bool])
assert_type(bare_async_generator(1), AsyncGenerator[int, str])
assert_type(bare_iterator(), Iterator[int])
assert_type(bare_async_iterator(), AsyncIterator[int])

bare("1")  # type: ignore[arg-type]
bare(1, c=2)  # type: ignore[call-arg]
bare_generator()  # type: ignore[call-arg]


# with arguments


@opm.stage("parse", kind="process", items=len, attributes={"a": 1, "b": ["x"], "c": (1.5,)})
def named(batch: list[int]) -> list[str]:
    return [str(x) for x in batch]


@opm.stage()
def unnamed(a: int) -> int:
    return a


@opm.fetch(items=lambda rows: rows.count)
async def of_kind(a: int) -> list[int]:
    return [a]


@opm.write("rows", attributes={"table": "t"})
def written(a: int) -> None:
    """Nothing."""


@opm.process("numbers")
def generated(a: int) -> Iterator[int]:
    yield a


for tracked in opm.track([1, 2], name="numbers"):
    kept_int: int = tracked
wrong_str: str = next(opm.track([1], name="numbers"))  # type: ignore[assignment]


async def tracks(source: AsyncIterator[bytes]) -> None:
    async for one in opm.track(source, name="bytes", kind="fetch", total=3):
        kept_bytes: bytes = one
        print(kept_bytes)


@opm.process("numbers")
async def async_generated(a: int) -> AsyncIterator[int]:
    yield a


assert_type(named([1]), list[str])
assert_type(unnamed(1), int)
assert_type(generated(1), Iterator[int])
assert_type(async_generated(1), AsyncIterator[int])
written(a=1)

named("1")  # type: ignore[arg-type]
unnamed("1")  # type: ignore[arg-type]
written()  # type: ignore[call-arg]


async def awaits() -> None:
    assert_type(await bare_coroutine(1), str)
    assert_type(await of_kind(1), list[int])
    async for n in bare_async_iterator():
        assert_type(n, int)


# as a function


def plain(a: int) -> str:
    return str(a)


async def coroutine(a: int) -> str:
    return str(a)


assert_type(opm.stage(plain)(1), str)
assert_type(opm.stage("named")(plain)(1), str)
assert_type(opm.stage(lambda: str(1))(), str)
keeps: Callable[[int], str] = opm.stage("named")(plain)
keeps_coroutine: Callable[[int], Awaitable[str]] = opm.fetch(coroutine)


# methods


class Pipeline:
    """Each kind of method, decorated in each order."""

    @opm.stage
    def method(self, a: int) -> str:
        return str(a)

    @opm.stage("method")
    async def coroutine(self, a: int) -> str:
        return str(a)

    @opm.fetch
    def generator(self) -> Iterator[int]:
        yield 1

    @opm.stage
    @classmethod
    def class_outside(cls, a: int) -> str:
        return str(a)

    @classmethod
    @opm.stage
    def class_inside(cls, a: int) -> str:
        return str(a)

    @opm.stage("static")
    @staticmethod
    def static_outside(a: int) -> str:
        return str(a)

    @staticmethod
    @opm.stage("static")
    def static_inside(a: int) -> str:
        return str(a)

    @opm.write("async class method")
    @classmethod
    async def class_coroutine(cls, a: int) -> str:
        return str(a)


assert_type(Pipeline().method(1), str)
assert_type(Pipeline().generator(), Iterator[int])
assert_type(Pipeline.class_outside(1), str)
assert_type(Pipeline().class_inside(1), str)
assert_type(Pipeline.static_outside(1), str)
assert_type(Pipeline().static_inside(1), str)

Pipeline().method("1")  # type: ignore[arg-type]
Pipeline.class_outside("1")  # type: ignore[arg-type]
Pipeline.static_inside()  # type: ignore[call-arg]


async def awaits_methods() -> None:
    assert_type(await Pipeline().coroutine(1), str)
    assert_type(await Pipeline.class_coroutine(1), str)


# blocks


def blocks(error: Exception) -> None:
    shared = opm.stage("shared", kind="fetch")
    assert_type(shared, opm.Stage)
    with shared as s:
        assert_type(s, opm.Execution)
        s.add_items(1)
        s.add_items(1, "in")
        s.add_items(1, direction="out")
        s.add_bytes(1, direction="in")
        s.retry()
        s.retry(error)
        s.retry(KeyError)
        s.retry("http.503")
        s.set_attribute("a", ["b"])
        s.add_items(1, "sideways")  # type: ignore[arg-type]
        s.add_bytes(1.5)  # type: ignore[arg-type]
        s.set_attribute("a", object())  # type: ignore[arg-type]
    assert_type(opm.current_stage(), opm.Execution)


async def async_blocks() -> None:
    async with opm.stage("shared") as s:
        assert_type(s, opm.Execution)
    async with opm.write("rows") as s:
        assert_type(s, opm.Execution)


def a_block_returns_what_it_returns() -> int:
    """A `with` that might swallow would make a type checker miss the `return`."""
    with opm.stage("returns"):
        return 1


# context across threads and processes

assert_type(opm.propagate(bare)(1, b="x"), float)
assert_type(opm.wrap_executor(ThreadPoolExecutor(1)), ThreadPoolExecutor)
opm.propagate(bare)("1")  # type: ignore[arg-type]
opm.propagate(1)  # type: ignore[arg-type]
opm.wrap_executor([])  # type: ignore[type-var]


async def propagated() -> None:
    assert_type(await opm.propagate(bare_coroutine)(1), str)


# queues


class SendStream: ...


class ReceiveStream: ...


class Pair(tuple[SendStream, ReceiveStream]):
    """A pair like the one that anyio's `create_memory_object_stream` returns."""


assert_type(opm.wrap_queue(asyncio.Queue[int](), name="q"), asyncio.Queue[int])
assert_type(opm.wrap_queue(queue.Queue[str](8), name="q", sentinel=None), queue.Queue[str])
assert_type(
    opm.wrap_queue((SendStream(), ReceiveStream()), name="q"), tuple[SendStream, ReceiveStream]
)
assert_type(
    opm.wrap_queue(Pair((SendStream(), ReceiveStream())), name="q", sentinel=""),
    tuple[SendStream, ReceiveStream],
)
opm.wrap_queue(queue.Queue[str]())  # type: ignore[call-overload]
opm.wrap_queue(queue.Queue[str](), "q")  # type: ignore[call-overload]
opm.wrap_queue(queue.Queue[str](), name=1)  # type: ignore[call-overload]


# limits

assert_type(opm.wrap_limit(asyncio.Semaphore(2), name="x"), asyncio.Semaphore)
assert_type(opm.wrap_limit(threading.Condition(), name="x", limit=1), threading.Condition)
assert_type(opm.wrap_executor(ThreadPoolExecutor(1), name="x"), ThreadPoolExecutor)
opm.wrap_limit(asyncio.Lock())  # type: ignore[call-arg]
opm.wrap_limit(asyncio.Lock(), "x")  # type: ignore[call-arg]
opm.wrap_limit(asyncio.Lock(), name=1)  # type: ignore[arg-type]
opm.wrap_limit(asyncio.Lock(), name="x", limit="1")  # type: ignore[arg-type]
opm.wrap_executor(ThreadPoolExecutor(1), "x")  # type: ignore[call-arg]


# reports

report = opm.RunReport.load("report.json")
assert_type(opm.RunReport.merge(report, report), opm.RunReport)
assert_type(report.stages, list[StageRow])
assert_type(report.stages[0]["name"], str)
assert_type(report.stages[0]["duration_s"]["p99"], float | None)
assert_type(report.stages[0]["items"]["out"], float | None)
assert_type(report.stages[0]["errors"]["by_type"], dict[str, int])
assert_type(report.queues[0]["producers"], list[str])
assert_type(report.run["partial"], bool)
assert_type(report.bottleneck["advice"], list[str])
report.stages[0]["durations"]  # type: ignore[typeddict-item]
report.bottleneck["stages"]  # type: ignore[typeddict-item]
assert_type(analyze(report), dict[str, Any])
assert_type(analyze(report.to_dict()), dict[str, Any])
assert_type(compare(report, report, fail_on=0.1), Comparison)
assert_type(compare(report, report).render(), str)
assert_type(compare(report, report).exit_code, int)
assert_type(compare(report, report).stages[0], StageChange)
compare(report)  # type: ignore[call-arg]
compare("old.json", "new.json")  # type: ignore[arg-type]
compare(report, report, 0.1)  # type: ignore[call-arg]
analyze("report.json")  # type: ignore[arg-type]


# bad input

opm.stage(123)  # type: ignore[call-overload]
opm.stage("s", kind=5)  # type: ignore[call-overload]
opm.stage("s", items=3)  # type: ignore[call-overload]
opm.stage("s", attributes={"a": object()})  # type: ignore[dict-item]
opm.fetch("s", kind="write")  # type: ignore[call-overload]


def anything(value: Any) -> None:
    opm.stage(value)


# caches and resources


@opm.counted_lru_cache
def bare_cached(a: int) -> str:
    return str(a)


@opm.counted_lru_cache(maxsize=None, typed=True, name="cached", what_if=True)
def cached(a: int) -> str:
    return str(a)


assert_type(bare_cached(1), str)
assert_type(cached(1), str)
assert_type(cached.cache_info().hits, int)
assert_type(opm.get_metrics_collector().render("markdown"), str)


@opm.run("nightly", report="{date}.html")
def nightly(a: int, *, b: str = "") -> float:
    return a + len(b)


@opm.run("nightly")
async def nightly_coroutine(a: int) -> str:
    return str(a)


assert_type(nightly(1, b="x"), float)
nightly("1")  # type: ignore[arg-type]
opm.run(nightly)  # type: ignore[arg-type]


async def awaited_run() -> None:
    assert_type(await nightly_coroutine(1), str)


async def monitored() -> None:
    monitor = opm.ResourceMonitor()
    monitor.start()
    assert_type(await monitor.stop(), None)
    async with opm.run("r", resources=5.0):
        pass


# workers


async def working() -> None:
    items: asyncio.Queue[int] = opm.wrap_queue(asyncio.Queue(), name="items", sentinel=None)
    results: asyncio.Queue[str] = opm.wrap_queue(asyncio.Queue(), name="results")
    async with opm.workers(bare_coroutine, items, results, count=(1, 8)) as tasks:
        assert_type(tasks.name, str)
        assert_type(tasks.skipped, int)
    async with opm.workers(bare_async_generator, items, on_error="skip", name="x"):
        pass


def working_threads() -> None:
    items: queue.Queue[int] = opm.wrap_queue(queue.Queue(), name="items", sentinel=None)
    with opm.workers(bare, items, count=2) as threads, opm.workers(bare_generator, items):
        assert_type(threads.dropped, int)
    opm.workers(bare, items, on_error="ignore")  # type: ignore[call-overload]
    opm.workers(bare, items, count="4")  # type: ignore[call-overload]
    opm.workers(bare)  # type: ignore[call-overload]

"""Pipelines without queues, and stages within stages."""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from lab import REAL_TIME, SHAPES, Knobs, feed, line, pool, q, shape, step, tstep

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

__all__ = ["REAL_TIME", "SHAPES"]


@shape("sequential", faster="fetch parse write")
async def sequential(k: Knobs) -> int:
    fetch, parse, write = step(k, "fetch", 0.010), step(k, "parse", 0.004), step(k, "write", 0.007)
    for number in range(100):
        await write(await parse(await fetch(number)))
    return 100


@shape("sequential", faster="fetch parse write")
def sequential_functions(k: Knobs) -> int:
    fetch, parse = tstep(k, "fetch", 0.005), tstep(k, "parse", 0.013, "exponential")
    write = tstep(k, "write", 0.006)
    for number in range(150):
        write(parse(fetch(number)))
    return 150


@shape("sequential", faster="fetch write", undecorated=True)
def sequential_with_a_step_unseen(k: Knobs) -> int:
    """What takes longest has no decorator."""
    fetch, write, between = (
        tstep(k, "fetch", 0.005),
        tstep(k, "write", 0.004),
        k.times("undecorated", 0.012),
    )
    for number in range(150):
        item = fetch(number)
        time.sleep(between())
        write(item)
    return 150


@shape("sequential", faster="extract transform load")
def three_loops(k: Knobs) -> int:
    """Each stage is done for all items before the next one begins."""
    extract, transform = tstep(k, "extract", 0.006), tstep(k, "transform", 0.003)
    load = tstep(k, "load", 0.012)
    rows = [extract(number) for number in range(120)]
    rows = [transform(row) for row in rows]
    for row in rows:
        load(row)
    return 120


@shape("sequential", faster="query", real=False)
async def one_stage(k: Knobs) -> int:
    query = step(k, "query", 0.010)
    for number in range(100):
        await query(number)
    return 100


@shape("generators", faster="read clean write")
def generator_chain(k: Knobs) -> int:
    reading, cleaning, write = (
        k.times("read", 0.004),
        k.times("clean", 0.011),
        tstep(k, "write", 0.005),
    )

    @opm.fetch
    def read() -> Iterator[int]:
        for number in range(150):
            time.sleep(reading())
            yield number

    @opm.process
    def clean(rows: Iterable[int]) -> Iterator[int]:
        for row in rows:
            time.sleep(cleaning())
            yield row

    for row in clean(read()):
        write(row)
    return 150


@shape("generators", faster="read clean pack")
def generator_of_generators(k: Knobs) -> int:
    """The innermost one is the slow one; each outer one contains it."""
    reading, cleaning, packing = (
        k.times(name, mean_s)
        for name, mean_s in (("read", 0.014), ("clean", 0.003), ("pack", 0.006))
    )

    @opm.fetch
    def read() -> Iterator[int]:
        for number in range(150):
            time.sleep(reading())
            yield number

    @opm.process
    def clean() -> Iterator[int]:
        for row in read():
            time.sleep(cleaning())
            yield row

    @opm.write
    def pack() -> Iterator[int]:
        for row in clean():
            time.sleep(packing())
            yield row

    return sum(1 for _ in pack())


@shape("generators", faster="pages rows store")
async def async_generator_chain(k: Knobs) -> int:
    paging, rowing, store = k.times("pages", 0.060), k.times("rows", 0.002), step(k, "store", 0.010)

    @opm.fetch
    async def pages() -> AsyncIterator[int]:
        for number in range(15):
            await asyncio.sleep(paging())
            yield number

    @opm.process
    async def rows(found: AsyncIterator[int]) -> AsyncIterator[int]:
        async for page in found:
            for number in range(10):
                await asyncio.sleep(rowing())
                yield page * 10 + number

    async for row in rows(pages()):
        await store(row)
    return 150


@shape("nested", faster="outer inner after")
async def nested(k: Knobs) -> int:
    inner, own, after = step(k, "inner", 0.016), k.times("outer", 0.004), step(k, "after", 0.006)

    @opm.process("outer")
    async def outer(n: int) -> int:
        await asyncio.sleep(own())
        return int(await inner(n))

    for number in range(100):
        await after(await outer(number))
    return 100


@shape("nested", faster="fetch handle embed save", workers="handle")
async def nested_in_a_pipeline(k: Knobs) -> int:
    """A stage between two queues calls two others."""
    fetch, own = step(k, "fetch", 0.006), k.times("handle", 0.003)
    embed, save = step(k, "embed", 0.018), step(k, "save", 0.005)

    @opm.process("handle")
    async def handle(n: int) -> int:
        await asyncio.sleep(own())
        return int(await save(await embed(n)))

    return await line(150, [(fetch, 1), (handle, k.workers("handle", 1))])


@shape("nested", faster="job load fit")
def nested_functions(k: Knobs) -> int:
    load, fit, own = tstep(k, "load", 0.005), tstep(k, "fit", 0.012), k.times("job", 0.003)

    @opm.process("job")
    def job(n: int) -> Any:
        time.sleep(own())
        return fit(load(n))

    for number in range(120):
        job(number)
    return 120


@shape("gather", faster="fetch store")
async def gather_for_each_batch(k: Knobs) -> int:
    """Ten at a time; the next ten begin when the slowest is done."""
    fetch, store = step(k, "fetch", 0.020, "exponential"), step(k, "store", 0.030)
    for batch in range(25):
        await asyncio.gather(*(fetch(batch * 10 + number) for number in range(10)))
        await store(batch)
    return 250


@shape("gather", faster="features embed store", workers="both")
async def gather_in_a_worker(k: Knobs) -> int:
    features, embed, store = (
        step(k, name, mean_s)
        for name, mean_s in (("features", 0.012), ("embed", 0.030), ("store", 0.010))
    )
    a, b, workers = q(4, "a"), q(4, "b"), k.workers("both", 2)

    async def both(n: int) -> int:
        await asyncio.gather(features(n), embed(n))
        return n

    await asyncio.gather(feed(a, 150, workers), pool(workers, a, both, b, 1), pool(1, b, store))
    return 150


@shape("gather", faster="slow quick")
async def gather_of_two(k: Knobs) -> int:
    """Two calls at a time for each item, one of them much longer."""
    slow, quick = step(k, "slow", 0.020), step(k, "quick", 0.006)
    for number in range(100):
        await asyncio.gather(slow(number), quick(number))
    return 100


@shape("gather", faster="page detail")
async def gather_of_chains(k: Knobs) -> int:
    """Each of eight tasks does one thing after the other."""
    page, detail = step(k, "page", 0.012), step(k, "detail", 0.025)

    async def shard(number: int) -> None:
        for item in range(40):
            await detail(await page(number * 40 + item))

    await asyncio.gather(*(shard(number) for number in range(8)))
    return 320


@shape("tasks", faster="fetch store", limits="fetch store")
async def task_for_each_item(k: Knobs) -> int:
    """All tasks at once; a semaphore that nobody wrapped lets five of them work.

    It has no name, so either stage inside of it may name it.
    """
    fetch, store = step(k, "fetch", 0.020), step(k, "store", 0.008)
    semaphore = asyncio.Semaphore(max(k.limit("fetch", 5), k.limit("store", 5)))

    async def one(n: int) -> None:
        async with semaphore:
            await store(await fetch(n))

    await asyncio.gather(*(one(number) for number in range(300)))
    return 300


@shape("tasks", faster="fetch store", limits="slots")
async def task_for_each_item_wrapped(k: Knobs) -> int:
    fetch, store = step(k, "fetch", 0.020), step(k, "store", 0.008)
    slots = opm.wrap_limit(asyncio.Semaphore(k.limit("slots", 5)), name="slots")

    async def one(n: int) -> None:
        async with slots:
            await store(await fetch(n))

    await asyncio.gather(*(one(number) for number in range(300)))
    return 300


@shape("tasks", faster="resize upload", workers="resize")
async def queue_of_tasks_in_order(k: Knobs) -> int:
    """Results are put in order: the emitter awaits the oldest task."""
    resize, upload = step(k, "resize", 0.040), step(k, "upload", 0.009)
    tasks = q(k.workers("resize", 4) - 1, "tasks")

    async def start() -> None:
        for number in range(200):
            await tasks.put(asyncio.ensure_future(resize(number)))
        await tasks.put(None)

    async def emit() -> None:
        while (task := await tasks.get()) is not None:
            await upload(await task)

    await asyncio.gather(start(), emit())
    return 200


@shape("executors", faster="call", workers="call")
def executor_map(k: Knobs) -> int:
    call = tstep(k, "call", 0.020)
    with ThreadPoolExecutor(k.workers("call", 4)) as executor:
        return len(list(executor.map(call, range(200))))


@shape("executors", faster="get store", workers="get")
def results_as_completed(k: Knobs) -> int:
    """Four threads get, and the main thread stores what comes first."""
    get, store = tstep(k, "get", 0.020, "exponential"), tstep(k, "store", 0.010)
    with ThreadPoolExecutor(k.workers("get", 4)) as executor:
        futures = [executor.submit(get, number) for number in range(200)]
        for future in as_completed(futures):
            store(future.result())
    return 200


@shape("executors", faster="get store", workers="get")
def executor_in_chunks(k: Knobs) -> int:
    """Twelve at a time on four threads, and then a store."""
    get, store = tstep(k, "get", 0.015), tstep(k, "store", 0.012)
    with ThreadPoolExecutor(k.workers("get", 4)) as executor:
        for chunk in itertools.islice(itertools.count(), 20):
            list(executor.map(get, range(chunk * 12, chunk * 12 + 12)))
            store(chunk)
    return 240


@shape("executors", faster="load decode", workers="decode")
async def to_thread_in_a_worker(k: Knobs) -> int:
    """Workers of asyncio send each item to a thread."""
    load, decode = step(k, "load", 0.005), tstep(k, "decode", 0.030)
    a, b, workers = q(4, "a"), q(4, "b"), k.workers("decode", 3)

    async def in_thread(n: int) -> Any:
        return await asyncio.to_thread(decode, n)

    await asyncio.gather(feed(a, 150), pool(1, a, load, b, workers), pool(workers, b, in_thread))
    return 150

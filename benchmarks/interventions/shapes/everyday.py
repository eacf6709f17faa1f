"""Pipelines of asyncio as people write them, fixed before any verdict on them was seen."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
from lab import REAL_TIME, SHAPES, Knobs, pool, q, shape, step

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["REAL_TIME", "SHAPES"]


@shape("everyday", faster="page detail", limits="detail")
async def task_group_with_a_limiter(k: Knobs) -> int:
    """A task group for each page; a limiter that is not wrapped lets five details be fetched."""
    page, detail = step(k, "page", 0.050, kind="fetch"), step(k, "detail", 0.040, kind="fetch")
    limiter = anyio.CapacityLimiter(k.limit("detail", 5))

    async def one(number: int) -> None:
        async with limiter:
            await detail(number)

    for number in range(25):
        await page(number)
        async with anyio.create_task_group() as group:
            for item in range(20):
                group.start_soon(one, item)
    return 500


@shape("everyday", faster="load clean save")
async def blocks_rather_than_decorators(k: Knobs) -> int:
    """One loop, with a `with` block for each stage."""
    load, clean, save = k.times("load", 0.020), k.times("clean", 0.005), k.times("save", 0.030)
    for _ in range(200):
        async with opm.fetch("load"):
            await asyncio.sleep(load())
        async with opm.process("clean"):
            await asyncio.sleep(clean())
        async with opm.write("save"):
            await asyncio.sleep(save())
    return 200


@shape("everyday", faster="page handle", workers="handle")
async def source_that_pages(k: Knobs) -> int:
    """A page brings forty items, which four workers take from a queue."""
    items, page_s, workers = q(50, "items"), k.times("page", 0.500), k.workers("handle", 4)
    handle = step(k, "handle", 0.030)

    @opm.fetch("page")
    async def pages() -> AsyncIterator[range]:
        for _ in range(15):
            await asyncio.sleep(page_s())
            yield range(40)

    async def fill() -> None:
        async for page in pages():
            for number in page:
                await items.put(number)
        for _ in range(workers):
            await items.put(None)

    await asyncio.gather(fill(), pool(workers, items, handle))
    return 600


@shape("everyday", faster="handle", workers="handle", source=True)
async def source_that_pages_unseen(k: Knobs) -> int:
    """The same, with a faster service, and a source that is no stage."""
    items, page_s, workers = q(50, "items"), k.times("source", 0.400), k.workers("handle", 4)
    handle = step(k, "handle", 0.020)

    async def fill() -> None:
        for _ in range(15):
            await asyncio.sleep(page_s())
            for number in range(40):
                await items.put(number)
        for _ in range(workers):
            await items.put(None)

    await asyncio.gather(fill(), pool(workers, items, handle))
    return 600


@shape("everyday", faster="call save", workers="call save", errors={"without": ("errors",)})
async def calls_with_a_time_out(k: Knobs) -> int:
    """One call in ten never answers, and is given up after a while."""
    rng, call_s = random.Random(random.random()), k.times("call", 0.020)
    items, results = q(8, "items"), q(8, "results")
    save, workers = step(k, "save", 0.005, kind="write"), k.workers("call", 3)

    @opm.fetch("call")
    async def call(number: int) -> int:
        hangs = rng.random() < 0.1 and k.has("errors")
        await asyncio.wait_for(asyncio.sleep(3600 if hangs else call_s()), 0.200)
        return number

    async def calling() -> None:
        while (number := await items.get()) is not None:
            try:
                await results.put(await call(number))
            except asyncio.TimeoutError:
                continue

    async def fill() -> None:
        for number in itertools.chain(range(300), [None] * workers):
            await items.put(number)

    async def called() -> None:
        await asyncio.gather(*(calling() for _ in range(workers)))
        for _ in range(k.workers("save", 1)):
            await results.put(None)

    await asyncio.gather(fill(), called(), pool(k.workers("save", 1), results, save))
    return 300


@shape("everyday", faster="send", workers="send", errors={"without": ("errors",)})
async def retries_with_back_off_around(k: Knobs) -> int:
    """The worker calls the stage again, and waits in between, outside of the stage."""
    rng, send_s = random.Random(random.random()), k.times("send", 0.030)
    mails, workers = q(8, "mails"), k.workers("send", 4)

    @opm.write("send")
    async def send(number: int) -> None:
        await asyncio.sleep(send_s())
        if k.has("errors") and rng.random() < 0.25:
            raise ConnectionError

    async def sending() -> None:
        while (number := await mails.get()) is not None:
            for attempt in range(5):
                try:
                    await send(number)
                    break
                except ConnectionError:
                    await asyncio.sleep(0.050 * 2**attempt)

    async def fill() -> None:
        for number in itertools.chain(range(300), [None] * workers):
            await mails.put(number)

    await asyncio.gather(fill(), *(sending() for _ in range(workers)))
    return 300


@shape("everyday", faster="serve log", workers="serve log")
async def priority_queue_of_two_classes(k: Knobs) -> int:
    """Urgent jobs overtake the others; what is done is logged by one more stage."""
    jobs = opm.wrap_queue(asyncio.PriorityQueue(16), name="jobs")
    done, rng = q(16, "done"), random.Random(random.random())
    serve, log = step(k, "serve", 0.045, "exponential"), step(k, "log", 0.008, kind="write")
    workers, logs = k.workers("serve", 3), k.workers("log", 1)

    async def serving() -> None:
        while (job := await jobs.get())[1] >= 0:
            await done.put(await serve(job[1]))

    async def fill() -> None:
        for number in range(300):
            await jobs.put((int(rng.random() < 0.8), number))
        for _ in range(workers):
            await jobs.put((2, -1))

    async def served() -> None:
        await asyncio.gather(*(serving() for _ in range(workers)))
        for _ in range(logs):
            await done.put(None)

    await asyncio.gather(fill(), served(), pool(logs, done, log))
    return 300


@shape("everyday", faster="read load")
async def prefetching_through_a_plain_queue(k: Knobs) -> int:
    """A task reads ahead into a queue that is not wrapped; the consumer is slow."""
    ahead: asyncio.Queue[Any] = asyncio.Queue(10)
    read_s, load = k.times("read", 0.012), step(k, "load", 0.020, kind="write")

    @opm.fetch("read")
    async def rows() -> AsyncIterator[int]:
        for number in range(300):
            await asyncio.sleep(read_s())
            yield number

    async def read() -> None:
        async for row in rows():
            await ahead.put(row)
        await ahead.put(None)

    async def load_all() -> None:
        while (row := await ahead.get()) is not None:
            await load(row)

    await asyncio.gather(read(), load_all())
    return 300


@shape("everyday", faster="orders users")
async def two_pipelines_at_once(k: Knobs) -> int:
    """Two that have nothing to do with each other; the slower one decides when all is done."""

    async def pipeline(name: str, mean_s: float, count: int) -> None:
        source, work = q(4, f"{name} in"), step(k, name, mean_s)

        async def fill() -> None:
            for number in itertools.chain(range(count), [None] * 2):
                await source.put(number)

        await asyncio.gather(fill(), pool(2, source, work))

    await asyncio.gather(pipeline("orders", 0.030, 300), pipeline("users", 0.020, 250))
    return 550


@shape("everyday", faster="prices stock merge", workers="all")
async def gather_of_two_lookups(k: Knobs) -> int:
    """A worker looks two things up at a time, and merges what it found."""
    items, prices, stock = q(6, "items"), step(k, "prices", 0.040), step(k, "stock", 0.025)
    merge, workers = step(k, "merge", 0.008, kind="write"), k.workers("all", 3)

    async def work() -> None:
        while (number := await items.get()) is not None:
            await asyncio.gather(prices(number), stock(number))
            await merge(number)

    async def fill() -> None:
        for number in itertools.chain(range(250), [None] * workers):
            await items.put(number)

    await asyncio.gather(fill(), *(work() for _ in range(workers)))
    return 250


@shape("everyday", faster="get parse", source=True, undecorated=True)
async def polite_crawler(k: Knobs) -> int:
    """A request is begun every so often, whatever becomes of the others."""
    get, parse = step(k, "get", 0.120, "exponential", kind="fetch"), step(k, "parse", 0.005)
    # by whichever of the two names the verdict calls it
    gaps = [k.times(name, 0.030, "constant", varies=False) for name in ("source", "undecorated")]

    async def one(number: int) -> None:
        await parse(await get(number))

    tasks = []
    for number in range(250):
        tasks.append(asyncio.ensure_future(one(number)))
        await asyncio.sleep(min(gap() for gap in gaps))
    await asyncio.gather(*tasks)
    return 250


@shape("everyday", faster="call", limits="call")
async def semaphore_inside_the_stage(k: Knobs) -> int:
    """All tasks begin at once; a semaphore that is not wrapped is taken inside of the stage."""
    permits, call_s = asyncio.Semaphore(k.limit("call", 10)), k.times("call", 0.060, "exponential")

    @opm.fetch("call")
    async def call(number: int) -> int:
        async with permits:
            await asyncio.sleep(call_s())
        return number

    await asyncio.gather(*(call(number) for number in range(400)))
    return 400


@shape("everyday", faster="read convert", limits="convert")
async def default_executor_of_few_threads(k: Knobs) -> int:
    """Twenty workers share the event loop's executor, which has six threads."""
    executor = ThreadPoolExecutor(k.limit("convert", 6))
    asyncio.get_running_loop().set_default_executor(executor)
    read, convert_s = step(k, "read", 0.020, kind="fetch"), k.times("convert", 0.030)
    files = q(20, "files")

    @opm.process("convert")
    async def convert(number: int) -> None:
        await asyncio.to_thread(time.sleep, convert_s())

    async def work() -> None:
        while (number := await files.get()) is not None:
            await convert(await read(number))

    async def fill() -> None:
        for number in itertools.chain(range(400), [None] * 20):
            await files.put(number)

    await asyncio.gather(fill(), *(work() for _ in range(20)))
    return 400


@shape("everyday", faster="fetch save", tie="fetch save")
async def saved_as_completed(k: Knobs) -> int:
    """Everything is fetched at once, and saved one by one as it arrives."""
    fetch, save = step(k, "fetch", 0.400, "exponential"), step(k, "save", 0.010, kind="write")
    for done in asyncio.as_completed([fetch(number) for number in range(200)]):
        await save(await done)
    return 200


@shape("everyday", faster="read bulk")
async def bulk_of_whatever_there_is(k: Knobs) -> int:
    """The writer writes all that has come meanwhile, which takes as long for one as for many."""
    rows, read, bulk_s = q(100, "rows"), step(k, "read", 0.010, kind="fetch"), k.times("bulk", 0.05)

    @opm.write("bulk")
    async def bulk(batch: list[int]) -> None:
        await asyncio.sleep(bulk_s())

    async def reading() -> None:
        for number in range(400):
            await rows.put(await read(number))
        await rows.put(None)

    async def writing() -> None:
        while (row := await rows.get()) is not None:
            batch = [row]
            while not rows.empty():
                if (row := rows.get_nowait()) is None:
                    await bulk(batch)
                    return
                batch.append(row)
            await bulk(batch)

    await asyncio.gather(reading(), writing())
    return 400

"""Stages joined by wrapped queues of asyncio: lines, branches, skew, phases and bursts."""

from __future__ import annotations

import asyncio
from typing import Any

from lab import REAL_TIME, SHAPES, Knobs, feed, line, pool, pump, q, shape, step

import otel_pipeline_metrics as opm

__all__ = ["REAL_TIME", "SHAPES"]


@shape("lines", faster="fetch parse store", workers="fetch parse store")
async def line_of_three(k: Knobs) -> int:
    names = (("fetch", 0.006), ("parse", 0.018), ("store", 0.009))
    return await line(200, [(step(k, n, s), k.workers(n, 1)) for n, s in names])


@shape("lines", faster="fetch parse store", workers="fetch parse store")
async def line_with_workers(k: Knobs) -> int:
    names = (("fetch", 0.020, 3), ("parse", 0.012, 1), ("store", 0.060, 4))
    stages = [(step(k, n, s, "exponential"), k.workers(n, w)) for n, s, w in names]
    return await line(400, stages, (4, 16, 16))


@shape("lines", faster="a b c d e", workers="a b c d e")
async def line_of_five(k: Knobs) -> int:
    names = (("a", 0.004), ("b", 0.008), ("c", 0.007), ("d", 0.013), ("e", 0.005))
    return await line(200, [(step(k, n, s), k.workers(n, 1)) for n, s in names])


@shape("lines", faster="fetch store", workers="store")
async def first_stage_makes_items(k: Knobs) -> int:
    fetch, store, b = step(k, "fetch", 0.015), step(k, "store", 0.008), q(8, "b")

    async def make() -> None:
        for number in range(200):
            await b.put(await fetch(number))
        for _ in range(k.workers("store", 1)):
            await b.put(None)

    await asyncio.gather(make(), pool(k.workers("store", 1), b, store))
    return 200


@shape("lines", faster="fetch parse store", tie="fetch store")
async def two_alike(k: Knobs) -> int:
    alike = {"mean_s": 0.015, "shape": "constant", "varies": False}
    fetch, store = step(k, "fetch", **alike), step(k, "store", **alike)
    return await line(200, [(fetch, 1), (step(k, "parse", 0.004), 1), (store, 1)])


@shape("lines", faster="fetch parse store", workers="fetch parse store")
async def tiny_queues_and_tails(k: Knobs) -> int:
    names = (("fetch", 0.010), ("parse", 0.020), ("store", 0.008))
    stages = [(step(k, n, s, "heavy"), k.workers(n, 1)) for n, s in names]
    return await line(400, stages, (1, 1, 1))


@shape("lines", faster="fetch parse", workers="fetch parse")
async def unbounded_queue(k: Knobs) -> int:
    stages = [(step(k, n, s), k.workers(n, 1)) for n, s in (("fetch", 0.004), ("parse", 0.015))]
    return await line(200, stages, (0, 0))


@shape("lines", faster="light heavy", workers="light heavy")
async def too_few_workers(k: Knobs) -> int:
    """One worker of the light stage cannot feed six of the heavy one."""
    light, heavy = step(k, "light", 0.020), step(k, "heavy", 0.060)
    return await line(240, [(light, k.workers("light", 1)), (heavy, k.workers("heavy", 6))], (8, 8))


@shape("branches", faster="left right sink", workers="left right sink")
async def fan_in(k: Knobs) -> int:
    a, b, out = q(4, "a"), q(4, "b"), q(8, "out")
    left, right = step(k, "left", 0.020), step(k, "right", 0.012)
    sink = step(k, "sink", 0.004)
    sinks = k.workers("sink", 1)

    async def both() -> None:
        await asyncio.gather(
            pool(k.workers("left", 1), a, left, out), pool(k.workers("right", 1), b, right, out)
        )
        for _ in range(sinks):
            await out.put(None)

    await asyncio.gather(
        feed(a, 150, k.workers("left", 1)),
        feed(b, 150, k.workers("right", 1)),
        both(),
        pool(sinks, out, sink),
    )
    return 300


@shape("branches", faster="route common rare", workers="common rare")
async def router(k: Knobs) -> int:
    a, common, rare = q(4, "a"), q(4, "common"), q(4, "rare")
    route = step(k, "route", 0.003)
    often, seldom = step(k, "common", 0.012), step(k, "rare", 0.020)

    async def routes() -> None:
        while (n := await a.get()) is not None:
            await (rare if n % 5 == 0 else common).put(await route(n))
        for to, name in ((common, "common"), (rare, "rare")):
            for _ in range(k.workers(name, 1)):
                await to.put(None)

    await asyncio.gather(
        feed(a, 300),
        routes(),
        pool(k.workers("common", 1), common, often),
        pool(k.workers("rare", 1), rare, seldom),
    )
    return 300


@shape("branches", faster="read load", workers="read load")
async def batches_of_ten(k: Knobs) -> int:
    a, b = q(8, "a"), q(20, "b")
    read, times = step(k, "read", 0.004), k.times("load", 0.070)

    @opm.write("load")
    async def load(rows: list[int]) -> None:
        await asyncio.sleep(times() * len(rows) / 10)

    async def loads() -> None:
        rows: list[int] = []
        while (n := await b.get()) is not None:
            rows.append(n)
            if len(rows) == 10:
                await load(rows)
                rows = []
        if rows:
            await load(rows)

    workers = k.workers("load", 1)
    reads = k.workers("read", 1)
    await asyncio.gather(
        feed(a, 400, reads), pool(reads, a, read, b, workers), *(loads() for _ in range(workers))
    )
    return 400


@shape("branches", faster="fetch extract", workers="fetch extract")
async def crawl_in_a_cycle(k: Knobs) -> int:
    """What is extracted leads to more to fetch."""
    urls, pages = q(0, "urls"), q(8, "pages")
    fetch, extract = step(k, "fetch", 0.030), step(k, "extract", 0.006)
    left = 300
    seen = 1

    async def extracts() -> None:
        nonlocal left, seen
        while (page := await pages.get()) is not None:
            await extract(page)
            for _ in range(3):
                if seen < 300:
                    await urls.put(seen)
                    seen += 1
            left -= 1
            if left == 0:
                for _ in range(k.workers("fetch", 3)):
                    await urls.put(None)
                for _ in range(k.workers("extract", 1)):
                    await pages.put(None)

    await urls.put(0)
    await asyncio.gather(
        pool(k.workers("fetch", 3), urls, fetch, pages),
        *(extracts() for _ in range(k.workers("extract", 1))),
    )
    return 300


@shape("sources", faster="parse store", workers="parse store", source=True)
async def source_on_a_clock(k: Knobs) -> int:
    a, b = q(4, "a"), q(4, "b")
    every = k.times("source", 0.020, "constant")
    workers = {n: k.workers(n, 1) for n in ("parse", "store")}
    await asyncio.gather(
        feed(a, 200, workers["parse"], every),
        pool(workers["parse"], a, step(k, "parse", 0.009), b, workers["store"]),
        pool(workers["store"], b, step(k, "store", 0.012)),
    )
    return 200


@shape("sources", faster="parse store", workers="parse store", source=True)
async def source_in_bursts(k: Knobs) -> int:
    """Twenty items at once, then nothing for a while."""
    a, b = q(50, "a"), q(4, "b")
    pause = k.times("source", 0.50, "constant")
    workers = {n: k.workers(n, 1) for n in ("parse", "store")}

    async def bursts() -> None:
        for burst in range(12):
            await asyncio.sleep(pause())
            for number in range(20):
                await a.put(burst * 20 + number)
        for _ in range(workers["parse"]):
            await a.put(None)

    await asyncio.gather(
        bursts(),
        pool(workers["parse"], a, step(k, "parse", 0.005), b, workers["store"]),
        pool(workers["store"], b, step(k, "store", 0.010)),
    )
    return 240


@shape("sources", faster="pages parse", workers="parse")
async def source_is_a_stage(k: Knobs) -> int:
    """A decorated async generator reads pages, and each has ten rows."""
    a, times, parse = q(8, "a"), k.times("pages", 0.150), step(k, "parse", 0.008)

    @opm.fetch("pages")
    async def pages() -> Any:
        for page in range(25):
            await asyncio.sleep(times())
            for row in range(10):
                yield page * 10 + row

    async def reads() -> None:
        async for row in pages():
            await a.put(row)
        for _ in range(k.workers("parse", 1)):
            await a.put(None)

    await asyncio.gather(reads(), pool(k.workers("parse", 1), a, parse))
    return 250


@shape("skew", faster="read agg write", workers="read write")
async def key_skew(k: Knobs) -> int:
    """Four partitions, and 64 of 100 items have one key."""
    read, agg, write = step(k, "read", 0.008), step(k, "agg", 0.020), step(k, "write", 0.007)
    a, out = q(4, "a"), q(8, "out")
    parts = [q(4, f"p{number}") for number in range(4)]
    reads, writes = k.workers("read", 1), k.workers("write", 1)

    async def route() -> None:
        while (n := await a.get()) is not None:
            await parts[0 if n % 25 < 16 else 1 + n % 3].put(await read(n))

    async def routes() -> None:
        await asyncio.gather(*(route() for _ in range(reads)))
        for part in parts:
            await part.put(None)

    async def aggs() -> None:
        await asyncio.gather(*(pump(part, agg, out) for part in parts))
        for _ in range(writes):
            await out.put(None)

    await asyncio.gather(feed(a, 250, reads), routes(), aggs(), pool(writes, out, write))
    return 250


@shape("skew", faster="parse join", workers="parse")
async def one_queue_of_the_same_name_is_hot(k: Knobs) -> int:
    """Six partitions under one name; a third of the items goes to one of them."""
    parse, join = step(k, "parse", 0.004), step(k, "join", 0.030, "exponential")
    a, parts = q(8, "a"), [q(4, "parts") for _ in range(6)]
    parses = k.workers("parse", 1)

    async def route() -> None:
        while (n := await a.get()) is not None:
            await parts[0 if n % 3 == 0 else 1 + n % 5].put(await parse(n))

    async def routes() -> None:
        await asyncio.gather(*(route() for _ in range(parses)))
        for part in parts:
            await part.put(None)

    await asyncio.gather(feed(a, 300, parses), routes(), *(pump(part, join) for part in parts))
    return 300


@shape("phases", faster="fetch store commit", workers="store")
async def pipeline_then_commit(k: Knobs) -> int:
    stages = [(step(k, "fetch", 0.008), 1), (step(k, "store", 0.015), k.workers("store", 1))]
    commit = step(k, "commit", 1.8, "constant", kind="write")
    await line(100, stages)
    await commit(0)
    return 100


@shape("phases", faster="read sort write", workers="read write")
async def read_all_then_write_all(k: Knobs) -> int:
    """First everything is read, then it is sorted, then everything is written."""
    await line(150, [(step(k, "read", 0.020), k.workers("read", 4))])
    await step(k, "sort", 0.3, "constant")(0)
    await line(150, [(step(k, "write", 0.016), k.workers("write", 2))])
    return 150


@shape("phases", faster="fetch call", workers="fetch call")
async def warm_up(k: Knobs) -> int:
    """The calls are slow until a cache is warm."""
    times, fetch = k.times("call", 0.010), step(k, "fetch", 0.008)

    @opm.process("call")
    async def call(n: int) -> int:
        await asyncio.sleep(times() * (4 if n < 60 else 1))
        return n

    return await line(300, [(fetch, k.workers("fetch", 1)), (call, k.workers("call", 1))])


@shape("phases", faster="fetch index", workers="fetch index")
async def slowing_down(k: Knobs) -> int:
    """A table grows, so each write takes longer than the one before."""
    times, fetch = k.times("index", 0.010), step(k, "fetch", 0.012)

    @opm.write("index")
    async def index(n: int) -> None:
        await asyncio.sleep(times() * (0.5 + n / 120))

    return await line(300, [(fetch, k.workers("fetch", 1)), (index, k.workers("index", 1))])


@shape("phases", faster="text image", workers="text image")
async def alternating(k: Knobs) -> int:
    """Fifty items are hard for one stage, the next fifty for the other."""
    short, long = k.times("text", 0.010), k.times("image", 0.010)

    @opm.process("text")
    async def text(n: int) -> int:
        await asyncio.sleep(short() * (3 if n // 50 % 2 else 1))
        return n

    @opm.process("image")
    async def image(n: int) -> int:
        await asyncio.sleep(long() * (1 if n // 50 % 2 else 2))
        return n

    return await line(300, [(text, k.workers("text", 1)), (image, k.workers("image", 1))])

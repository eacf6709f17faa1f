"""Threads, and threads beside asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import Any

from lab import (
    REAL_TIME,
    SHAPES,
    Knobs,
    feed,
    line,
    pool,
    q,
    run_threads,
    shape,
    step,
    tfeed,
    tline,
    tpool,
    tpump,
    tq,
    tstep,
)

import otel_pipeline_metrics as opm

__all__ = ["REAL_TIME", "SHAPES"]


@shape("threads", faster="read parse load", workers="read parse load")
def threads_in_a_line(k: Knobs) -> int:
    names = (("read", 0.006), ("parse", 0.009), ("load", 0.016))
    return tline(150, [(tstep(k, n, s), k.workers(n, 1)) for n, s in names])


@shape("threads", faster="read parse load", workers="read parse load")
def threads_with_workers(k: Knobs) -> int:
    names = (("read", 0.030, 4), ("parse", 0.026, 2), ("load", 0.008, 1))
    return tline(240, [(tstep(k, n, s, "exponential"), k.workers(n, w)) for n, s, w in names], 8)


@shape("threads", faster="read load", tie="read load")
def threads_alike(k: Knobs) -> int:
    alike: dict[str, Any] = {"mean_s": 0.012, "shape": "constant", "varies": False}
    return tline(150, [(tstep(k, "read", **alike), 1), (tstep(k, "load", **alike), 1)])


@shape("threads", faster="parse", workers="parse", source=True)
def threads_behind_a_slow_source(k: Knobs) -> int:
    a, every = tq(8, "a"), k.times("source", 0.015, "exponential")
    parse, parses = tstep(k, "parse", 0.012), k.workers("parse", 2)
    run_threads([lambda: tfeed(a, 200, parses, every), lambda: tpool(parses, a, parse)])
    return 200


@shape("skew", faster="read apply", workers="read")
def threads_with_skew(k: Knobs) -> int:
    """Each account has a thread; one account has most of the changes."""
    a, parts = tq(8, "a"), [tq(4, f"account{number}") for number in range(3)]
    read, apply, reads = tstep(k, "read", 0.005), tstep(k, "apply", 0.016), k.workers("read", 1)

    def route() -> None:
        while (n := a.get()) is not None:
            parts[0 if n % 10 < 7 else 1 + n % 2].put(read(n))

    def routes() -> None:
        run_threads([route] * reads)
        for part in parts:
            part.put(None)

    run_threads(
        [lambda: tfeed(a, 200, reads), routes, *(lambda p=part: tpump(p, apply) for part in parts)]
    )
    return 200


@shape("threads", faster="rank send", workers="rank send")
def priority_queue(k: Knobs) -> int:
    a, b = tq(4, "a"), opm.wrap_queue(queue.PriorityQueue[Any](8), name="urgent")
    rank, send = tstep(k, "rank", 0.004), tstep(k, "send", 0.013)
    ranks, sends = k.workers("rank", 1), k.workers("send", 1)

    def ranked() -> None:
        while (n := a.get()) is not None:
            b.put((n % 5, n, rank(n)))

    def sent() -> None:
        while (entry := b.get())[2] is not None:
            send(entry[2])

    def both() -> None:
        run_threads([ranked] * ranks)
        for number in range(sends):
            b.put((9, number, None))

    run_threads([lambda: tfeed(a, 200, ranks), both, *[sent] * sends])
    return 200


@shape("mixed", faster="fetch decode save", workers="fetch decode save")
async def asyncio_then_threads(k: Knobs) -> int:
    """Tasks fetch; threads decode and save."""
    loop = asyncio.get_running_loop()
    a, b, c = q(4, "a"), tq(8, "b"), tq(8, "c")
    fetch, decode, save = (
        step(k, "fetch", 0.020),
        tstep(k, "decode", 0.030),
        tstep(k, "save", 0.005),
    )
    fetches, decodes, saves = k.workers("fetch", 4), k.workers("decode", 2), k.workers("save", 1)

    async def fetched() -> None:
        async def one() -> None:
            while (n := await a.get()) is not None:
                item = await fetch(n)
                await loop.run_in_executor(None, b.put, item)

        await asyncio.gather(*(one() for _ in range(fetches)))
        for _ in range(decodes):
            b.put(None)

    threads = [
        threading.Thread(target=tpool, args=(decodes, b, decode, c, saves)),
        threading.Thread(target=tpool, args=(saves, c, save)),
    ]
    for thread in threads:
        thread.start()
    await asyncio.gather(feed(a, 200, fetches), fetched())
    await loop.run_in_executor(None, threads[1].join)
    return 200


@shape("mixed", faster="read score", workers="score")
async def threads_feed_asyncio(k: Knobs) -> int:
    """A thread reads and calls into the loop."""
    loop, b = asyncio.get_running_loop(), q(8, "b")
    read, score, scores = tstep(k, "read", 0.006), step(k, "score", 0.030), k.workers("score", 3)

    def reads() -> None:
        for number in range(200):
            item = read(number)
            asyncio.run_coroutine_threadsafe(b.put(item), loop).result()
        for _ in range(scores):
            asyncio.run_coroutine_threadsafe(b.put(None), loop).result()

    await asyncio.gather(asyncio.to_thread(reads), pool(scores, b, score))
    return 200


@shape("event loop", faster="fetch parse write")
async def blocking_call_in_a_coroutine(k: Knobs) -> int:
    """`parse` sleeps with `time.sleep`, so nothing else runs meanwhile."""
    times = k.times("parse", 0.012)

    @opm.process
    async def parse(n: int) -> int:
        time.sleep(times())  # noqa: ASYNC251 - this is the point
        return n

    stages = [(step(k, "fetch", 0.008), 2), (parse, 1), (step(k, "write", 0.009), 2)]
    return await line(150, stages)


@shape(
    "event loop",
    faster="fetch parse write",
    undecorated=True,
    # the verdict names no stage, since it is none that blocks
    event_loop={"faster": ("undecorated",)},
    # how late the loop is belongs to what is sampled, which is in real time
    real=True,
)
async def blocking_call_elsewhere(k: Knobs) -> int:
    """A task that belongs to no stage blocks the loop most of the time."""
    times = k.times("undecorated", 0.120, "constant")
    done = False

    async def statistics() -> None:
        while not done:
            time.sleep(times())  # noqa: ASYNC251 - this is the point
            await asyncio.sleep(0.030)

    async def work() -> None:
        nonlocal done
        names = (("fetch", 0.005), ("parse", 0.006), ("write", 0.004))
        await line(100, [(step(k, n, s), 1) for n, s in names])
        done = True

    await asyncio.gather(statistics(), work())
    return 100

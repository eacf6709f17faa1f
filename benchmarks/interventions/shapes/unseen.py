"""Steps without a decorator, queues that nobody wrapped, and polling."""

from __future__ import annotations

import asyncio
import queue
import time
from typing import Any

from lab import (
    REAL_TIME,
    SHAPES,
    Knobs,
    feed,
    pool,
    pump,
    q,
    run_threads,
    shape,
    step,
    tfeed,
    tpool,
    tq,
    tstep,
)

__all__ = ["REAL_TIME", "SHAPES"]


def _plain(k: Knobs, mean_s: float) -> Any:
    times = k.times("undecorated", mean_s)

    async def work(n: Any) -> Any:
        await asyncio.sleep(times())
        return n

    return work


@shape("undecorated", faster="fetch store", workers="fetch store", undecorated=True)
async def undecorated_middle(k: Knobs) -> int:
    a, b, c = q(4, "a"), q(4, "b"), q(4, "c")
    fetches, stores = k.workers("fetch", 1), k.workers("store", 1)
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.006), b, 1),
        pool(1, b, _plain(k, 0.020), c, stores),
        pool(stores, c, step(k, "store", 0.010)),
    )
    return 150


@shape("undecorated", faster="fetch parse", workers="fetch parse", undecorated=True)
async def undecorated_last(k: Knobs) -> int:
    a, b, c = q(4, "a"), q(4, "b"), q(4, "c")
    fetches, parses = k.workers("fetch", 1), k.workers("parse", 2)
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.006), b, parses),
        pool(parses, b, step(k, "parse", 0.012), c, 1),
        pump(c, _plain(k, 0.018)),
    )
    return 150


@shape("undecorated", faster="fetch store", workers="fetch store", undecorated=True)
async def undecorated_and_quick(k: Knobs) -> int:
    """The step that nobody sees is not what limits the run."""
    a, b, c = q(4, "a"), q(4, "b"), q(4, "c")
    fetches, stores = k.workers("fetch", 1), k.workers("store", 1)
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.006), b, 1),
        pool(1, b, _plain(k, 0.004), c, stores),
        pool(stores, c, step(k, "store", 0.014)),
    )
    return 150


@shape("undecorated", faster="fetch store", workers="fetch store", undecorated=True)
def undecorated_in_threads(k: Knobs) -> int:
    a, b, c, times = tq(4, "a"), tq(4, "b"), tq(4, "c"), k.times("undecorated", 0.018)

    def plain(n: int) -> int:
        time.sleep(times())
        return n

    fetches, stores = k.workers("fetch", 1), k.workers("store", 1)
    fetch, store = tstep(k, "fetch", 0.007), tstep(k, "store", 0.006)
    run_threads(
        [
            lambda: tfeed(a, 150, fetches),
            lambda: tpool(fetches, a, fetch, b, 1),
            lambda: tpool(1, b, plain, c, stores),
            lambda: tpool(stores, c, store),
        ]
    )
    return 150


@shape("unwrapped", faster="fetch parse store", workers="fetch parse store")
async def last_queue_unwrapped(k: Knobs) -> int:
    a, b, c = q(4, "a"), q(4, "b"), asyncio.Queue[Any](4)
    fetches, parses, stores = (k.workers(n, 1) for n in ("fetch", "parse", "store"))
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.006), b, parses),
        pool(parses, b, step(k, "parse", 0.009), c, stores),
        pool(stores, c, step(k, "store", 0.020)),
    )
    return 150


@shape("unwrapped", faster="fetch parse store", workers="fetch parse store")
async def first_queue_unwrapped(k: Knobs) -> int:
    a, b, c = asyncio.Queue[Any](4), asyncio.Queue[Any](4), q(4, "c")
    fetches, parses, stores = (k.workers(n, 1) for n in ("fetch", "parse", "store"))
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.018), b, parses),
        pool(parses, b, step(k, "parse", 0.009), c, stores),
        pool(stores, c, step(k, "store", 0.007)),
    )
    return 150


@shape("unwrapped", faster="fetch parse store", workers="fetch parse store")
async def no_queue_wrapped(k: Knobs) -> int:
    a, b, c = asyncio.Queue[Any](4), asyncio.Queue[Any](4), asyncio.Queue[Any](4)
    fetches, parses, stores = (
        k.workers(n, w) for n, w in (("fetch", 1), ("parse", 2), ("store", 1))
    )
    await asyncio.gather(
        feed(a, 150, fetches),
        pool(fetches, a, step(k, "fetch", 0.006), b, parses),
        pool(parses, b, step(k, "parse", 0.036), c, stores),
        pool(stores, c, step(k, "store", 0.007)),
    )
    return 150


@shape("unwrapped", faster="fetch store", workers="fetch store")
def no_queue_wrapped_in_threads(k: Knobs) -> int:
    a, b = queue.Queue[Any](4), queue.Queue[Any](4)
    fetches, stores = k.workers("fetch", 1), k.workers("store", 2)
    fetch, store = tstep(k, "fetch", 0.005), tstep(k, "store", 0.030, "exponential")
    run_threads(
        [
            lambda: tfeed(a, 200, fetches),
            lambda: tpool(fetches, a, fetch, b, stores),
            lambda: tpool(stores, b, store),
        ]
    )
    return 200


@shape("polling", faster="fetch write", workers="fetch")
async def polling(k: Knobs) -> int:
    """The consumer looks every two milliseconds whether there is something."""
    a, b, fetch, write = q(4, "a"), q(4, "b"), step(k, "fetch", 0.020), step(k, "write", 0.006)
    fetches = k.workers("fetch", 1)

    async def consume() -> None:
        while True:
            try:
                n = b.get_nowait()
            except asyncio.QueueEmpty:
                await asyncio.sleep(0.002)
                continue
            if n is None:
                return
            await write(n)

    await asyncio.gather(feed(a, 150, fetches), pool(fetches, a, fetch, b, 1), consume())
    return 150


@shape("polling", faster="fetch write", workers="write")
async def polling_the_slow_one(k: Knobs) -> int:
    """The producer looks whether there is room."""
    b, fetch, write = q(4, "b"), step(k, "fetch", 0.005), step(k, "write", 0.014)
    writes = k.workers("write", 1)

    async def produce() -> None:
        for number in range(150):
            item = await fetch(number)
            while b.full():  # noqa: ASYNC110 - this is the point
                await asyncio.sleep(0.001)
            b.put_nowait(item)
        for _ in range(writes):
            await b.put(None)

    await asyncio.gather(produce(), pool(writes, b, write))
    return 150


@shape("polling", faster="fetch write", workers="fetch")
def polling_threads(k: Knobs) -> int:
    """A thread asks with a timeout, and then looks at something else."""
    a, b, fetch, write = tq(4, "a"), tq(4, "b"), tstep(k, "fetch", 0.020), tstep(k, "write", 0.005)
    fetches = k.workers("fetch", 1)

    def consume() -> None:
        while True:
            try:
                n = b.get(timeout=0.003)
            except queue.Empty:
                continue
            if n is None:
                return
            write(n)

    run_threads([lambda: tfeed(a, 150, fetches), lambda: tpool(fetches, a, fetch, b, 1), consume])
    return 150

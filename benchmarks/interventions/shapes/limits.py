"""Locks, semaphores, pools, rates and far sides, wrapped or not."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab import REAL_TIME, SHAPES, Knobs, feed, line, pool, q, shape, step, tline, tstep

import otel_pipeline_metrics as opm

__all__ = ["REAL_TIME", "SHAPES"]


def _call(k: Knobs, gate: Any, mean_s: float, shape_: str = "lognormal") -> Any:
    """Return a stage that works while it holds a permit."""
    times = k.times("call", mean_s, shape_)

    @opm.process("call")
    async def call(n: int) -> int:
        async with gate:
            await asyncio.sleep(times())
        return n

    return call


def _lock(k: Knobs, name: str) -> Any:
    """Return a lock; raised, it lets two in."""
    permits = k.limit(name, 1)
    return asyncio.Lock() if permits == 1 else asyncio.Semaphore(permits)


@shape("limits unseen", faster="fetch call", workers="fetch call", limits="call")
async def semaphore_inside(k: Knobs) -> int:
    call = _call(k, asyncio.Semaphore(k.limit("call", 2)), 0.030)
    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 4))]
    )


@shape("limits", faster="fetch call", workers="fetch call", limits="permits")
async def semaphore_wrapped(k: Knobs) -> int:
    gate = opm.wrap_limit(asyncio.Semaphore(k.limit("permits", 2)), name="permits")
    call = _call(k, gate, 0.030)
    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 4))]
    )


@shape("limits", faster="fetch call", workers="fetch call", limits="permits")
async def semaphore_that_does_not_limit(k: Knobs) -> int:
    gate = opm.wrap_limit(asyncio.Semaphore(k.limit("permits", 8)), name="permits")
    call = _call(k, gate, 0.030)
    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 2))]
    )


@shape("limits unseen", faster="fetch call", workers="fetch call", limits="call")
async def rate_inside(k: Knobs) -> int:
    """Fifty a second, whoever asks."""
    loop, rate = asyncio.get_running_loop(), k.limit("call", 50)
    free_at, times = loop.time(), k.times("call", 0.020, "constant")

    @opm.process
    async def call(n: int) -> int:
        nonlocal free_at
        begin = max(free_at, loop.time())
        free_at = begin + 1 / rate
        await asyncio.sleep(begin - loop.time())
        await asyncio.sleep(times())
        return n

    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 4))]
    )


class Rate:
    """A rate limit with `acquire`."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free_at = rate, 0.0

    async def acquire(self) -> None:
        """Wait for the next slot."""
        now = asyncio.get_running_loop().time()
        begin = max(self._free_at, now)
        self._free_at = begin + 1 / self._rate
        await asyncio.sleep(begin - now)


@shape("limits", faster="fetch call", workers="fetch call", limits="rate")
async def rate_wrapped(k: Knobs) -> int:
    rate = opm.wrap_limit(Rate(k.limit("rate", 50)), name="rate")
    times = k.times("call", 0.020, "constant")

    @opm.process
    async def call(n: int) -> int:
        await rate.acquire()
        await asyncio.sleep(times())
        return n

    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 4))]
    )


@shape("limits unseen", faster="fetch call", workers="fetch call", limits="call")
async def executor_inside(k: Knobs) -> int:
    """The stage hands its work to two threads."""
    loop, times = asyncio.get_running_loop(), k.times("call", 0.030)
    with ThreadPoolExecutor(k.limit("call", 2)) as executor:

        @opm.process
        async def call(n: int) -> int:
            await loop.run_in_executor(executor, time.sleep, times())
            return n

        stages = [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 4))]
        return await line(200, stages)


@shape("limits unseen", faster="fetch call", workers="fetch call", limits="call")
async def far_side_slows_down(k: Knobs) -> int:
    """A server shares its time: the more at a time, the longer each takes."""
    times, capacity = k.times("call", 0.030), k.limit("call", 2)
    inside = 0

    @opm.process
    async def call(n: int) -> int:
        nonlocal inside
        inside += 1
        left = times()
        while left > 0:
            speed = min(1.0, capacity / inside)
            await asyncio.sleep(min(0.005, left / speed))
            left -= 0.005 * speed
        inside -= 1
        return n

    return await line(
        200, [(step(k, "fetch", 0.004), k.workers("fetch", 1)), (call, k.workers("call", 5))]
    )


@shape("limits unseen", faster="fetch store", workers="fetch store", limits="lock")
async def lock_of_two_stages(k: Knobs) -> int:
    """Both stages hold the same lock for all of their time."""
    lock = _lock(k, "lock")
    fetching, storing = k.times("fetch", 0.012), k.times("store", 0.012)

    @opm.fetch
    async def fetch(n: int) -> int:
        async with lock:
            await asyncio.sleep(fetching())
        return n

    @opm.write
    async def store(n: int) -> int:
        async with lock:
            await asyncio.sleep(storing())
        return n

    return await line(150, [(fetch, k.workers("fetch", 1)), (store, k.workers("store", 1))])


@shape("limits", faster="fetch store", workers="fetch store", limits="lock")
async def wrapped_lock_of_two_stages(k: Knobs) -> int:
    lock = opm.wrap_limit(_lock(k, "lock"), name="lock")
    fetching, storing = k.times("fetch", 0.007), k.times("store", 0.016)

    @opm.fetch
    async def fetch(n: int) -> int:
        async with lock:
            await asyncio.sleep(fetching())
        return n

    @opm.write
    async def store(n: int) -> int:
        async with lock:
            await asyncio.sleep(storing())
        return n

    return await line(150, [(fetch, k.workers("fetch", 1)), (store, k.workers("store", 1))])


@shape("limits", faster="read enrich", workers="read enrich", limits="connections")
async def pool_of_two_stages(k: Knobs) -> int:
    """Two stages with eight workers share three connections."""
    gate = opm.wrap_limit(asyncio.Semaphore(k.limit("connections", 3)), name="connections")
    reading, enriching = k.times("read", 0.010), k.times("enrich", 0.030)

    @opm.fetch
    async def read(n: int) -> int:
        async with gate:
            await asyncio.sleep(reading())
        return n

    @opm.process
    async def enrich(n: int) -> int:
        async with gate:
            await asyncio.sleep(enriching())
        return n

    return await line(240, [(read, k.workers("read", 4)), (enrich, k.workers("enrich", 4))])


@shape("limits", faster="fetch call store", workers="fetch call store", limits="permits")
async def limit_of_a_part(k: Knobs) -> int:
    """The permit is held for a small part of the stage: it limits nothing."""
    gate = opm.wrap_limit(asyncio.Semaphore(k.limit("permits", 1)), name="permits")
    before, inside = k.times("call", 0.036), k.times("call", 0.004)

    @opm.process
    async def call(n: int) -> int:
        await asyncio.sleep(before())
        async with gate:
            await asyncio.sleep(inside())
        return n

    stages = [("fetch", 0.003, 1), ("call", 0.0, 4), ("store", 0.006, 1)]
    made = [(call if n == "call" else step(k, n, s), k.workers(n, w)) for n, s, w in stages]
    return await line(240, made)


@shape("limits", faster="fetch save", workers="fetch save", limits="file")
def lock_in_threads(k: Knobs) -> int:
    """Three threads write to one file, which has a lock."""
    permits = k.limit("file", 1)
    bare: Any = threading.Lock() if permits == 1 else threading.Semaphore(permits)
    lock = opm.wrap_limit(bare, name="file")
    saving, own = k.times("save", 0.012), k.times("save", 0.004)

    @opm.write("save")
    def save(n: int) -> int:
        time.sleep(own())
        with lock:
            time.sleep(saving())
        return n

    return tline(
        150, [(tstep(k, "fetch", 0.005), k.workers("fetch", 1)), (save, k.workers("save", 3))]
    )


@shape("limits unseen", faster="fetch save", workers="fetch save", limits="save")
def semaphore_inside_threads(k: Knobs) -> int:
    gate, saving = threading.Semaphore(k.limit("save", 2)), k.times("save", 0.024)

    @opm.write("save")
    def save(n: int) -> int:
        with gate:
            time.sleep(saving())
        return n

    return tline(
        150, [(tstep(k, "fetch", 0.005), k.workers("fetch", 1)), (save, k.workers("save", 5))]
    )


@shape("limits", faster="query", workers="query", limits="pool")
async def pool_without_queues(k: Knobs) -> int:
    """Twenty tasks query through a pool of three connections."""
    gate = opm.wrap_limit(asyncio.Semaphore(k.limit("pool", 3)), name="pool")
    times = k.times("query", 0.015)

    @opm.fetch
    async def query(n: int) -> int:
        async with gate:
            await asyncio.sleep(times())
        return n

    async def client(number: int) -> None:
        for item in range(12):
            await query(number * 12 + item)

    clients = k.workers("query", 20)
    await asyncio.gather(*(client(number) for number in range(clients)))
    return clients * 12


@shape("limits unseen", faster="embed index", workers="embed index", limits="embed")
async def limit_behind_the_bottleneck(k: Knobs) -> int:
    """The limit inside of the first stage is far from being reached."""
    gate, times = asyncio.Semaphore(k.limit("embed", 4)), k.times("embed", 0.012)

    @opm.process
    async def embed(n: int) -> int:
        async with gate:
            await asyncio.sleep(times())
        return n

    a, b = q(4, "a"), q(4, "b")
    embeds, indexes = k.workers("embed", 2), k.workers("index", 1)
    await asyncio.gather(
        feed(a, 200, embeds),
        pool(embeds, a, embed, b, indexes),
        pool(indexes, b, step(k, "index", 0.014)),
    )
    return 200

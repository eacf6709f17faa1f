"""A service whose pipeline is busy for a while and then stands still; it knows what it did.

    python -m tests.system.backends.dashboards.shop LOG

It reads, transforms and stores, with queues, a limit, a cache and failures, and reports events and
operations, until it reads a line. Then it writes LOG and keeps everything as it is until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import cachetools
import psutil

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.service import MetricsManager, get_event_metrics
from tests.system.backends.dashboards.log import Log

OUT = Path(sys.argv[1])
log = Log()
events = get_event_metrics()


def spread(number: int) -> float:
    """Return numbers that fill 0 to 1 evenly, however many are taken."""
    return number * 0.6180339887 % 1


def duration(number: int) -> float:
    """Return most of the time 25 to 50 ms, else 250 to 500 ms: both are buckets, filled evenly."""
    share = spread(number)
    return 0.025 + share / 0.92 * 0.025 if share < 0.92 else 0.25 + (share - 0.92) / 0.08 * 0.25


@opm.stage("read", kind="fetch")
async def read() -> None:
    with log.timing("read"):
        await asyncio.sleep(0.004)
    opm.current_stage().add_items(3, "out")
    opm.current_stage().add_bytes(300, "in")


@opm.stage("transform", kind="process")
async def transform(number: int) -> None:
    if number % 5 == 0:
        opm.current_stage().retry(ConnectionError())
        log.add("transform retries")
    with log.timing("transform"):
        await asyncio.sleep(duration(number))
    if number % 10 == 3:
        log.add("transform fails")
        raise ValueError


@opm.stage("store", kind="write")
def store(number: int) -> None:
    with log.timing("store"):
        age = 60 + 60 * spread(number)
        event_time = time.time() - age
        opm.current_stage().event_time(event_time)
        log.facts["newest"] = max(log.facts.get("newest", 0), event_time)
        log.add("age", age)
        opm.current_stage().add_items(3, "in")
        time.sleep(0.005)


async def put(queue: asyncio.Queue[list[float]], number: int) -> None:
    item = [number, 0.0]
    await queue.put(item)
    item[1] = time.perf_counter()


async def get(queue: asyncio.Queue[list[float]], name: str) -> int:
    number, since = await queue.get()
    log.add(f"in {name}", time.perf_counter() - since)
    return int(number)


class Shop:
    """The pipeline and its parts."""

    def __init__(self, manager: MetricsManager) -> None:
        self.manager = manager
        # an item is its number and, once it is in a queue, the time
        self.raw = opm.wrap_queue(asyncio.Queue[list[float]](4), name="raw")
        self.done = opm.wrap_queue(asyncio.Queue[list[float]](100), name="done")
        self.permit = opm.wrap_limit(asyncio.Semaphore(1), name="database")
        self.prices = opm.counted_cache(cachetools.LRUCache[str, int](8), name="prices")
        self.told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))

    @property
    def is_open(self) -> bool:
        return not self.told.done()

    async def reader(self) -> None:
        for number in range(sys.maxsize):
            if not self.is_open:
                break
            await read()
            log.add("items read", 3)
            with log.timing("read blocked"):
                await put(self.raw, number)
        for _ in range(2):
            await put(self.raw, -1)

    async def worker(self) -> None:
        while True:
            with log.timing("transform idle"):
                number = await get(self.raw, "raw")
            if number < 0:
                return
            with contextlib.suppress(ValueError):
                await transform(number)
            self.look_up(number)
            self.report(number)
            await put(self.done, number)

    async def writer(self) -> None:
        while True:
            with log.timing("store idle"):
                number = await get(self.done, "done")
            if number < 0:
                return
            with log.timing("wait for permit"), log.timing("store blocked"):
                await self.permit.acquire()
            try:
                store(number)
            finally:
                self.permit.release()
            log.add("items stored", 3)

    async def vacuum(self) -> None:
        """Take the permit away from the writer now and then."""
        while self.is_open:
            with log.timing("wait for permit"):
                await self.permit.acquire()
            await asyncio.sleep(0.1)
            self.permit.release()
            await asyncio.sleep(0.2)

    def look_up(self, number: int) -> None:
        key = "hot" if number % 2 else f"price {number}"
        if self.prices.get(key) is not None:
            log.add("hits")
            return
        log.add("misses")
        if len(self.prices) == 8:
            log.add("evictions")
        self.prices[key] = number

    def report(self, number: int) -> None:
        seconds = 0.1 + 0.15 * spread(number)
        duplicate, failed = number % 4 == 0, number % 5 == 0
        events.record_event_processing(
            seconds,
            "kafka",
            "orders",
            success=not failed,
            size_bytes=512,
            points=3,
            duplicate=duplicate,
        )
        log.add("events", seconds)
        log.add("duplicates", duplicate)
        log.add("events fail", failed)
        if number % 3 == 0:
            events.record_error(KeyError(), component="parser", severity="warning")
            log.add("errors")
        if number % 4 == 0:
            events.record_retry_attempt("insert", 1, TimeoutError())
            log.add("retries")
        milliseconds = 10 + 15 * spread(number)
        self.manager.record_operation_nowait(
            "database", "insert", milliseconds, success=number % 8 != 0
        )
        log.add("operations", milliseconds / 1000)
        log.add("operations fail", number % 8 == 0)
        log.add("cpu", time.process_time())


async def work(manager: MetricsManager) -> None:
    shop = Shop(manager)
    print("busy", flush=True)
    workers = [shop.worker(), shop.worker()]
    writer = asyncio.create_task(shop.writer())
    vacuum = asyncio.create_task(shop.vacuum())
    await asyncio.gather(shop.reader(), *workers)
    await put(shop.done, -1)
    await asyncio.gather(writer, vacuum)
    log.facts["end"] = time.time()
    log.add("cpu", time.process_time())
    for _ in range(4):
        await put(shop.raw, -1)
    await shop.permit.acquire()
    with opm.stage("hold"):
        log.facts["held"] = time.time()
        log.facts["memory"] = psutil.Process().memory_info().rss
        log.write(OUT)
        await asyncio.to_thread(sys.stdin.read)


async def main() -> None:
    events.set_connections("database", 5)
    events.set_connection_state("kafka", "connected")
    events.record_circuit_breaker_state("payments", "open")
    with contextlib.suppress(ValueError), opm.run("nightly"):
        raise ValueError
    with opm.run("nightly"):
        pass
    log.facts["success"] = time.time()
    folder: Any = OUT.with_suffix(".operations")
    async with MetricsManager(folder) as manager, opm.run("nightly"):
        await work(manager)


opm.configure(exporter="otlp", service_name="shop", console=False)
asyncio.run(main())

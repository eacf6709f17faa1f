"""Shapes whose workers run their stages in turn on one event loop, which one of them holds.

A stage that awaits a little, after one that computes, seems to await until others have computed.
"""

from __future__ import annotations

import asyncio
import time

from lab import SHAPES, Knobs, q, shape, step

import otel_pipeline_metrics as opm

__all__ = ["SHAPES"]


async def _crawl(
    k: Knobs, workers: int, page_s: float, parse_s: float, store_s: float, *, plain: bool = False
) -> int:
    """Let workers fetch pages, and parse and store three entries of each."""
    fetch, store, times = (
        step(k, "page", page_s),
        step(k, "store", store_s),
        k.times("parse", parse_s),
    )

    @opm.process("parse")
    def parse(n: int) -> int:
        time.sleep(times())
        return n

    @opm.process("parse")
    async def parse_later(n: int) -> int:
        time.sleep(times())  # noqa: ASYNC251 - this is the point
        return n

    source = q(0, "pages")
    count = k.workers("page", workers)
    for item in [*range(100), *[None] * count]:
        source.put_nowait(item)

    async def work() -> None:
        while (number := await source.get()) is not None:
            await fetch(number)
            for entry in range(3):
                await store(parse(entry) if plain else await parse_later(entry))

    await asyncio.gather(*(work() for _ in range(count)))
    return 100


@shape("event loop", faster="page parse store", workers="page")
async def four_workers_in_step(k: Knobs) -> int:
    """All wait for the one that computes: what they await is short."""
    return await _crawl(k, 4, 0.040, 0.010, 0.005)


@shape("event loop", faster="page parse store", workers="page")
async def half_of_the_loop(k: Knobs) -> int:
    """The loop is held for half of the run, and still waited for."""
    return await _crawl(k, 4, 0.040, 0.005, 0.005, plain=True)


@shape("event loop", faster="page parse store", workers="page")
async def slow_pages_beside_computing(k: Knobs) -> int:
    """The loop is waited for, and the pages take longer than that."""
    return await _crawl(k, 4, 0.200, 0.010, 0.005)


@shape("event loop", faster="page parse store", workers="page")
async def thirty_workers_that_compute_a_little(k: Knobs) -> int:
    """With so many, the loop is never free for long."""
    return await _crawl(k, 30, 0.200, 0.005, 0.010)

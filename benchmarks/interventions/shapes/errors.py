"""Failures that cost little or much, and retries."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from lab import REAL_TIME, SHAPES, Knobs, line, shape, step

import otel_pipeline_metrics as opm

__all__ = ["REAL_TIME", "SHAPES"]


def _failing(k: Knobs, name: str, mean_s: float, failed_s: float, every: int) -> Any:
    """Return a step whose every n-th call fails, after a time of its own."""
    times, failing = k.times(name, mean_s), k.times(f"{name} failed", failed_s)

    @opm.process(name)
    async def work(n: int) -> int:
        if n % every == 0 and k.has("errors"):
            await asyncio.sleep(failing())
            raise ValueError(n)
        await asyncio.sleep(times())
        return n

    async def caught(n: int) -> int:
        with contextlib.suppress(ValueError):
            await work(n)
        return n

    return caught


@shape("errors", faster="fetch check", workers="fetch check", without="errors")
async def cheap_failures(k: Knobs) -> int:
    """A third of the items is invalid, which is found out at once."""
    check = _failing(k, "check", 0.018, 0.0005, 3)
    return await line(
        240, [(step(k, "fetch", 0.005), k.workers("fetch", 1)), (check, k.workers("check", 1))]
    )


@shape("errors", faster="fetch", workers="fetch call", without="errors")
async def dear_failures(k: Knobs) -> int:
    """A tenth of the calls fails after a timeout of ten times a good call."""
    call = _failing(k, "call", 0.010, 0.120, 8)
    return await line(
        240, [(step(k, "fetch", 0.005), k.workers("fetch", 1)), (call, k.workers("call", 2))]
    )


@shape("errors", faster="fetch store", workers="fetch call store", without="errors")
async def failures_where_nothing_limits(k: Knobs) -> int:
    """One stage fails often; another one limits the run."""
    call = _failing(k, "call", 0.006, 0.006, 4)
    names = (("fetch", 0.004), ("call", 0.0), ("store", 0.016))
    return await line(
        200, [(call if n == "call" else step(k, n, s), k.workers(n, 1)) for n, s in names]
    )


@shape("retries", faster="fetch store", workers="fetch call", without="errors")
async def retries_with_back_off(k: Knobs) -> int:
    """Half of the calls fail once or twice, and sleep before they try again."""
    rng, times = random.Random(random.random()), k.times("call", 0.008)
    fails = [rng.choice((0, 0, 1, 2)) for _ in range(200)]

    @opm.process
    async def call(n: int) -> int:
        for attempt in range(fails[n] if k.has("errors") else 0):
            await asyncio.sleep(times())
            opm.current_stage().retry(ValueError(n))
            await asyncio.sleep(0.020 * 2**attempt)
        await asyncio.sleep(times())
        return n

    names = (("fetch", 0.005, 1), ("call", 0.0, 2), ("store", 0.004, 1))
    made = [(call if n == "call" else step(k, n, s), k.workers(n, w)) for n, s, w in names]
    return await line(200, made)


@shape("retries", faster="call", workers="call", without="errors")
async def retries_outside(k: Knobs) -> int:
    """The stage is called again by a loop around it, at once."""
    rng, times = random.Random(random.random()), k.times("call", 0.012)
    fails = [rng.random() < 0.4 for _ in range(200)]

    @opm.process("call")
    async def once(n: int, fail: bool) -> int:
        await asyncio.sleep(times())
        if fail:
            raise TimeoutError(n)
        return n

    async def call(n: int) -> int:
        fail = fails[n] and k.has("errors")
        with contextlib.suppress(TimeoutError):
            return int(await once(n, fail))
        return int(await once(n, False))

    return await line(200, [(call, k.workers("call", 2))])

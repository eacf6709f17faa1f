"""Measure an uncontended pass of a limit, bare and wrapped, on the CPU clock.

    python -m benchmarks.limits [--rounds 15] [--write FILE]

A pass acquires a permit that is free and releases it, in a `with` block or by `acquire` and
`release`. Bare and wrapped alternate in one process. What counts is the median of the ratios of
neighbours, so a slow moment of the machine hits both. The wrapped one is measured outside of stages
and inside one, and everything that it causes is part of it: a run's report is made at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PASSES = 20_000

# by what it is: how it is made, and how many times the bare cost is allowed
THREADS: dict[str, tuple[Callable[[], Any], float]] = {
    "threading.Lock": (threading.Lock, 6.0),
    "threading.RLock": (threading.RLock, 6.0),
    "threading.Semaphore": (lambda: threading.Semaphore(3), 6.0),
    "threading.Condition": (threading.Condition, 6.0),
}
TASKS: dict[str, tuple[Callable[[], Any], float]] = {
    "asyncio.Lock": (asyncio.Lock, 4.0),
    "asyncio.Semaphore": (lambda: asyncio.Semaphore(3), 4.0),
    "asyncio.Condition": (asyncio.Condition, 4.0),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    text = table(arguments.rounds)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "limits", text)


def table(rounds: int) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"Medians of {rounds} rounds of {PASSES:,} passes, and the quartiles of the ratios.",
        "",
        "| limit | by | ns bare | ns wrapped | ratio | ratio in a stage | allowed | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for limits, measure, ways in ((THREADS, _threads, WAYS), (TASKS, _tasks, ASYNC_WAYS)):
        for (name, (make, bound)), way in itertools.product(limits.items(), ways):
            with opm.run("bench", resources=False) as run:
                bare, outside, inside = measure(make, rounds, ways[way])
            assert run.report.limits[0]["acquired"] == 2 * PASSES * rounds
            ratios = [_ratios(bare, outside), _ratios(bare, inside)]
            low, middle, high = ratios[0]
            lines.append(
                f"| `{name}` | {way} | {statistics.median(bare):,.0f} "
                f"| {statistics.median(outside):,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) "
                f"| {ratios[1][1]:.2f} | {bound:g} "
                f"| {'met' if max(middle, ratios[1][1]) <= bound else 'missed'} |"
            )
    return "\n".join(lines)


def _ratios(bare: list[float], ours: list[float]) -> list[float]:
    return statistics.quantiles([b / a for a, b in zip(bare, ours, strict=True)], n=4)


Times = tuple[list[float], list[float], list[float]]


def _threads(make: Callable[[], Any], rounds: int, passes: Callable[[Any], float]) -> Times:
    bare, ours = make(), opm.wrap_limit(make(), name="x")
    times: Times = ([], [], [])
    for _ in range(rounds):
        times[0].append(passes(bare))
        times[1].append(passes(ours))
        with opm.stage("stage"):
            times[2].append(passes(ours))
    return times


def _passes(limit: Any) -> float:
    began = time.process_time()
    for _ in range(PASSES):
        with limit:
            pass
    return (time.process_time() - began) / PASSES * 1e9


def _tasks(
    make: Callable[[], Any], rounds: int, passes: Callable[[Any], Awaitable[float]]
) -> Times:
    async def measure() -> Times:
        bare, ours = make(), opm.wrap_limit(make(), name="x")
        times: Times = ([], [], [])
        for _ in range(rounds):
            times[0].append(await passes(bare))
            times[1].append(await passes(ours))
            async with opm.stage("stage"):
                times[2].append(await passes(ours))
        return times

    return asyncio.run(measure())


async def _async_passes(limit: Any) -> float:
    began = time.process_time()
    for _ in range(PASSES):
        async with limit:
            pass
    return (time.process_time() - began) / PASSES * 1e9


def _calls(limit: Any) -> float:
    began = time.process_time()
    for _ in range(PASSES):
        limit.acquire()
        limit.release()
    return (time.process_time() - began) / PASSES * 1e9


async def _async_calls(limit: Any) -> float:
    began = time.process_time()
    for _ in range(PASSES):
        await limit.acquire()
        limit.release()
    return (time.process_time() - began) / PASSES * 1e9


WAYS: dict[str, Callable[[Any], float]] = {"`with`": _passes, "calls": _calls}
ASYNC_WAYS: dict[str, Callable[[Any], Awaitable[float]]] = {
    "`async with`": _async_passes,
    "calls": _async_calls,
}


if __name__ == "__main__":
    main()

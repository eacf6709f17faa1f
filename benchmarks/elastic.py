"""Compare elastic workers with the best fixed number, on a clock that jumps.

    python -m benchmarks.elastic --seed fresh --write docs/verdict-benches.md

Each shape runs with every fixed number of workers, and with `count=(low, 32)` from 1 and from the
best number on. What counts is the throughput from 20 to 40 seconds after the start.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from benchmarks._document import put
from otel_pipeline_metrics._core import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIXED: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32)
HIGHEST: Final = 32
FROM_S, UNTIL_S = 20.0, 40.0

# Seconds between two items, seconds that the sink takes for each, and what the workers call.
Shape = tuple[float, float, "Callable[[], Callable[[int], Any]]"]


def _exponential(mean_s: float) -> float:
    return random.expovariate(1 / mean_s)


def free(mean_s: float) -> Callable[[], Any]:
    """Each call takes its time, however many there are."""

    def make() -> Any:
        async def call(n: int) -> int:
            await asyncio.sleep(mean_s * random.lognormvariate(-0.045, 0.3))
            return n

        return call

    return make


def limited(permits: int, mean_s: float) -> Callable[[], Any]:
    """A semaphore that nobody wrapped lets so many work."""

    def make() -> Any:
        permit = asyncio.Semaphore(permits)

        async def call(n: int) -> int:
            async with permit:
                await asyncio.sleep(_exponential(mean_s))
            return n

        return call

    return make


def server(capacity: int, mean_s: float, worse: float = 0.0) -> Callable[[], Any]:
    """A far side shares its time, and may get slower with each call beyond its capacity."""

    def make() -> Any:
        inside = 0

        async def call(n: int) -> int:
            nonlocal inside
            inside += 1
            left = _exponential(mean_s)
            while left > 0:
                speed = min(1.0, capacity / inside) / (1 + worse * max(0, inside - capacity))
                await asyncio.sleep(min(0.005, left / speed))
                left -= 0.005 * speed
            inside -= 1
            return n

        return call

    return make


SHAPES: Final[dict[str, Shape]] = {
    "the more workers, the better": (0.0, 0.0, free(0.050)),
    "two permits inside": (0.0, 0.0, limited(2, 0.030)),
    "six permits inside": (0.0, 0.0, limited(6, 0.030)),
    "a server for four": (0.0, 0.0, server(4, 0.030)),
    "a server for four, slower beyond": (0.0, 0.0, server(4, 0.030, 0.15)),
    "a server for ten, slower beyond": (0.0, 0.0, server(10, 0.050, 0.10)),
    "a slow source": (0.020, 0.0, free(0.050)),
    "a slow sink": (0.0, 0.010, free(0.050)),
}


async def _pipeline(shape: Shape, count: int | tuple[int, int]) -> tuple[float, Any]:
    every_s, sink_s, make = shape
    items = opm.wrap_queue(asyncio.Queue(16), name="items", sentinel=None)
    results = opm.wrap_queue(asyncio.Queue(16), name="results", sentinel=None)
    now = asyncio.get_running_loop().time
    done = 0

    async def feed() -> None:
        number = 0
        while now() < UNTIL_S:
            if every_s:
                await asyncio.sleep(_exponential(every_s))
            await items.put(number)
            number += 1
        await items.put(None)

    async def drain() -> None:
        nonlocal done
        while await results.get() is not None:
            if sink_s:
                await asyncio.sleep(sink_s)
            done += FROM_S <= now() < UNTIL_S

    async with opm.workers(make(), items, results, count=count, name="call") as pool:
        await asyncio.gather(feed(), drain())
    return done / (UNTIL_S - FROM_S), pool


def throughput(shape: Shape, count: int | tuple[int, int], seed: str) -> tuple[float, Any]:
    """Return the items a second of one run, and its pool."""
    before = settings.settings()
    settings.replace(settings.Config(console=False))
    random.seed(seed)
    try:
        return _virtual_time.run(_pipeline(shape, count))
    finally:
        settings.replace(before)


def measure(name: str, seed: str) -> tuple[list[str], bool]:
    """Return the row of a shape, and whether it comes within 10 % of the best."""
    shape = SHAPES[name]
    fixed = {count: throughput(shape, count, seed)[0] for count in FIXED}
    best = max(fixed, key=fixed.__getitem__)
    row = [name, f"{best}", f"{fixed[best]:.0f}/s"]
    held = True
    for low in (1, best):
        found, pool = throughput(shape, (low, HIGHEST), seed)
        held = held and found >= 0.9 * fixed[best]
        ended = pool.changes[-1]["to"] if pool.changes else low
        row += [f"{100 * found / fixed[best]:.0f} %", f"{ended}, {len(pool.changes)}"]
    return row, held


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a shape stays more than 10 % behind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elastic", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", default="1", help="any text, or `fresh`")
    parser.add_argument("--only", choices=list(SHAPES), help="one shape")
    parser.add_argument("--write", help="the document whose figures to replace")
    asked = parser.parse_args(arguments)
    seed = secrets.token_hex(4) if asked.seed == "fresh" else asked.seed
    head = ["shape", "best number", "its throughput", "from 1", "last, changes"]
    rows = [[*head, "from the best", "last, changes"], ["---"] * 7]
    held = True
    for name in [asked.only] if asked.only else SHAPES:
        row, ok = measure(name, seed)
        print(*row, sep=" | ", flush=True)
        rows.append(row)
        held = held and ok
    text = f"Seed `{seed}`.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if asked.write is not None:
        put(Path(asked.write), "elastic", text)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())

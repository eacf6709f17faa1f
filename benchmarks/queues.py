"""Measure what an item costs on its way through queues and generators, with and without stages.

    python -m benchmarks.queues [--runs 5] [--write FILE]
    python -m benchmarks.queues --instructions [--case "hand-off, asyncio"]...

Whether a program has a wrapped queue decides what its stages do. So each way is a process of its
own, and the ways of one case alternate. Everything is on the CPU clock of all threads, pinned to
one core. The mean covers every item with its flushes, the garbage collector and a last collection;
the best is that of the goes, and the ratios are those within one run. Instructions are counted as
`instructions` does, which the machine's noise does not change, without a collection.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import instructions
from benchmarks._document import put
from benchmarks.costs import spread

if TYPE_CHECKING:
    from collections.abc import Callable

GOES = 20
ITEMS = 3000
"""In each go."""
ROOM = 100
"""Of each queue."""

BARE, STAGES, QUEUES, BOTH = "bare", "stages", "queues wrapped", "stages and queues wrapped"

# (case, way, the most times that a bare item may cost)
BOUNDS = [
    ("pipeline, asyncio", BOTH, 10.0),
    ("pipeline, threads", BOTH, 10.0),
    ("hand-off, asyncio", QUEUES, 4.0),
    ("hand-off, threads", QUEUES, 4.0),
    ("generator", STAGES, 20.0),
    ("generator", BOTH, 24.0),
]

Figures = dict[str, float]
"""Nanoseconds an item: the mean and the best, and of the mean the parts of gc and collection."""


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="processes of each way (5)")
    parser.add_argument("--write", type=Path, help="put the tables into this file")
    parser.add_argument("--instructions", action="store_true", help="count them under valgrind")
    parser.add_argument("--case", action="append", choices=CASES, help="one case; again for more")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(*arguments.one, arguments.inside)))
        return
    chosen = {case: CASES[case][0] for case in arguments.case or CASES}
    if arguments.instructions:
        print(_instructions(chosen))
        return
    found = {
        case: [{way: _spawn(case, way) for way in ways} for _ in range(arguments.runs)]
        for case, ways in chosen.items()
    }
    text = tables(found)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "queues", text)


def _spawn(case: str, way: str) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.queues", "--one", case, way],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _instructions(chosen: dict[str, tuple[str, ...]]) -> str:
    """Return the instructions of an item as Markdown."""
    lines = ["| case | way | instructions | x bare |", "|---|---|---:|---:|"]
    for case, ways in chosen.items():
        counts = {
            way: instructions.under_callgrind("benchmarks.queues", "--one", case, way)
            for way in ways
        }
        lines += [
            f"| {case} | {way} | {count:,.0f} | {count / counts[BARE]:.2f} |"
            for way, count in counts.items()
        ]
    return "\n".join(lines)


def tables(found: dict[str, list[dict[str, Figures]]]) -> str:
    """Return the figures and the bounds as Markdown."""
    runs = len(next(iter(found.values())))
    lines = [
        (
            f"CPython {platform.python_version()}; nanoseconds of CPU time an item, medians of "
            f"{runs} runs of {GOES * ITEMS:,} items, and how often a bare item goes into that, "
            "with the spread. Collector and collection are parts of the mean."
        ),
        "",
        "| case | way | mean | x bare | best | x bare | gc | collection |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for case, ways in found.items():
        for way in ways[0]:
            cells = [
                cell
                for figure in ("mean", "best")
                for cell in (_median(ways, way, figure), spread(_ratios(ways, way, figure)))
            ]
            parts = [_median(ways, way, part) for part in ("gc", "collection")]
            lines.append(f"| {case} | {way} | {' | '.join([*cells, *parts])} |")
    lines += ["", "| bound | way | allowed | mean | |", "|---|---|---:|---:|---|"]
    for case, way, bound in BOUNDS:
        ratios = _ratios(found[case], way, "mean")
        met = "met" if statistics.median(ratios) <= bound else "missed"
        lines.append(f"| {case} | {way} | {bound:.0f} | {spread(ratios)} | {met} |")
    lines += ["", *_split(found)]
    return "\n".join(lines)


def _split(found: dict[str, list[dict[str, Figures]]]) -> list[str]:
    """Return the parts of the mean item of a pipeline."""
    lines = [
        "| an item of a pipeline | bare | + its stages | + its queues | of which gc | collection |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for case in (case for case in found if case.startswith("pipeline")):
        runs = found[case]
        steps = [
            statistics.median(run[way]["mean"] - run[before]["mean"] for run in runs)
            for before, way in ((BARE, STAGES), (STAGES, BOTH))
        ]
        cells = [_median(runs, BARE, "mean"), *(f"{step:,.0f}" for step in steps)]
        cells += [_median(runs, BOTH, part) for part in ("gc", "collection")]
        lines.append(f"| {case.partition(', ')[2]} | {' | '.join(cells)} |")
    return lines


def _median(runs: list[dict[str, Figures]], way: str, figure: str) -> str:
    return f"{statistics.median(run[way][figure] for run in runs):,.0f}"


def _ratios(runs: list[dict[str, Figures]], way: str, figure: str) -> list[float]:
    return [run[way][figure] / run[BARE][figure] for run in runs]


# --- in a process of its own -------------------------------------------------------------------


def _one(case: str, way: str, folder: Path | None) -> Figures | float:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    collect: Callable[[], Any] = list
    if way != BARE:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.trace import NoOpTracerProvider

        import otel_pipeline_metrics as opm

        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        opm.configure(tracer_provider=NoOpTracerProvider(), meter_provider=provider)
        collect = reader.get_metrics_data
    go = CASES[case][1](way in {STAGES, BOTH}, way in {QUEUES, BOTH})
    if folder is not None:
        return instructions.of_each(folder, go)
    go(ITEMS)
    collect()  # the first one checks the SDK
    spent_on_gc = _watch_collector()
    took = []
    for _ in range(GOES):
        began = time.process_time()
        go(ITEMS)
        took.append(time.process_time() - began)
    began = time.process_time()
    collect()
    collection = time.process_time() - began
    each_ns = 1e9 / (GOES * ITEMS)
    return {
        "mean": (sum(took) + collection) * each_ns,
        "best": min(took) / ITEMS * 1e9,
        "gc": sum(spent_on_gc) * each_ns,
        "collection": collection * each_ns,
    }


def _watch_collector() -> list[float]:
    """Return a list to which the CPU seconds of each collection of garbage are added."""
    spent: list[float] = []
    began = 0.0

    def watch(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            spent.append(time.process_time() - began)

    gc.collect()
    gc.callbacks.append(watch)
    return spent


def _stage(name: str, work: Any, decorated: bool) -> Any:
    if not decorated:
        return work
    import otel_pipeline_metrics as opm

    return opm.stage(name)(work)


def _queue(make: Callable[[int], Any], name: str, wrapped: bool) -> Any:
    if not wrapped:
        return make(ROOM)
    import otel_pipeline_metrics as opm

    return opm.wrap_queue(make(ROOM), name=name)


def _work(item: int) -> int:
    return item


async def _work_async(item: int) -> int:
    return item


def _pipeline_async(decorated: bool, wrapped: bool) -> Callable[[int], None]:
    """Two queues and two stages without work."""
    first, second = (_stage(name, _work_async, decorated) for name in ("first", "second"))
    loop = asyncio.new_event_loop()

    async def go(items: int) -> None:
        into = _queue(asyncio.Queue, "into", wrapped)
        between = _queue(asyncio.Queue, "between", wrapped)

        async def feed() -> None:
            for item in range(items):
                await into.put(item)

        async def carry() -> None:
            for _ in range(items):
                await between.put(await first(await into.get()))

        async def end() -> None:
            for _ in range(items):
                await second(await between.get())

        await asyncio.gather(feed(), carry(), end())

    return lambda items: loop.run_until_complete(go(items))


def _pipeline_threads(decorated: bool, wrapped: bool) -> Callable[[int], None]:
    """Two queues and two stages without work."""
    first, second = (_stage(name, _work, decorated) for name in ("first", "second"))

    def go(items: int) -> None:
        into = _queue(queue.Queue, "into", wrapped)
        between = _queue(queue.Queue, "between", wrapped)

        def carry() -> None:
            for _ in range(items):
                between.put(first(into.get()))

        def end() -> None:
            for _ in range(items):
                second(between.get())

        threads = [threading.Thread(target=target) for target in (carry, end)]
        for thread in threads:
            thread.start()
        for item in range(items):
            into.put(item)
        for thread in threads:
            thread.join()

    return go


def _hand_off_async(_: bool, wrapped: bool) -> Callable[[int], None]:
    """Put and get, without a wait or a stage."""
    loop = asyncio.new_event_loop()
    waiting = _queue(asyncio.Queue, "waiting", wrapped)

    async def go(items: int) -> None:
        for item in range(items):
            await waiting.put(item)
            await waiting.get()

    return lambda items: loop.run_until_complete(go(items))


def _hand_off_threads(_: bool, wrapped: bool) -> Callable[[int], None]:
    """Put and get, without a wait or a stage."""
    waiting = _queue(queue.Queue, "waiting", wrapped)

    def go(items: int) -> None:
        for item in range(items):
            waiting.put(item)
            waiting.get()

    return go


def _generator(decorated: bool, wrapped: bool) -> Callable[[int], None]:
    """Items that a loop takes; the wrapped queue is elsewhere in the program."""

    def count(items: int) -> Any:
        for number in range(items):  # noqa: UP028 - `yield from` would pass the loop by
            yield number

    made = _stage("count", count, decorated)
    unused = _queue(queue.Queue, "unused", wrapped)

    def go(items: int) -> None:
        for _ in made(items):
            pass
        assert unused.empty()

    return go


CASES: dict[str, tuple[tuple[str, ...], Callable[[bool, bool], Callable[[int], None]]]] = {
    "pipeline, asyncio": ((BARE, STAGES, QUEUES, BOTH), _pipeline_async),
    "pipeline, threads": ((BARE, STAGES, QUEUES, BOTH), _pipeline_threads),
    "hand-off, asyncio": ((BARE, QUEUES), _hand_off_async),
    "hand-off, threads": ((BARE, QUEUES), _hand_off_threads),
    "generator": ((BARE, STAGES, BOTH), _generator),
}


if __name__ == "__main__":
    main()

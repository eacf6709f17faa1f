"""Measure what a call costs, beside peers in the same process and run.

    python -m benchmarks                    # prints the table, ratios and checks
    python -m benchmarks --write docs/performance.md

Cases alternate, so that a slow moment of the machine hits them all. Two figures are told of each.
The best of many short goes on the wall clock is what other work on the machine disturbs least. But
a short go seldom meets what calls cause later. So there is a mean too, on the CPU clock of all
threads, over thousands of calls with their flushes, a last collection or export, and the garbage
collector. Several processes give a median and a spread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import HistogramDataPoint

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._cases import Case

# the cases whose name is also that of their stage, and that have a provider
RECORDED = ("ours, metrics only", "ours, traced", "ours, unsampled")
ROUNDS = 40
MEAN_GOES = 4
MEAN_CALLS = 4096
"""In each of these goes: several flushes of ours, at 1,024 calls each."""

Figures = dict[str, dict[str, float]]
"""By kind of figure, best or mean, and by case: nanoseconds a call."""

# (what is bounded, sync or async, its case, the case it is compared with, the bound)
TARGETS = [
    ("metrics-only call over the floor", "sync", "ours, metrics only", "floor", 2.0),
    ("metrics-only call over the floor", "async", "ours, metrics only", "floor", 2.0),
    (
        "metrics-only over prometheus_client",
        "sync",
        "ours, metrics only",
        "prometheus_client",
        0.33,
    ),
    (
        "metrics-only over prometheus_client",
        "async",
        "ours, metrics only",
        "prometheus_client",
        0.33,
    ),
    (
        "metrics-only over histogram + counter by hand",
        "sync",
        "ours, metrics only",
        "OTel by hand: histogram + counter",
        1 / 25,
    ),
    (
        "traced over start_span + end",
        "sync",
        "ours, traced",
        "OTel by hand: start_span + end",
        1.25,
    ),
    (
        "traced over span + histogram + counter by hand",
        "sync",
        "ours, traced",
        "OTel by hand: span + histogram + counter",
        0.5,
    ),
    (
        "unsampled over the same by hand",
        "sync",
        "ours, unsampled",
        "OTel by hand: span + histogram + counter, unsampled",
        0.4,
    ),
    ("unconfigured over the floor", "sync", "ours, unconfigured", "floor", 3.0),
    ("unconfigured over the floor", "async", "ours, unconfigured", "floor", 3.0),
    ("a with block over the floor", "sync", "ours, metrics only, with block", "floor", 6.0),
    ("a with block over the floor", "async", "ours, metrics only, with block", "floor", 6.0),
    (
        "a generator's item over a bare one",
        "sync",
        "ours, metrics only, generator, an item",
        "bare generator, an item",
        20.0,
    ),
]


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="processes (5)")
    parser.add_argument("--write", type=Path, help="put the tables into this file")
    parser.add_argument("--one", choices=("together", "alone"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_run(arguments.one)))
        return
    runs = [one_of_each() for _ in range(arguments.runs)]
    text = tables(runs)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "costs", text)


def one_of_each() -> Figures:
    """Measure everything once.

    Peers that need a process of their own are brought over by what they take of its floor.
    """
    found, apart = spawn("together"), spawn("alone")
    for figure, times in found.items():
        for key, took in apart[figure].items():
            floor = f"{key.partition('|')[0]}|floor"
            times.setdefault(key, took / apart[figure][floor] * times[floor])
    return found


def spawn(which: str) -> Figures:
    """Measure once in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.costs", f"--one={which}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    times: Figures = json.loads(done.stdout.splitlines()[-1])
    return times


def one_run(which: str) -> Figures:
    """Measure in this process, pinned to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from benchmarks._cases import cases, measures
    from benchmarks._peers import alone, peers

    everything = [*measures(), *alone()] if which == "alone" else [*cases(), *peers()]
    best: dict[str, float] = {}
    means: dict[str, float] = {}
    made: dict[str, int] = {}
    loop = asyncio.new_event_loop()

    def go(case: Case, calls: int, clock: Callable[[], float]) -> float:
        """Return the seconds of one call, or of one unit of it."""
        made[case.name] = made.get(case.name, 0) + (0 if case.is_async else calls)
        if case.is_async:
            took = loop.run_until_complete(_go_async(case.call, calls, clock))
        else:
            # what a case leaves in its context is not the next one's to carry
            took = contextvars.copy_context().run(_go, case.call, calls, clock)
        return took / case.units

    gc.collect()
    for _ in range(ROUNDS):
        for case in everything:
            case.before()
            took = go(case, case.calls, time.perf_counter)
            best[_key(case)] = min(best.get(_key(case), took), took)
    for number in range(MEAN_GOES):
        for case in everything:
            case.before()
            calls = MEAN_CALLS // case.units
            took = go(case, calls, time.process_time)
            if number == MEAN_GOES - 1:
                began = time.process_time()
                case.after()
                took += (time.process_time() - began) / (calls * case.units)
            means[_key(case)] = means.get(_key(case), 0.0) + took / MEAN_GOES
    loop.close()
    check(made)
    return {
        figure: {key: took * 1e9 for key, took in times.items()}
        for figure, times in {"best": best, "mean": means}.items()
    }


def _key(case: Case) -> str:
    return f"{'async' if case.is_async else 'sync'}|{case.name}"


def _go(call: Any, calls: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(calls):
        call()
    return (clock() - began) / calls


async def _go_async(call: Any, calls: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(calls):
        await call()
    return (clock() - began) / calls


def check(made: dict[str, int]) -> None:
    """Stop unless every call of ours was recorded: no figure is met by measuring less."""
    from benchmarks._cases import readers

    recorded = dict.fromkeys((name for name in made if name.startswith(RECORDED)), 0)
    for reader in readers:
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
                if metric.name == "pipeline.stage.duration":
                    for point in metric.data.data_points:
                        name = str((point.attributes or {}).get("pipeline.stage.name"))
                        if name in recorded and isinstance(point, HistogramDataPoint):
                            recorded[name] += point.count
    for name, count in recorded.items():
        if count != made[name]:
            raise SystemExit(f"{name}: {made[name]} calls, {count} recorded")


def tables(runs: list[Figures]) -> str:
    """Return the figures and the bounds as Markdown."""
    import psutil

    lines = [
        (
            f"CPython {platform.python_version()}, OpenTelemetry "
            f"{version('opentelemetry-sdk')}, {platform.system()}, {psutil.cpu_count()} CPUs; "
            f"medians of {len(runs)} runs. `best` is that of {ROUNDS} goes on the wall clock, "
            f"`mean` that of {MEAN_GOES * MEAN_CALLS:,} calls on the CPU clock with all that they "
            "cause, in nanoseconds. `x floor` is the ratio in the same run, with its spread."
        ),
        "",
        ("| case | sync best | x floor | mean | x floor | async best | x floor | mean | x floor |"),
        f"|---|{'---:|' * 8}",
    ]
    for name in dict.fromkeys(key.partition("|")[2] for key in runs[0]["best"]):
        cells = [
            cell
            for kind in ("sync", "async")
            for figure in ("best", "mean")
            for cell in _cells([run[figure] for run in runs], f"{kind}|{name}", f"{kind}|floor")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| bound | kind | allowed | best | | mean | |",
        "|---|---|---:|---:|---|---:|---|",
    ]
    for what, kind, ours, other, bound in TARGETS:
        key, against = f"{kind}|{ours}", f"{kind}|{other}"
        cells = []
        for figure in ("best", "mean"):
            if against not in runs[0][figure]:
                cells += ["not installed", ""]
                continue
            ratios = [run[figure][key] / run[figure][against] for run in runs]
            met = "met" if statistics.median(ratios) <= bound else "missed"
            cells += [spread(ratios), met]
        lines.append(f"| {what} | {kind} | {bound:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(runs: list[dict[str, float]], key: str, floor: str) -> list[str]:
    if key not in runs[0]:
        return ["", ""]
    took = statistics.median(run[key] for run in runs)
    return [f"{took:,.0f}", spread([run[key] / run[floor] for run in runs])]


def spread(ratios: list[float]) -> str:
    """Return the median, and the least and the most."""
    middle = statistics.median(ratios)
    digits = 3 if middle < 1 else 2
    low, high = min(ratios), max(ratios)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    main()

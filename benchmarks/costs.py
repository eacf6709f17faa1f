"""Measure what a call costs, beside peers in the same process and run.

    python -m benchmarks                    # prints the table, ratios and checks
    python -m benchmarks --write docs/performance.md

Cases alternate, so that a slow moment of the machine hits them all. The best of many rounds
counts, and several processes give a median and a spread.
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
from typing import Any

from benchmarks._document import put

ROUNDS = 40

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


def one_of_each() -> dict[str, float]:
    """Measure everything once; return nanoseconds a call by case.

    Peers that need a process of their own are brought over by what they take of its floor.
    """
    times, apart = spawn("together"), spawn("alone")
    for key, took in apart.items():
        floor = f"{key.partition('|')[0]}|floor"
        times.setdefault(key, took / apart[floor] * times[floor])
    return times


def spawn(which: str) -> dict[str, float]:
    """Measure once in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.costs", f"--one={which}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def one_run(which: str) -> dict[str, float]:
    """Measure in this process, pinned to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from benchmarks._cases import cases, measures
    from benchmarks._peers import alone, peers

    everything = [*measures(), *alone()] if which == "alone" else [*cases(), *peers()]
    best: dict[str, float] = {}
    made: dict[str, int] = {}
    loop = asyncio.new_event_loop()
    gc.collect()
    for _ in range(ROUNDS):
        for case in everything:
            case.before()
            key = f"{'async' if case.is_async else 'sync'}|{case.name}"
            if case.is_async:
                took = loop.run_until_complete(_go_async(case.call, case.calls))
            else:
                # what a case leaves in its context is not the next one's to carry
                took = contextvars.copy_context().run(_go, case.call, case.calls)
            made[case.name] = made.get(case.name, 0) + (0 if case.is_async else case.calls)
            best[key] = min(best.get(key, took), took)
    loop.close()
    check(made)
    return {key: took * 1e9 for key, took in best.items()}


def _go(call: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


async def _go_async(call: Any, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - began) / calls


def check(made: dict[str, int]) -> None:
    """Stop unless every call of ours was recorded: no figure is met by measuring less."""
    from otel_pipeline_metrics._core import drain
    from otel_pipeline_metrics._core import series as _series

    drain.drain()
    for series in _series.all_series():
        name = series.key.stage
        if name in made and series.ended_before != made[name]:
            raise SystemExit(f"{name}: {made[name]} calls, {series.ended_before} recorded")


def tables(runs: list[dict[str, float]]) -> str:
    """Return the figures and the bounds as Markdown."""
    import psutil

    lines = [
        (
            f"CPython {platform.python_version()}, OpenTelemetry "
            f"{version('opentelemetry-sdk')}, {platform.system()}, {psutil.cpu_count()} CPUs; "
            f"medians of {len(runs)} runs, the best of {ROUNDS} goes in each. `x floor` is the "
            "ratio in the same run, with its spread."
        ),
        "",
        "| case | sync ns | x floor | async ns | x floor |",
        "|---|---:|---:|---:|---:|",
    ]
    names = list(dict.fromkeys(key.partition("|")[2] for key in runs[0]))
    for name in names:
        cells = []
        for kind in ("sync", "async"):
            key, floor = f"{kind}|{name}", f"{kind}|floor"
            if key not in runs[0]:
                cells += ["", ""]
                continue
            cells.append(f"{statistics.median(run[key] for run in runs):,.0f}")
            cells.append(spread([run[key] / run[floor] for run in runs]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| bound | kind | allowed | measured | |", "|---|---|---:|---:|---|"]
    for what, kind, ours, other, bound in TARGETS:
        key, against = f"{kind}|{ours}", f"{kind}|{other}"
        if against not in runs[0]:
            lines.append(f"| {what} | {kind} | {bound:.2f} | not installed | |")
            continue
        ratios = [run[key] / run[against] for run in runs]
        met = "met" if statistics.median(ratios) <= bound else "missed"
        lines.append(f"| {what} | {kind} | {bound:.2f} | {spread(ratios)} | {met} |")
    return "\n".join(lines)


def spread(ratios: list[float]) -> str:
    """Return the median, and the least and the most."""
    middle = statistics.median(ratios)
    digits = 3 if middle < 1 else 2
    low, high = min(ratios), max(ratios)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    main()

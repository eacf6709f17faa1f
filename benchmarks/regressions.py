"""Measure how often `compare` and `trend` raise a false alarm, and how often they miss a change.

    python -m benchmarks.regressions                          # 1,000 pairs for each spread
    python -m benchmarks.regressions --real 30 --series 100 --write docs/reports.md

A pair is a random program that runs twice, and a third time a fifth worse: the limiting stage
takes a fifth longer, an item waits longer outside of stages, or one of five workers is gone.
Virtual time is an event loop whose clock jumps from timer to timer.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import _virtual_time
from benchmarks._document import put
from benchmarks._regressions import drawn, run
from otel_pipeline_metrics.report.compare import compare
from otel_pipeline_metrics.report.trend import trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks._regressions import Program, Shape
    from otel_pipeline_metrics import RunReport

SPREADS: Final = (0.1, 0.4, 1.0)
# Of a series for the trend.
RUNS: Final = 50
FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)
# What is promised: of equal pairs, and of worse ones at the smallest spread.
MOST_FALSE: Final = 0.01
LEAST_SEEN: Final = 0.95


class Pair(NamedTuple):
    """What became of one program."""

    false: tuple[str, ...]
    seen: bool
    shape: str


def pair(number: int, spread: float, *, real: bool, shape: Shape | None = None) -> Pair:
    """Run a program twice and once worse, and compare."""
    rng = random.Random(f"{number}-{spread}-{shape}")
    program = drawn(rng, spread, shape=shape)
    worse = program.worse(rng)
    start = asyncio.run if real else _virtual_time.run
    calls = [random.Random(rng.random()) for _ in range(3)]
    old, same, new = (
        start(run(*one)) for one in zip((program, program, worse), calls, strict=True)
    )
    return Pair(compare(old, same).regressions, compare(old, new).exit_code == 1, program.shape)


class Series(NamedTuple):
    """What became of one program that ran many times."""

    false: bool
    # within two runs of where it became worse
    found: bool


def series(number: int, spread: float) -> Series:
    """Run a program many times, and again worse from some run on, and follow both."""
    rng = random.Random(f"series-{number}-{spread}")
    program = drawn(rng, spread)
    worse = program.worse(rng)
    at = rng.randint(5, RUNS - 5)
    equal = [_dated(program, rng, day) for day in range(RUNS)]
    later = [_dated(worse, rng, day) for day in range(at, RUNS)]
    changes = [change for one in trend([*equal[:at], *later]).figures for change in one.changes]
    return Series(
        false=any(one.changes for one in trend(equal).figures),
        found=any(abs(change.at - at) <= 2 for change in changes),
    )


def _dated(program: Program, rng: random.Random, day: int) -> RunReport:
    """Run a program on a day of its own: virtual time always begins at the same instant."""
    report = _virtual_time.run(run(program, random.Random(rng.random())))
    report.run["started"] = (FIRST_DAY + timedelta(days=day)).isoformat()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 if it falls short of what is promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regressions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=1000, help="in virtual time, for each spread")
    parser.add_argument("--real", type=int, default=0, help="in real time, for each spread")
    parser.add_argument("--series", type=int, default=0, help="for the trend, for each spread")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", help="the document whose figures to replace")
    parser.add_argument("--why", action="store_true", help="show the false regressions")
    asked = parser.parse_args(arguments)
    rows, held = [], True
    with ProcessPoolExecutor(asked.processes) as pool:
        for spread in SPREADS:
            found = list(pool.map(partial(pair, spread=spread, real=False), range(asked.pairs)))
            held &= _holds(found, spread)
            rows.append((f"virtual, spread {spread}", found))
        work = partial(pair, spread=SPREADS[0], real=False, shape="source")
        found = list(pool.map(work, range(asked.pairs)))
        held &= _holds(found, SPREADS[-1])
        rows.append((f"virtual, spread {SPREADS[0]}, items that arrive at random", found))
    for spread in SPREADS if asked.real else ():
        found = [pair(number, spread, real=True) for number in range(asked.real)]
        rows.append((f"real, spread {spread}", found))
    text = table(rows)
    if asked.series:
        with ProcessPoolExecutor(asked.processes) as pool:
            followed = [
                (spread, list(pool.map(partial(series, spread=spread), range(asked.series))))
                for spread in SPREADS
            ]
        false = max(sum(one.false for one in found) / len(found) for _, found in followed)
        seen = sum(one.found for one in followed[0][1]) / asked.series
        held &= false <= MOST_FALSE and seen >= LEAST_SEEN
        text += "\n\n" + table_of_series(followed)
    print(text)
    if asked.why:
        for name, found in rows:
            print(name, Counter(one.shape for one in found if not one.seen))
            print(*(one for one in found if one.false), sep="\n")
    if asked.write is not None:
        put(Path(asked.write), "regressions", text)
    return 0 if held else 1


def _holds(found: Sequence[Pair], spread: float) -> bool:
    false = sum(bool(one.false) for one in found) / len(found)
    seen = sum(one.seen for one in found) / len(found)
    return false <= MOST_FALSE and (spread > SPREADS[0] or seen >= LEAST_SEEN)


def table(rows: Iterable[tuple[str, Sequence[Pair]]]) -> str:
    """Return the rates in Markdown."""
    lines = ["| time, spread of the calls | pairs | equal, exit 1 | a fifth worse, exit 1 |"]
    lines.append("|---|--:|--:|--:|")
    for name, found in rows:
        false, seen = sum(bool(one.false) for one in found), sum(one.seen for one in found)
        parts = (f"{amount:,} ({amount / len(found):.1%})" for amount in (false, seen))
        lines.append(f"| {name} | {len(found):,} | {' | '.join(parts)} |")
    return "\n".join(lines)


def table_of_series(rows: Iterable[tuple[float, Sequence[Series]]]) -> str:
    """Return the rates of the trend in Markdown."""
    head = ("spread of the calls", f"series of {RUNS} runs", "equal, a change found")
    lines = [f"| {' | '.join(head)} | a fifth worse, found within 2 runs |"]
    lines.append("|---|--:|--:|--:|")
    for spread, found in rows:
        false, seen = sum(one.false for one in found), sum(one.found for one in found)
        parts = (f"{amount:,} ({amount / len(found):.1%})" for amount in (false, seen))
        lines.append(f"| {spread} | {len(found):,} | {' | '.join(parts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

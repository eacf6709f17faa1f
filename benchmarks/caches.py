"""Measure a look-up in a counted LRU cache, without `what_if=True` and with it.

    python -m benchmarks.caches [--rounds 200] [--write FILE]

Short rounds of both alternate, and the fastest of each counts, so that other work on the machine
changes little.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cachetools

import otel_pipeline_metrics as opm
from benchmarks._document import put

LIMIT = 1.5
LOOK_UPS = 4_000
SIZES = (100, 1_000, 10_000, 50_000)
PATTERNS = {
    "a quarter of the keys": lambda keys, n: islice(cycle(keys[: len(keys) // 4]), n),
    "all keys, by Zipf's law": lambda keys, n: _chosen(keys, n, 1),
    "all keys alike": lambda keys, n: _chosen(keys, n, 0),
    "all keys in turn": lambda keys, n: islice(cycle(keys), n),
}


def main() -> None:
    """Print a line for each pattern and size; exit 1 if one takes more than `LIMIT` times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    rows, worst = [], 0.0
    for name in PATTERNS:
        for size in SIZES:
            each = [measured(name, size, how, arguments.rounds) for how in (by_item, by_get)]
            worst = max(worst, *(after / before for before, after in each))
            cells = [f"{b:.0f} | {a:.0f} | {a / b:.2f}" for b, a in each]
            rows.append(f"| {name} | {size:,} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    print(f"at most {worst:.2f} times, limit {LIMIT}")
    if arguments.write is not None:
        heads = (
            "| keys that are looked up | entries | `cache[key]`, ns | with `what_if` | times "
            "| `get`, ns | with `what_if` | times |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        )
        put(arguments.write, "caches", "\n".join((heads, *rows)))
    sys.exit(worst > LIMIT)


def measured(pattern: str, size: int, look_up: Any, rounds: int) -> tuple[float, float]:
    """Return the nanoseconds of a look-up that finds its key, without and with `what_if`."""
    names = [f"key {n}" for n in range(size)]
    # so many that each key has its turn, in rounds that are short
    keys = list(PATTERNS[pattern](names, max(LOOK_UPS, 2 * size)))
    parts = cycle([keys[n : n + LOOK_UPS] for n in range(0, len(keys), LOOK_UPS)])
    caches: list[Any] = [
        opm.counted_cache(cachetools.LRUCache(size), what_if=asked) for asked in (False, True)
    ]
    for cache in caches:
        for name in names:
            cache[name] = name
    best = [float("inf")] * 2
    for part in islice(parts, rounds):
        for index, cache in enumerate(caches):
            begin = time.perf_counter_ns()
            look_up(cache, part)
            best[index] = min(best[index], (time.perf_counter_ns() - begin) / len(part))
    return best[0], best[1]


def by_item(cache: Any, keys: list[str]) -> None:
    for key in keys:
        cache[key]


def by_get(cache: Any, keys: list[str]) -> None:
    for key in keys:
        cache.get(key)


def _chosen(keys: list[str], amount: int, exponent: float) -> list[str]:
    weights = [(n + 1) ** -exponent for n in range(len(keys))]
    return random.Random(1).choices(keys, weights, k=amount)


if __name__ == "__main__":
    main()

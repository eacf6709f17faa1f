"""Measure the CPU time of real jobs with and without instrumentation.

    python -m benchmarks.overhead [--pairs 15] [--write FILE]

The two alternate. CPU time is that of all threads, in the kernel too, not wall time. Spans are
made as many as the span budget allows, resources are read, and each go ends with a collection.
The demo is a run of its own, with a report, each time. The items are those of one long run, whose
first spans (a thousand, and as many of slow ones) are made before.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    text = table(arguments.pairs)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "overhead", text)


def table(pairs: int) -> str:
    """Return the figures as Markdown."""
    from benchmarks._jobs import jobs

    lines = [
        (
            f"Medians of {pairs} pairs, and the quartiles of their differences; and by how much "
            "the best go of ours is above the best bare one."
        ),
        "",
        "| job | CPU s bare | CPU s ours | items a second | more | best | allowed | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(Path(folder)):
            bare, ours = _alternating(job.bare, job.ours, pairs)
            more = [b / a - 1 for a, b in zip(bare, ours, strict=True)]
            low, middle, high = statistics.quantiles(more, n=4)
            rate = f"{job.items / statistics.median(bare):,.0f}" if job.items else ""
            lines.append(
                f"| {job.name} | {statistics.median(bare):.3f} | {statistics.median(ours):.3f} "
                f"| {rate} | {middle:+.2%} ({low:+.2%} to {high:+.2%}) "
                f"| {min(ours) / min(bare) - 1:+.2%} | {job.bound:.0%} "
                f"| {'met' if middle <= job.bound else 'missed'} |"
            )
    return "\n".join(lines)


def _alternating(
    bare: Callable[[], Any], ours: Callable[[], Any], pairs: int
) -> tuple[list[float], list[float]]:
    bare()
    ours()
    taken: tuple[list[float], list[float]] = [], []
    for number in range(pairs):
        # the order changes each time
        for which in (0, 1) if number % 2 else (1, 0):
            before = _cpu()
            (bare, ours)[which]()
            taken[which].append(_cpu() - before)
    return taken


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

"""Measure what the command `merge` takes for thousands of reports.

    python -m benchmarks.merging                    # 10,000 reports of three stages
    python -m benchmarks.merging --write docs/reports.md

Each report is of a real run. All of them are merged by the command, in a process of its own.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from benchmarks._document import put
from benchmarks._regressions import drawn, run

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is promised: seconds, bytes, and the size by that of the smallest report.
MOST_S: Final = 30.0
MOST_BYTES: Final = 300e6
MOST_SIZE: Final = 2.0
# Programs to choose from; running one for each report would take minutes.
PROGRAMS: Final = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge, and print what it took; 1 if that is more than promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merging", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--reports", type=int, default=10_000)
    parser.add_argument("--write", help="the document whose figures to replace")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), asked.reports)
        smallest = min(file.stat().st_size for file in files)
        merged = Path(folder) / "merged.json"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "otel_pipeline_metrics", "merge", *files, "--output", merged],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        took_s = time.perf_counter() - began
        size = merged.stat().st_size / smallest
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, cpu_s = used.ru_maxrss * 1024, used.ru_utime + used.ru_stime
    text = (
        "| reports | CPU seconds | seconds | peak memory, MB | size by the smallest |\n"
        "|--:|--:|--:|--:|--:|\n"
        f"| {asked.reports:,} | {cpu_s:.1f} | {took_s:.1f} | {peak / 1e6:.0f} | {size:.2f} |"
    )
    print(text)
    if asked.write is not None:
        put(Path(asked.write), "merging", text)
    # on a busy machine, the seconds are those of others
    return 0 if cpu_s < MOST_S and peak < MOST_BYTES and size <= MOST_SIZE else 1


def write(folder: Path, count: int) -> list[Path]:
    """Write the reports of runs an hour apart, in processes of their own."""
    rng = random.Random(1)
    program = drawn(rng, 0.4, shape="queues")
    made = [_virtual_time.run(run(program, random.Random(rng.random()))) for _ in range(PROGRAMS)]
    files = []
    for number in range(count):
        data = made[number % PROGRAMS].to_dict()
        day, hour = divmod(number, 24)
        data["run"]["id"] = f"{rng.getrandbits(128):032x}"
        data["run"]["started"] = f"20{10 + day // 336:02d}-{1 + day // 28 % 12:02d}-"
        data["run"]["started"] += f"{1 + day % 28:02d}T{hour:02d}:00:00+00:00"
        data["telemetry"]["process"] = f"{number}-{rng.getrandbits(32):08x}"
        files.append(opm.RunReport(data).save(folder / f"{number:05d}.json"))
    return files


if __name__ == "__main__":
    sys.exit(main())

"""Measure time and memory of the import, beyond those of OpenTelemetry's API.

    python -m benchmarks.startup [--runs 25] [--write FILE] [--loaded]

Fresh processes, one after the other in turn. `--loaded` lists what is imported and is not the
API's, with its own microseconds, most first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks._document import put

BOUND_MS: Final = 20.0
API: Final = "import opentelemetry.trace, opentelemetry.metrics"
PROGRAMS: Final = {
    "nothing": "",
    "OpenTelemetry's API": API,
    "otel_pipeline_metrics": "import otel_pipeline_metrics",
    "OpenTelemetry's SDK": "import opentelemetry.sdk.trace, opentelemetry.sdk.metrics",
}
ENVIRONMENT: Final = {
    # as where a package is installed: compiled once
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONDONTWRITEBYTECODE"
}
MEASURED: Final = """
import json, time
began = time.perf_counter()
{program}
took = time.perf_counter() - began
status = open("/proc/self/status").read()
rss = int(status.partition("VmRSS:")[2].split()[0])
print(json.dumps((took * 1e3, rss / 1024)))
"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if arguments.loaded:
        print("\n".join(loaded()))
        return
    text = table(arguments.runs)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "startup", text)


def table(runs: int) -> str:
    """Return the figures as Markdown."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(runs + 1):
        for name, program in PROGRAMS.items():
            found[name].append(_spawn(program))
    lines = [
        f"Medians of {runs} fresh processes each, in turn, and the best.",
        "",
        "| import | ms | best | MiB resident |",
        "|---|---:|---:|---:|",
    ]
    for name, figures in found.items():
        # the first of each warms the file system's cache
        times, sizes = zip(*figures[1:], strict=True)
        cells = (statistics.median(times), min(times), statistics.median(sizes))
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    more = [
        ours[0] - api[0]
        for ours, api in zip(
            found["otel_pipeline_metrics"][1:], found["OpenTelemetry's API"][1:], strict=True
        )
    ]
    middle = statistics.median(more)
    met = "met" if middle <= BOUND_MS else "missed"
    lines += ["", f"Beyond the API: {middle:.1f} ms; allowed are {BOUND_MS:.0f} ms: {met}."]
    return "\n".join(lines)


def _spawn(program: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(program=program)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    took, rss = json.loads(done.stdout)
    return took, rss


def loaded() -> list[str]:
    """Return the modules that only our import brings in, with their own time, most first."""
    theirs = {name for _, name in _import_times(API)}
    ours = _import_times("import otel_pipeline_metrics")
    more = sorted(((took, name) for took, name in ours if name not in theirs), reverse=True)
    return [f"{took:8,} us  {name}" for took, name in more]


def _import_times(program: str) -> list[tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        check=True,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.stderr)
    return [(int(took), name) for took, name in rows]


if __name__ == "__main__":
    main()

"""Check that memory stays flat: RSS after 100,000 calls and after 10 million.

    python -m benchmarks.memory [--calls 10000000] [--write FILE]

Each case runs in a process of its own: no reader at all, a reader that collects once in
a million calls, and a run that keeps its report's statistics.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks._document import put

CASES = ("unconfigured", "no collection", "collected", "in a run")
WARM = 100_000


def main() -> None:
    """Print a line a case; exit 1 if one grew by more than a mebibyte."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        one(arguments.case, arguments.calls)
        return
    rows, failed = [], False
    for case in CASES:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.memory"),
                *(f"--case={case}", f"--calls={arguments.calls}"),
            ],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        print(done.stdout, end="", flush=True)
        rows.append(done.stdout.strip())
        failed |= done.returncode != 0
    if arguments.write is not None:
        heads = "| case | calls | recorded | MiB more after 100,000 | |\n|---|---:|---:|---:|---|"
        put(arguments.write, "memory", "\n".join((heads, *rows)))
    sys.exit(failed)


def one(case: str, calls: int) -> None:
    """Run one case here."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.trace import NoOpTracerProvider

    import otel_pipeline_metrics as opm
    from otel_pipeline_metrics._core import drain, series

    reader = InMemoryMetricReader()
    if case != "unconfigured":
        provider = MeterProvider([reader], shutdown_on_exit=False)
        opm.configure(tracer_provider=NoOpTracerProvider(), meter_provider=provider)

    @opm.stage
    def work() -> None:
        """Do nothing."""

    def go(times: int) -> None:
        for n in range(times):
            work()
            if case == "collected" and not n % 1_000_000:
                reader.get_metrics_data()

    process = psutil.Process()
    run = opm.run("memory", resources=False) if case == "in a run" else None
    if run is not None:
        run.__enter__()
    go(WARM)
    gc.collect()
    before = process.memory_info().rss
    go(calls - WARM)
    gc.collect()
    grown = (process.memory_info().rss - before) / 2**20
    if run is not None:
        run.__exit__(None, None, None)
        recorded = run.report.stages[0]["count"]
    else:
        drain.drain()
        recorded = sum(s.ended_before for s in series.all_series() if s.key.stage == "work")
    flat = recorded == calls and grown <= 1
    print(
        f"| {case} | {calls:,} | {recorded:,} | {grown:.2f} | {'met' if flat else 'missed'} |",
        flush=True,
    )
    sys.exit(not flat)


if __name__ == "__main__":
    main()

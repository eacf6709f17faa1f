"""Measure what a driver needs for the parts of many workers.

    python -m benchmarks.parts
    python -m benchmarks.parts --write docs/engines.md

Each worker of a simulated engine has ten stages of 200 calls and sends its part once a second, each
newer one replacing the one before; then all parts are final, and the report is made. Each row is
measured in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_pipeline_metrics as opm
from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS: Final = (10, 100, 1_000)
STAGES: Final = 10
CALLS: Final = 200
# How often each worker sends its part.
TIMES: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", help="the document whose figures to replace")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one is not None:
        print(json.dumps(measure(asked.one)))
        return 0
    text = table([_measured(workers) for workers in WORKERS])
    print(text)
    if asked.write:
        put(Path(asked.write), "parts", text)
    return 0


def _measured(workers: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parts", "--one", str(workers)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(workers: int) -> dict[str, Any]:
    """Return what so many workers cost the driver."""
    reader = InMemoryMetricReader()
    opm.configure(meter_provider=MeterProvider([reader]), exporter="none", console="off")
    with opm.run("parts", resources=False, parts_timeout=0) as run:
        with opm.part(run.context()) as part:
            for stage in range(STAGES):
                for _ in range(CALLS):
                    with opm.stage(f"stage {stage}"):
                        time.sleep(0)
        one = part.data
        series = _series(reader)
        before = _memory()
        add_s = 0.0
        for number in range(1, TIMES + 1):
            for worker in range(workers):
                data = _of_worker(one, worker, number)
                began = time.process_time()
                assert run.add_part(data)
                add_s += time.process_time() - began
        began = time.process_time()
        report = run.report
        report_s = time.process_time() - began
        peak = _memory() - before
    assert report.stages[0]["count"] == CALLS * workers
    return {
        "workers": workers,
        "part": len(json.dumps(one)),
        "packed": len(zlib.compress(json.dumps(one).encode())),
        "add_ms": 1000 * add_s / (workers * TIMES),
        "report_s": report_s,
        "peak": peak,
        "report": len(report.to_json()),
        "series": series * workers,
    }


def _of_worker(one: dict[str, Any], worker: int, number: int) -> dict[str, Any]:
    data = copy.deepcopy(one)
    data |= {"id": f"{worker:032x}", "number": number, "final": False}
    data["process"] |= {"id": f"{worker:016x}", "pid": worker}
    return data


def _series(reader: InMemoryMetricReader) -> int:
    """Return the series that Prometheus has of one worker: each bucket of a histogram is one."""
    data = reader.get_metrics_data()
    found = 0
    for of in data.resource_metrics if data is not None else ():
        for metric in (m for scope in of.scope_metrics for m in scope.metrics):
            for point in metric.data.data_points:
                buckets = getattr(point, "bucket_counts", None)
                # with the sum and the count
                found += 1 if buckets is None else len(buckets) + 2
    return found


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        (
            "| workers | a part, kB (compressed) | CPU ms to add one | CPU s to make the report | "
            "more memory, MB | report, kB | series in Prometheus |"
        ),
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['workers']:,} | {row['part'] / 1e3:.1f} ({row['packed'] / 1e3:.1f}) | "
        f"{row['add_ms']:.1f} | {row['report_s']:.2f} | {row['peak'] / 1e6:.0f} | "
        f"{row['report'] / 1e3:.0f} | {row['series']:,} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

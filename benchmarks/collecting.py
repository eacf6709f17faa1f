"""Measure how long a collection takes, with 1 to 1,000 stages and with resources.

    python -m benchmarks.collecting [--write FILE]

Every stage has been called ten times since the previous collection. The table also has the time
that OpenTelemetry itself needs to collect as many points (a histogram's, a counter's and an
observable's for each stage) without pending values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = (1, 100, 1000)
CALLS = 10
GOES = 15
WAYS = {"ours": "true", "ours, without folding": "false", "OpenTelemetry's own part": "true"}

Figures = dict[str, dict[str, list[float]]]
"""By way, then by number of stages: milliseconds of each go."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one)))
        return
    text = table(figures())
    print(text)
    if arguments.write is not None:
        put(arguments.write, "collecting", text)


def figures() -> Figures:
    """Measure every way, each in a process of its own."""
    return {way: _spawn(way) for way in WAYS}


def _spawn(way: str) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.collecting", f"--one={way}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OTEL_PIPELINE_METRICS_FOLD": WAYS[way]},
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Figures) -> str:
    """Return the figures as Markdown."""
    columns = list(found["ours"])
    lines = [
        f"Milliseconds of a collection: the median of {GOES}, and the best.",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for way, by_column in found.items():
        cells = [
            f"{statistics.median(by_column[c]):.2f} ({min(by_column[c]):.2f})"
            if c in by_column
            else ""
            for c in columns
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


# --- in a process of its own -------------------------------------------------------------------


def _one(way: str) -> dict[str, list[float]]:
    make = _theirs if way.startswith("OpenTelemetry") else _ours
    found = {f"{stages:,} stages": _timed(*make(stages)) for stages in STAGES}
    if make is _ours:
        from otel_pipeline_metrics._probes.resources.probe import ResourceProbe

        found["resources alone"] = _timed(lambda: None, ResourceProbe().read)
    return found


def _timed(before: Callable[[], Any], collect: Callable[[], Any]) -> list[float]:
    taken = []
    for _ in range(GOES + 1):
        before()
        began = time.perf_counter()
        collect()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken[1:]


def _ours(stages: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.trace import NoOpTracerProvider

    import otel_pipeline_metrics as opm
    from benchmarks._cases import f, installed
    from otel_pipeline_metrics._core import series as _series

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for series in _series.all_series():
        series.scope.series.clear()  # the stages of the number before
    installed(NoOpTracerProvider(), provider)()
    decorated = [opm.stage(f"stage {number}", kind="process")(f) for number in range(stages)]

    def call() -> None:
        for stage in decorated:
            for _ in range(CALLS):
                stage()

    def collect() -> None:
        data = reader.get_metrics_data()
        points = [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "pipeline.stage.duration"
            for point in metric.data.data_points
        ]
        assert len(points) == stages
        assert not sum(point.count for point in points) % (stages * CALLS)

    return call, collect


def _theirs(stages: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("hand")
    attributes = [
        {"pipeline.stage.name": f"stage {number}", "pipeline.stage.kind": "process"}
        for number in range(stages)
    ]
    seconds, count = meter.create_histogram("seconds"), meter.create_counter("count")
    for each in attributes:
        seconds.record(1, each)
        count.add(1, {**each, "pipeline.stage.state": "busy"})
    meter.create_observable_up_down_counter(
        "active", [lambda _: [Observation(0, each) for each in attributes]]
    )
    return lambda: None, reader.get_metrics_data


if __name__ == "__main__":
    main()

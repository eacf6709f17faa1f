"""Measure how long a collection takes, with 1 to 1,000 stages and with resources.

    python -m benchmarks.collecting [--write FILE]

Every stage has been called ten times since the previous collection, and a hundred times before the
first one, since every one of its first hundred calls is a sample. The table also has the time that
OpenTelemetry itself needs to collect as many points (a histogram's, two counters' and an
observable's for each stage) without pending values. What is above that is our part.
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
SAMPLED = 100
GOES = 15
MOST = 1 / 3
"""What our part of a collection of the most stages may take, of OpenTelemetry's own."""
OWN = "OpenTelemetry's own part"
WAYS = {"ours": "true", "ours, without folding": "false", OWN: "true"}

Figures = dict[str, dict[str, list[float]]]
"""By way, then by number of stages: milliseconds of each go."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one, arguments.stages)))
        return
    text = table(figures())
    print(text)
    if arguments.write is not None:
        put(arguments.write, "collecting", text)


def figures() -> Figures:
    """Measure every way, with every number of stages, each in a process of its own."""
    return {
        way: {column: took for stages in STAGES for column, took in _spawn(way, stages).items()}
        for way in WAYS
    }


def _spawn(way: str, stages: int) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.collecting", f"--one={way}", f"--stages={stages}"],
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
        f"Milliseconds of CPU time of a collection: the mean of {GOES}, and the best.",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for way, by_column in found.items():
        cells = [
            f"{statistics.mean(by_column[c]):.2f} ({min(by_column[c]):.2f})"
            if c in by_column
            else ""
            for c in columns
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    most = f"{STAGES[-1]:,} stages"
    own = statistics.mean(found[OWN][most])
    ours = statistics.mean(found["ours"][most]) - own
    lines += [
        "",
        (
            f"Our part with {most}: {ours:.2f} ms, {ours / own:.2f} of OpenTelemetry's own; "
            f"allowed is {MOST:.2f}: {'met' if ours <= MOST * own else 'missed'}."
        ),
    ]
    return "\n".join(lines)


# --- in a process of its own -------------------------------------------------------------------


def _one(way: str, stages: int) -> dict[str, list[float]]:
    make = _theirs if way == OWN else _ours
    found = {f"{stages:,} stages": _timed(*make(stages))}
    if make is _ours and stages == STAGES[-1]:
        from otel_pipeline_metrics._probes.resources.probe import ResourceProbe

        found["resources alone"] = _timed(lambda: None, ResourceProbe().read)
    return found


def _timed(before: Callable[[], Any], collect: Callable[[], Any]) -> list[float]:
    taken = []
    for _ in range(GOES + 1):
        before()
        began = time.process_time()
        collect()
        taken.append((time.process_time() - began) * 1e3)
    return taken[1:]


def _ours(stages: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.trace import NoOpTracerProvider

    import otel_pipeline_metrics as opm
    from benchmarks._cases import f, installed

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    # without the metrics of resources, which have a column of their own
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

    for _ in range(SAMPLED // CALLS):
        call()
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
    cpu = meter.create_counter("cpu")
    for each in attributes:
        cpu.add(1, each)
        seconds.record(1, each)
        count.add(1, {**each, "pipeline.stage.state": "busy"})
    meter.create_observable_up_down_counter(
        "active", [lambda _: [Observation(0, each) for each in attributes]]
    )
    return lambda: None, reader.get_metrics_data


if __name__ == "__main__":
    main()

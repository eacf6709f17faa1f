"""Measure how long a collection takes, with 1 to 1,000 stages and with resources.

    python -m benchmarks.collecting [--write FILE]

Every stage has been called ten times since the previous collection, and a hundred times before the
first one, since every one of its first hundred calls is a sample. The table also has the time that
OpenTelemetry itself needs to collect as many points (a histogram's with as many buckets, two
counters' and an observable's for each stage) without pending values. What is above that is our
part. A line below the table says what it consists of: our callback; the garbage collector, which
has more objects to look at; and OpenTelemetry's own steps, which take longer beside ours.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put
from benchmarks.instructions import Callgrind, all_are_fast, under_callgrind, why_not

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Way = tuple[Callable[[], Any], Callable[[], Any], Callable[[Any], Any]]
    """What is done before a collection, the collection, and a check of what it gave."""

STAGES = (1, 100, 1000)
CALLS = 10
SAMPLED = 100
GOES = 30
"""The garbage collector looks at all objects in one of ten: of 15, one way had twice as many."""
WARM, REPEATS = 2, 3
"""Collections before instructions are counted, and those that are."""
MOST = 1 / 3
"""What our part of a collection of the most stages may take, of OpenTelemetry's own."""
OWN = "OpenTelemetry's own part"
OURS = "ours"
WAYS = {OURS: "true", "ours, without folding": "false", OWN: "true"}

CALLBACK, GC = "callback", "gc"
"""Parts of the collections of the most stages: our callback, and the garbage collector."""

NO_PARTS = contextlib.nullcontext()

Figures = dict[str, dict[str, list[float]]]
"""By way, then by number of stages: milliseconds of each go."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help="count instructions, and take no time")
    arguments = parser.parse_args()
    if arguments.inside is not None:
        print(json.dumps(_count(arguments.one, arguments.inside)))
        return
    if arguments.one:
        print(json.dumps(_one(arguments.one, arguments.stages)))
        return
    text = "" if arguments.count else f"{table(figures())}\n\n"
    text += why_not() or share_counted({way: _count_apart(way) for way in (OURS, OWN)})
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
    columns = [column for column in found[OURS] if column not in (CALLBACK, GC)]
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
    ours = statistics.mean(found[OURS][most]) - own
    lines += ["", f"Our part with {most}: {ours:.2f} ms, {_judged(ours, own)}"]
    callback = statistics.mean(found[OURS][CALLBACK])
    more_gc = statistics.mean(found[OURS][GC]) - statistics.mean(found[OWN][GC])
    lines.append(
        f"{callback:.2f} ms of it are our callback, {more_gc:.2f} the garbage collector's, and "
        f"{ours - callback - more_gc:.2f} OpenTelemetry's own steps, which take longer beside ours."
    )
    return "\n".join(lines)


def share_counted(counts: dict[str, int]) -> str:
    """Return our part of the instructions as a sentence."""
    own = counts[OWN]
    ours = counts[OURS] - own
    return (
        f"Counted by callgrind: {ours / 1e6:.1f} million instructions of ours and {own / 1e6:.1f} "
        f"of OpenTelemetry's own, {_judged(ours, own)}"
    )


def _judged(ours: float, own: float) -> str:
    judged = "met" if ours <= MOST * own else "missed"
    return f"{ours / own:.2f} of OpenTelemetry's own; allowed is {MOST:.2f}: {judged}."


# --- in a process of its own -------------------------------------------------------------------


def _one(way: str, stages: int) -> dict[str, list[float]]:
    make, parts = _made(way), _Parts()
    found = {f"{stages:,} stages": _timed(*make(stages), parts)}
    if stages != STAGES[-1]:
        return found
    found[CALLBACK], found[GC] = parts.callback[1:], parts.gc[1:]
    if make is _ours:
        from otel_pipeline_metrics._probes.resources.probe import ResourceProbe

        found["resources alone"] = _timed(lambda: None, ResourceProbe().read)
    return found


def _made(way: str) -> Callable[[int], Way]:
    return _theirs if way == OWN else _ours


def _count_apart(way: str) -> int:
    return int(under_callgrind("benchmarks.collecting", f"--one={way}"))


def _count(way: str, folder: Path) -> int:
    """Return the instructions of a collection of the most stages; this runs under valgrind."""
    all_are_fast()
    before, collect, _ = _made(way)(STAGES[-1])
    callgrind = Callgrind(folder)
    taken = []
    for _ in range(WARM + REPEATS):
        before()
        with callgrind:
            taken.append(callgrind.count(collect) - callgrind.count(lambda: None))
    return int(statistics.median(taken[WARM:]))


class _Parts:
    """Milliseconds of CPU time in our callback and in the garbage collector, of each go."""

    def __init__(self) -> None:
        from otel_pipeline_metrics._telemetry.stage_metrics import StageMetrics

        self.callback: list[float] = []
        self.gc: list[float] = []
        self._in_go = self._in_callback = False
        self._gc_began = 0.0
        read = StageMetrics._flush_and_read_active

        def timed(metrics: StageMetrics) -> Any:
            self._in_callback, began = True, time.process_time()
            points = read(metrics)
            self.callback[-1] += (time.process_time() - began) * 1e3
            self._in_callback = False
            return points

        StageMetrics._flush_and_read_active = timed  # type: ignore[method-assign]
        gc.callbacks.append(self._note_gc)

    def __enter__(self) -> None:
        self.callback.append(0.0)
        self.gc.append(0.0)
        self._in_go = True

    def __exit__(self, *_: object) -> None:
        self._in_go = False

    def _note_gc(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._gc_began = time.process_time()
        elif self._in_go:
            took = (time.process_time() - self._gc_began) * 1e3
            self.gc[-1] += took
            self.callback[-1] -= took * self._in_callback


def _timed(
    before: Callable[[], Any],
    collect: Callable[[], Any],
    check: Callable[[Any], Any] = bool,
    parts: AbstractContextManager[None] = NO_PARTS,
) -> list[float]:
    taken = []
    for _ in range(GOES + 1):
        before()
        with parts:
            began = time.process_time()
            collected = collect()
            taken.append((time.process_time() - began) * 1e3)
        check(collected)
    return taken[1:]


def _reader() -> Any:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    class Patient(InMemoryMetricReader):
        """Under valgrind a collection takes longer than the SDK waits."""

        def collect(self, timeout_millis: float = 3_600_000) -> None:
            super().collect(timeout_millis)

    return Patient()


def _ours(stages: int) -> Way:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    import otel_pipeline_metrics as opm
    from benchmarks._cases import f, installed

    reader = _reader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    # without the metrics of resources, which have a column of their own
    installed(NoOpTracerProvider(), provider)()
    decorated = [opm.stage(f"stage {number}", kind="process")(f) for number in range(stages)]

    def call() -> None:
        for stage in decorated:
            for _ in range(CALLS):
                stage()

    def check(data: Any) -> None:
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
    return call, reader.get_metrics_data, check


def _theirs(stages: int) -> Way:
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider

    from otel_pipeline_metrics._core.metric_definitions import DURATION_BUCKETS

    reader = _reader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("hand")
    attributes = [
        {"pipeline.stage.name": f"stage {number}", "pipeline.stage.kind": "process"}
        for number in range(stages)
    ]
    seconds = meter.create_histogram(
        "seconds", explicit_bucket_boundaries_advisory=DURATION_BUCKETS
    )
    count = meter.create_counter("count")
    cpu = meter.create_counter("cpu")
    for each in attributes:
        cpu.add(1, each)
        seconds.record(1, each)
        count.add(1, {**each, "pipeline.stage.state": "busy"})
    meter.create_observable_up_down_counter(
        "active", [lambda _: [Observation(0, each) for each in attributes]]
    )
    return lambda: None, reader.get_metrics_data, bool


if __name__ == "__main__":
    main()

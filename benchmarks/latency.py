"""Measure single calls while metrics are collected: p99.99 and the worst.

    python -m benchmarks.latency [--seconds 5] [--only "collected every 50 ms"] [--write FILE]

The mean hides the cost of a call that flushes pending results of others. Here every call is timed
by itself, in batches that alternate between the bare function and ours in the same process, on
the wall clock and on the thread's own CPU clock: while another thread runs, a call may wait for
the interpreter's lock, 5 ms at a time, and the bare function waits just so. What the call does
itself is on the CPU clock. After each case the totals are checked: no call was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

INTERVAL_S = 0.05
HANGS_S = 2.0
BATCH = 2000
SHARES = (0.5, 0.99, 0.999, 0.9999, 1.0)
"""The last one is the worst call."""


@dataclass(frozen=True)
class Condition:
    """What happens during the calls."""

    interval: float | None = None
    """Between two collections; None for none."""
    exports: bool = False
    """Over HTTP, to a sink in another process."""
    hangs: bool = False
    """Every second collection takes two seconds in somebody's callback."""
    exponential: bool = False
    fold: bool = True
    others: int = 0
    """Other stages that have something to say at every collection."""


CONDITIONS = {
    "nothing collects": Condition(),
    "collected every 50 ms": Condition(INTERVAL_S),
    "exported every 50 ms over HTTP": Condition(INTERVAL_S, exports=True),
    "collected every 50 ms with 1,000 other stages": Condition(INTERVAL_S, others=1000),
    "collected every 50 ms, exponential": Condition(INTERVAL_S, exponential=True),
    "collections that hang": Condition(INTERVAL_S, hangs=True),
    "collections that hang, without folding": Condition(INTERVAL_S, hangs=True, fold=False),
}

Percentiles = dict[str, dict[str, list[float]]]
"""By call and by clock: microseconds at `SHARES`."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each condition (5)")
    parser.add_argument("--only", choices=CONDITIONS)
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(CONDITIONS[arguments.only], arguments.seconds)))
        return
    names = [arguments.only] if arguments.only else list(CONDITIONS)
    text = table({name: spawn(name, arguments.seconds) for name in names})
    print(text)
    if arguments.write is not None:
        put(arguments.write, "latency", text)


def spawn(name: str, seconds: float) -> Percentiles:
    """Measure under one condition, in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.latency", "--one"),
            *(f"--only={name}", f"--seconds={seconds}"),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OTEL_PIPELINE_METRICS_FOLD": str(CONDITIONS[name].fold).lower()},
    )
    found: Percentiles = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, Percentiles]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "Microseconds of single calls; on the wall clock, and on the thread's own CPU clock.",
        "",
        "| while | call | clock | median | p99 | p99.9 | p99.99 | worst |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, calls in found.items():
        for call, clocks in calls.items():
            for clock, figures in clocks.items():
                cells = " | ".join(f"{figure:,.1f}" for figure in figures)
                lines.append(f"| {name} | {call} | {clock} | {cells} |")
    return "\n".join(lines)


# --- in a process of its own -------------------------------------------------------------------


def _one(condition: Condition, seconds: float) -> Percentiles:
    from opentelemetry.trace import NoOpTracerProvider

    import otel_pipeline_metrics as opm
    from benchmarks._cases import f, installed
    from otel_pipeline_metrics._core import drain, series

    with _providers(condition) as provider:
        installed(NoOpTracerProvider(), provider)()
        ours = opm.stage("latency")(f)
        others = [opm.stage(f"other {number}")(f) for number in range(condition.others)]
        calls: dict[str, Callable[[], Any]] = {"bare function": f, "ours, metrics only": ours}
        clocks = {"wall": time.perf_counter_ns, "CPU": time.thread_time_ns}
        taken = {(call, clock): array("q") for call in calls for clock in clocks}
        made = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for other in others:
                other()
            for (call, clock), durations in taken.items():
                _time(calls[call], clocks[clock], durations)
                made += BATCH if call != "bare function" else 0
    drain.drain()
    recorded = sum(s.ended_before for s in series.all_series() if s.key.stage == "latency")
    if recorded != made:
        raise SystemExit(f"{made} calls, {recorded} recorded")
    return {call: {clock: _percentiles(taken[call, clock]) for clock in clocks} for call in calls}


def _time(call: Callable[[], Any], now: Callable[[], int], durations: array[int]) -> None:
    for _ in range(BATCH):
        began = now()
        call()
        durations.append(now() - began)


def _percentiles(durations: array[int]) -> list[float]:
    found = sorted(durations)
    return [found[min(len(found) - 1, int(len(found) * share))] / 1000 for share in SHARES]


@contextlib.contextmanager
def _providers(condition: Condition) -> Iterator[MeterProvider]:
    """Make a provider that is collected as the condition says, until the block ends."""
    from opentelemetry.sdk.metrics import Histogram, MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    aggregation = ExponentialBucketHistogramAggregation()
    views = [View(instrument_type=Histogram, aggregation=aggregation)]
    done = threading.Event()
    with contextlib.ExitStack() as stack:
        reader: Any = InMemoryMetricReader()
        if condition.exports:
            reader = stack.enter_context(_exporting())
        provider = MeterProvider(
            [reader], views=views if condition.exponential else [], shutdown_on_exit=False
        )
        if condition.hangs:

            def hang(_: object) -> list[Any]:
                done.wait(HANGS_S)
                return []

            provider.get_meter("somebody's").create_observable_gauge("slow", [hang])
        if condition.interval is not None and not condition.exports:
            collector = threading.Thread(target=_collect, args=(reader, condition.interval, done))
            collector.start()
            stack.callback(collector.join)
        stack.callback(done.set)
        stack.callback(provider.shutdown)
        yield provider


def _collect(reader: InMemoryMetricReader, interval: float, done: threading.Event) -> None:
    while not done.wait(interval):
        reader.get_metrics_data()


@contextlib.contextmanager
def _exporting() -> Iterator[Any]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sink = context.Process(target=_serve, args=(theirs,), daemon=True)
    sink.start()
    try:
        endpoint = f"http://127.0.0.1:{ours.recv()}/v1/metrics"
        yield PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=endpoint), export_interval_millis=INTERVAL_S * 1000
        )
    finally:
        ours.send("enough")
        sink.join()


def _serve(pipe: Any) -> None:
    """Take everything and answer that it was taken, until told to end."""

    class Sink(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:  # quiet
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    pipe.recv()
    server.shutdown()


if __name__ == "__main__":
    main()

"""Check that memory stays flat and every call is counted, in a long pipeline.

    python -m benchmarks.soak [--calls 10000000]

Two processes, one after the other: with a collector on a socket of ours, and with one that
accepts and is silent. Each makes runs of 100,000 calls, of stages that return, fail, count items,
pass them through a queue and look them up in a cache, with spans, metrics and reports.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = ("collector", "silent collector")
A_RUN = 100_000
WARM_RUNS = 10
ALLOWED_MIB = 5.0
"""Between the warm process and the end; a leak of one byte a call would be 10 MiB."""


def main() -> None:
    """Print a line a case; exit 1 if one grew or lost a call."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        one(arguments.case, arguments.calls)
        return
    codes = [_run(case, arguments.calls) for case in CASES]
    sys.exit(any(codes))


def _run(case: str, calls: int) -> int:
    with _collecting() if case == "collector" else _silent() as port:
        command = [sys.executable, "-m", "benchmarks.soak", "--case", case, f"--calls={calls}"]
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        }
        return subprocess.run(command, env=env, check=False).returncode


@contextmanager
def _collecting() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@contextmanager
def _silent() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        yield sock.getsockname()[1]


def one(case: str, calls: int) -> None:  # noqa: C901 - a pipeline
    """Run one case here."""
    import otel_pipeline_metrics as opm

    opm.configure(service_name="soak", console=False)
    items: Any = opm.wrap_queue(queue.Queue(1000), name="soak.items")

    @opm.stage("work")
    def work() -> None:
        """Do nothing."""

    @opm.stage("fails")
    def fails() -> None:
        raise KeyError

    @functools.lru_cache(maxsize=512)
    def looked_up(number: int) -> int:
        return number

    opm.register_cache("soak.lookup", looked_up)

    @opm.process("counts", items=len)
    def counts() -> list[int]:
        return [looked_up(n) for n in range(3)]

    @opm.fetch("puts")
    def puts(number: int) -> None:
        items.put(number)

    @opm.write("gets")
    def gets() -> None:
        items.get()

    def a_run(directory: Path) -> int:
        with opm.run("soak", report=directory / "report.json", resources=True) as run:
            for number in range(A_RUN // 10):
                for _ in range(6):
                    work()
                try:
                    fails()
                except KeyError:
                    counts()
                puts(number)
                gets()
        return sum(stage["count"] for stage in run.report.stages)

    process = psutil.Process()
    rss: list[float] = []
    counted = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(max(WARM_RUNS + 2, calls // A_RUN)):
            counted += a_run(Path(directory))
            gc.collect()
            rss.append(process.memory_info().rss / 2**20)
    took = time.perf_counter() - began
    opm.shutdown()
    stats = opm.stats()["spans"]
    made = len(rss) * A_RUN
    settled = rss[WARM_RUNS:]
    print(
        f"{case:16} {counted:>12,} counted of {made:,} in {took:,.0f} s; spans: {stats}\n"
        f"{'':16} RSS in MiB after {WARM_RUNS} runs {settled[0]:.1f}, least {min(settled):.1f}, "
        f"most {max(settled):.1f}, at the end {settled[-1]:.1f}",
        flush=True,
    )
    exact = stats["created"] == stats["exported"] + stats["dropped"]
    sys.exit(counted != made or not exact or settled[-1] - settled[0] > ALLOWED_MIB)


if __name__ == "__main__":
    main()

"""Measure how near `gil_held` of a run's resources comes to the truth, and what it costs.

    python -m benchmarks.contention [--seconds 12] [--write FILE]

Each case is a process of its own, whose threads measure the truth themselves: the share of time
in which at least one of them runs Python code. The thread that samples reads no other resources
meanwhile, so its CPU time is that of the random moments alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._document import put

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOWED = 0.2
"""How far from the truth a share may be."""
ALLOWED_CORE = 0.001
"""The share of a core that the random moments may take."""
BLOCK = b"x" * 50_000_000


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="of each case (12)")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one, arguments.seconds)))
        return
    text = table({name: _spawn(name, arguments.seconds) for name in CASES}, arguments.seconds)
    print(text)
    if arguments.write is not None:
        put(arguments.write, "contention", text)


def _spawn(name: str, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contention", f"--one={name}", f"--seconds={seconds}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, dict[str, Any]], seconds: float) -> str:
    """Return the figures as Markdown."""
    lines = [
        (
            f"Cases of {seconds:g} s. Allowed are {ALLOWED} from the truth and {ALLOWED_CORE:.1%} "
            "of a core."
        ),
        "",
        (
            "| threads | GIL held: truth | `gil_held` | moments | | `run_delay` | moments "
            "| of a core | |"
        ),
        "|---|---:|---:|---:|---|---:|---:|---:|---|",
    ]
    for name, one in found.items():
        held = one["gil_held"]
        met = held is not None and abs(held - one["truth"]) <= ALLOWED
        lines.append(
            f"| {name} | {one['truth']:.2f} | {_text(held)} | {one['gil_held_samples']} "
            f"| {_met(met)} | {_text(one['run_delay'])} | {one['run_delay_samples']} "
            f"| {one['core']:.3%} | {_met(one['core'] <= ALLOWED_CORE)} |"
        )
    return "\n".join(lines)


def _text(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2f}"


def _met(bound_holds: bool) -> str:
    return "met" if bound_holds else "missed"


# --- in a process of its own -------------------------------------------------------------------


def _one(name: str, seconds: float) -> dict[str, Any]:
    from otel_pipeline_metrics import ResourceMonitor

    ended = threading.Event()
    truths: list[float] = []
    threads = [
        threading.Thread(target=lambda work=work: truths.append(work(ended)))
        for work in CASES[name]
    ]
    for thread in threads:
        thread.start()
    monitor = ResourceMonitor(interval=3600)
    with monitor:
        (sampling,) = (t for t in threading.enumerate() if "resources" in t.name)
        began = time.monotonic()
        time.sleep(seconds)
        schedstat = Path(f"/proc/self/task/{sampling.native_id}/schedstat").read_text()
        core = int(schedstat.split()[0]) / 1e9 / (time.monotonic() - began)
    ended.set()
    for thread in threads:
        thread.join()
    summary = monitor.summary()
    return {
        "truth": max(truths, default=0.0),
        "gil_held": summary.gil_held,
        "gil_held_samples": summary.gil_held_samples,
        "run_delay": summary.run_delay,
        "run_delay_samples": summary.run_delay_samples,
        "core": core,
    }


def _computes(ended: threading.Event) -> float:
    while not ended.is_set():
        for number in range(1000):
            number * number
    return 1.0


def _computes_half_the_time(ended: threading.Event) -> float:
    began, busy = time.perf_counter(), 0.0
    while not ended.is_set():
        since = time.perf_counter()
        while time.perf_counter() - since < 0.01:
            pass
        busy += time.perf_counter() - since
        time.sleep(0.01)
    return busy / (time.perf_counter() - began)


def _hashes(ended: threading.Event) -> float:
    while not ended.is_set():
        hashlib.sha256(BLOCK).digest()
    return 0.0


def _sums_up(ended: threading.Event) -> float:
    while not ended.is_set():
        zlib.crc32(BLOCK)
    return 0.0


def _sends(ended: threading.Event) -> float:
    here, there = socket.socketpair()
    with here, there:
        while not ended.is_set():
            here.send(b"x")
            there.recv(1)
            time.sleep(0.001)
    return 0.0


def _writes(ended: threading.Event) -> float:
    block = BLOCK[:5_000_000]
    with tempfile.TemporaryFile(buffering=0) as file:
        while not ended.is_set():
            file.seek(0)
            file.write(block)
    return 0.0


CASES: dict[str, list[Callable[[threading.Event], float]]] = {
    "none": [],
    "one computes": [_computes],
    "two compute": [_computes] * 2,
    "one computes half the time": [_computes_half_the_time],
    "two hash in C": [_hashes] * 2,
    "two sum up in C": [_sums_up] * 2,
    "four send and sleep": [_sends] * 4,
    "one writes a file": [_writes],
}


if __name__ == "__main__":
    main()

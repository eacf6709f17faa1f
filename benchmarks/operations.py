"""Record 10,000 operations a second beside an event loop, and kill processes that record.

    python -m benchmarks.operations [--seconds 60] [--rounds 5] [--rate 10000] [--kills 50]
    python -m benchmarks.operations --memory 10000000

Each round is a process that records, and one of the bare loop with the same arithmetic, which
alternate. A heartbeat on the loop, every 5 ms, tells how late it is; the difference of the p99 is
what recording costs the loop. After each round every record must be in the files exactly once.
Then processes are killed at random moments: no file may be partial, the records in the files must
be the first ones without a gap, and at most the last interval may be missing.
With `--memory` one process records so many operations, and must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from otel_pipeline_metrics.service import MetricsManager

BEAT_S = 0.005
TICK_S = 0.005
INTERVAL_S = 0.5
"""Of the processes that are killed."""
SLACK_S = 0.5
"""Beyond that interval: a file that is being written, and a loaded machine."""
ALLOWED_S = 0.005
ALLOWED_MIB = 5.0


def main() -> None:
    """Print what was measured; exit 1 if something is lost, or costs more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, metavar="OPERATIONS")
    parser.add_argument("--child", choices=("bare", "recording", "killed"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "killed":
        asyncio.run(record_for_ever(options.folder))
    elif options.child:
        folder = options.folder if options.child == "recording" else None
        print(json.dumps(asyncio.run(beside_a_loop(folder, options.rate, options.seconds))))
    elif options.memory:
        sys.exit(memory(options.memory))
    else:
        sys.exit(lateness(options) | kills(options.kills, options.seed))


# --- beside an event loop -------------------------------------------------------------------------


async def beside_a_loop(folder: Path | None, rate: int, seconds: float) -> dict[str, Any]:
    """Record at a rate while a heartbeat runs; return how late it was, and what it cost."""
    late: list[float] = []
    ending = False

    async def heartbeat() -> None:
        while not ending:
            due = time.perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            late.append(max(0.0, time.perf_counter() - due))

    manager = None if folder is None else MetricsManager(folder)
    if manager is not None:
        await manager.start()
    beating = asyncio.ensure_future(heartbeat())
    started, cpu = time.perf_counter(), time.process_time()
    number, wanted = 0, int(rate * seconds)
    while number < wanted:
        upto = min(wanted, int((time.perf_counter() - started) * rate))
        while number < upto:
            if manager is not None:
                await manager.record_operation("bench", "operation", number)
            number += 1
        await asyncio.sleep(TICK_S)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    ending = True
    await beating
    found = {"late": late, "cpu": cpu / elapsed, "recorded": number, "dropped": 0}
    if manager is not None:
        await manager.stop()
        found["dropped"] = (await manager.get_stats()).dropped
    return found


def lateness(options: argparse.Namespace) -> int:
    """Alternate the two; return 1 if recording costs too much, or loses a record."""
    p99: dict[str, list[float]] = {"bare": [], "recording": []}
    cpu: dict[str, list[float]] = {"bare": [], "recording": []}
    wrong = 0
    for _ in range(options.rounds):
        for child in ("bare", "recording"):
            with tempfile.TemporaryDirectory() as folder:
                found = _child(child, folder, options)
                if child == "recording":
                    wrong += _missing(Path(folder), found["recorded"]) + found["dropped"]
            found["late"].sort()
            p99[child].append(found["late"][int(0.99 * (len(found["late"]) - 1))])
            cpu[child].append(found["cpu"])
            late_ms, share = 1000 * p99[child][-1], cpu[child][-1]
            print(f"{child}: p99 of lateness {late_ms:.2f} ms, CPU {share:.1%}")
    more = statistics.median(p99["recording"]) - statistics.median(p99["bare"])
    print(
        f"median of {options.rounds}: {options.rate:,} operations a second make the loop "
        f"{1000 * more:+.2f} ms later (p99; {1000 * ALLOWED_S:g} ms allowed) and take "
        f"{statistics.median(cpu['recording']) - statistics.median(cpu['bare']):.1%} of a core; "
        f"{wrong} records are missing or there twice"
    )
    return int(more > ALLOWED_S or wrong > 0)


def _child(child: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "benchmarks.operations", "--child", child, "--folder", folder,
        f"--rate={options.rate}", f"--seconds={options.seconds}",
    ]  # fmt: skip
    found: dict[str, Any] = json.loads(subprocess.check_output(command))
    return found


def _missing(folder: Path, count: int) -> int:
    """Return how many of the numbers are not in the files exactly once."""
    numbers = sorted(numbers_in(folder))
    return 0 if numbers == list(range(count)) else abs(count - len(set(numbers))) or 1


def numbers_in(folder: Path) -> list[float]:
    """Return the numbers in the files, in their order.

    Raises:
        ValueError: a file is partial.
    """
    found: list[float] = []
    for path in sorted(folder.glob("metrics_*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["total_records"] != len(data["records"]):
            raise ValueError(f"{path} is partial")
        found += [record["duration_ms"] for record in data["records"]]
    return found


# --- kills ----------------------------------------------------------------------------------------


async def record_for_ever(folder: Path) -> None:
    """Record numbers, and print each with the time at which it was recorded."""
    async with MetricsManager(folder, INTERVAL_S) as manager:
        number = 0
        while True:
            for _ in range(10):
                await manager.record_operation("bench", "operation", number)
                sys.stdout.write(f"{number} {time.time()}\n")
                number += 1
            sys.stdout.flush()
            await asyncio.sleep(0.002)


def kills(count: int, seed: int) -> int:
    """Kill that many processes; return 1 if a file is partial or too much is missing."""
    moments = random.Random(seed)
    wrong, worst = 0, 0.0
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            missing = kill(Path(folder), moments.uniform(0.0, 4 * INTERVAL_S))
        worst = max(worst, missing)
        wrong += missing > INTERVAL_S + SLACK_S
    print(
        f"{count} kills: no file is partial; the oldest record that was missing was {worst:.2f} s "
        f"old, at an interval of {INTERVAL_S:g} s"
    )
    return int(wrong > 0)


def kill(folder: Path, after_s: float) -> float:
    """Kill a process; return how old the oldest record was that is in no file.

    Raises:
        ValueError: a file is partial, or a record is missing before one that is there.
    """
    command = [
        sys.executable, "-m", "benchmarks.operations", "--child", "killed", "--folder", str(folder),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        # read meanwhile, or the process would wait for the pipe
        until = time.monotonic() + after_s
        while time.monotonic() < until:
            lines.append(process.stdout.readline())
        process.kill()
        killed = time.time()
        lines += list(process.stdout)
    found = numbers_in(folder)
    if found != list(range(len(found))):
        raise ValueError("a record is missing before one that is there, or is there twice")
    times = [float(line.split()[1]) for line in lines if line.endswith("\n")]
    return max(0.0, killed - times[len(found)]) if len(found) < len(times) else 0.0


# --- memory ---------------------------------------------------------------------------------------


def memory(count: int) -> int:
    """Record that many operations in this process; return 1 if it grows or loses one."""
    with tempfile.TemporaryDirectory() as folder:
        grown, dropped = asyncio.run(_memory(Path(folder), count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count:,} operations: {grown:+.1f} MiB since the first tenth ({ALLOWED_MIB:g} allowed), "
        f"{peak:.0f} MiB at most, {dropped} dropped"
    )
    return int(grown > ALLOWED_MIB or dropped > 0)


async def _memory(folder: Path, count: int) -> tuple[float, int]:
    """Return by how many MiB the process grew, and how many operations were dropped."""
    process = psutil.Process()
    warm = 0
    # removed as they come, so that the disk does not fill
    async with MetricsManager(folder, overflow="block", max_bytes=10 * 2**20) as manager:
        for number in range(count):
            await manager.record_operation("bench", f"operation {number % 10}", 1.0)
            if number == count // 10:
                warm = process.memory_info().rss
        grown = (process.memory_info().rss - warm) / 2**20
        written = await manager.get_stats()
    stats = await manager.get_stats()
    lost = stats.total_recorded - stats.total_persisted
    assert written.total_recorded == count
    return grown, lost


if __name__ == "__main__":
    main()

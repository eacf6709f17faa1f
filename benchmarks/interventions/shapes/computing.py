"""Shapes that compute: in the event loop, with the GIL, without it, and on a busy machine.

They run in real time, since computing takes no virtual time.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from lab import REAL_TIME, SHAPES, Knobs, line, shape, step, tline, tstep

import otel_pipeline_metrics as opm

__all__ = ["REAL_TIME", "SHAPES"]


def spin(seconds: float) -> None:
    """Compute in Python for so many CPU seconds of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


_BLOCK: Final = bytes(1 << 20)


def _block_s() -> float:
    began = time.thread_time()
    for _ in range(8):
        hashlib.sha256(_BLOCK).digest()
    return (time.thread_time() - began) / 8


def digest(seconds: float) -> None:
    """Compute without the GIL for about so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        hashlib.sha256(_BLOCK[: 1 << 18]).digest()


@shape("event loop", faster="fetch parse write", real=True)
async def one_of_three_computes(k: Knobs) -> int:
    times = k.times("parse", 0.010)

    @opm.process
    async def parse(n: int) -> int:
        spin(times())
        return n

    return await line(80, [(step(k, "fetch", 0.006), 1), (parse, 1), (step(k, "write", 0.006), 1)])


@shape("event loop", faster="fetch parse write", real=True)
async def computing_and_awaiting(k: Knobs) -> int:
    """Each stage computes, and one of them most."""

    def part(name: str, computes_s: float, awaits_s: float) -> Any:
        computing, awaiting = k.times(name, computes_s), k.times(name, awaits_s)

        @opm.process(name)
        async def work(n: int) -> int:
            spin(computing())
            await asyncio.sleep(awaiting())
            return n

        return work

    return await line(
        80,
        [
            (part("fetch", 0.001, 0.010), 2),
            (part("parse", 0.009, 0.001), 2),
            (part("write", 0.002, 0.008), 2),
        ],
    )


@shape("computing", faster="read crunch", gil={"without": ("gil",)}, real=True)
def threads_that_compute(k: Knobs) -> int:
    """Two threads compute in Python: one at a time."""
    times = k.times("crunch", 0.012, "constant")

    @opm.process
    def crunch(n: int) -> int:
        (spin if k.has("gil") else digest)(times())
        return n

    return tline(120, [(tstep(k, "read", 0.002), 1), (crunch, 2)], 8)


@shape("computing", faster="read hash", workers="hash", real=True)
def threads_without_the_gil(k: Knobs) -> int:
    """One thread computes in C, so a second one would help."""
    times = k.times("hash", 0.012, "constant")

    @opm.process("hash")
    def hash_(n: int) -> int:
        digest(times())
        return n

    return tline(120, [(tstep(k, "read", 0.004), 1), (hash_, k.workers("hash", 1))], 8)


@shape("computing", faster="read crunch store", workers="read store", real=True)
def awaiting_beside_computing(k: Knobs) -> int:
    """One stage computes a little; another one waits longer."""
    times = k.times("crunch", 0.004, "constant")

    @opm.process
    def crunch(n: int) -> int:
        spin(times())
        return n

    stages = [
        (tstep(k, "read", 0.003), k.workers("read", 1)),
        (crunch, 1),
        (tstep(k, "store", 0.014), k.workers("store", 1)),
    ]
    return tline(100, stages, 8)


@shape("computing", faster="crunch", real=True)
def computing_alone(k: Knobs) -> int:
    """One loop, one stage, and only computing."""
    times = k.times("crunch", 0.010, "constant")

    @opm.process
    def crunch(n: int) -> int:
        spin(times())
        return n

    for number in range(100):
        crunch(number)
    return 100


@shape("computing", faster="crunch", cpu={"without": ("cpu",)}, real=True)
def processes_on_all_cpus(k: Knobs) -> int:
    """As many processes as CPUs compute."""
    times = k.times("crunch", 0.020, "constant")

    @opm.process("crunch")
    def crunch(futures: list[Any]) -> None:
        for future in futures:
            future.result()

    work = spin if k.has("cpu") else _nothing
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as executor:
        for _ in range(10):
            crunch([executor.submit(work, times()) for _ in range(8)])
    return 80


def _nothing(seconds: float) -> None:
    time.sleep(seconds / 4)


@shape("machine", faster="fetch crunch", machine={"without": ("machine",)}, real=True)
def busy_with_something_else(k: Knobs) -> int:
    """Other programs want all CPUs twice."""
    times = k.times("crunch", 0.012, "constant")

    @opm.process
    def crunch(n: int) -> int:
        spin(times())
        return n

    others = _strangers(2 * (os.cpu_count() or 1)) if k.has("machine") else []
    try:
        return tline(100, [(tstep(k, "fetch", 0.004), 1), (crunch, 1)], 8)
    finally:
        for other in others:
            os.kill(other, signal.SIGTERM)


def _strangers(count: int) -> list[int]:
    """Start processes that compute and are no children of this one; return their numbers."""
    program = (
        "import subprocess, sys\n"
        "for _ in range(int(sys.argv[1])):\n"
        "    command = [sys.executable, '-S', '-c', 'for _ in range(1 << 40): pass']\n"
        "    print(subprocess.Popen(command, stdout=-3, stderr=-3).pid)  # DEVNULL\n"
    )
    command = [sys.executable, "-S", "-c", program, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(number) for number in done.stdout.split()]

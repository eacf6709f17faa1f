"""Programs with threads and processes as people write them, fixed before any verdict was seen."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from lab import REAL_TIME, SHAPES, Knobs, run_threads, shape, step, tline, tq, tstep

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REAL_TIME", "SHAPES"]

_CPUS: Final = os.cpu_count() or 1
_DATA: Final = bytes(range(256)) * 400


def spin(seconds: float) -> float:
    """Compute in Python for so many CPU seconds of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))
    return seconds


def compress_for(seconds: float) -> None:
    """Compute without the GIL for so many CPU seconds of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        zlib.compress(_DATA, 6)


def sleep(seconds: float) -> float:
    """Take as long without a CPU."""
    time.sleep(seconds)
    return seconds


@shape("everyday", faster="parse save", workers="parse")
def executor_map_over_files(k: Knobs) -> int:
    """Five threads parse; the main thread saves in order."""
    parse, save = tstep(k, "parse", 0.050, "exponential"), tstep(k, "save", 0.004, kind="write")
    with ThreadPoolExecutor(k.workers("parse", 5)) as executor:
        for found in executor.map(parse, range(300)):
            save(found)
    return 300


@shape("everyday", faster="read clean flush", workers="clean")
def writer_that_flushes_every_fifty(k: Knobs) -> int:  # noqa: C901 - a pipeline as a whole
    """A reader, three cleaners, and a writer that keeps rows until there are fifty."""
    raw, rows, workers = tq(20, "raw"), tq(20, "rows"), k.workers("clean", 3)
    read, clean = tstep(k, "read", 0.004, kind="fetch"), tstep(k, "clean", 0.010)
    flush_s = k.times("flush", 0.320)

    @opm.write("flush")
    def flush(batch: list[int]) -> None:
        time.sleep(flush_s())

    def reading() -> None:
        for number in range(600):
            raw.put(read(number))
        for _ in range(workers):
            raw.put(None)

    def cleaning() -> None:
        while (row := raw.get()) is not None:
            rows.put(clean(row))

    def cleaned() -> None:
        run_threads([cleaning] * workers)
        rows.put(None)

    def writing() -> None:
        batch: list[int] = []
        while (row := rows.get()) is not None:
            batch.append(row)
            if len(batch) == 50:
                flush(batch)
                batch = []

    run_threads([reading, cleaned, writing])
    return 600


@shape("everyday", faster="query render", workers="all", limits="connections")
def threads_that_share_a_pool(k: Knobs) -> int:
    """Eight threads share three connections, whose pool is wrapped."""
    pool = threading.BoundedSemaphore(k.limit("connections", 3))
    connections: Any = opm.wrap_limit(pool, name="connections")
    query, render = tstep(k, "query", 0.020, kind="fetch"), tstep(k, "render", 0.025)
    jobs, workers = tq(16, "jobs"), k.workers("all", 8)

    def work() -> None:
        while (job := jobs.get()) is not None:
            with connections:
                query(job)
            render(job)

    def fill() -> None:
        for job in itertools.chain(range(400), [None] * workers):
            jobs.put(job)

    run_threads([fill, *[work] * workers])
    return 400


@shape("everyday", faster="load predict")
def model_that_loads_first(k: Knobs) -> int:
    """A model is loaded once, and then asked item by item."""
    load_s, predict = k.times("load", 4.0), tstep(k, "predict", 0.040)

    @opm.fetch("load")
    def load() -> None:
        time.sleep(load_s())

    load()
    for number in range(60):
        predict(number)
    return 60


@shape("everyday", faster="read keep write")
def generators_with_blocks_inside(k: Knobs) -> int:
    """Plain generators, one around the other, with a block inside of each."""
    read_s, keep_s, write = k.times("read", 0.004), k.times("keep", 0.010), tstep(k, "write", 0.003)

    def lines() -> Iterator[int]:
        for number in range(300):
            with opm.fetch("read"):
                time.sleep(read_s())
            yield number

    def kept(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            with opm.process("keep"):
                time.sleep(keep_s())
            yield number

    for number in kept(lines()):
        write(number)
    return 300


@shape("everyday", faster="read compress", workers="compress", real=True)
def compression_in_threads(k: Knobs) -> int:
    """One thread compresses, without the GIL; a second CPU is idle."""
    times = k.times("compress", 0.015, "constant")

    @opm.process("compress")
    def compress(n: int) -> int:
        compress_for(times())
        return n

    return tline(100, [(tstep(k, "read", 0.004), 1), (compress, k.workers("compress", 1))], 8)


@shape("everyday", faster="crunch save", cpu={"without": ("cpu",)}, real=True)
async def process_pool_from_the_loop(k: Knobs) -> int:
    """Many tasks hand their computing to a process pool that is not wrapped."""
    work, crunch_s = (spin if k.has("cpu") else sleep), k.times("crunch", 0.030, "constant")
    save, loop = step(k, "save", 0.004, kind="write"), asyncio.get_running_loop()
    context = multiprocessing.get_context("fork")

    @opm.process("crunch")
    async def crunch(number: int) -> int:
        await loop.run_in_executor(executor, work, crunch_s())
        return number

    async def one(number: int) -> None:
        await save(await crunch(number))

    with ProcessPoolExecutor(2 * _CPUS, mp_context=context) as executor:
        await asyncio.gather(*(one(number) for number in range(40 * _CPUS)))
    return 40 * _CPUS


@shape("everyday", faster="read save", undecorated=True, real=True)
def one_process_behind_imap(k: Knobs) -> int:
    """One process computes what the main one reads and saves."""
    read_s, save = k.times("read", 0.002), tstep(k, "save", 0.003, kind="write")
    work_s = k.times("undecorated", 0.020, "constant")

    @opm.fetch("read")
    def read() -> float:
        time.sleep(read_s())
        return work_s()

    with multiprocessing.get_context("fork").Pool(1) as pool:
        for found in pool.imap(spin, (read() for _ in range(100))):
            save(found)
    return 100


@shape("everyday", faster="convert", cpu={"without": ("cpu",)}, real=True)
def program_for_each_file(k: Knobs) -> int:
    """Threads start a program for each file, twice as many at a time as there are CPUs."""
    times, left = k.times("convert", 0.150, "constant"), iter(range(12 * _CPUS))
    computes = (
        "import time\nwhile time.process_time() < {0}: pass"
        if k.has("cpu")
        else "import time\ntime.sleep({0})"
    )

    @opm.process("convert")
    def convert(number: int) -> None:
        program = computes.format(times())
        subprocess.run([sys.executable, "-S", "-c", program], check=True)

    def work() -> None:
        for number in left:
            convert(number)

    run_threads([work] * (2 * _CPUS))
    return 12 * _CPUS


@shape("everyday", faster="fetch parse", gil={"without": ("gil",)}, real=True)
async def parsing_in_a_thread(k: Knobs) -> int:
    """A few tasks fetch, and parse in a thread, where the GIL lets one of them run."""
    fetch, parse_s = step(k, "fetch", 0.008, kind="fetch"), k.times("parse", 0.010, "constant")

    @opm.process("parse")
    async def parse(number: int) -> None:
        await asyncio.to_thread(spin if k.has("gil") else compress_for, parse_s())

    left = iter(range(120))

    async def work() -> None:
        for number in left:
            await parse(await fetch(number))

    await asyncio.gather(*(work() for _ in range(4)))
    return 120

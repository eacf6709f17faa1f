"""Pipelines of fetch 2 ms, process 5 ms and write 20 ms, with queues of four between them."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from otel_pipeline_metrics.analysis import analyze
from tests.analysis.support import change

if TYPE_CHECKING:
    from otel_pipeline_metrics import RunReport

ITEMS = 100


def stages_of(report: RunReport) -> dict[str, Any]:
    return {entry["name"]: entry for entry in report.stages}


@opm.fetch
async def fetch(item: int) -> int:
    await asyncio.sleep(0.002)
    return item


@opm.process
async def process(item: int) -> int:
    await asyncio.sleep(0.005)
    return item


@opm.write
async def write(item: int) -> None:
    await asyncio.sleep(0.02)


async def pipeline() -> RunReport:
    async with opm.run("example", resources=False) as run:
        fetched: Any = opm.wrap_queue(asyncio.Queue(4), name="fetched")
        processed: Any = opm.wrap_queue(asyncio.Queue(4), name="processed")

        async def fetching() -> None:
            for item in range(ITEMS):
                await fetched.put(await fetch(item))
            await fetched.put(None)

        async def processing() -> None:
            while (item := await fetched.get()) is not None:
                await processed.put(await process(item))
            await processed.put(None)

        async def writing() -> None:
            while (item := await processed.get()) is not None:
                await write(item)

        await asyncio.gather(fetching(), processing(), writing())
    return run.report


def test_times_are_exact_in_virtual_time() -> None:
    """The stage `write` begins after 7 ms and is busy from then on."""
    report = _virtual_time.run(pipeline())
    found = stages_of(report)

    assert pytest.approx(report.run["wall_s"]) == 2.007
    assert pytest.approx(found["write"]["time_s"]) == {
        "wall": 2.007,
        "running": 0.0,
        "awaiting": 2.0,
        "busy": 2.0,
        "idle": 0.007,
        "blocked": 0.0,
        "loop_wait_most": 0.0,
        "split_standard_error": 0.0,
    }
    assert pytest.approx(found["process"]["time_s"]["busy"]) == 0.5
    assert pytest.approx(found["process"]["time_s"]["idle"]) == 0.002
    assert found["process"]["share"]["blocked"] > 0.6
    assert pytest.approx(found["fetch"]["time_s"]["busy"]) == 0.2
    assert pytest.approx(found["fetch"]["time_s"]["idle"]) == 0.0

    verdict = analyze(report)

    assert (
        verdict["kind"], verdict["stage"], verdict["confidence"],
    ) == ("stage", "write", "high")  # fmt: skip
    low, high, following = change(verdict, "workers", "write")
    assert low <= 1.0 <= high
    assert following == "write"


async def test_write_limits_the_run_in_real_time() -> None:
    report = await pipeline()

    assert analyze(report)["stage"] == "write"
    # on a machine with other work, sleeps last longer than asked
    assert stages_of(report)["process"]["share"]["blocked"] > 0.3


def test_threads_without_the_context_of_the_run_are_counted() -> None:

    @opm.stage("read", kind="fetch")
    def read(item: int) -> int:
        time.sleep(0.001)
        return item

    @opm.stage("store", kind="write")
    def store(item: int) -> None:
        time.sleep(0.01)

    with opm.run("threads", resources=False) as run:
        between: Any = opm.wrap_queue(queue.Queue(4), name="between")

        def reading() -> None:
            for item in range(60):
                between.put(read(item))
            for _ in range(2):
                between.put(None)

        def storing() -> None:
            while (item := between.get()) is not None:
                store(item)

        threads = [threading.Thread(target=target) for target in (reading, storing, storing)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    verdict = analyze(run.report)

    assert (verdict["kind"], verdict["stage"]) == ("stage", "store")
    assert stages_of(run.report)["store"]["workers"] == 2
    low, high, _ = change(verdict, "workers", "store")
    assert low <= 0.5 <= high


async def in_one_loop(times: dict[str, float]) -> RunReport:
    """Run all stages one after the other in one task, with queues between them."""
    async with opm.run("in turn", resources=False) as run:
        queues: list[Any] = [
            opm.wrap_queue(asyncio.Queue(4), name=f"q{number}") for number in range(len(times) - 1)
        ]
        stages = [opm.stage(name=name)(asyncio.sleep) for name in times]
        for _ in range(40):
            for number, (work, duration) in enumerate(zip(stages, times.values(), strict=True)):
                if number:
                    await queues[number - 1].get()
                await work(duration)
                if number < len(queues):
                    await queues[number].put(0)
    return run.report


def test_stages_in_one_loop_take_turns() -> None:
    alike = analyze(_virtual_time.run(in_one_loop({"p": 0.02, "w": 0.02})))
    three = analyze(
        _virtual_time.run(in_one_loop({"fetch": 0.001, "process": 0.02, "write": 0.004}))
    )

    assert alike["kind"] == "serial"
    assert alike["confidence"] != "high"
    low, high, _ = change(alike, "faster", alike["name"])
    assert low <= 1 / 3 <= high
    assert (three["kind"], three["name"], three["stage"]) == ("serial", "process", "process")
    assert "Only one step runs at a time" in three["why"]
    low, high, _ = change(three, "faster", "process")
    # 20 of 25 ms become 10
    assert low <= 25 / 15 - 1 <= high

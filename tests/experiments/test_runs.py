"""Runs with experiments: what they predict, in virtual time, and that they change nothing."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time
from otel_pipeline_metrics._core import hooks
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.flow import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def experiments(report: RunReport) -> dict[str, Any]:
    return {row["name"]: row for row in report.bottleneck["experiments"]}


def stage(name: str, seconds: float) -> Any:
    @opm.stage(name)
    async def work(item: Any) -> Any:
        await asyncio.sleep(seconds)
        return item

    return work


async def pump(source: Any, work: Any, sink: Any, done: list[Any] | None = None) -> None:
    while (item := await source.get()) is not None:
        made = await work(item)
        if sink is not None:
            await sink.put(made)
        if done is not None:
            done.append(made)
    if sink is not None:
        await sink.put(None)


def line(
    items: int, seconds: dict[str, float], done: list[Any] | None = None
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a pipeline of stages with one worker each, joined by wrapped queues of one."""

    async def main() -> None:
        queues = [opm.wrap_queue(asyncio.Queue(1), name=name) for name in seconds]
        sinks = [*queues[1:], None]

        async def feed() -> None:
            for number in range(items):
                await queues[0].put(number)
            await queues[0].put(None)

        stages = zip(queues, seconds.items(), sinks, strict=True)
        pumps = [
            pump(source, stage(name, mean_s), sink, done if sink is None else None)
            for source, (name, mean_s), sink in stages
        ]
        await asyncio.gather(feed(), *pumps)

    return main


def virtually(main: Callable[[], Coroutine[Any, Any, Any]], **given: Any) -> RunReport:
    async def run() -> RunReport:
        async with opm.run("r", resources=False, report=None, **given) as run:
            await main()
        return run.report

    return _virtual_time.run(run())


def test_a_line_in_virtual_time() -> None:
    """Twice as fast, the second stage leaves 12 ms of 20: two thirds more throughput."""
    report = virtually(line(3000, {"a": 0.006, "b": 0.020, "c": 0.012}), experiment=True)
    found = experiments(report)
    assert found["b"]["predicted"] == pytest.approx(2 / 3, abs=0.06)
    assert found["a"]["predicted"] == pytest.approx(0.0, abs=0.02)
    assert found["c"]["predicted"] == pytest.approx(0.0, abs=0.02)
    for row in found.values():
        low, high = row["interval"]
        assert 0 <= low <= row["predicted"] <= high
        assert row["invocations"] >= 20
        assert (row["change"], row["stage"], row["by"], row["why"]) == (
            "faster", row["name"], 2, None,
        )  # fmt: skip
    assert found["b"]["confirmed"] is True
    assert report.bottleneck["name"] == "b"
    assert report.bottleneck["confirmed"] is True


def test_it_slows_the_run_by_a_tenth_at_most() -> None:
    main = line(3000, {"a": 0.014, "b": 0.020, "c": 0.018})
    usual, tried = (virtually(main, experiment=on) for on in (False, True))
    slowed = tried.run["wall_s"] / usual.run["wall_s"] - 1
    assert 0 < slowed <= 0.1
    assert tried.run["experiment"] is not None
    assert tried.run["experiment"]["slowed"] == pytest.approx(slowed, abs=0.03)
    assert tried.run["experiment"]["paused_s"] > 0
    assert "experiment" not in usual.run
    assert "experiments" not in usual.bottleneck


def test_nothing_is_dropped_repeated_or_swapped() -> None:
    done: list[Any] = []
    virtually(line(2000, {"a": 0.006, "b": 0.020, "c": 0.012}, done), experiment=True)
    assert done == list(range(2000))


def test_what_overlaps_nothing_gains_by_amdahl() -> None:
    """15, 6 and 9 ms in turn."""
    read, parse, write = stage("read", 0.015), stage("parse", 0.006), stage("write", 0.009)

    async def main() -> None:
        for number in range(2000):
            await write(await parse(await read(number)))

    report = virtually(main, experiment=True)
    found = experiments(report)
    assert found["read"]["predicted"] == pytest.approx(30 / 22.5 - 1, abs=0.02)
    assert found["parse"]["predicted"] == pytest.approx(30 / 27 - 1, abs=0.02)
    assert found["write"]["predicted"] == pytest.approx(30 / 25.5 - 1, abs=0.02)
    # without queues, the time of workers is not shared out: pauses are nobody's waits
    assert report.stages[0]["time_s"]["idle"] in (None, 0.0)
    assert report.stages[0]["self_s"] == pytest.approx(2000 * 0.015, rel=0.01)


def test_a_lock_that_nobody_wrapped_holds_back_two_stages() -> None:
    lock = asyncio.Lock()

    def locked(name: str, seconds: float) -> Any:
        @opm.stage(name)
        async def work(item: int) -> int:
            async with lock:
                await asyncio.sleep(seconds)
            return item

        return work

    a, b = locked("a", 0.010), locked("b", 0.010)

    async def main() -> None:
        async def each(start: int) -> None:
            for number in range(start, start + 800):
                await b(await a(number))

        await asyncio.gather(*(each(start) for start in (0, 1000, 2000)))

    found = experiments(virtually(main, experiment=True))
    for name in ("a", "b"):
        assert found[name]["predicted"] == pytest.approx(1 / 3, abs=0.1)


def test_a_rate_inside_of_a_stage_is_null() -> None:
    async def main() -> None:
        free_at = 0.0

        @opm.stage("call")
        async def call(item: int) -> int:
            nonlocal free_at
            now = asyncio.get_running_loop().time()
            begin = max(free_at, now)
            free_at = begin + 0.02
            await asyncio.sleep(begin - now + 0.02)
            return item

        async def each() -> None:
            for number in range(700):
                await call(number)

        await asyncio.gather(*(each() for _ in range(4)))

    row = experiments(virtually(main, experiment=True))["call"]
    assert (row["predicted"], row["interval"], row["confirmed"]) == (None, None, None)
    assert "may be a limit" in row["why"]


def test_too_short_a_run_says_null() -> None:
    report = virtually(line(30, {"a": 0.006, "b": 0.020}), experiment=True)
    for row in experiments(report).values():
        assert (row["predicted"], row["interval"], row["confirmed"]) == (None, None, None)
        assert row["why"]
    assert report.bottleneck["confirmed"] is None


def test_threads_in_virtual_time() -> None:
    with _virtual_time.virtual_time():
        a, b = (opm.wrap_queue(queue.Queue(4), name=name) for name in "ab")

        @opm.stage("quick")
        def quick(item: int) -> int:
            time.sleep(0.008)
            return item

        @opm.stage("slow")
        def slow(item: int) -> int:
            time.sleep(0.020)
            return item

        done: list[int] = []

        def first() -> None:
            while (item := a.get()) is not None:
                b.put(quick(item))
            b.put(None)

        def second() -> None:
            while (item := b.get()) is not None:
                done.append(slow(item))

        with opm.run("r", resources=False, report=None, experiment=True) as run:
            threads = [threading.Thread(target=body) for body in (first, second)]
            for thread in threads:
                thread.start()
            for number in range(2500):
                a.put(number)
            a.put(None)
            for thread in threads:
                thread.join()
    assert done == list(range(2500))
    found = experiments(run.report)
    assert found["slow"]["predicted"] == pytest.approx(1.0, abs=0.03)
    assert found["quick"]["predicted"] == pytest.approx(0.0, abs=0.03)


def test_a_cancelled_task_cancels_the_stage_that_had_not_begun() -> None:
    """A pause before a stage keeps the program's order: its `finally` runs, and nothing is lost."""
    begun, ended = [], []

    @opm.stage("slow")
    async def slow(item: int) -> int:
        await asyncio.sleep(0.02)
        return item

    @opm.stage("other")
    async def other(item: int) -> int:
        begun.append(item)
        try:
            await asyncio.sleep(0.012)
        finally:
            ended.append(item)
        return item

    async def main() -> None:
        cancelled = 0

        async def one() -> None:
            for number in range(2000):
                await slow(number)

        async def two() -> None:
            nonlocal cancelled
            for number in range(2000):
                task = asyncio.ensure_future(other(number))
                await asyncio.sleep(0.009 if number % 3 else 0.001)
                if number % 3 == 0:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    cancelled += 1
                else:
                    assert await task == number

        await asyncio.gather(one(), two())
        assert cancelled == 667

    virtually(main, experiment=True)
    assert begun == ended == list(range(2000))


def test_the_hot_path_is_left_as_it_was() -> None:
    before = hooks.workers
    virtually(line(50, {"a": 0.001}), experiment=True)
    assert hooks.pausing is None
    assert type(hooks.workers).__name__ == "Accounting"
    assert before is None or type(before) is type(hooks.workers)


def test_one_run_at_a_time_experiments() -> None:
    with opm.run("outer", resources=False, report=None, experiment=True) as outer:
        inner = opm.run("inner", resources=False, report=None, experiment=True)
        with inner, opm.stage("x"):
            pass
        assert type(hooks.workers).__name__ == "Experiment"
    rows = experiments(inner.report)
    assert rows["x"]["why"] == "another run of this process was experimenting"
    assert hooks.pausing is None
    assert outer.report.bottleneck["experiments"] == []


def test_the_argument_is_checked() -> None:
    with pytest.raises(TypeError, match="experiment"):
        opm.run("x", experiment=1)  # type: ignore[arg-type]


def test_each_call_of_a_decorated_function_experiments() -> None:
    @opm.run("each", resources=False, report=None, experiment=True)
    def job() -> str:
        return type(hooks.workers).__name__

    assert job() == job() == "Experiment"


def test_the_report_tells_it() -> None:
    report = virtually(line(3000, {"a": 0.006, "b": 0.020, "c": 0.012}), experiment=True)
    told = verdict(report).experiments
    assert told is not None
    assert told.startswith("Experiments: twice as fast, b 6")
    assert "a and c next to nothing. That bears the verdict out." in told
    assert "They slowed the run by about" in told
    for text in (report.render("console"), report.render("markdown")):
        assert "bears the verdict out" in " ".join(text.split()).replace("> ", "")
    loaded = RunReport(report.to_dict())
    assert verdict(loaded).experiments == told


def test_what_cannot_be_paused_is_null() -> None:
    """A plain function on an event loop holds up all others: it is not paused."""

    @opm.stage("plain")
    def plain(item: int) -> int:
        return item

    async def main() -> None:
        for number in range(2000):
            plain(number)
            await asyncio.sleep(0.02)

    row = experiments(virtually(main, experiment=True))["plain"]
    assert row["predicted"] is None
    assert row["why"] == "its calls cannot be paused"


def test_it_ends_when_there_is_nothing_more_to_find_out() -> None:
    left: list[str] = []

    async def main() -> None:
        await line(3000, {"a": 0.006, "b": 0.020})()
        left.append(type(hooks.workers).__name__)

    report = virtually(main, experiment=True)
    assert left == ["Accounting"]
    assert experiments(report)["b"]["predicted"] == pytest.approx(1.0, abs=0.06)

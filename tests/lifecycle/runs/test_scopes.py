"""Test which run a stage belongs to: nested and concurrent runs, tasks, threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.lifecycle.configure.support import Captured


@opm.process
def work() -> None: ...


@opm.process
async def work_and_wait() -> None:
    await asyncio.sleep(0)


def counts(run: opm.Run) -> dict[str, int]:
    return {stage["name"]: stage["count"] for stage in run.report.stages}


def in_thread(function: Callable[[], Any]) -> None:
    """Run in a thread that has no context of a run."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_nested_runs_keep_their_own_stages() -> None:
    with opm.run("outer", resources=False) as outer:
        work()
        with opm.run("inner", resources=False) as inner:
            work()
            work()
        work()
    assert (counts(outer), counts(inner)) == ({"work": 2}, {"work": 2})


def test_nested_runs_in_telemetry(captured: Captured) -> None:
    captured.configure(console=False)
    with opm.run("outer", resources=False) as outer:
        work()
        with opm.run("inner", resources=False) as inner:
            work()
            work()
    values = captured.values("pipeline.stage.duration", "pipeline.name")
    assert values == {"outer": 1, "inner": 2}
    spans = captured.spans()
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    (outer_span,), (inner_span,) = by_name["run outer"], by_name["run inner"]
    assert inner_span.parent is not None
    assert inner_span.parent.span_id == outer_span.context.span_id
    parents = [span.parent.span_id for span in by_name["work"] if span.parent is not None]
    assert parents == [
        outer_span.context.span_id,
        inner_span.context.span_id,
        inner_span.context.span_id,
    ]
    assert inner.report.run["trace_id"] == outer.report.run["trace_id"]


async def test_concurrent_runs_in_tasks() -> None:
    async def pipeline(name: str, times: int) -> opm.Run:
        async with opm.run(name, resources=False) as run:
            for _ in range(times):
                await work_and_wait()
        return run

    runs = await asyncio.gather(*(pipeline(f"run-{n}", n) for n in range(1, 6)))
    assert [counts(run) for run in runs] == [{"work_and_wait": n} for n in range(1, 6)]


async def test_tasks_of_a_run_belong_to_it() -> None:
    async with opm.run("one", resources=False) as one, opm.run("two", resources=False) as two:
        await asyncio.gather(*(work_and_wait() for _ in range(3)))
        await asyncio.to_thread(work)
    assert (counts(one), counts(two)) == ({}, {"work_and_wait": 3, "work": 1})


def test_concurrent_runs_in_threads() -> None:
    barrier = threading.Barrier(4)
    runs: dict[int, opm.Run] = {}

    def pipeline(number: int) -> None:
        with opm.run(f"run-{number}", resources=False) as run:
            barrier.wait(10)
            for _ in range(number):
                work()
            barrier.wait(10)
        runs[number] = run

    threads = [threading.Thread(target=pipeline, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: counts(run) for n, run in runs.items()} == {n: {"work": n} for n in range(1, 5)}


def test_threads_without_context_belong_to_the_only_run() -> None:
    with opm.run("only", resources=False) as run:
        in_thread(work)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: work(), range(5)))
    assert counts(run) == {"work": 6}


def test_a_pool_started_before_the_run_belongs_to_it_during_the_run() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
        with opm.run("only", resources=False) as run:
            pool.submit(work).result()
        pool.submit(work).result()
    assert counts(run) == {"work": 1}


def test_with_two_runs_a_thread_without_context_belongs_to_neither(captured: Captured) -> None:
    """Its stages are outside runs; with one run left, they belong to that run again."""
    captured.configure(console=False)
    with opm.run("one", resources=False) as one:
        with opm.run("two", resources=False) as two:
            in_thread(work)
        in_thread(work)
    assert (counts(one), counts(two)) == ({"work": 1}, {})
    values = captured.values("pipeline.stage.duration", "pipeline.name")
    assert values == {None: 1, "one": 1}


def test_a_copied_context_decides_between_two_runs() -> None:
    with opm.run("one", resources=False) as one:
        context = contextvars.copy_context()
        with opm.run("two", resources=False) as two:
            in_thread(lambda: context.run(work))
    assert (counts(one), counts(two)) == ({"work": 1}, {})


def test_outside_any_run_a_stage_has_no_pipeline(captured: Captured) -> None:
    captured.configure(console=False)
    work()
    with opm.run("r", resources=False) as run:
        pass
    work()
    assert counts(run) == {}
    assert captured.values("pipeline.stage.duration", "pipeline.name") == {None: 2}


def in_a_context_of_its_own(function: Callable[[], None]) -> None:
    """Run in a copied context, so that it changes no other test's."""
    contextvars.copy_context().run(function)


def test_metrics_have_a_stage_that_outlives_its_run(captured: Captured) -> None:
    """The report is final by then; the metrics also get later calls."""
    captured.configure(console=False)
    durations = ("pipeline.stage.duration", "pipeline.stage.name")

    def program() -> None:
        block = opm.stage("long")
        with opm.run("short", resources=False) as run:
            block.__enter__()
        block.__exit__(None, None, None)
        assert counts(run) == {"long": 0}  # in progress
        assert captured.values(*durations) == {"long": 1}
        work()
        assert captured.values(*durations) == {"long": 1, "work": 1}

    in_a_context_of_its_own(program)


async def test_metrics_have_a_task_that_outlives_its_run(captured: Captured) -> None:
    """Its context still has the run, whose report is final."""
    captured.configure(console=False)
    durations = ("pipeline.stage.duration", "pipeline.stage.name")
    over = asyncio.Event()

    async def background() -> None:
        await over.wait()
        work()
        await work_and_wait()

    async with opm.run("short", resources=False) as run:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
    captured.points()  # a collection, after which the run is dropped
    over.set()
    await task
    assert counts(run) == {}
    assert captured.values(*durations) == {"work": 1, "work_and_wait": 1}


def test_a_stage_is_active_only_during_a_call(captured: Captured) -> None:
    """The last value of a run that has ended is 0."""
    captured.configure(console=False)
    name = "pipeline.stage.active"
    with opm.run("r", resources=False), opm.stage("s"):
        assert captured.values(name, "pipeline.name", "pipeline.stage.name")["r", "s"] == 1
    assert captured.values(name, "pipeline.name", "pipeline.stage.name").get(("r", "s")) == 0


async def test_generators_of_a_run_belong_to_it() -> None:
    @opm.fetch
    def numbers() -> Iterator[int]:
        yield from range(3)

    @opm.fetch
    async def letters() -> AsyncIterator[str]:
        for letter in "ab":
            yield letter

    async with opm.run("r", resources=False) as run:
        assert list(numbers()) == [0, 1, 2]
        assert [letter async for letter in letters()] == ["a", "b"]
    assert counts(run) == {"numbers": 1, "letters": 1}


async def test_a_run_may_end_in_another_task_than_the_one_of_its_begin() -> None:
    """Frameworks do so in fixtures and lifespans, without a warning or an open span."""
    run = opm.run("r", resources=False)
    await asyncio.create_task(run.__aenter__())
    in_thread(work)
    await asyncio.create_task(run.__aexit__(None, None, None))
    assert (run.report.run["result"], counts(run)) == ("success", {"work": 1})
    in_thread(work)
    assert counts(run) == {"work": 1}

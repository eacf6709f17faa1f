"""Test which stage the time of a worker belongs to, and which tasks are workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import hooks
from otel_pipeline_metrics._stages.workers import account as _worker
from tests.probes.queues.support import (
    NOTHING,
    feed,
    play,
    queue,
    queue_of,
    sleep,
    stage_of,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.conftest import Clock


def test_feeding_and_joining_belong_to_no_later_stage(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = queue(1)

    async def worker() -> None:
        while True:
            await q.get()
            with opm.stage("work"):
                await sleep(2)
            q.task_done()

    async def main() -> None:
        task = asyncio.create_task(worker())
        await sleep(1)
        for n in range(4):
            await sleep(0.5)
            await q.put(n)
        await q.join()
        with opm.stage("summary"):
            await sleep(1)
        task.cancel()

    with make_run() as run:
        play(clock, main())
    assert states(run, "summary") == NOTHING
    assert stage_of(run, "summary")["duration_s"]["total"] == 1.0
    # fed from 1.5 on: idle until then, and while main is at its summary
    assert states(run, "work") == (8.0, 2.5, 0.0)


def test_a_stage_that_feeds_and_joins_has_that_time(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    q = queue(1)

    async def worker() -> None:
        while True:
            await q.get()
            with opm.stage("work"):
                await sleep(2)
            q.task_done()

    async def main() -> None:
        task = asyncio.create_task(worker())
        for n in range(3):
            with opm.stage("fetch"):
                await sleep(0.5)
            await q.put(n)
        await q.join()
        with opm.stage("summary"):
            await sleep(1)
        with opm.stage("fetch"):
            await sleep(0.5)
        task.cancel()

    with make_run() as run:
        play(clock, main())
    # fetched at 0.5, 1.0 and 1.5, when there is room only at 2.5
    assert states(run, "fetch") == (2.0, 0.0, 1.0)
    assert states(run, "summary") == NOTHING


def test_the_waits_of_a_worker_without_a_stage_belong_to_none(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    a, b = queue(0, "a"), queue(1, "b")

    async def forward() -> None:
        while True:
            await b.put(await a.get())

    async def main() -> None:
        task = asyncio.create_task(forward())
        await feed(a, 1, 1, 1)
        await sleep(5)
        task.cancel()
        with opm.stage("unrelated"):
            await sleep(1)

    with make_run() as run:
        play(clock, main())
    assert states(run, "unrelated") == NOTHING
    assert [s["name"] for s in run.report.to_dict()["stages"]] == ["unrelated"]
    assert queue_of(run, "b")["put_blocked_s"] == 6.0


def test_the_states_of_a_stage_without_a_queue_are_null(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Even if other stages of the pipeline have one."""
    q = queue()

    async def with_queue() -> None:
        await q.get()
        with opm.stage("seen"):
            await sleep(1)

    async def without() -> None:
        with opm.stage("unseen"):
            await sleep(1)

    async def main() -> None:
        await asyncio.gather(with_queue(), without(), feed(q, 1))

    with make_run() as run:
        play(clock, main())
    assert states(run, "seen") == (1.0, 1.0, 0.0)
    assert states(run, "unseen") == NOTHING
    unseen = stage_of(run, "unseen")
    assert unseen["workers"] is None
    assert unseen["workers"] is None


def test_a_queue_may_be_wrapped_after_stages_have_run(
    clock: Clock, make_run: Callable[[], opm.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished calls count as durations, open ones from their begin."""
    monkeypatch.setattr(hooks, "workers", None)

    @opm.stage
    async def work() -> None:
        await sleep(1)

    async def main() -> None:
        with opm.stage("around"):
            await work()
            q = queue()
            feeder = asyncio.create_task(feed(q, 2))
            await q.get()
            await work()
            await feeder

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == NOTHING  # itself, it has no queue
    assert stage_of(run, "work")["duration_s"]["total"] == 2.0
    assert states(run, "around") == (2.0, 2.0, 0.0)


def test_a_child_task_may_wrap_the_first_queue(
    clock: Clock, make_run: Callable[[], opm.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's stage continues unchanged."""
    monkeypatch.setattr(hooks, "workers", None)

    async def child() -> None:
        q = queue()
        feeder = asyncio.create_task(feed(q, 2))
        await q.get()
        with opm.stage("inner"):
            await sleep(1)
        await feeder

    async def main() -> None:
        with opm.stage("around"):
            await asyncio.create_task(child())

    with make_run() as run:
        play(clock, main())
    assert states(run, "inner") == (1.0, 2.0, 0.0)
    assert states(run, "around") == NOTHING
    assert stage_of(run, "around")["duration_s"]["total"] == 3.0


def test_child_tasks_of_a_stage_are_workers(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    """Their overlapping waits do not count as the stage's."""
    source = queue()

    async def child() -> None:
        await source.get()
        await sleep(1)

    async def child_with_stage() -> None:
        await source.get()
        with opm.stage("inner"):
            await sleep(1)

    async def main() -> None:
        feeder = asyncio.create_task(feed(source, 1, 1, 1, 1))
        with opm.stage("outer"):
            await asyncio.gather(*(child() for _ in range(3)), child_with_stage())
        await feeder

    with make_run() as run:
        play(clock, main())
    assert states(run, "outer") == NOTHING
    assert stage_of(run, "outer")["duration_s"]["total"] == 5.0
    assert states(run, "inner") == (1.0, 4.0, 0.0)


def test_the_workers_of_a_task_for_each_item_are_bounded(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    async def one() -> None:
        await source.get()
        with opm.stage("work"):
            await sleep(1)

    async def main() -> None:
        for n in range(1000):
            source.put_nowait(n)
        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(100)))

    with make_run() as run:
        play(clock, main())
        (series,) = [s for s in run._scope.series.values() if s.key.stage == "work"]
        assert len(run._scope.workers) <= _worker.MAX_WORKERS
    assert states(run, "work") == (1000.0, 0.0, 0.0)
    assert len(series.times.states) == _worker.MAX_WORKERS + 1
    assert stage_of(run, "work")["count"] == 1000


def test_late_workers_are_seen_after_many_others(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    source = queue()

    async def one() -> None:
        with opm.stage("early"):
            await sleep(1)

    async def late() -> None:
        while True:
            await source.get()
            with opm.stage("late"):
                await sleep(1)

    async def main() -> None:
        for _ in range(300):
            await asyncio.create_task(one())
        task = asyncio.create_task(late())
        await source.put(1)
        await sleep(5)
        run.__exit__(None, None, None)
        task.cancel()

    run = make_run()
    run.__enter__()
    play(clock, main())
    assert states(run, "late") == (1.0, 4.0, 0.0)

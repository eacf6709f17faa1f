"""Test the time of workers whose steps of a generator are logged as one."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._stages.workers import accounting
from otel_pipeline_metrics._stages.workers.finding import worker_of_context
from tests.probes.queues.support import play, stage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from otel_pipeline_metrics._stages.workers.worker import Run
    from tests.conftest import Clock

pytestmark = pytest.mark.usefixtures("few_calls_sampled")


@pytest.fixture
def items(clock: Clock) -> Callable[[], Iterator[int]]:
    """A generator whose items take a second each."""

    @opm.stage("items")
    def items() -> Iterator[int]:
        for number in range(100):
            clock.advance(1)
            yield number

    return items


def run_of_steps() -> Run | None:
    worker = worker_of_context.get()
    return None if worker is None else worker.run


def states(run: opm.Run, name: str = "items") -> dict[str, Any]:
    row = stage_of(run, name)
    time_s = {state: row["time_s"][state] for state in ("busy", "idle", "blocked")}
    return {**time_s, "workers": row["workers"]}


def test_steps_are_logged_as_one(clock: Clock, items: Callable[[], Iterator[int]]) -> None:
    with opm.run("test", resources=False) as run:
        waiting = opm.wrap_queue(queue.Queue(), name="waiting")
        source = items()
        for _ in range(10):
            next(source)
            clock.advance(2)
        steps = run_of_steps()
        assert steps is not None
        assert steps.part.open_s == 10.0
        log = steps.worker.log
        logged = len(log)
        next(source)
        assert len(log) == logged
        # the time between items is the stage's too, once it puts them
        waiting.put(1)
        assert run_of_steps() is None
        assert states(run) == {"busy": 31.0, "idle": 0.0, "blocked": 0.0, "workers": 1}
        next(source)
        source.close()
    assert states(run) == {"busy": 32.0, "idle": 0.0, "blocked": 0.0, "workers": 1}
    assert stage_of(run, "items")["wall_s"] == 12.0


def test_a_worker_that_uses_no_queue_is_not_known(items: Callable[[], Iterator[int]]) -> None:
    with opm.run("test", resources=False) as run:
        opm.wrap_queue(queue.Queue(), name="elsewhere")
        for _ in items():
            pass
    assert states(run) == {"busy": 100.0, "idle": 0.0, "blocked": 0.0, "workers": None}


def test_steps_so_far(clock: Clock) -> None:
    found: list[dict[str, Any]] = []

    @opm.stage("items")
    def items() -> Iterator[int]:
        for number in range(6):
            clock.advance(1)
            found.append(states(run))
            clock.advance(1)
            yield number

    with opm.run("test", resources=False) as run:
        waiting = opm.wrap_queue(queue.Queue(), name="waiting")
        source = items()
        next(source)
        waiting.put(1)
        for number in range(5):
            clock.advance(4)
            next(source)
            found.append(states(run))
            assert number == 0 or run_of_steps() is not None
    busy = [each["busy"] for each in found]
    # within a step and after it
    assert busy == [1.0, 7.0, 8.0, 13.0, 14.0, 19.0, 20.0, 25.0, 26.0, 31.0, 32.0]


def test_a_collection_shows_the_steps_so_far(
    clock: Clock, items: Callable[[], Iterator[int]]
) -> None:
    reader = InMemoryMetricReader()
    opm.configure(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    waiting = opm.wrap_queue(queue.Queue(), name="waiting")
    source = items()
    next(source)
    waiting.put(1)
    for _ in range(9):
        next(source)
    assert run_of_steps() is not None
    assert _seconds(reader) == 10.0
    next(source)
    assert run_of_steps() is not None
    assert _seconds(reader) == 11.0
    source.close()


def _seconds(reader: InMemoryMetricReader) -> float:
    data = reader.get_metrics_data()
    assert data is not None
    return sum(
        point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "pipeline.stage.time"
        for point in metric.data.data_points
    )


def test_what_happens_in_a_step_ends_the_run_of_steps(clock: Clock) -> None:
    waiting: Any = None

    @opm.stage("inner")
    def inner() -> None:
        clock.advance(1)

    @opm.stage("items")
    def items() -> Iterator[int]:
        for number in range(9):
            clock.advance(1)
            if number == 4:
                assert run_of_steps() is not None
                inner()
                assert run_of_steps() is None
            if number == 7:
                assert run_of_steps() is not None
                with opm.waiting(state="idle"):
                    clock.advance(2)
                waiting.put(1)
                assert run_of_steps() is None
            yield number

    with opm.run("test", resources=False) as run:
        waiting = opm.wrap_queue(queue.Queue(), name="waiting")
        for _ in items():
            clock.advance(1)
    assert states(run) == {"busy": 10.0 + 9.0, "idle": 2.0, "blocked": 0.0, "workers": 1}
    row = stage_of(run, "items")
    assert (row["self_s"], row["wall_s"]) == (9.0, 12.0)
    assert states(run, "inner")["busy"] == 1.0


def test_threads_that_pull_one_generator(clock: Clock, items: Callable[[], Iterator[int]]) -> None:
    turns = [threading.Semaphore(0), threading.Semaphore(0)]
    seen: list[bool] = []

    def pull(own: int) -> None:
        for several in (3, 2, 1):
            assert turns[own].acquire(timeout=60)
            for _ in range(several):
                next(source)
            steps = run_of_steps()
            seen.append(steps is not None and steps.thread == threading.get_ident())
            turns[1 - own].release()
        waiting.put(own)

    with opm.run("test", resources=False) as run:
        waiting = opm.wrap_queue(queue.Queue(), name="waiting")
        source = items()
        threads = [threading.Thread(target=pull, args=(own,)) for own in range(2)]
        for thread in threads:
            thread.start()
        turns[0].release()
        for thread in threads:
            thread.join()
        source.close()
    assert seen == [True] * 6
    # each was at it from its first item to its last, and a third one closed it
    row = stage_of(run, "items")
    assert (row["workers"], row["wall_s"], row["time_s"]["busy"]) == (3, 12.0, 11.0 + 9.0)
    assert row["busiest_s"] == 11.0


def test_tasks_that_pull_one_generator(clock: Clock, items: Callable[[], Iterator[int]]) -> None:
    async def pull(source: Iterator[int], waiting: Any, several: int) -> None:
        for _ in range(several):
            next(source)
            next(source)
            assert run_of_steps() is not None
            await asyncio.sleep(0)
        await waiting.put(1)

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            waiting = opm.wrap_queue(asyncio.Queue(), name="waiting")
            source = items()
            await asyncio.gather(pull(source, waiting, 2), pull(source, waiting, 2))
            source.close()  # type: ignore[attr-defined]
        return run

    row = stage_of(play(clock, main()), "items")
    # of the first one from 0 to 8, and of the second one from 2 to 8; a third one closed it
    assert (row["workers"], row["wall_s"], row["time_s"]["busy"]) == (3, 8.0, 8.0 + 6.0)


def test_an_async_generator(clock: Clock) -> None:
    @opm.stage("items")
    async def items() -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(1)
            yield number

    async def main() -> opm.Run:
        async with opm.run("test", resources=False) as run:
            waiting = opm.wrap_queue(asyncio.Queue(), name="waiting")
            async for _ in items():
                assert run_of_steps() is not None
            await waiting.put(1)
        return run

    assert states(play(clock, main())) == {
        "busy": 10.0, "idle": 0.0, "blocked": 0.0, "workers": 1,
    }  # fmt: skip


def test_a_generator_that_another_thread_closes(
    clock: Clock, items: Callable[[], Iterator[int]]
) -> None:
    with opm.run("test", resources=False) as run:
        waiting = opm.wrap_queue(queue.Queue(), name="waiting")
        source = items()
        for _ in range(4):
            next(source)
        steps = run_of_steps()
        assert steps is not None
        thread = threading.Thread(target=source.close)  # type: ignore[attr-defined]
        thread.start()
        thread.join()
        assert steps.over
        assert run_of_steps() is None
        waiting.put(1)
    assert states(run)["busy"] == 4.0


def test_an_experiment_is_told_of_each_step(items: Callable[[], Iterator[int]]) -> None:
    told: list[float] = []

    class Pausing(accounting.Accounting):
        pauses = True

        def left(self, cell: Any, now: float) -> None:
            told.append(now)
            super().left(cell, now)

    from otel_pipeline_metrics._core import hooks

    opm.wrap_queue(queue.Queue(), name="elsewhere")
    source = items()
    for _ in range(4):
        next(source)
    assert run_of_steps() is not None
    hooks.set_workers(Pausing())
    for _ in range(4):
        next(source)
    assert len(told) == 4
    source.close()  # type: ignore[attr-defined]

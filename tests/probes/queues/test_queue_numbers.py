"""Test a queue's numbers: waits, depth, capacity, producers and consumers."""

from __future__ import annotations

import asyncio
import gc
import queue as thread_queue
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._probes import levels
from otel_pipeline_metrics._probes.queues import registry
from tests.probes.queues.support import play, queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel

KINDS = [
    asyncio.Queue,
    asyncio.LifoQueue,
    asyncio.PriorityQueue,
    thread_queue.Queue,
    thread_queue.LifoQueue,
    thread_queue.PriorityQueue,
    thread_queue.SimpleQueue,
]


@pytest.fixture(autouse=True)
def no_other_queues() -> None:
    """Drop the queues of other tests."""
    gc.collect()


def waits(results: Results, name: str = "q") -> list[float]:
    drain.drain()
    return [w for batch in results.queue_batches if batch.name == name for w in batch.waits]


@pytest.mark.parametrize("kind", KINDS)
def test_time_in_the_queue_is_exact_in_any_order(kind: Any, clock: Clock, results: Results) -> None:
    q = opm.wrap_queue(kind(), name="q")
    for item in (3, 1, 2):
        q.put_nowait(item)
        clock.advance(1)
    expected = []
    put_at = {3: 0.0, 1: 1.0, 2: 2.0}
    for n in range(3):
        clock.advance(10)
        expected.append(13.0 + 10 * n - put_at[q.get_nowait()])
    assert sorted(expected) == sorted(waits(results))


@pytest.mark.parametrize("kind", [asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue])
def test_time_in_the_queue_begins_when_a_blocked_put_gets_it_in(
    kind: Any, clock: Clock, results: Results
) -> None:
    async def main() -> None:
        q = opm.wrap_queue(kind(1), name="q")
        await q.put(1)
        blocked = asyncio.create_task(q.put(2))
        await asyncio.sleep(5)
        await q.get()
        await blocked
        await asyncio.sleep(3)
        await q.get()

    play(clock, main())
    assert waits(results) == [3.0, 5.0]


def test_an_item_for_a_waiting_get_has_no_wait(clock: Clock, results: Results) -> None:
    async def main() -> None:
        q = opm.wrap_queue(asyncio.Queue(), name="q")
        getter = asyncio.create_task(q.get())
        await asyncio.sleep(5)
        await q.put(1)
        await getter

    play(clock, main())
    assert waits(results) == [0.0]


def test_the_report_of_a_queue_is_exact(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    q = opm.wrap_queue(asyncio.Queue(2), name="q")

    async def producer() -> None:
        for n in range(4):
            with opm.stage("make"):
                await asyncio.sleep(1)
            await q.put(n)

    async def consumer() -> None:
        for _ in range(4):
            await q.get()
            with opm.stage("use"):
                await asyncio.sleep(4)

    async def main() -> None:
        await asyncio.gather(producer(), consumer())

    with make_run() as run:
        play(clock, main())
    found = queue_of(run, "q")
    # put at 1, 2, 3 and, after it was full from 4 to 5, 5; got at 1, 5, 9 and 13
    assert tuple(found[k] for k in ("put", "got", "depth_peak", "capacity")) == (4, 4, 2, 2)
    assert (found["wait_s"]["avg"], found["wait_s"]["max"]) == (17.0 / 4, 8.0)
    assert found["depth_avg"] == 17.0 / 17.0
    assert (found["put_blocked_s"], found["get_waited_s"]) == (1.0, 1.0)
    assert (found["producers"], found["consumers"]) == (["make"], ["use"])


def test_depth_and_capacity_are_reported(clock: Clock) -> None:
    bounded = [opm.wrap_queue(asyncio.Queue(n), name="bounded") for n in (3, 4)]
    mixed = [opm.wrap_queue(thread_queue.Queue(n), name="mixed") for n in (0, 5)]
    endless = [
        opm.wrap_queue(thread_queue.Queue(-1), name="endless"),
        opm.wrap_queue(thread_queue.SimpleQueue(), name="endless"),
    ]
    for q in (*bounded, *mixed, *endless):
        q.put_nowait(1)
    bounded[0].put_nowait(2)
    assert registry.sizes() == {"bounded": 3, "mixed": 2, "endless": 2}
    assert registry.capacities() == {"bounded": 7}


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_without_references_is_freed_at_once(kind: Any) -> None:
    """Neither the queue nor its items are in a reference cycle."""

    class Item:
        def __lt__(self, other: Any) -> bool:
            return False

    gc.disable()
    try:
        raw, item = kind(), Item()
        q = opm.wrap_queue(raw, name="mortal")
        q.put_nowait(item)
        dead = [weakref.ref(raw), weakref.ref(item)]
        assert registry.sizes() == {"mortal": 1}
        del raw, item, q
        assert registry.sizes() == {}
        assert [ref() for ref in dead] == [None, None]
    finally:
        gc.enable()


def test_the_capacity_of_a_freed_queue_is_in_the_report() -> None:
    """The report is made after `main()` and its queues."""
    for sizes, known in (((3, 4), 7), ((5,), 5), ((5, 0), None), ((2,), 2)):
        made = [opm.wrap_queue(asyncio.Queue(n), name="gone") for n in sizes]
        for _ in range(2):
            assert registry.known_capacities().get("gone") == known
            made.clear()
    assert "gone" not in registry.capacities()


def test_remembered_capacities_are_bounded() -> None:
    for n in range(levels.REMEMBERED + 10):
        opm.wrap_queue(asyncio.Queue(1), name=f"job {n}")
    assert len(registry.queues.remembered) == levels.REMEMBERED


def test_queue_metrics_are_exported(clock: Clock, otel: Otel) -> None:
    q = opm.wrap_queue(thread_queue.Queue(8), name="q")
    for n in range(4):
        q.put(n)
        clock.advance(1)
    for _ in range(3):
        q.get()
    found = metrics(otel)
    (size,) = found["pipeline.queue.size"]
    (capacity,) = found["pipeline.queue.capacity"]
    (duration,) = found["pipeline.queue.item.duration"]
    assert (size.value, capacity.value) == (1, 8)
    assert (duration.count, duration.sum, duration.min, duration.max) == (3, 9.0, 2.0, 4.0)
    assert [dict(point.attributes) for point in (size, capacity, duration)] == [
        {"pipeline.queue.name": "q"}
    ] * 3


def metrics(otel: Otel) -> dict[str, list[Any]]:
    data: Any = otel.readers[0].get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_metrics_of_states_equal_the_reports(  # noqa: C901 - a pipeline
    clock: Clock, otel: Otel, make_run: Callable[[], opm.Run]
) -> None:
    """This includes the last wait, which the run's end ended."""
    source, sink = (opm.wrap_queue(asyncio.Queue(1), name=name) for name in ("in", "out"))

    async def work() -> None:
        while True:
            item = await source.get()
            with opm.stage("work"):
                await asyncio.sleep(1)
                with opm.stage("part"):
                    async with opm.waiting():
                        await asyncio.sleep(0.5)
            await sink.put(item)

    async def write() -> None:
        while True:
            with opm.stage("write"):
                if await sink.get() is None:
                    return
                await asyncio.sleep(3)

    async def main() -> None:
        tasks = [asyncio.create_task(c()) for c in (work, write)]
        for n in range(5):
            await source.put(n)
            if n == 2:
                otel.collect()
        await asyncio.sleep(20)
        await sink.put(None)
        await tasks[1]
        tasks[0].cancel()

    with make_run() as run:
        play(clock, main())
    told: dict[str, dict[str, float]] = {}
    for point in metrics(otel)["pipeline.stage.time"]:
        stage = told.setdefault(point.attributes["pipeline.stage.name"], {})
        stage[point.attributes["pipeline.stage.state"]] = point.value
    reported = {
        stage["name"]: {k: stage["time_s"][k] for k in ("busy", "idle", "blocked")}
        for stage in run.report.to_dict()["stages"]
    }
    assert {"work", "part", "write"} == set(reported)
    assert sum(told["work"].values()) > 20
    for name, states in reported.items():
        busy = sum(told[name].get(state, 0.0) for state in ("running", "awaiting", "busy"))
        assert states == {"busy": busy, **{s: told[name].get(s, 0.0) for s in ("idle", "blocked")}}


def test_the_duration_metric_leaves_queue_waits_out(clock: Clock, otel: Otel) -> None:
    q = opm.wrap_queue(asyncio.Queue(), name="q")

    @opm.stage
    async def work() -> None:
        await q.get()
        with opm.waiting():
            await asyncio.sleep(4)
        await asyncio.sleep(1)

    async def feed() -> None:
        await asyncio.sleep(7)
        await q.put(1)

    async def main() -> None:
        await asyncio.gather(work(), feed())

    play(clock, main())
    (duration,) = metrics(otel)["pipeline.stage.duration"]
    assert (duration.count, duration.sum) == (1, 1.0)

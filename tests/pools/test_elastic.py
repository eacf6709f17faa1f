"""Pools whose number of workers changes while they work."""

from __future__ import annotations

import asyncio
import queue
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from benchmarks import _virtual_time, elastic
from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._pools import gil
from otel_pipeline_metrics._pools.meters import BLOCKED, IDLE, WORKING, Meters
from otel_pipeline_metrics._pools.threads import ThreadPool
from otel_pipeline_metrics._probes.resources import contention

if TYPE_CHECKING:
    from otel_pipeline_metrics.report import RunReport


def wrapped(made: Any) -> Any:
    return opm.wrap_queue(made, name="q", sentinel=None)


async def nap(n: int) -> int:
    await asyncio.sleep(0.05)
    return n


async def grows() -> tuple[Any, RunReport, float]:
    source, loop = wrapped(asyncio.Queue(8)), asyncio.get_running_loop()
    async with opm.run("elastic", resources=False, report=None) as run:
        async with opm.workers(nap, source, count=(1, 8)) as pool:
            assert pool.count == 1
            for n in range(1000):
                await source.put(n)
            assert pool.count == 8
            await source.put(None)
    return pool, run.report, loop.time()


def check(pool: Any, report: RunReport, took_s: float) -> None:
    assert [(c["from"], c["to"]) for c in pool.changes] == [(1, 2), (2, 4), (4, 8)]
    assert all(set(change) == {"at_s", "from", "to", "why"} for change in pool.changes)
    assert [c["at_s"] for c in pool.changes] == sorted(c["at_s"] for c in pool.changes)
    assert pool.changes[0]["why"].endswith("items/s with 1, they wait for 0 % of the time")
    # 1,000 items of 0.05 s with 8 workers take 6.25 s
    assert 6.25 < took_s < 9.5
    (told,) = report.to_dict()["pools"]
    assert (told["name"], told["stage"], told["low"], told["high"]) == ("nap", "nap", 1, 8)
    assert told["changes"] == pool.changes
    shown = report.render("console")
    assert "workers of" in shown
    assert "items/s with 1, they wait" in shown
    assert "items/s with 1, they wait" in report.render("markdown")


def test_tasks_become_more_and_the_report_tells_why() -> None:
    check(*_virtual_time.run(grows()))


def test_threads_become_more_and_the_report_tells_why() -> None:
    def nap(n: int) -> int:
        time.sleep(0.05)
        return n

    with _virtual_time.virtual_time():
        source = wrapped(queue.Queue(8))
        began = time.perf_counter()
        with opm.run("elastic", resources=False, report=None) as run:
            with opm.workers(nap, source, count=(1, 8)) as pool:
                for n in range(1000):
                    source.put(n)
                source.put(None)
        took_s = time.perf_counter() - began

    check(pool, run.report, took_s)


async def test_who_is_too_many_leaves_after_the_item_in_hand() -> None:
    go_on, done = asyncio.Event(), []

    async def work(n: int) -> int:
        await go_on.wait()
        done.append(n)
        return n

    source, sink = wrapped(asyncio.Queue()), wrapped(asyncio.Queue())
    pool = opm.workers(work, source, sink, count=(4, 8))
    async with pool:
        for n in range(3):
            source.put_nowait(n)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # three work and one waits; it leaves first, one of the others when it is done
        pool._resize(2, "a test")
        assert pool.count == 2
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(pool._tasks) == 3
        go_on.set()
        source.put_nowait(3)
        source.put_nowait(None)

    assert sorted(done) == [0, 1, 2, 3]
    assert sink.qsize() == 5
    assert [(c["from"], c["to"], c["why"]) for c in pool.changes] == [(4, 2, "a test")]


async def test_it_may_grow_while_some_still_leave() -> None:
    go_on = asyncio.Event()

    async def work(n: int) -> None:
        await go_on.wait()

    source = wrapped(asyncio.Queue())
    pool = opm.workers(work, source, count=(4, 8))
    async with pool:
        for n in range(20):
            source.put_nowait(n)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pool._resize(1, "fewer")
        pool._resize(3, "more")
        assert (pool.count, len(pool._tasks)) == (3, 4)
        pool._resize(6, "more still")
        assert (pool.count, len(pool._tasks)) == (6, 6)
        go_on.set()
        source.put_nowait(None)


def test_threads_that_are_too_many_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadPool, "_control", lambda self: None)
    source, sink = wrapped(queue.Queue()), wrapped(queue.Queue())
    pool = opm.workers(lambda n: n, source, sink, count=(4, 8), name="pool")
    with pool:
        pool._resize(2, "a test")
        assert pool.count == 2
        deadline = time.monotonic() + 10
        while pool._active > 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pool._active == 2
        for n in range(10):
            source.put(n)
        source.put(None)

    assert sink.qsize() == 11
    assert all(not thread.is_alive() for thread in pool._threads)


@pytest.mark.parametrize("kind", ["task", "thread"])
async def test_an_exception_ends_an_elastic_pool_as_well(kind: str) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="now"):
        if kind == "task":
            async with opm.workers(nap, wrapped(asyncio.Queue()), count=(2, 4)):
                raise ValueError("now")
        else:
            with opm.workers(print, wrapped(queue.Queue()), count=(2, 4)):
                raise ValueError("now")

    assert asyncio.all_tasks() == before


def test_meters_tell_how_workers_spend_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("otel_pipeline_metrics._core.clock.now", lambda: now[0])
    meters = Meters()
    meters.begin()
    first, second = meters.add(), meters.add()
    for at, meter, state in ((1.0, first, WORKING), (3.0, first, BLOCKED), (3.0, second, WORKING)):
        now[0] = at
        meter.enter(state)
    first.done += 2
    now[0] = 4.0

    tick = meters.tick(None)

    # first: 1 idle, 2 working, 1 blocked; second: 3 idle, 1 working
    assert (tick.seconds, tick.done) == (4.0, 2)
    assert (tick.idle, tick.blocked, tick.service_s) == (4 / 8, 1 / 8, 1.5)
    second.enter(IDLE)
    meters.remove(second)
    now[0] = 6.0
    tick = meters.tick(None)
    assert (tick.seconds, tick.done, tick.idle, tick.blocked) == (2.0, 0, 0.0, 1.0)


def test_the_gil_is_what_limits_if_a_thread_that_wakes_has_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switches = iter([0, 2] * 9 + [0, 1] * 40)
    monkeypatch.setattr(contention, "voluntary_switches", lambda: next(switches))
    monkeypatch.setattr(contention, "gil_enabled", lambda: True)
    now = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now[-1] + seconds))
    monkeypatch.setattr(clock, "monotonic", lambda: now[-1])
    found = gil.Gil()
    for _ in range(9):
        found.sample(0.05)

    assert found.bound() == "the GIL is held 100 % of the time"
    for _ in range(40):
        found.sample(0.05)
    assert found.bound() is None


def test_a_sleep_that_takes_no_time_tells_nothing_of_the_gil(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switches = iter([0, 2] * 20)
    monkeypatch.setattr(contention, "voluntary_switches", lambda: next(switches))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    found = gil.Gil()
    for _ in range(20):
        found.sample(0.05)

    assert found.bound() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two permits inside"])
def test_it_comes_close_to_the_best_fixed_number(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m benchmarks.elastic` has more shapes, and more numbers."""
    monkeypatch.setattr(elastic, "FIXED", (1, 2, 4, 6))

    row, held = elastic.measure(name, "tests")

    assert held, row

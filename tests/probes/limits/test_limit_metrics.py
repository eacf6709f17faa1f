"""Test the metrics of limits, their names, their lifetimes, and forked children."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import cardinality, drain, errors, series
from otel_pipeline_metrics._core.cardinality import OTHER, Distinct
from otel_pipeline_metrics._probes.limits import permits, registry
from tests.probes.limits.support import limit_of, numbers, stages_of
from tests.probes.queues.support import play, sleep
from tests.stages.support import run_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


def collected(otel: Otel) -> dict[str, dict[str, Any]]:
    """Return the points of metrics of limits, by metric and name."""
    data = otel.readers[0].get_metrics_data()
    assert data is not None
    return {
        metric.name.removeprefix("pipeline.limit."): {
            str(dict(point.attributes)["pipeline.limit.name"]): point
            for point in metric.data.data_points
        }
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("pipeline.limit.")
    }


def test_limit_metrics_are_exported(clock: Clock, otel: Otel) -> None:
    async def main() -> None:
        limit = opm.wrap_limit(asyncio.Semaphore(2), name="x")
        rate: Any = opm.wrap_limit(Rate(), name="rate")

        async def work() -> None:
            async with limit:
                await sleep(2)

        tasks = [asyncio.ensure_future(work()) for _ in range(3)]
        await sleep(1)
        rate.acquire()
        found = collected(otel)
        assert {name: point.value for name, point in found["usage"].items()} == {"x": 2}
        assert {name: point.value for name, point in found["max"].items()} == {"x": 2}
        await asyncio.gather(*tasks)

    play(clock, main())
    found = collected(otel)
    assert found["usage"]["x"].value == 0
    assert found["max"]["x"].value == 2
    waits = found["wait.duration"]["x"]
    assert (waits.count, waits.sum, waits.min, waits.max) == (3, 2.0, 0.0, 2.0)
    assert found["wait.duration"]["rate"].count == 1


class Rate:
    def acquire(self) -> None:
        """Nothing."""


def test_many_free_permits_are_exported(otel: Otel) -> None:
    lock = opm.wrap_limit(threading.Lock(), name="x")
    for _ in range(5000):
        with lock:
            pass
    waits = collected(otel)["wait.duration"]["x"]
    assert (waits.count, waits.sum) == (5000, 0.0)
    with lock:
        pass
    assert collected(otel)["wait.duration"]["x"].count == 5001


def test_many_waits_are_flushed_before_a_collection(clock: Clock, results: Results) -> None:
    class Slow:
        def acquire(self) -> None:
            clock.advance(1)

        def release(self) -> None:
            """Nothing."""

    limit = opm.wrap_limit(Slow(), name="x")
    for _ in range(drain.PENDING_BOUND):
        limit.acquire()
        limit.release()
    assert [len(batch.waits) for batch in results.limit_batches] == [drain.PENDING_BOUND]


def test_names_are_limited(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run]
) -> None:
    monkeypatch.setattr(cardinality, "instrument_names", Distinct(3))
    limits = [opm.wrap_limit(threading.Lock(), name=f"limit {n}") for n in range(6)]
    with make_run() as run:
        for limit in limits:
            with limit:
                pass
    assert [limit["name"] for limit in run.report.limits] == [
        "limit 0",
        "limit 1",
        "limit 2",
        OTHER,
    ]
    assert limit_of(run, OTHER)["acquired"] == 3
    assert limit_of(run, OTHER)["max"] == 3


def test_holds_that_are_never_released_are_bounded() -> None:
    class Endless:
        def acquire(self) -> None:
            """Nothing."""

        def release(self) -> None:
            """Nothing."""

    limit = opm.wrap_limit(Endless(), name="x")
    for _ in range(permits.HOLDS_BOUND + 10):
        limit.acquire()
    assert registry.limits.sizes() == {"x": permits.HOLDS_BOUND}


def test_an_ended_run_is_not_kept() -> None:
    lock = opm.wrap_limit(threading.Lock(), name="x")
    semaphore = opm.wrap_limit(threading.Semaphore(3), name="y")

    def once() -> weakref.ref[Any]:
        with opm.run("short", resources=False) as run:
            with opm.stage("work"), lock, semaphore:
                pass
            semaphore.acquire()  # and never releases it
            return weakref.ref(run._collector)

    gone = once()
    drain.drain()
    gc.collect()
    assert gone() is None


def test_a_stage_of_an_ended_run_gets_no_permits_of_a_later_one(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    known, new = (opm.wrap_limit(threading.Semaphore(1), name=name) for name in ("known", "new"))
    with make_run() as first, opm.stage("work"), known:
        clock.advance(1)
    drain.drain()
    assert first._scope not in series.scopes
    with make_run() as second:
        # this thread left its last stage in the first run
        for limit in (known, new):
            with limit:
                clock.advance(2)
    assert stages_of(second, "known") == stages_of(second, "new") == {None: (0.0, 2.0)}
    assert first._scope not in series.scopes


def test_a_permit_that_was_acquired_before_the_run_is_not_of_the_run(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    limit = opm.wrap_limit(threading.Semaphore(3), name="x")
    limit.acquire()
    with make_run() as run:
        with limit:
            clock.advance(1)
        clock.advance(1)
    assert numbers(run) == (3, 0.5, 1, 1, 0.0)
    limit.release()


def test_a_limit_is_freed_with_its_object(make_run: Callable[[], opm.Run]) -> None:
    raw = threading.Semaphore(1)
    gone = weakref.ref(raw)
    with make_run() as run:
        limit = opm.wrap_limit(raw, name="x")
        with limit:
            pass
        del raw, limit
        assert gone() is None
    assert numbers(run)[0] == 1
    assert registry.limits.sizes() == {}


def test_an_internal_error_is_not_the_users(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[], opm.Run], clock: Clock
) -> None:
    def fails(*_: object) -> Any:
        raise KeyError("ours")

    limits: list[Any] = [
        opm.wrap_limit(threading.Lock(), name="x"),
        opm.wrap_limit(threading.RLock(), name="x"),
        opm.wrap_limit(threading.Semaphore(1), name="x"),
        opm.wrap_limit(threading.Condition(), name="x"),
    ]
    monkeypatch.setattr(errors, "raise_faults", False)
    monkeypatch.setattr(series.RunScope, "add_limit", fails)
    with make_run():
        for limit in limits:
            with limit:
                pass
            assert limit.acquire()
            limit.release()
            assert limit.acquire(False)
            limit.release()

    async def main() -> None:
        for limit in (asyncio.Lock(), asyncio.Semaphore(1), asyncio.Condition()):
            wrapped: Any = opm.wrap_limit(limit, name="x")
            async with wrapped:
                task = asyncio.ensure_future(wrapped.acquire())
                await asyncio.sleep(0)
            await task
            wrapped.release()

    with make_run():
        asyncio.run(main())


@pytest.mark.slow
@pytest.mark.processes
def test_a_forked_child_counts_from_zero(tmp_path: Path) -> None:
    found = run_script(
        dedent("""
        import os, threading
        import otel_pipeline_metrics as opm
        from otel_pipeline_metrics._probes.limits import registry

        lock = opm.wrap_limit(threading.Lock(), name="lock")
        rlock = opm.wrap_limit(threading.RLock(), name="rlock")
        semaphore = opm.wrap_limit(threading.Semaphore(5), name="semaphore")
        semaphore.acquire()
        with opm.run("parent", resources=False) as run, lock, rlock, rlock:
            child = os.fork()
            if child == 0:
                assert registry.limits.sizes() == {"lock": 0, "rlock": 0, "semaphore": 0}
                assert run.report.limits == []  # they are the parent's
                rlock.release()
                rlock.release()
                lock.release()
                semaphore.release()
                with opm.run("child", resources=False) as inner:
                    with lock, rlock, semaphore:
                        assert registry.limits.sizes() == {"lock": 1, "rlock": 1, "semaphore": 1}
                assert [limit["acquired"] for limit in inner.report.limits] == [1, 1, 1]
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        assert [limit["acquired"] for limit in run.report.limits] == [1, 1]
        print("fine")
        """),
        tmp_path / "forks.py",
    )
    assert found.stdout == "fine\n", found.stderr

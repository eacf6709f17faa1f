"""Stages and queues in which nothing moves are found; those that wait for input are not."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import drain, settings
from otel_pipeline_metrics.service import health
from otel_pipeline_metrics.service.stalled import detector
from otel_pipeline_metrics.service.watching import watch

if TYPE_CHECKING:
    from tests.conftest import Clock
    from tests.service.conftest import Metrics


@pytest.fixture(autouse=True)
def watched(fresh: None, metrics: Metrics, clock: Clock) -> None:
    watch()


def stalled() -> dict[str, float | None]:
    """Return the seconds of each stage and queue."""
    return {
        place if isinstance(place, str) else place.stage: seconds
        for place, seconds in detector.check().items()
    }


def test_a_call_that_does_not_end(
    metrics: Metrics, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with opm.stage("hangs"):
        assert stalled() == {"hangs": None}
        clock.advance(299.9)
        assert stalled() == {"hangs": None}
        assert caplog.records == []
        clock.advance(0.1)
        assert stalled() == {"hangs": 300.0}
        clock.advance(60)
        assert stalled() == {"hangs": 360.0}
        assert metrics.values("pipeline.stalled") == {("hangs",): 1}
        found = health()
        assert found.status == found.components["stalled_stages"].status == "failing"
        assert found.components["stalled_stages"].reasons == (
            "the stage 'hangs' has not moved for 6 min 00 s",
        )
    assert stalled() == {"hangs": None}
    assert metrics.values("pipeline.stalled") == {("hangs",): 0}
    assert health().components["stalled_stages"].status == "ok"
    (warning,) = caplog.records
    assert warning.message == (
        "the stage 'hangs' is stalled: it has 1 call in flight, and nothing has moved for "
        "5 min 00 s"
    )


def test_a_second_stall_is_logged_again(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    items: Any = opm.wrap_queue(queue.Queue(), name="items")
    items.put(1)
    for times in (1, 2):
        for _ in range(3):
            stalled()
            clock.advance(300)
        assert len(caplog.records) == times
        items.put(1)


def test_a_slow_stage_has_ten_times_its_p99(clock: Clock) -> None:
    for _ in range(10):
        with opm.stage("slow"):
            clock.advance(100)
    with opm.stage("slow"):
        stalled()
        clock.advance(900)
        assert stalled() == {"slow": None}
        clock.advance(110)
        assert stalled() == {"slow": 1010.0}


def test_a_stage_of_which_calls_end_moves(clock: Clock) -> None:
    with opm.stage("shared"):
        for _ in range(10):
            clock.advance(100)
            with opm.stage("shared"):
                pass
            assert stalled() == {"shared": None}


def test_a_stage_around_others_moves_with_them(clock: Clock) -> None:
    """They are called in a thread, so it is not known that they are inside."""

    def part() -> None:
        with opm.stage("part"):
            pass

    with opm.stage("whole"):
        stalled()
        for _ in range(10):
            clock.advance(100)
            thread = threading.Thread(target=part)
            thread.start()
            thread.join()
            assert stalled() == {"whole": None, "part": None}
        clock.advance(299)
        assert stalled() == {"whole": None, "part": None}
        clock.advance(1)
        assert stalled() == {"whole": 300.0, "part": None}


def test_a_stage_of_which_calls_have_ended_moves_with_those_inside(clock: Clock) -> None:
    with opm.stage("whole"):
        pass
    with opm.stage("whole"), opm.stage("part"):
        stalled()
        for _ in range(10):
            clock.advance(100)
            with opm.stage("deep"):
                pass
            found = stalled()
            assert (found["whole"], found["part"], found["deep"]) == (None, None, None)
        # moves elsewhere, which is no movement of the three
        clock.advance(1)
        for _ in range(3):
            clock.advance(100)
        assert stalled()["whole"] == 301.0


def test_a_stage_that_hangs_beside_one_that_moves(clock: Clock) -> None:
    def move() -> None:
        with opm.stage("moves"):
            pass

    with opm.stage("hangs"):
        pass
    with opm.stage("hangs"):
        stalled()
        for _ in range(10):
            clock.advance(30)
            thread = threading.Thread(target=move)
            thread.start()
            thread.join()
        assert stalled() == {"hangs": 300.0, "moves": None}


@pytest.mark.parametrize("in_run", [False, True])
def test_runs_and_outside(clock: Clock, metrics: Metrics, in_run: bool) -> None:
    if in_run:
        with opm.run("nightly", resources=False), opm.stage("hangs"):
            stalled()
            clock.advance(300)
            # pipeline, stage
            assert metrics.values("pipeline.stalled") == {("nightly", "hangs"): 1}
    else:
        with opm.stage("hangs"):
            stalled()
            clock.advance(300)
            assert metrics.values("pipeline.stalled") == {("hangs",): 1}


async def test_a_worker_that_waits_for_input_is_not_stalled(clock: Clock) -> None:
    items = opm.wrap_queue(asyncio.Queue(), name="items")
    released = asyncio.Event()

    @opm.process
    async def worker() -> None:
        while await items.get() is not None:
            await released.wait()

    task = asyncio.ensure_future(worker())
    await asyncio.sleep(0)
    stalled()
    clock.advance(1000)
    # the source has nothing: nothing is in flight
    assert stalled() == {"worker": None, "items": None}
    await items.put("one")
    await asyncio.sleep(0)
    stalled()
    clock.advance(300)
    assert stalled() == {"worker": 300.0, "items": None}
    released.set()
    await items.put(None)
    await task
    assert stalled() == {"worker": None, "items": None}


def test_a_queue_without_a_consumer(
    clock: Clock, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    items: Any = opm.wrap_queue(queue.Queue(), name="items")
    items.put(1)
    items.put(2)
    stalled()
    clock.advance(300)
    assert stalled() == {"items": 300.0}
    assert metrics.values("pipeline.stalled") == {("items",): 1}
    assert "the queue 'items' is stalled: it has 2 items in flight" in caplog.text
    items.get()
    assert stalled() == {"items": None}
    clock.advance(299)
    assert stalled() == {"items": None}
    items.get()
    clock.advance(1000)
    # it is empty: nothing is in flight
    assert stalled() == {"items": None}


def test_a_queue_that_somebody_works_on_is_left_to_that_stage(clock: Clock) -> None:
    items: Any = opm.wrap_queue(queue.Queue(), name="items")
    for _ in range(3):
        with opm.stage("slow"):
            clock.advance(100)
    items.put(1)
    with opm.stage("slow"):
        stalled()
        clock.advance(500)
        assert stalled() == {"slow": None, "items": None}


def test_the_limit_is_a_setting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_current", settings.Config(stalled_after_s=5))
    with opm.stage("hangs"):
        stalled()
        clock.advance(5)
        assert stalled() == {"hangs": 5.0}
    drain.drain()


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "5"])
def test_a_bad_limit_is_named(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="stalled_after"):
        opm.configure(stalled_after=bad, exporter="none")

"""Test `waiting()` and `event_time()`."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.probes.queues.support import play, stage_of, states
from tests.probes.queues.test_queue_numbers import metrics
from tests.stages.support import run_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Clock
    from tests.stages.conftest import Otel


def test_waiting_in_a_stage_is_blocked_time(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    with make_run() as run, opm.stage("work") as s:
        clock.advance(1)
        with s.waiting() as wait:
            clock.advance(2)
        clock.advance(4)
        with opm.waiting("idle"):
            clock.advance(8)
    assert states(run, "work") == (5.0, 8.0, 2.0)
    assert wait.seconds == 2.0
    assert stage_of(run, "work")["duration_s"]["total"] == 5.0


async def test_waiting_in_a_coroutine_of_the_stage_is_blocked_time(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    @opm.stage
    async def work() -> None:
        clock.advance(1)
        async with opm.current_stage().waiting():
            clock.advance(2)

    with make_run() as run:
        await work()
    assert states(run, "work") == (1.0, 0.0, 2.0)


def test_waiting_between_stages_belongs_to_the_last_stage(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    """Before the first stage, it belongs to that one."""
    with make_run() as run:
        for name in ("first", "second"):
            with opm.waiting():
                clock.advance(2)
            with opm.stage(name):
                clock.advance(1)
    assert states(run, "first") == (1.0, 0.0, 4.0)
    assert states(run, "second") == (1.0, 0.0, 0.0)


def test_a_wait_inside_a_wait_has_its_own_state(
    clock: Clock, make_run: Callable[[], opm.Run]
) -> None:
    with make_run() as run, opm.stage("work"), opm.waiting():
        clock.advance(1)
        with opm.waiting("idle"):
            clock.advance(2)
        clock.advance(4)
    assert states(run, "work") == (0.0, 2.0, 5.0)


def test_many_tasks_may_share_a_wait_object(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    permit = opm.waiting()

    async def work(seconds: float) -> None:
        with opm.stage("work"):
            async with permit:
                await asyncio.sleep(seconds)
            await asyncio.sleep(1)

    async def main() -> None:
        await asyncio.gather(work(3), work(1), work(2))

    with make_run() as run:
        play(clock, main())
    assert states(run, "work") == (3.0, 0.0, 6.0)


def test_an_error_in_a_wait_is_raised(clock: Clock, make_run: Callable[[], opm.Run]) -> None:
    def fail() -> None:
        with opm.stage("work") as s, s.waiting():
            clock.advance(2)
            raise KeyError("k")

    with make_run() as run, pytest.raises(KeyError, match="k"):
        fail()
    assert states(run, "work") == (0.0, 0.0, 2.0)


@pytest.mark.parametrize("state", ["busy", "", None, 1])
def test_an_unknown_state_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match='state must be "idle" or "blocked"'):
        opm.waiting(state)


def test_the_age_of_event_times_is_exact(clock: Clock, otel: Otel) -> None:
    """`clock.unix()` is 1_700_001_000 here."""
    now = clock.unix()
    with opm.stage("write", kind="write") as s:
        s.event_time(now - 4)
        clock.advance(1)
        s.event_time(datetime.fromtimestamp(now - 7, tz=timezone.utc))
        s.event_time(datetime.fromtimestamp(now - 7, tz=timezone(timedelta(hours=5))))
        s.event_time(datetime.fromtimestamp(now - 7, tz=timezone.utc).replace(tzinfo=None))
        # an item from the future, by another machine's clock, has no age
        s.event_time(now + 100 - 100)
    clock.advance(10)
    found = metrics(otel)
    (duration,) = found["pipeline.item.duration"]
    (lag,) = found["pipeline.watermark.lag"]
    assert (duration.count, duration.sum) == (5, 4.0 + 3 * 8.0 + 1.0)
    assert lag.value == 11.0
    expected = {"pipeline.stage.name": "write", "pipeline.stage.kind": "write"}
    assert [expected, expected] == [dict(duration.attributes), dict(lag.attributes)]


def test_an_event_from_the_future_has_no_negative_age(clock: Clock, otel: Otel) -> None:
    with opm.stage("write") as s:
        s.event_time(clock.unix() + 60)
    found = metrics(otel)
    (duration,) = found["pipeline.item.duration"]
    (lag,) = found["pipeline.watermark.lag"]
    assert (duration.sum, lag.value) == (0.0, 0.0)


def test_the_watermark_is_the_newest_and_only_grows(clock: Clock, otel: Otel) -> None:
    for age in (5, 9):
        with opm.stage("write") as s:
            s.event_time(clock.unix() - age)
        clock.advance(1)
    (lag,) = metrics(otel)["pipeline.watermark.lag"]
    assert lag.value == 7.0


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("2024-01-01", TypeError, "timestamp must be Unix seconds or a datetime, not str"),
        (None, TypeError, "not NoneType"),
        (True, TypeError, "not bool"),
        (float("nan"), ValueError, "timestamp must be finite, not nan"),
        (float("inf"), ValueError, "timestamp must be finite, not inf"),
    ],
)
def test_bad_event_times_are_refused(
    given: Any, error: type[Exception], match: str, otel: Otel
) -> None:
    with opm.stage("write") as s, pytest.raises(error, match=match):
        s.event_time(given)
    assert "pipeline.item.duration" not in metrics(otel)


def test_an_event_time_after_the_call_is_ignored(otel: Otel) -> None:
    with opm.stage("write") as s:
        pass
    s.event_time(1.0)
    opm.current_stage().event_time(1.0)
    assert "pipeline.item.duration" not in metrics(otel)


def test_waiting_needs_neither_a_run_nor_a_queue(tmp_path: Path) -> None:
    """The wait is `blocked` in a program of only stages and `waiting()`."""
    found = run_script(
        dedent("""
        from otel_pipeline_metrics._core import clock
        from otel_pipeline_metrics._core import drain
        from otel_pipeline_metrics import stage
        from otel_pipeline_metrics import waiting

        now = 0.0
        clock.now = lambda: now

        class Sink:
            def accept(self, batch):
                for r in batch.results:
                    print(r.busy_s, r.idle_s, r.blocked_s)

        drain.set_sinks((Sink(),))
        with stage("work"):
            now += 1
            with waiting():
                now += 2
            with waiting("idle"):
                now += 4
        drain.drain()
        """),
        tmp_path / "program.py",
    )
    assert (found.stdout, found.stderr) == ("1.0 4.0 2.0\n", "")


def test_the_watermark_moves_while_a_stage_goes_on(clock: Clock, otel: Otel) -> None:
    """A stream may never end."""
    with opm.stage("stream") as s:
        s.event_time(clock.unix() - 4)
        assert [point.value for point in metrics(otel)["pipeline.watermark.lag"]] == [4.0]
        s.event_time(clock.unix() - 1)
        assert [point.value for point in metrics(otel)["pipeline.watermark.lag"]] == [1.0]

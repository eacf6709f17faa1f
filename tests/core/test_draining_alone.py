"""One thread drains at a time: who waits for it, for how long, and who goes on without."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import clock, drain
from otel_pipeline_metrics._core import series as _series

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Results


class Time:
    """Stands still but for sleeping, of which it keeps count."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.at_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.at_sleep()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(drain, "time", fake)
    monkeypatch.setattr(clock, "monotonic", fake.monotonic)
    monkeypatch.setattr(drain, "_wanted_until", 0.0)
    return fake


def series() -> _series.Series:
    """One with a finished invocation."""
    stage("alone")(lambda: None)()
    (found,) = [s for s in _series.all_series() if s.key.stage == "alone"]
    return found


def test_a_collection_waits_for_a_second(fake: Time, results: Results) -> None:
    """It looks every millisecond."""
    with drain._drain_lock:
        assert not drain.drain()
    assert fake.now == pytest.approx(101.0, abs=0.002)
    assert set(fake.slept) == {0.001}


def test_it_begins_as_soon_as_the_other_is_done(fake: Time, results: Results) -> None:
    """Meanwhile threads with a series to flush leave the next turn to it."""
    wanted: list[float] = []

    def look() -> None:
        wanted.append(drain._wanted_until)
        if len(wanted) == 3:
            drain._drain_lock.release()

    fake.at_sleep = look
    drain._drain_lock.acquire()
    assert drain.drain()
    assert wanted == [101.0, 101.0, 101.0]
    assert drain._wanted_until == 0.0


def test_who_has_one_series_to_flush_does_not_wait(fake: Time, results: Results) -> None:
    waiting = series()
    with drain._drain_lock:
        drain.drain_series(waiting)
    assert (fake.slept, results.batches) == ([], [])
    drain._wanted_until = 100.5
    drain.drain_series(waiting)
    assert results.batches == []
    fake.now = 100.5
    drain.drain_series(waiting)
    assert [len(batch.durations) for batch in results.batches] == [1]


def test_another_collection_goes_on_all_the_same(fake: Time, results: Results) -> None:
    series()
    drain._wanted_until = 100.5
    assert drain.drain()
    assert [len(batch.durations) for batch in results.batches] == [1]


def test_the_thread_that_drains_does_not_wait_for_itself(
    fake: Time, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[bool] = []
    assert drain.drain(lambda: again.append(drain.drain()))
    assert (again, fake.slept) == ([False], [])


def test_an_empty_series_makes_no_batch(results: Results) -> None:
    waiting = series()
    drain.drain_series(waiting)
    drain.drain_series(waiting)
    assert len(results.batches) == 1


def test_time_is_the_real_one() -> None:
    assert drain.time is time

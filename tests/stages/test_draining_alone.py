"""One thread drains at a time: who waits for it, for how long, and who goes on without."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import _draining, _series, stage

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
    monkeypatch.setattr(_draining, "time", fake)
    monkeypatch.setattr(_draining, "_wanted_until", 0.0)
    return fake


def series() -> _series.Series:
    """One with a finished invocation."""
    stage("alone")(lambda: None)()
    (found,) = [s for s in _series.all_series() if s.key.stage == "alone"]
    return found


def test_a_collection_waits_for_a_second(fake: Time, results: Results) -> None:
    """It looks every millisecond."""
    with _draining._drain_lock:
        assert not _draining.drain()
    assert fake.now == pytest.approx(101.0, abs=0.002)
    assert set(fake.slept) == {0.001}


def test_it_begins_as_soon_as_the_other_is_done(fake: Time, results: Results) -> None:
    """Meanwhile threads with a series to flush leave the next turn to it."""
    wanted: list[float] = []

    def look() -> None:
        wanted.append(_draining._wanted_until)
        if len(wanted) == 3:
            _draining._drain_lock.release()

    fake.at_sleep = look
    _draining._drain_lock.acquire()
    assert _draining.drain()
    assert wanted == [101.0, 101.0, 101.0]
    assert _draining._wanted_until == 0.0


def test_who_has_one_series_to_flush_does_not_wait(fake: Time, results: Results) -> None:
    waiting = series()
    with _draining._drain_lock:
        _draining.drain_series(waiting)
    assert (fake.slept, results.batches) == ([], [])
    _draining._wanted_until = 100.5
    _draining.drain_series(waiting)
    assert results.batches == []
    fake.now = 100.5
    _draining.drain_series(waiting)
    assert [len(batch.plain) for batch in results.batches] == [1]


def test_another_collection_goes_on_all_the_same(fake: Time, results: Results) -> None:
    series()
    _draining._wanted_until = 100.5
    assert _draining.drain()
    assert [len(batch.plain) for batch in results.batches] == [1]


def test_the_thread_that_drains_does_not_wait_for_itself(
    fake: Time, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[bool] = []
    assert _draining.drain(lambda: again.append(_draining.drain()))
    assert (again, fake.slept) == ([False], [])


def test_an_empty_series_makes_no_batch(results: Results) -> None:
    waiting = series()
    _draining.drain_series(waiting)
    _draining.drain_series(waiting)
    assert len(results.batches) == 1


def test_time_is_the_real_one() -> None:
    assert _draining.time is time

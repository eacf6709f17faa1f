"""The test for a change: seldom found in equal runs, found where it is."""

from __future__ import annotations

import math
import random

import pytest

from otel_pipeline_metrics.report.change_points import ChangePoint, change_points

STEP = math.log(1.2)


def found(
    values: list[float], *, level: float = 0.01, floor: float = 0.01, least: float = 0.03
) -> list[ChangePoint]:
    return change_points(values, level=level, floor=floor, least=least)


def series(seed: int, spread: float, *, step_at: int = 50, runs: int = 50) -> list[float]:
    chance = random.Random(seed)  # noqa: S311
    return [chance.gauss(10, spread) + (STEP if n >= step_at else 0) for n in range(runs)]


@pytest.mark.parametrize("spread", [0.005, 0.04, 0.1, 1.0])
def test_equal_runs_show_a_change_in_less_than_one_series_of_a_hundred(spread: float) -> None:
    assert sum(bool(found(series(seed, spread))) for seed in range(500)) <= 5


@pytest.mark.parametrize(("spread", "least"), [(0.01, 1000), (0.04, 950)])
def test_a_fifth_is_found_within_two_runs(spread: float, least: int) -> None:
    """At any place with five runs before and after it."""
    told = 0
    for seed in range(1000):
        step_at = 5 + seed % 41
        points = found(series(seed, spread, step_at=step_at))
        told += any(abs(point.at - step_at) <= 2 for point in points)
    assert told >= least


def test_a_step_is_found_after_two_runs_if_runs_hardly_differ() -> None:
    assert [point.at for point in found(series(1, 0.01, step_at=48))] == [48]
    assert found(series(1, 0.01, step_at=49)) == []


def test_the_levels_are_means_up_to_the_next_change() -> None:
    points = found([1.0] * 10 + [2.0] * 10 + [1.5] * 10)
    assert points == [ChangePoint(10, 1.0, 2.0), ChangePoint(20, 2.0, 1.5)]


def test_a_level_that_rose_and_fell_again_is_found() -> None:
    """No single point parts such a series in two."""
    values = [
        value - (STEP if n >= 20 else 0)
        for n, value in enumerate(series(1, 0.01, step_at=10, runs=30))
    ]
    assert [point.at for point in found(values)] == [10, 20]


def test_a_change_does_not_hang_on_one_run() -> None:
    """One accident is no change, wherever it is; two in a row are."""
    for at in range(20):
        values = series(1, 0.01, runs=20)
        values[at] += 1.0
        assert found(values) == []
    values = series(1, 0.01, runs=20)
    values[-1] += 1.0
    values[-2] += 1.0
    assert [point.at for point in found(values)] == [18]


def test_accidents_raise_few_alarms() -> None:
    """One run in 25 is up to twice as slow."""
    alarms = 0
    for seed in range(500):
        chance = random.Random(seed)  # noqa: S311
        values = [
            chance.gauss(0, 0.03) + (chance.uniform(0.2, 0.7) if chance.random() < 0.04 else 0)
            for _ in range(50)
        ]
        alarms += bool(found(values))
    assert alarms <= 10


def test_what_measuring_cannot_show_is_no_change() -> None:
    """Neither less than `least`, nor a shift of a few `floor`s between equal values."""
    assert found([1.0] * 25 + [1.025] * 25) == []
    assert found([1.0] * 25 + [1.035] * 25) != []
    assert found([1.0] * 4 + [1.035] * 4) == []


@pytest.mark.parametrize("runs", [0, 1, 2, 3])
def test_few_runs_tell_nothing(runs: int) -> None:
    assert found([0.0] * (runs // 2) + [5.0] * (runs - runs // 2)) == []


def test_three_and_three_runs_tell_what_is_plain() -> None:
    assert [point.at for point in found([0.0] * 3 + [1.0] * 3)] == [3]

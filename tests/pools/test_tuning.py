"""Which numbers of workers are tried, kept and given up, on rates that are exactly known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._pools.tuning import Tick, Tuner

if TYPE_CHECKING:
    from collections.abc import Callable


def steer(
    rate: Callable[[int], float],
    low: int = 1,
    high: int = 32,
    ticks: int = 400,
    **told: Any,
) -> tuple[Tuner, list[tuple[int, int]]]:
    """Return the tuner after so many ticks of 0.1 s, and each change."""
    tuner = Tuner(low, high)
    changes = []
    owed = 0.0
    for _ in range(ticks):
        before = tuner.count
        owed += 0.1 * rate(before)
        done, owed = int(owed), owed - int(owed)
        tuner.tick(
            Tick(
                0.1, done, told.get("idle", 0.0), told.get("blocked", 0.0), 0.05, told.get("bound")
            )
        )
        if tuner.count != before:
            changes.append((before, tuner.count))
    return tuner, changes


def test_it_grows_for_as_long_as_that_gains() -> None:
    tuner, changes = steer(lambda n: 100 * n)

    assert changes == [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32)]
    assert tuner.count == 32


def test_it_begins_at_low_and_stays_within_high() -> None:
    tuner, changes = steer(lambda n: 100 * n, low=3, high=5)

    assert changes == [(3, 5)]
    assert tuner.count == 5


@pytest.mark.parametrize("permits", [1, 2, 3, 6, 10, 20])
@pytest.mark.parametrize("low", [1, 4])
def test_it_finds_where_a_limit_begins(permits: int, low: int) -> None:
    """More than a limit lets work gain nothing, and are taken back."""
    tuner, _ = steer(lambda n: 100 * min(n, permits), low=low)

    assert min(tuner._kept, permits) >= 0.9 * permits
    assert tuner._kept <= max(low, 2 * permits)


@pytest.mark.parametrize("best", [1, 3, 4, 6, 10, 12])
def test_it_finds_the_peak_where_more_are_worse(best: int) -> None:
    def rate(n: int) -> float:
        return 100 * min(n, best) / (1 + 0.2 * max(0, n - best))

    tuner, _ = steer(rate, ticks=200)

    assert rate(tuner._kept) >= 0.9 * rate(best)


def test_it_backs_off_quickly_when_more_are_worse() -> None:
    tuner, changes = steer(lambda n: {1: 200, 2: 100}.get(n, 0), high=2, ticks=17)

    assert changes == [(1, 2), (2, 1)]
    assert tuner.why == "worse: 100 items/s with 2, 200 with 1"


@pytest.mark.parametrize(
    "told",
    [{"idle": 0.3}, {"blocked": 0.3}, {"bound": "the GIL is held 96 % of the time"}],
    ids=["no input", "no room", "gil"],
)
def test_it_never_grows_against_the_evidence(told: dict[str, Any]) -> None:
    _, changes = steer(lambda n: 100 * n, **told)

    assert changes == []


def test_a_gain_within_the_noise_is_none() -> None:
    """Ticks differ by as much as the gain."""
    tuner, counts = Tuner(1, 2), []
    for number in range(60):
        done = (20 if tuner.count == 1 else 21) + (10 if number % 2 else -10)
        tuner.tick(Tick(0.1, done, 0.0, 0.0, 0.05))
        counts.append(tuner.count)

    assert 2 in counts
    assert counts[-1] == 1
    assert tuner.why.startswith("no gain: ")


def test_it_looks_again_when_something_else_has_changed() -> None:
    permits = 2
    tuner = Tuner(1, 16)
    for number in range(1000):
        if number == 500:
            permits = 8
        tuner.tick(Tick(0.1, 10 * min(tuner.count, permits), 0.0, 0.0, 0.05))
        if number == 499:
            assert 2 <= tuner.count <= 4

    assert tuner.count >= 8


def test_one_trial_at_a_time_after_a_while_and_ever_less_often() -> None:
    _, changes = steer(lambda n: 100 * min(n, 2), ticks=6000)

    grown = [number for number, (before, after) in enumerate(changes) if after > before]
    # 600 s: looked at again after 15, 30, 60, 120, 120 … s
    assert len(grown) < 15

"""What windows say: exact, with given counts."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics._experiments.effects import Record, Window


def window(mode: Any, counts: dict[str, int], **more: Any) -> Window:
    given = {"target": None, "seconds": 1.0, "ahead_s": 0.0, "paused_s": 0.0, "invocations": 0}
    return Window(mode=mode, counts=dict(counts), **given | more)


def record(*windows: Window) -> Record:
    return Record([*[window("as it is", {"x": 40, "y": 40}, spent={"x": 1.0})] * 4, *windows])


def faster(counts: dict[str, int], ahead_s: float = 0.5) -> list[Window]:
    one = window("faster", counts, target="x", ahead_s=ahead_s, invocations=counts["x"])
    return [one] * 3


def slower(counts: dict[str, int], added_s: float, spent_s: float) -> list[Window]:
    ahead_s = added_s * counts["x"]
    more = {"target": "x", "invocations": counts["x"], "added_s": added_s}
    return [window("slower", counts, ahead_s=ahead_s, spent={"x": spent_s}, **more)] * 3


def test_a_run_that_lost_nothing_while_the_stage_was_ahead_gains_it_all() -> None:
    effect = record(*faster({"x": 40, "y": 40})).effects(["x"])["x"]
    assert effect.faster is not None
    assert effect.faster.gain == pytest.approx(1.0)
    assert effect.ahead == pytest.approx(0.5)
    assert effect.invocations == 120


def test_a_run_that_lost_all_of_it_gains_nothing() -> None:
    effect = record(*faster({"x": 20, "y": 20})).effects(["x"])["x"]
    assert effect.faster is not None
    assert effect.faster.gain == pytest.approx(0.0)


def test_too_few_calls_or_windows_are_null() -> None:
    assert record(*faster({"x": 6, "y": 40})).effects(["x"])["x"].gain is None
    assert record(*faster({"x": 40, "y": 40})[:2]).effects(["x"])["x"].gain is None
    assert record().effects(["x"])["x"].gain is None


def test_a_slower_stage_that_costs_nothing_gains_nothing() -> None:
    windows = slower({"x": 40, "y": 40}, 0.004, 1.0)
    effect = record(*windows).effects(["x"])["x"]
    assert effect.absorbs is False
    assert effect.gain is not None
    assert effect.gain.gain == pytest.approx(0.0)


def test_a_slower_stage_that_costs_all_that_was_added_gains_by_amdahl() -> None:
    """40 calls of 25 ms are all of a second; 32 of 31.25 ms are too."""
    windows = slower({"x": 32, "y": 32}, 0.00625, 0.8)
    effect = record(*windows).effects(["x"])["x"]
    assert effect.slower is not None
    assert effect.slower.gain == pytest.approx(1.0)


def test_what_a_slower_stage_costs_bounds_what_a_faster_one_gains() -> None:
    """The pauses did not reach what limits the run."""
    windows = [*faster({"x": 40, "y": 40}), *slower({"x": 40, "y": 40}, 0.004, 1.0)]
    effect = record(*windows).effects(["x"])["x"]
    assert effect.faster is not None
    assert effect.faster.gain == pytest.approx(1.0)
    assert effect.gain is not None
    assert effect.gain.gain == pytest.approx(0.0)


def test_calls_that_wait_for_each_other_absorb_what_is_added() -> None:
    """Calls get shorter by what was added before them: that bounds nothing."""
    windows = [*faster({"x": 40, "y": 40}), *slower({"x": 40, "y": 40}, 0.004, 0.84)]
    effect = record(*windows).effects(["x"])["x"]
    assert effect.absorbs is True
    assert effect.gain is not None
    assert effect.gain.gain == pytest.approx(1.0)


def test_calls_that_wait_for_each_other_and_end_at_a_steady_rate_are_null() -> None:
    windows = [*faster({"x": 40, "y": 40}), *slower({"x": 40, "y": 40}, 0.004, 0.84)]
    found = record(*windows)
    for one in found.windows:
        one.gaps = {"x": (40, 1.0, 40 * 0.025**2)}
    assert found.effects(["x"])["x"].steady
    assert found.effects(["x"])["x"].gain is None


def test_stages_of_phases_count_for_their_own_phase() -> None:
    """X takes one second, y three: progress is not the mean of their counts."""
    phases = [{"x": 100}, {"y": 10}, {"y": 10}, {"y": 10}] * 3
    base = [window("as it is", counts) for counts in phases]
    found = Record([*base, *[window("faster", {"x": 100}, target="x", ahead_s=0.5,
                                    invocations=100)] * 3])  # fmt: skip
    effect = found.effects(["x"])["x"]
    assert effect.faster is not None
    assert effect.faster.gain == pytest.approx(1.0, abs=0.03)

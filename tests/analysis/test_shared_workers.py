"""Verdicts on merged runs, on stages that take turns, and on threads that share a CPU."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from tests.analysis.support import Data, change, example, queue, report, stage


def merged(span: float, blocked: float, wall_s: float) -> Data:
    """Return two merged runs of 100 s; their workers and seconds are added."""
    data = report(
        [stage("parse", busy=160, idle=40, workers=2)],
        [queue("in", [], ["parse"], span=span, blocked=blocked) | {"observed_s": 200.0}],
        wall_s=wall_s,
    )
    data["run"]["merged_from"] = ["a", "b"]
    return data


@pytest.mark.parametrize("wall_s", [100.0, 200.0, 3600.0])
def test_merged_runs_have_one_verdict_whether_they_overlapped_or_not(wall_s: float) -> None:
    held = analyze(merged(span=198, blocked=150, wall_s=wall_s))
    slow = analyze(merged(span=198, blocked=0, wall_s=wall_s))

    assert (held["kind"], held["stage"]) == ("stage", "parse")
    assert slow["kind"] == "source"


def in_turn(times: dict[str, float], *, workers: int = 1, span: float = 97.5, **more: Any) -> Data:
    """Return stages that take turns in one loop, with queues between them; none waits."""
    names = list(times)
    return report(
        [
            stage(name, busy=busy * workers, inside=busy * workers, workers=workers)
            for name, busy in times.items()
        ],
        [queue(f"q{i}", [a], [b], span=span) for i, (a, b) in enumerate(itertools.pairwise(names))],
        **more,
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_the_times_of_stages_that_take_turns_add_up(workers: int) -> None:
    found = analyze(in_turn({"fetch": 4, "process": 78, "write": 16}, workers=workers))

    assert (found["kind"], found["stage"], found["ties"]) == ("serial", "process", [])
    low, high, _ = change(found, "faster", "process")
    assert low <= 100 / 61 - 1 <= high
    assert "Or let process overlap with write and fetch" in found["advice"][1]


def test_equal_stages_that_take_turns_are_not_told_apart_with_confidence() -> None:
    found = analyze(in_turn({"p": 49, "w": 48}))

    assert (found["kind"], found["confidence"]) == ("serial", "medium")


def test_a_loop_that_fills_the_first_queue_itself_is_not_a_slow_source() -> None:
    data = in_turn({"p": 49, "w": 48})
    data["queues"].insert(0, queue("in", [], ["p"], span=97.5))

    assert analyze(data)["kind"] == "serial"


def test_a_stage_whose_puts_fit_in_its_own_time_does_not_take_turns() -> None:
    found = analyze(in_turn({"p": 12, "w": 86}, span=11.9))

    assert (found["kind"], found["stage"]) == ("stage", "w")
    assert "turns" not in found["why"]
    assert found["what_if"]


@pytest.mark.parametrize(("second", "kind"), [(48, "tie"), (25, "source")])
def test_without_idleness_the_source_limits_only_if_time_is_unexplained(
    second: float, kind: str
) -> None:
    assert analyze(in_turn({"p": 49, "w": second}, span=10))["kind"] == kind


def threads(cores: float, *, idle: float = 140, source: float = 1) -> Data:
    """Return four computing threads, fed by one that is mostly blocked."""
    return report(
        [stage("work", busy=400 - idle, idle=idle, workers=4)],
        [queue("q", [], ["work"], span=98, blocked=98 - source, capacity=4)],
        cpu=(cores / 2, 2, "host"),
    )


@pytest.mark.parametrize("cores", [0.76, 0.83, 0.9, 1.0, 1.24])
def test_the_cpu_limits_computing_threads_that_do_not_fill_one_cpu(cores: float) -> None:
    found = analyze(threads(cores))

    assert (found["kind"], found["stage"], found["confidence"]) == ("gil", "work", "medium")
    assert {each["change"] for each in found["what_if"]} == {"faster"}
    assert any("less than one CPU" in line for line in found["assumptions"]) == (cores < 0.9)


def test_the_gil_is_not_the_limit_without_overlap_or_with_a_slow_source() -> None:
    assert analyze(threads(0.83, idle=270))["kind"] == "stage"
    assert analyze(threads(0.83, source=98))["kind"] == "source"


@pytest.mark.parametrize("cores", [0.05, 0.35, 0.5, 0.7])
def test_gains_are_limited_to_the_remaining_cpu_time(cores: float) -> None:
    found = analyze(threads(cores, idle=0))

    most = 1 / cores - 1 if cores > 0.3 else math.inf
    assert found["kind"] == "stage"
    low, high, _ = change(found, "workers", "work")
    assert low <= min(0.25, most) <= high <= most


def test_a_half_used_cpu_limits_the_gain_of_one_more_worker() -> None:
    data = example(cpu=(0.3, 2, "host"))

    assert change(analyze(data), "workers", "write")[1] <= 1 / 0.6 - 0.999

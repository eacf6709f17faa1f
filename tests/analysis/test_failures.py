"""Failures of which nobody knows whether they were tried again are no verdict, and hide none."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from tests.analysis.support import Data, change, own, queue, report, stage


def failing(made: Data, failures: float, **more: Any) -> Data:
    """Return a stage of which a part of the calls failed, as long as the others."""
    errors = round(failures * made["count"])
    return made | {
        "errors": {"total": errors, "by_type": {"OSError": errors}},
        "failed_s": failures * made["duration_s"]["total"],
        "retried": {"count": 0, "total_s": 0.0},
        **more,
    }


@pytest.mark.parametrize("failures", [0.5, 0.75, 0.99])
def test_a_sequential_run_with_many_failures_still_has_a_slowest_stage(failures: float) -> None:
    found = analyze(report([failing(own("fetch", 88.0, 0.88), failures), own("write", 12.0, 0.12)]))

    assert (found["kind"], found["stage"]) == ("serial", "fetch")
    low, high, _ = change(found, "errors", "fetch")
    assert low == 0.0
    assert high > 0.75


@pytest.mark.parametrize("failures", [0.5, 0.75])
def test_so_does_one_with_queues(failures: float) -> None:
    found = analyze(
        report(
            [stage("parse", busy=20, blocked=79), failing(stage("write", busy=99), failures)],
            [queue("q", ["parse"], ["write"], blocked=79)],
        )
    )

    # a faster one may fail as slowly
    assert (found["kind"], found["stage"]) == ("workers", "write")


def test_it_is_less_sure_where_no_failures_might_gain_more() -> None:
    few, many = (analyze(report([failing(own("fetch", 99.0, 0.99), part)])) for part in (0.2, 0.75))

    assert (few["confidence"], many["confidence"]) == ("high", "medium")
    assert not any("tried again" in each for each in few["assumptions"])
    (told,) = [each for each in many["assumptions"] if "tried again" in each]
    assert told.startswith("If each failed call of fetch was tried again, no failures would gain")


@pytest.mark.parametrize("failures", [0.2, 1.0])
def test_it_is_less_sure_where_every_call_fails(failures: float) -> None:
    alone = analyze(report([failing(own("fetch", 99.0, 0.99), failures)]))
    queued = analyze(
        report(
            [stage("parse", busy=20, blocked=79), failing(stage("write", busy=99), failures)],
            [queue("q", ["parse"], ["write"], blocked=79)],
        )
    )

    told = [
        (found["confidence"], found["stage"])
        for found in (alone, queued)
        if f"Every call of {found['stage']} failed" in " ".join(found["assumptions"])
    ]
    assert told == ([("medium", "fetch"), ("medium", "write")] if failures == 1.0 else [])
    others = analyze(report([own("fetch", 88.0, 0.88), failing(own("write", 12.0, 0.12), 1.0)]))
    assert (others["stage"], others["confidence"]) == ("fetch", "high")


def test_failures_that_surely_cost_time_are_named_though_others_may_cost_more() -> None:
    slow = failing(own("slow", 70.0, 0.7), 0.95)
    # good calls are short, and each failure waits for a timeout
    sure = failing(own("sure", 29.0, 0.29), 0.5, failed_s=27.0)
    found = analyze(report([slow, sure]))

    assert (found["kind"], found["stage"]) == ("errors", "sure")


def test_a_run_with_stages_is_not_said_to_have_none() -> None:
    at_once = analyze(report([own("fetch", 1e-9, 1.0)], wall_s=0.0))
    assert at_once["why"] == "No stage was busy for long enough."
    assert analyze(report([]))["why"] == "No stage ran."

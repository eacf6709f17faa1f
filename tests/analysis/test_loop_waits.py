"""Waits for the event loop are a part of what those take that held it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.analysis.case import make_case
from otel_pipeline_metrics.analysis.reading import facts_of
from otel_pipeline_metrics.analysis.recent import since
from tests.analysis.support import Data, change, own, report

WORKERS = 4


def row(
    name: str, own_s: float, running: float = 0.0, late: float = 0.0, *, tasks: int = WORKERS
) -> Data:
    """Return a stage of a run of 100 s, which four workers run in turn with others."""
    time_s: dict[str, Any] = {
        "wall": own_s,
        "busy": own_s,
        "running": running,
        "awaiting": own_s - running,
        "idle": 0.0,
        "blocked": 0.0,
        "loop_wait_most": late,
    }
    levels = {WORKERS: (200, own_s / 200)}
    return own(name, own_s, own_s / 400, levels, time_s=time_s, tasks=tasks)


def crawl(*, tasks: int = WORKERS) -> Data:
    """Return a report whose pages and entries seem to take longer than they do."""
    return report(
        [
            row("page", 130.0, late=35.0, tasks=tasks),
            row("parse", 70.0, 70.0, tasks=tasks),
            row("store", 190.0, late=170.0, tasks=tasks),
        ]
    )


def test_who_holds_the_loop_is_named_and_not_who_waits_for_it() -> None:
    found = analyze(crawl())

    assert (found["kind"], found["name"], found["confidence"]) == ("event loop", "parse", "high")
    assert "held the event loop 70 % of the run" in found["why"]
    assert "up to 53 % of the time of all stages was a wait for their turn" in found["why"]
    # with the whole of the waits, 70 of 97.5 s are those of `parse`; with two fifths of it, 38
    low, high, _ = change(found, "faster", "parse")
    assert low == pytest.approx(100 / (100 - 38 / 2) - 1, abs=0.08)
    assert high == pytest.approx(100 / (100 - 68.75 / 2) - 1, abs=0.08)


def test_nothing_is_charged_to_threads() -> None:
    """They hold no event loop; a stage that slow waits of others could be charged to is none."""
    found = analyze(crawl(tasks=0))

    assert (found["kind"], found["name"]) == ("serial", "store")


def test_what_is_charged_is_what_others_take_less() -> None:
    bounds = make_case(facts_of(crawl())).bounds
    taken: Counter[str | None] = Counter()
    for bound in bounds.alone:
        taken.update(bound.made_of)
        assert sum(bound.made_of.values()) == pytest.approx(bound.seconds)

    # between two fifths of the waits and all of them
    assert taken["store"] == pytest.approx((190 - 0.7 * 170) / 390 * sum(taken.values()))
    assert taken["parse"] == pytest.approx((70 + 0.7 * 205) / 390 * sum(taken.values()))


def test_stages_inside_of_others_count_once() -> None:
    outer = row("handle", 10.0, 70.0, late=170.0)
    data = report([*crawl()["stages"], outer])
    for stage in data["stages"][1:3]:
        stage["callers"] = [{"stage": "handle", "wall_s": 10.0, "spawned": False}]

    parts = facts_of(data).parts

    assert (parts["handle"].held_s, parts["handle"].late_s) == (0.0, 0.0)
    assert (parts["parse"].held_s, parts["store"].late_s) == (70.0, 170.0)


def test_the_latest_part_of_a_run_has_its_own_waits() -> None:
    before, now = crawl(), crawl()
    for data, seconds in ((before, 100.0), (now, 130.0)):
        data["run"]["wall_s"] = seconds
    now["stages"][2]["time_s"]["loop_wait_most"] = 180.0

    found = since(now, before)

    assert found["stages"][2]["time_s"]["loop_wait_most"] == 10.0


def test_without_a_stage_that_held_the_loop_none_is_named() -> None:
    data = crawl()
    data["stages"][1]["time_s"] |= {"running": 0.0, "awaiting": 70.0}

    assert analyze(data)["kind"] != "event loop"
    # nor where the largest seems to wait for it
    only = report([row("store", 390.0, late=300.0)])
    assert analyze(only)["kind"] != "event loop"

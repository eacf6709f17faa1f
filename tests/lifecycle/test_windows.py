"""Test the windows of a run: their bounds, their number, and that they add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle.windows import MOST, Reading, Windows

if TYPE_CHECKING:
    from tests.conftest import Clock


def reading(at_s: float, calls: int, *, running: float | None = 0.0) -> Reading:
    sums = (float(calls), 2.0 * calls, running, 0.0, running, 0.0, 0.0)
    return Reading(at_s, {("work", "process"): sums}, {"q": calls}, at_s / 2, at_s, 100)


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=400))
def test_windows_are_few_follow_each_other_and_add_up(pauses: list[float]) -> None:
    windows, at_s = Windows(), 0.0
    windows.add(reading(0.0, 0))
    for number, pause in enumerate(pauses):
        at_s += pause
        if windows.is_due(at_s):
            windows.add(reading(at_s, number))
    rows = windows.rows(reading(at_s + 1, len(pauses)))
    assert len(rows) <= MOST + 1
    assert (rows[0]["start_s"], rows[-1]["end_s"]) == (0.0, at_s + 1)
    ends = [row["end_s"] for row in rows[:-1]]
    assert ends == [row["start_s"] for row in rows[1:]]
    assert sum(row["stages"][0]["count"] for row in rows) == len(pauses)


def test_a_window_has_rates_states_depths_and_the_machine() -> None:
    windows = Windows()
    windows.add(reading(0.0, 0))
    windows.add(reading(4.0, 8, running=2.0))
    first, last = windows.rows(reading(6.0, 8, running=None))
    assert first == {
        "start_s": 0.0,
        "end_s": 4.0,
        "stages": [
            {
                "name": "work",
                "kind": "process",
                "count": 8,
                "items": 16,
                "calls_per_s": 2.0,
                "items_per_s": 4.0,
                "time_s": {"running": 2.0, "awaiting": 0, "busy": 2.0, "idle": 0, "blocked": 0},
            }
        ],
        "queues": [{"name": "q", "depth": 8}],
        "cpu_utilization": 0.5,
        "rss_bytes": 100,
    }
    (stage,) = last["stages"]
    assert (stage["count"], stage["time_s"]["running"]) == (0, None)


def test_windows_get_wider_as_a_run_goes_on() -> None:
    windows = Windows()
    for second in range(1_000):
        if windows.is_due(second):
            windows.add(reading(float(second), second))
    widths = [row["end_s"] - row["start_s"] for row in windows.rows(reading(1_000.0, 1_000))]
    assert MOST / 2 <= len(widths) <= MOST + 1
    # windows of one width and of twice that width; the last one is open
    assert max(widths) <= 2 * min(widths[:-1])


def test_the_windows_of_a_run(clock: Clock, monkeypatch: Any) -> None:
    @opm.process(items=len)
    def work(seconds: float) -> list[int]:
        clock.advance(seconds)
        return [1, 2]

    with opm.run("windows") as run:
        for seconds in (1.0, 3.0):
            work(seconds)
            run._collector._tick(run._scope)
    rows = run.report.to_dict()["windows"]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0.0, 1.0), (1.0, 4.0)]
    found = [row["stages"][0] for row in rows]
    assert [(stage["count"], stage["items"], stage["time_s"]["running"]) for stage in found] == [
        (1, 2, 1.0),
        (1, 2, 3.0),
    ]
    # a run that samples nothing has no thread that could look
    with opm.run("none", resources=False) as run:
        work(1.0)
    assert run.report.to_dict()["windows"] == []


def test_many_runs_at_a_time_are_each_looked_at_less_often(clock: Clock) -> None:
    windows = Windows()
    windows.add(reading(0.0, 0))
    assert windows.is_due(1.0, 1.0)
    assert not windows.is_due(4.9, 5.0)
    assert windows.is_due(5.0, 5.0)
    runs = [opm.run("many", attributes={"n": n}) for n in range(60)]
    for run in runs:
        run.__enter__()
    clock.advance(2.0)
    runs[0]._collector._tick(runs[0]._scope)
    clock.advance(2.0)
    runs[0]._collector._tick(runs[0]._scope)
    for run in reversed(runs):
        run.__exit__(None, None, None)
    ends = [row["end_s"] for row in runs[0].report.to_dict()["windows"]]
    # 61 scopes and one look in 20 a second: the first tick came too early
    assert ends == [4.0]

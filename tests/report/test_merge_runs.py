"""Merged runs: the time they took together, and a report that stays small."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.merge import merge
from tests.report import samples
from tests.report.test_merge import merged

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_runs_at_the_same_time_count_once() -> None:
    run = merged(
        {"started": "2026-01-01T00:00:10+00:00", "wall_s": 5.0, "id": "a"},
        {"started": "2026-01-01T00:00:00+00:00", "wall_s": 12.5, "id": "b"},
    ).run
    assert run["started"] == "2026-01-01T00:00:00+00:00"
    assert run["wall_s"] == 15.0
    assert run["merged_from"] == ["a", "b"]
    assert run["id"] is None


def test_the_gap_between_runs_does_not_count() -> None:
    """Two runs a day apart took two minutes, and their rates are those of two minutes."""
    made = [
        samples.report(
            samples.stage("load", [0.5] * 100, items=(1000, None)),
            wall_s=60.0,
            run_id=f"run-{day}",
            started=f"2026-01-0{day}T03:00:00+00:00",
        )
        for day in (1, 2)
    ]
    merged = RunReport.merge(*reversed(made))
    assert merged.run["started"] == "2026-01-01T03:00:00+00:00"
    assert (merged.run["wall_s"], merged.run["merged_runs"]) == (120.0, 2)
    assert merged.run["spans"] == [[0.0, 60.0, 60.0], [86_400.0, 86_460.0, 60.0]]
    assert merged.stages[0]["throughput"] == {
        "wall_per_s": 200 / 120,
        "busy_per_s": 2.0,
        "items_per_s": 2000 / 120,
    }


def driver_and_workers(count: int = 20) -> tuple[RunReport, list[RunReport]]:
    """Return a driver of 50 s and its workers, which run in turn for 2.5 s each."""
    driver = samples.report(
        samples.stage("outer", [49.0], workers=None, wall_s=50.0), wall_s=50.0, run_id="driver"
    )
    workers = [
        samples.report(
            samples.stage("w", [0.024] * 100, share=(0.96, 0.04, 0.0), wall_s=2.5),
            wall_s=2.5,
            run_id=f"worker-{number}",
            started=f"2026-05-04T03:02:{1 + number * 2:02d}.500000+00:00",
        )
        for number in range(count)
    ]
    return driver, workers


def test_a_driver_and_its_workers_took_the_drivers_time() -> None:
    driver, workers = driver_and_workers()
    for order in ((driver, *workers), (*workers, driver)):
        merged = RunReport.merge(*order)
        assert merged.run["wall_s"] == 50.0
        assert merged.run["observed_s"] == 100.0
        stage = next(stage for stage in merged.stages if stage["name"] == "w")
        # one worker after the other was there all the time
        assert (stage["workers"], stage["worker_s"]) == (20, 50.0)


def test_the_verdict_of_workers_in_turn_is_that_of_one_worker() -> None:
    """It was busy for 96 % of the run; twenty workers would each have been for 5 %."""
    driver, workers = driver_and_workers()
    found = RunReport.merge(driver, *workers).bottleneck
    assert (found["kind"], found["stage"], found["busy"]) == ("stage", "w", pytest.approx(0.96))


@pytest.mark.parametrize("apart", [0, 1])
def test_the_verdict_is_one_whether_runs_overlapped_or_not(apart: int) -> None:
    """A source that works for 59 of 100 s is no limit, in two runs at once or in turn."""

    def of(blocked: float) -> dict[str, Any]:
        made = []
        for number in range(2):
            queue = samples.queue("in", [], ["parse"], waits=[0.1] * 9)
            queue |= {"put_span_s": 99.0, "put_blocked_s": blocked}
            stage = samples.stage("parse", [0.8] * 100, share=(0.8, 0.2, 0), wall_s=100.0)
            started = f"2026-05-0{1 + number * apart}T00:00:00+00:00"
            made.append(
                samples.report(
                    stage, queues=[queue], wall_s=100.0, run_id=f"{number}", started=started
                )
            )
        return RunReport.merge(*made).bottleneck

    assert (of(40.0)["kind"], of(40.0)["stage"]) == ("stage", "parse")
    assert of(0.0)["kind"] == "source"


def test_many_runs_leave_a_small_report() -> None:
    """It keeps the latest ids, the largest gaps, and the sums of all processes."""
    made = []
    for number in range(300):
        data = samples.full_data(f"run-{number}")
        # the first one is five minutes earlier
        minute = number + 5 if number else 0
        data["run"] |= {"started": f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00+00:00"}
        made.append(RunReport(data))
    merged = RunReport.merge(*made)
    run = merged.run
    assert (run["merged_runs"], run["wall_s"]) == (300, 300 * 20.0)
    assert run["merged_from"] == [f"run-{number}" for number in range(284, 300)]
    assert len(run["spans"]) == 8
    assert sum(covered for _, _, covered in run["spans"]) == run["wall_s"]
    assert run["spans"][-1][1] == 304 * 60 + 20
    assert run["spans"][0] == [0.0, 20.0, 20.0]
    assert merged.telemetry["processes"] == [
        {"process": None, **{k: merged.telemetry[k] for k in ("spans", "metric_points")}}
        | {k: merged.telemetry[k] for k in ("replayed", "guards")}
    ]
    assert merged.telemetry["spans"]["created"] == 300 * 3001
    assert len(merged.to_json()) < 2 * len(made[0].to_json())
    # one more report after that: what was given up is not counted
    later = samples.report(run_id="later", started="2026-02-01T00:00:00+00:00")
    assert RunReport.merge(merged, later).run["wall_s"] == 301 * 20.0
    assert RunReport.merge(merged, later).run["merged_runs"] == 301


def test_reports_are_merged_one_after_the_other() -> None:
    """Those that were read are not kept, so thousands fit into little memory."""
    alive: list[weakref.ref[Any]] = []

    class Part(dict[str, Any]):
        """A dict that a weak reference can name."""

    def parts() -> Iterator[Part]:
        for number in range(500):
            part = Part(samples.data([samples.stage("x", [1.0])], run_id=f"run-{number}"))
            alive.append(weakref.ref(part))
            yield part
            del part
            assert sum(one() is not None for one in alive) <= 2

    assert merge(parts())["stages"][0]["count"] == 500


def test_the_given_reports_stay_as_they_are() -> None:
    reports = [samples.full("a"), samples.full("b")]
    before = [report.to_dict() for report in reports]
    RunReport.merge(*reports)
    assert [report.to_dict() for report in reports] == before


def test_a_report_that_an_earlier_version_merged_keeps_its_runs_time() -> None:
    """Its wall time was that of a day; its queues tell that two runs took 20 s each."""
    earlier = samples.data(
        [samples.stage("x", [1.0] * 9, workers=2)],
        [samples.queue("q", [], ["x"]) | {"observed_s": 40.0}],
        wall_s=86_420.0,
        run_id="x",
    )
    earlier["run"] |= {"id": None, "merged_from": ["a", "b"]}
    later = samples.data(run_id="c", started="2026-06-01T00:00:00+00:00")
    merged = RunReport.merge(RunReport(earlier), RunReport(later))
    assert (merged.run["wall_s"], merged.run["merged_runs"]) == (60.0, 3)
    assert merged.stages[0]["worker_s"] == 40.0

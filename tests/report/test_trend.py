"""A pipeline over many runs: figures, changes, what is left out, and the formats."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.trend import Change, Trend, TrendFigure, trend
from otel_pipeline_metrics.report.trend_result import sparkline
from tests.report import samples
from tests.report.test_html import Page

FIRST = datetime(2026, 1, 1, 3, tzinfo=timezone.utc)


def run(
    day: int,
    *,
    seconds: dict[str, float] | None = None,
    calls: int = 100,
    errors: int = 0,
    items: int | None = 100,
    outside_s: float = 0.0,
    spread: float = 0.02,
    **more: Any,
) -> RunReport:
    """Return the run of a day: its stages take turns, and each call differs a little."""
    chance = random.Random(day)  # noqa: S311
    drawn = {
        name: [mean * chance.lognormvariate(0, spread) for _ in range(calls)]
        for name, mean in (seconds or {"load": 0.1, "save": 0.2}).items()
    }
    wall_s = sum(map(sum, drawn.values())) + outside_s
    stages = [
        samples.stage(
            name,
            values,
            wall_s=wall_s,
            items=(None, items),
            errors={"OSError": errors} if name == "save" else None,
        )
        for name, values in drawn.items()
    ]
    made = samples.data(
        stages,
        wall_s=wall_s,
        run_id=f"run-{day}",
        started=(FIRST + timedelta(days=day)).isoformat(),
    )
    made["run"] |= more
    return RunReport(made)


def figure(found: Trend, name: str) -> TrendFigure:
    return next(one for one in found.figures if one.name == name)


def stepped(at: int = 20, runs: int = 30, **worse: Any) -> list[RunReport]:
    return [run(day, **(worse if day >= at else {})) for day in range(runs)]


SLOWER = {"seconds": {"load": 0.1, "save": 0.28}}


def test_the_point_where_a_stage_became_slower() -> None:
    found = trend(stepped(**SLOWER), fail_on=0.1)
    assert [one.name for one in found.figures] == [
        "throughput of save",
        "wall time",
        "p95 of load",
        "p95 of save",
        "errors",
    ]
    (change,) = figure(found, "p95 of save").changes
    assert change.at == 20
    assert change.before == pytest.approx(0.2, rel=0.06)
    assert change.after == pytest.approx(0.28, rel=0.06)
    assert figure(found, "p95 of load").changes == ()
    assert found.regressions[0].startswith("throughput of save fell by 21")
    assert found.regressions[0].endswith(" % since run 21")
    assert [line.split(" by ")[0] for line in found.regressions] == [
        "throughput of save fell",
        "p95 of save rose",
    ]
    assert any(
        note.startswith("wall time rose by 2")
        and note.endswith("with run 21 of 30 (2026-01-21T03:00:00+00:00, run-20)")
        for note in found.notes
    )
    assert found.exit_code == 1


def test_without_fail_on_nothing_fails() -> None:
    found = trend(stepped(**SLOWER))
    assert (found.regressions, found.exit_code) == ((), 0)
    assert "3 figures changed" in found.render()


@pytest.mark.parametrize(("fail_on", "expected"), [(0.1, 1), (0.35, 1), (0.45, 0)])
def test_the_threshold_is_an_argument(fail_on: float, expected: int) -> None:
    assert trend(stepped(**SLOWER), fail_on=fail_on).exit_code == expected


def test_equal_runs_have_not_changed() -> None:
    found = trend((run(day) for day in range(50)), fail_on=0.05)
    assert (found.exit_code, found.notes) == (0, ())
    assert "no change was found" in found.render()


def test_a_wait_outside_of_stages_lowers_the_throughput() -> None:
    found = trend(stepped(outside_s=10.0), fail_on=0.1)
    assert [line.split(" by ")[0] for line in found.regressions] == ["throughput of save fell"]


def test_more_work_is_not_worse() -> None:
    """Its wall time is longer, and the note says so."""
    found = trend(stepped(calls=200, items=200), fail_on=0.1)
    assert found.exit_code == 0
    assert any(note.startswith("wall time rose by ") for note in found.notes)
    assert figure(found, "throughput of save").changes == ()


def test_what_recovered_is_no_regression() -> None:
    reports = [run(day, **(SLOWER if 10 <= day < 20 else {})) for day in range(30)]
    found = trend(reports, fail_on=0.1)
    assert [change.at for change in figure(found, "p95 of save").changes] == [10, 20]
    assert found.exit_code == 0


def test_what_recovered_in_part_is_judged_by_what_is_left() -> None:
    def after(day: int) -> dict[str, Any]:
        if day < 10:
            return {}
        return SLOWER if day < 20 else {"seconds": {"load": 0.1, "save": 0.25}}

    found = trend((run(day, **after(day)) for day in range(30)), fail_on=0.1)
    assert any(line.startswith("p95 of save rose by 2") for line in found.regressions)
    assert trend((run(day, **after(day)) for day in range(30)), fail_on=0.3).exit_code == 0


def test_what_became_worse_again_is_judged_by_the_level_before() -> None:
    """It is better than at first, and worse than it was."""
    saves = (0.2, 0.28, 0.15, 0.18)
    reports = [run(day, seconds={"load": 0.1, "save": saves[day // 10]}) for day in range(40)]
    found = trend(reports, fail_on=0.15)
    assert [line.split(" by ")[0] for line in found.regressions] == ["p95 of save rose"]
    assert found.regressions[0].endswith(" since run 31")


def test_more_errors_are_found() -> None:
    found = trend(stepped(errors=20), fail_on=0.1)
    assert found.regressions == ("errors rose from 0 % to 10 % since run 21",)


def test_a_few_errors_now_and_then_are_chance() -> None:
    reports = [run(day, errors=1 if day % 7 == 3 else 0) for day in range(30)]
    assert figure(trend(reports), "errors").changes == ()


def test_as_few_errors_as_chance_brings_are_no_change() -> None:
    """One error of 200 calls in each of the last four runs."""
    reports = [run(day, errors=1 if day >= 26 else 0) for day in range(30)]
    assert figure(trend(reports), "errors").changes == ()


def test_one_stage_alone() -> None:
    found = trend(stepped(**SLOWER), stage="load", fail_on=0.1)
    names = [one.name for one in found.figures]
    assert names == ["throughput of load", "p95 of load", "errors of load"]
    assert len(found.regressions) == 1  # its rate fell with that of the run
    with pytest.raises(ValueError, match="no run has a stage 'store'; there are: load, save"):
        trend(stepped(), stage="store")


def test_without_items_calls_are_counted() -> None:
    found = trend(run(day, items=None) for day in range(8))
    assert figure(found, "throughput of save").unit == "calls/s"
    assert figure(found, "throughput of save").now == pytest.approx(1 / 0.3, rel=0.01)


def test_runs_that_failed_count_for_errors_only() -> None:
    """A run that failed at once was no quick run."""
    reports = [run(day) for day in range(20)]
    for day in (18, 19):
        reports[day] = run(day, calls=2, result="failure")
    found = trend(reports, fail_on=0.1)
    assert figure(found, "wall time").values[18:] == (None, None)
    assert figure(found, "errors").values[18:] == (0.0, 0.0)
    assert found.exit_code == 0


def test_a_change_is_named_by_its_place_among_all_runs() -> None:
    reports = [run(day, **(SLOWER if day >= 20 else {})) for day in range(30)]
    reports[5] = run(5, result="failure")
    assert figure(trend(reports), "p95 of save").changes[0].at == 20


def test_the_order_is_that_of_the_runs_starts() -> None:
    reports = stepped(**SLOWER)
    random.Random(1).shuffle(reports)  # noqa: S311
    found = trend(reports)
    assert [one.id for one in found.runs] == [f"run-{day}" for day in range(30)]
    assert figure(found, "p95 of save").changes[0].at == 20


def test_a_stage_that_is_gone_is_noted() -> None:
    found = trend(stepped(seconds={"load": 0.1}))
    assert "save is not in the latest run" in found.notes
    assert figure(found, "p95 of save").values[-1] is None


def test_a_run_counts_once() -> None:
    """Twice the same report, or one merged from others that are there, is left out."""
    reports = [run(day) for day in range(4)]
    merged = RunReport.merge(*reports[:2])
    found = trend([*reports, reports[0], merged])
    assert [one.id for one in found.runs] == ["run-0", "run-1", "run-2", "run-3"]
    assert found.notes == (
        "1 report left out: twice",
        "1 report left out: merged from others that are here",
    )
    parts = trend([merged, *reports[2:]])
    assert [one.merged_runs for one in parts.runs] == [2, 1, 1]


def test_a_run_without_a_start_is_left_out() -> None:
    found = trend([run(0), run(1, started=None)])
    assert found.notes == ("1 report left out: without a start",)
    with pytest.raises(ValueError, match="no report tells when its run started"):
        trend([run(1, started=None)])


def test_unfit_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no report to follow"):
        trend([])
    with pytest.raises(ValueError, match="of different pipelines: 'nightly', 'hourly'"):
        trend([run(0), run(1, pipeline="hourly")])
    for fail_on in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fail_on must be a positive ratio"):
            trend([run(0)], fail_on=fail_on)


def test_one_report_is_a_short_trend() -> None:
    for report in (run(0), samples.full(), samples.hostile()):
        found = trend([report], fail_on=0.1)
        assert found.exit_code == 0
        assert all(found.render(form) for form in ("console", "html", "json", "markdown"))


def test_reports_are_read_one_after_the_other() -> None:
    """Ten thousand of them do not fit into memory at once."""
    found = trend(run(day, calls=3) for day in range(300))
    assert len(found.runs) == 300
    assert len(figure(found, "wall time").values) == 300


# --- the formats ----------------------------------------------------------------------------


def test_json_has_every_value() -> None:
    found = trend(stepped(**SLOWER), fail_on=0.1)
    data = json.loads(found.render("json"))
    assert data == found.to_dict()
    assert (data["schema"], data["exit_code"]) == ("otel_pipeline_metrics/trend/1", 1)
    assert data["runs"][3] == {
        "id": "run-3",
        "started": "2026-01-04T03:00:00+00:00",
        "result": "success",
        "merged_runs": 1,
    }
    throughput = data["figures"][0]
    assert (throughput["name"], throughput["unit"]) == ("throughput of save", "items/s")
    assert len(throughput["values"]) == 30
    assert throughput["changes"][0]["at"] == 20
    assert throughput["now"] == throughput["changes"][0]["after"]


def test_the_table_has_a_line_for_each_figure() -> None:
    shown = trend(stepped(**SLOWER), fail_on=0.1).render()
    assert shown.startswith(
        "trend of nightly: 30 runs from 2026-01-01T03:00:00+00:00 to "
        "2026-01-30T03:00:00+00:00, fail on 10 % worse\n"
    )
    (line,) = [line for line in shown.splitlines() if line.startswith("throughput of save ")]
    blocks, *cells = line.removeprefix("throughput of save").split("  ")[1:]
    assert len(blocks.strip()) == 30
    assert set(blocks[:20]) <= set("▆▇█")
    assert set(blocks[20:]) <= set("▁▂▃")
    assert cells[-1].strip() == "run 21"
    assert shown.rstrip().splitlines()[-1].startswith("REGRESSION: p95 of save rose by ")


def test_markdown_and_the_page_tell_the_same() -> None:
    found = trend(stepped(**SLOWER), fail_on=0.1)
    markdown = found.render("markdown")
    assert "### trend of nightly" in markdown
    assert f"> **REGRESSION: {found.regressions[0]}**" in markdown
    page = Page(found.render("html"))
    assert page.open == []
    assert f"REGRESSION: {found.regressions[0]}" in page.words
    lines = [attrs for tag, attrs in page.tags if tag == "polyline"]
    assert len(lines) == len(found.figures)
    assert [json.loads(script) for script in page.scripts] == [found.to_dict()]


def test_a_sparkline_shows_the_shape() -> None:
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([1.0, None, 3.0]) == "▁ █"
    assert sparkline([1.0] * 20 + [2.0] * 180) == "▁" * 4 + "█" * 36
    assert sparkline([]) == ""
    assert sparkline([None, None]) == "  "
    # small differences stay small
    assert set(sparkline([1.0, 1.01, 0.99])) <= set("▄▅")
    assert sparkline([0.0, 0.0]) == "▅▅"


def test_a_change_is_plain_data() -> None:
    assert Change(at=1, before=2.0, after=3.0).after == 3.0

"""What two runs came to as a whole: throughput, memory, errors, caches."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.compare import Comparison, Figure, compare
from tests.report import samples
from tests.report.test_html import Page

THROUGHPUT = "throughput of write"


def made(
    wall_s: float = 20.0,
    *,
    calls: int = 100,
    seconds: float = 0.19,
    items: tuple[int | None, int | None] = (None, None),
    workers: int | None = 1,
    spread: float = 0.05,
    **run: Any,
) -> RunReport:
    """Return a run of one stage whose calls differ a little."""
    values = [seconds * (1 + spread * (-1) ** n) for n in range(calls)]
    stage = samples.stage("write", values, items=items, workers=workers, wall_s=wall_s)
    data = samples.data([stage], wall_s=wall_s)
    data["run"] |= run
    return RunReport(data)


def figure(found: Comparison, name: str = THROUGHPUT) -> Figure:
    return next(one for one in found.figures if one.name == name)


def test_a_fall_that_no_stage_shows_is_a_regression() -> None:
    """Such as one worker in place of four, a lock, or a slower source."""
    found = compare(made(5.0, workers=4), made(20.0))
    assert found.regressions == ("throughput of write fell by 75 %",)
    assert [stage.judgement for stage in found.stages] == ["no change"]
    throughput = figure(found)
    assert (throughput.unit, throughput.old, throughput.new) == ("calls/s", 20.0, 5.0)
    assert (throughput.change, throughput.judgement) == (-0.75, "worse")
    assert figure(compare(made(20.0), made(5.0, workers=4))).judgement == "better"


@pytest.mark.parametrize(("fail_on", "expected"), [(0.1, 1), (0.7, 1), (0.8, 0), (1.0, 0)])
def test_the_threshold_of_the_throughput_is_an_argument(fail_on: float, expected: int) -> None:
    found = compare(made(5.0, workers=4), made(20.0), fail_on_throughput=fail_on)
    assert found.exit_code == expected
    assert figure(found).judgement == ("worse" if expected else "no change")


@pytest.mark.parametrize(("wall_s", "expected"), [(22.0, "no change"), (22.5, "worse")])
def test_ten_per_cent_is_the_default(wall_s: float, expected: str) -> None:
    assert figure(compare(made(), made(wall_s))).judgement == expected


def test_more_work_in_more_time_is_no_change() -> None:
    """The wall time is shown, and not judged: it is that of twice the work."""
    found = compare(made(), made(40.0, calls=200))
    assert found.exit_code == 0
    assert (figure(found, "wall time").change, figure(found, "wall time").judgement) == (
        1.0,
        "not judged",
    )


def test_items_count_where_both_runs_counted_them() -> None:
    """Half the calls with twice the items are the same throughput."""
    old, new = made(items=(100, None)), made(calls=50, seconds=0.38, items=(100, None))
    found = compare(old, new)
    assert (figure(found).unit, figure(found).old, figure(found).new) == ("items/s", 5.0, 5.0)
    assert found.exit_code == 0
    fewer = compare(old, made(items=(80, None)))
    assert fewer.regressions[1:] == ("throughput of write fell by 20 %",)


def test_a_stage_that_runs_once_does_not_count_the_work() -> None:
    def with_summary(report: RunReport) -> RunReport:
        report.stages.append(samples.stage("summary", [0.1], kind="write"))
        return report

    old, new = with_summary(made()), with_summary(made(40.0, calls=200))
    assert figure(compare(old, new)).judgement == "no change"


def test_few_calls_do_not_tell_whether_by_chance() -> None:
    found = compare(made(1.0, calls=3), made(2.0, calls=3))
    assert found.exit_code == 0
    assert "throughput of write fell by 50 %; too few calls tell whether by chance" in found.notes


def test_a_source_of_unknown_spread_may_have_been_slow_by_chance() -> None:
    """100 items that arrive at random differ by 10 % from run to run."""
    found = compare(made(100.0), made(125.0))
    assert figure(found).judgement == "noise"
    (why,) = (note for note in found.notes if note.startswith(THROUGHPUT))
    needed = int(re.search("about ([0-9,]+) calls", why)[1].replace(",", ""))  # type: ignore[index]
    # (3.09 + 1.645)² · 2 / log(1 / 0.9)²
    assert needed == 4100
    many = compare(made(4100.0, calls=4100), made(5125.0, calls=4100))
    assert many.regressions == ("throughput of write fell by 20 %",)


def test_calls_that_run_at_the_same_time_add_their_part_only() -> None:
    """With four workers, 400 calls leave an error of 4.5 % of the run, as with one."""
    old, new = (made(400 * 0.19 / width, calls=400, spread=0.9, workers=4) for width in (4.0, 3.2))
    assert compare(old, new).regressions == ("throughput of write fell by 20 %",)


@pytest.mark.parametrize("outside_s", [None, 0.5])
def test_a_source_slower_than_every_stage_sets_the_pace_at_random(outside_s: float | None) -> None:
    """Three stages with workers of their own, each busy for half of the time: all of it waits.

    Some of them are nearly always busy, so little of the time is outside of all stages.
    """

    def sourced(wall_s: float) -> RunReport:
        stages = [samples.stage(name, [0.1] * 100, wall_s=wall_s) for name in "abc"]
        made = samples.report(*stages, wall_s=wall_s)
        made.run["outside_s"] = outside_s
        return made

    found = compare(sourced(20.0), sourced(25.0))
    assert figure(found, "throughput of c").judgement == "noise"


def test_a_bad_minute_explains_a_lower_throughput() -> None:
    """All stages show it in some of their calls, and none in its quick half."""

    def minute(slow: int) -> RunReport:
        values = [0.1] * (500 - slow) + [0.4] * slow
        stages = [samples.stage(name, values, wall_s=2 * sum(values)) for name in "ab"]
        return samples.report(*stages, wall_s=2 * sum(values))

    found = compare(minute(0), minute(23))
    assert figure(found, "throughput of b").change == pytest.approx(-0.121, abs=0.001)
    assert (found.exit_code, figure(found, "throughput of b").judgement) == (0, "drift")


def random_calls(seed: str, calls: int, by: float = 1.0) -> RunReport:
    chance = random.Random(seed)  # noqa: S311
    values = [by * chance.lognormvariate(-3, 0.8) for _ in range(calls)]
    return samples.report(samples.stage("x", values), wall_s=sum(values))


def test_noise_says_how_many_calls_tell() -> None:
    """With so many, a fifth more is found; it was not with 40."""
    told = 0
    for seed in range(100):
        old, new = random_calls(f"a{seed}", 40), random_calls(f"b{seed}", 40, 1.2)
        found = compare(old, new)
        if found.stages[0].judgement != "noise":
            continue
        needed = found.stages[0].calls_needed
        assert needed is not None
        # 2 · (0.8 · 4.735 / log(1.1))², as far as 40 calls show the spread
        assert 1000 < needed < 6000
        assert f"about {needed:,} calls in each run would tell 10 % from chance" in found.notes[0]
        more = compare(random_calls(f"a{seed}", needed), random_calls(f"b{seed}", needed, 1.2))
        assert more.stages[0].judgement == "slower"
        told += 1
    assert told > 30


def test_calls_that_need_no_more_are_not_told_of_any() -> None:
    old = samples.report(samples.stage("x", [0.1] * 900 + [0.2] * 100))
    new = samples.report(samples.stage("x", [0.1] * 700 + [0.2] * 300))
    (stage,) = compare(old, new).stages
    assert (stage.judgement, stage.why) == ("noise", "has changed in part of its calls only")
    assert stage.calls_needed is not None
    assert stage.calls_needed < 1000


def test_a_slower_machine_explains_a_lower_throughput() -> None:
    def machine(pace: float) -> RunReport:
        stages = [samples.stage(name, [0.1 * pace] * 50, wall_s=10 * pace) for name in "ab"]
        return samples.report(*stages, wall_s=10 * pace)

    found = compare(machine(1.0), machine(1.14))
    assert (found.exit_code, figure(found, "throughput of b").judgement) == (0, "drift")
    assert "throughput of b fell by 12.3 %, as the calls of all stages did" in found.notes
    assert compare(machine(1.0), machine(1.3)).exit_code == 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (100, 110, "no change"),
        (100, 120, "worse"),
        (1000, 1050, "no change"),
        (120, 100, "better"),
        (None, 100, "not judged"),
    ],
)
def test_memory_is_judged_but_does_not_fail(before: int | None, after: int, expected: str) -> None:
    """Sixteen MiB and ten per cent are more than what samples miss."""
    reports = []
    for mib in (before, after):
        report = made()
        peak = None if mib is None else mib * 2**20
        report.resources.update(samples=2, rss_bytes={"avg": peak, "peak": peak})
        reports.append(report)
    found = compare(*reports)
    assert figure(found, "peak memory").judgement == expected
    assert found.exit_code == 0
    assert ("peak memory grew by 20.0 MiB" in found.notes) == (expected == "worse")


def test_more_errors_mark_their_share() -> None:
    stages = [samples.stage("x", [0.1] * 400, errors={"E": n}) for n in (0, 40)]
    found = compare(*map(samples.report, stages))
    errors = figure(found, "share of errors")
    assert (errors.old, errors.new, errors.judgement) == (0.0, 0.1, "worse")
    assert len(found.regressions) == 1


def test_the_time_outside_of_stages_is_shown_where_reports_have_it() -> None:
    found = compare(made(outside_s=1.0), made(outside_s=2.0))
    assert figure(found, "outside of stages").change == 1.0
    assert "outside of stages" not in {one.name for one in compare(made(), made()).figures}


def test_a_cache_of_the_new_run_only_is_shown() -> None:
    new = samples.full_data()
    old = {**new, "caches": []}
    cache = figure(compare(RunReport(old), RunReport(new)), "hit ratio of geo")
    assert (cache.old, cache.new, cache.judgement) == (None, 0.9, "not judged")


# --- the formats ----------------------------------------------------------------------------


def test_json_has_all_numbers() -> None:
    found = compare(made(5.0, workers=4), made(20.0))
    data = json.loads(found.render("json"))
    assert data == found.to_dict()
    assert data["schema"] == "otel_pipeline_metrics/comparison/1"
    assert (data["exit_code"], data["regressions"]) == (1, list(found.regressions))
    assert data["stages"][0]["name"] == "write"
    assert data["stages"][0]["change"] == pytest.approx(0)
    assert data["figures"][0] == {
        "name": THROUGHPUT,
        "unit": "calls/s",
        "old": 20.0,
        "new": 5.0,
        "judgement": "worse",
        "why": "fell by 75 %",
        "change": -0.75,
    }


def test_markdown_is_a_table_for_a_pull_request() -> None:
    shown = compare(made(5.0, workers=4), made(20.0)).render("markdown")
    assert shown.startswith("### compare nightly\n\nold with new, fail on 10 % slower or 10 % less")
    assert "> **REGRESSION: throughput of write fell by 75 %**" in shown
    assert "| throughput of write | worse | 20 calls/s | 5 calls/s | -75.0 % |" in shown


def test_the_page_shows_and_embeds_the_comparison() -> None:
    found = compare(made(5.0, workers=4), made(20.0))
    page = Page(found.render("html"))
    assert page.open == []
    assert "REGRESSION: throughput of write fell by 75 %" in page.words
    assert [json.loads(script) for script in page.scripts] == [found.to_dict()]


def test_hostile_names_are_text_in_every_format() -> None:
    old, new = samples.hostile(), samples.full()
    new.run["pipeline"] = old.run["pipeline"]
    found = compare(old, new)
    assert samples.HOSTILE in Page(found.render("html")).words
    assert "<script>" not in found.render("markdown")
    assert json.loads(found.render("json"))["pipeline"] == old.run["pipeline"]


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="format must be one of console, html, json, markdown"):
        compare(made(), made()).render("text")  # type: ignore[arg-type]


def test_no_number_is_infinite() -> None:
    """JSON has no infinity, so a stage that took no time before has no change."""
    old, new = made(seconds=1e-12), made()
    assert math.isfinite(json.loads(compare(old, new).render("json"))["exit_code"])

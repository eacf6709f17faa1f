"""Comparing runs: noise raises no alarm, and a third slower always does."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.compare import Comparison, Figure, compare
from otel_pipeline_metrics.report.significance import sample_of, shift_of
from tests.report import samples

CALLS = 400
WORK = {"fetch": 0.010, "process": 0.030, "write": 0.020}


def run(
    seed: int,
    *,
    slow: str | None = None,
    by: float = 1.3,
    machine: float = 1.0,
    bad_minute: float = 0.0,
    calls: int = CALLS,
    spread: float = 0.4,
    errors: dict[str, dict[str, int]] | None = None,
    cpu: float | None = None,
) -> RunReport:
    """Return a run of the same work on a machine whose speed varies a little."""
    work, chance = random.Random(0), random.Random(seed)  # noqa: S311
    wall_s = calls * sum(WORK.values()) * machine
    stages = []
    for name, typical in WORK.items():
        pace = machine * chance.lognormvariate(0, 0.015) * (by if name == slow else 1)
        values = []
        for index in range(calls):
            took = work.lognormvariate(math.log(typical), spread) * pace
            took *= chance.lognormvariate(0, 0.05)
            took *= chance.uniform(1, 5) if chance.random() < 0.01 else 1
            values.append(took * (2 if index < bad_minute * calls else 1))
        stages.append(samples.stage(name, values, errors=(errors or {}).get(name), wall_s=wall_s))
    made = samples.data(stages, wall_s=wall_s)
    if cpu is not None:
        made["resources"] = {"samples": 2, "cpu_utilization": {"avg": cpu, "peak": cpu}}
    return RunReport(made)


def judgements(old: RunReport, new: RunReport, **more: Any) -> dict[str, str]:
    return {stage.name: stage.judgement for stage in compare(old, new, **more).stages}


def figure(found: Comparison, name: str) -> Figure:
    return next(one for one in found.figures if one.name == name)


def test_twenty_equal_runs_raise_no_alarm() -> None:
    found = [compare(run(2 * seed), run(2 * seed + 1)).exit_code for seed in range(20)]
    assert found == [0] * 20


@pytest.mark.parametrize("calls", [100, 1000])
def test_a_third_slower_is_always_found_and_named(calls: int) -> None:
    for seed in range(20):
        found = compare(run(2 * seed, calls=calls), run(2 * seed + 1, slow="process", calls=calls))
        assert found.exit_code == 1
        (regression,) = found.regressions
        assert regression.startswith("process is slower by ")


@pytest.mark.parametrize("machine", [0.92, 1.05, 1.08, 1.12])
def test_a_slower_machine_is_not_a_regression(machine: float) -> None:
    for seed in range(20):
        assert compare(run(2 * seed), run(2 * seed + 1, machine=machine)).exit_code == 0


def test_a_slower_stage_is_found_on_a_slower_machine() -> None:
    for seed in range(20):
        found = compare(run(2 * seed), run(2 * seed + 1, machine=1.08, slow="process"))
        assert [text.split()[0] for text in found.regressions] == ["process"]


def test_a_bad_minute_is_not_a_regression() -> None:
    for seed in range(20):
        assert compare(run(2 * seed), run(2 * seed + 1, bad_minute=0.1)).exit_code == 0


def test_random_durations_with_a_wide_spread_raise_no_alarm() -> None:
    chance = random.Random(1)  # noqa: S311
    alarms = 0
    for _ in range(200):
        old, new = (
            samples.report(samples.stage("load", [chance.lognormvariate(0, 1) for _ in range(40)]))
            for _ in range(2)
        )
        alarms += compare(old, new).exit_code
    assert alarms <= 1


def test_all_stages_slower_without_more_cpu_time_is_not_a_regression() -> None:
    old, new = run(1, cpu=0.6), run(2, machine=1.5, slow="write", by=1.4, cpu=0.4)
    found = compare(old, new)
    assert found.exit_code == 0
    assert judgements(old, new)["write"] == "drift"


def test_all_stages_slower_with_more_cpu_time_is_a_regression() -> None:
    old, new = run(1, cpu=0.6), run(2, machine=1.5, cpu=0.6)
    assert set(judgements(old, new).values()) == {"slower"}


def test_a_stage_that_hardly_matters_is_not_a_regression() -> None:
    def made(small: float) -> RunReport:
        return samples.report(
            samples.stage("big", [1.0] * 50, wall_s=50), samples.stage("small", [small] * 50)
        )

    assert judgements(made(0.001), made(0.002)) == {"big": "no change", "small": "minor"}
    assert compare(made(0.001), made(0.002)).exit_code == 0


@pytest.mark.parametrize(("calls", "expected"), [(1, "too few"), (3, "too few"), (4, "slower")])
def test_fewer_than_four_calls_are_too_few(calls: int, expected: str) -> None:
    old, new = (samples.report(samples.stage("x", [s] * calls)) for s in (1.0, 2.0))
    assert judgements(old, new) == {"x": expected}


def test_a_slower_tail_is_found_if_other_stages_rule_out_a_bad_minute() -> None:
    def made(tail: float) -> RunReport:
        return samples.report(
            samples.stage("db", [0.01] * 900 + [tail] * 100),
            samples.stage("other", [0.01] * 1000),
        )

    found = compare(made(0.01), made(0.1))
    assert found.regressions == ("db is slower by 90 % on average, in its slow calls",)
    alone = [samples.report(r.stages[0]) for r in (made(0.01), made(0.1))]
    assert judgements(*alone) == {"db": "noise"}


def test_calls_with_more_items_are_not_slower_items() -> None:
    old = samples.report(samples.stage("x", [0.1] * 100, items=(1000, None)))
    new = samples.report(samples.stage("x", [0.2] * 50, items=(1000, None)))
    (stage,) = compare(old, new).stages
    assert (stage.judgement, stage.unit, stage.old_s) == ("no change", "item", pytest.approx(0.01))
    assert stage.new_s == pytest.approx(0.01)


def test_a_faster_stage_is_named() -> None:
    assert judgements(run(1, slow="write"), run(2))["write"] == "faster"


def test_without_sketches_the_sums_decide() -> None:
    def made(seconds: float) -> RunReport:
        stage = samples.stage("x", [seconds * f for f in (0.9, 1.0, 1.1)] * 20)
        del stage["duration_s"]["sketch"]
        return samples.report(stage)

    assert judgements(made(1.0), made(1.3)) == {"x": "slower"}
    assert judgements(made(1.0), made(1.03)) == {"x": "no change"}


def test_without_a_spread_nothing_is_claimed() -> None:
    def made(seconds: float) -> RunReport:
        stage = samples.stage("x", [seconds] * 20)
        del stage["duration_s"]["sketch"], stage["duration_s"]["sum_of_squares"]
        return samples.report(stage)

    assert judgements(made(1.0), made(2.0)) == {"x": "not known"}


def test_the_threshold_is_an_argument() -> None:
    old, new = run(1), run(2, slow="process", by=1.3)
    assert judgements(old, new, fail_on=0.5)["process"] == "no change"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, []),
        (9, 9, []),
        (9, 15, []),
        (100, 112, []),
        (0, 20, ["process fails more often: 20 of 400 (5 %), before 0 of 400 (0 %)"]),
        (40, 80, ["process fails more often: 80 of 400 (20 %), before 40 of 400 (10 %)"]),
        (80, 40, []),
    ],
)
def test_only_more_errors_than_chance_are_a_regression(
    before: int, after: int, expected: list[str]
) -> None:
    old, new = (
        run(seed, errors={"process": {"ValueError": count}})
        for seed, count in ((1, before), (2, after))
    )
    assert list(compare(old, new).regressions) == expected


def test_many_errors_are_distinguished_from_chance() -> None:
    def made(errors: int) -> RunReport:
        stage = samples.stage("x", [0.001] * 10, errors={"E": errors})
        stage["count"] = 1_000_000
        return samples.report(stage)

    assert compare(made(10_000), made(10_100)).exit_code == 0
    assert compare(made(10_000), made(11_500)).exit_code == 1


def test_a_run_that_fails_now_is_a_regression() -> None:
    new = run(2).to_dict()
    new["run"]["result"] = "failure"
    found = compare(run(1), RunReport(new))
    assert found.regressions == ("the run ended in failure, not in success",)


def test_a_cache_that_misses_more_is_noted() -> None:
    old, new = samples.full_data(), samples.full_data()
    new["caches"][0] |= {"hits": 500, "misses": 500, "hit_ratio": 0.5}
    found = compare(RunReport(old), RunReport(new))
    cache = figure(found, "hit ratio of geo")
    assert (cache.old, cache.new, cache.judgement) == (0.9, 0.5, "worse")
    assert cache.change == pytest.approx(-0.4)
    assert "-40.0 points" in found.render()
    assert "hit ratio of geo is lower: it misses more often" in found.notes
    assert found.exit_code == 0
    assert figure(compare(RunReport(new), RunReport(old)), cache.name).judgement == "better"


def test_a_missing_stage_fails_unless_it_is_allowed() -> None:
    """A renamed stage is missing, and new."""
    old, new = (samples.report(samples.stage(name, [1.0] * 9)) for name in ("a", "b"))
    none_in_common = "the runs have no stage in common that could be compared"
    found = compare(old, new)
    assert judgements(old, new) == {"b": "new", "a": "gone"}
    assert found.regressions == ("a is missing",)
    assert found.notes == ("b is new", none_in_common)
    allowed = compare(old, new, allow_missing=True)
    assert (allowed.regressions, allowed.exit_code) == ((), 0)
    assert allowed.notes == ("b is new", "a is missing", none_in_common)


def test_a_new_stage_does_not_fail() -> None:
    more = [samples.stage(name, [1.0] * 9) for name in ("a", "b")]
    assert compare(samples.report(more[0]), samples.report(*more)).exit_code == 0


def test_a_stage_of_another_kind_is_another_stage() -> None:
    old, new = (samples.report(samples.stage("a", [1.0] * 9, kind=k)) for k in ("fetch", "write"))
    assert compare(old, new).regressions == ("a is missing",)


def test_a_stage_that_is_no_longer_called_is_missing() -> None:
    """One with a call in progress is not."""
    old, new = (samples.report(samples.stage("a", values)) for values in ([1.0] * 9, []))
    assert compare(old, new).regressions == ("a was not called",)
    new.stages[0]["in_flight"] = 1
    assert compare(old, new).exit_code == 0


def test_different_pipelines_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different pipelines: 'nightly' and 'hourly'"):
        compare(samples.report(), samples.report(pipeline="hourly"))


@pytest.mark.parametrize("given", [0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["fail_on", "fail_on_throughput"])
def test_a_threshold_must_be_a_positive_number(name: str, given: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive ratio"):
        compare(samples.full(), samples.full(), **{name: given})


def test_a_report_compared_with_itself_has_not_changed() -> None:
    for report in (samples.full(), samples.bare(), samples.hostile()):
        found = compare(report, report)
        assert found.exit_code == 0
        assert {stage.judgement for stage in found.stages} <= {"no change"}


def test_the_rendered_comparison() -> None:
    old = samples.report(samples.stage("load", [0.1] * 50), samples.stage("save", [0.2] * 50))
    new = samples.report(samples.stage("load", [0.1] * 50), samples.stage("save", [0.3] * 50))
    expected = """\
compare nightly: old with new, fail on 10 % slower or 10 % less throughput

stage  verdict       old     new   change  typical
load   no change  100 ms  100 ms   +0.0 %   +0.0 %  per invocation
save   slower     200 ms  300 ms  +50.0 %  +49.2 %  per invocation

run                 verdict            old          new       change
throughput of save  no change  2.5 calls/s  2.5 calls/s       +0.0 %
wall time                           20.0 s       20.0 s       +0.0 %
share of errors                        0 %          0 %  +0.0 points

REGRESSION: save is slower by 49.2 %"""
    assert compare(old, new).render() == expected


def test_a_broken_sketch_counts_as_missing() -> None:
    for buckets in ({"x": 1}, {"5": "many"}, {"999999": 1}, {}):
        stage = samples.stage("x", [1.0, 2.0])
        stage["duration_s"]["sketch"]["buckets"] = buckets
        found = sample_of(stage)
        assert found is not None
        assert found.values == []
        assert shift_of(found, found, 0.0) is not None

"""Merging gives the same as one report of everything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics.report import RunReport
from tests.report import samples
from tests.report.test_limits import limit

if TYPE_CHECKING:
    import random

durations = st.lists(
    st.one_of(
        st.just(0.0), st.floats(1e-7, 1e4), st.sampled_from([1e-9, 0.001, 0.0010001, 1.0, 3600.0])
    ),
    min_size=1,
    max_size=60,
)


@st.composite
def reports(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the report of a process, sometimes with unknown parts."""
    second = draw(st.integers(0, 50))
    wall_s = draw(st.sampled_from([1.0, 2.5, 20.0]))
    known = draw(st.booleans())
    stages = [
        samples.stage(
            name,
            draw(durations),
            wall_s=wall_s,
            workers=draw(st.sampled_from([1, 2, None])),
            share=(0.5, 0.25, 0.25) if known else None,
            errors=draw(st.dictionaries(st.sampled_from(["KeyError", "OSError"]), st.just(2))),
            items=draw(st.tuples(*[st.sampled_from([None, 8])] * 2)),
        )
        for name in draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
    ]
    queues = [
        samples.queue(
            "q",
            draw(st.lists(st.sampled_from("ab"), unique=True)),
            ["c"],
            capacity=draw(st.sampled_from([None, 2, 4])),
            waits=draw(durations),
        )
    ] * draw(st.booleans())
    made = samples.data(
        stages,
        queues,
        wall_s=wall_s,
        run_id=f"run-{draw(st.integers(0, 99))}",
        started=f"2026-01-01T00:00:{second:02d}+00:00",
    )
    made["run"]["result"] = draw(st.sampled_from(["success", "failure", "cancellation", None]))
    made["caches"] = [
        {"name": "k", "hits": 3, "misses": 1, "evictions": draw(st.sampled_from([None, 1]))}
    ]
    if draw(st.booleans()):
        made["limits"] = [limit("lock", draw(durations), max=draw(st.sampled_from([None, 1, 2])))]
    made["telemetry"] |= {
        "process": draw(st.sampled_from([None, "1-aa", "2-bb"])),
        "spans": {"created": draw(st.sampled_from([None, 0, 3, 9])), "pending": 0},
        "guards": {"forbidden_keys": draw(st.integers(0, 3))},
    }
    if draw(st.booleans()):
        made["resources"] = {
            "samples": 3,
            "cpu_utilization": {"avg": draw(st.sampled_from([0.25, 0.5])), "peak": 0.5},
            "rss_bytes": {"avg": 1024.0, "peak": 2048},
            "disk_io_bytes": {"read": 10, "write": None},
            "network_io_bytes": {"receive": 1, "transmit": 1},
            "limits": {"source": "host", "cpus": draw(st.sampled_from([1.0, 2.0]))},
        }
        made["resources"] |= draw(
            st.sampled_from(
                [
                    {},
                    {"children_cpu_s": 1.5, "system_cpu_utilization": 0.5},
                    {"children_cpu_s": None, "system_cpu_utilization": 0.25},
                    {"gil_held": None, "gil_held_samples": 49},
                    {"gil_held": 0.25, "gil_held_samples": 100},
                    {"gil_held": 0.75, "gil_held_samples": 300, "run_delay": 0.5},
                    {"run_delay": 0.5, "run_delay_samples": 50},
                ]
            )
        )
    return made


def same(left: Any, right: Any) -> bool:
    """Compare all but the verdict; floats may differ by the order in which they were added."""
    if isinstance(left, dict):
        keys = left.keys() - {"bottleneck"}
        return keys == right.keys() - {"bottleneck"} and all(same(left[k], right[k]) for k in keys)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return bool(left == right)


@given(reports(), reports(), reports())
def test_the_grouping_does_not_matter(a: Any, b: Any, c: Any) -> None:
    for made, name in zip((a, b, c), "abc", strict=True):
        made["run"]["id"] = name
    x, y, z = (RunReport(made) for made in (a, b, c))
    flat = RunReport.merge(x, y, z).to_dict()
    assert same(flat, RunReport.merge(RunReport.merge(x, y), z).to_dict())
    assert same(flat, RunReport.merge(x, RunReport.merge(y, z)).to_dict())


def test_shares_of_random_moments_are_weighted_by_their_number() -> None:
    """A report that does not know the share has no part in it."""

    def of(name: str, **resources: Any) -> RunReport:
        made = samples.full_data(name)
        made["resources"] |= resources
        return RunReport(made)

    merged = RunReport.merge(
        of("a", gil_held=0.25, gil_held_samples=100, run_delay=None, run_delay_samples=20),
        of("b", gil_held=0.75, gil_held_samples=300, run_delay=None, run_delay_samples=30),
        of("c", gil_held=None, gil_held_samples=49, run_delay=None, run_delay_samples=0),
    ).resources
    assert (merged["gil_held"], merged["gil_held_samples"]) == (0.625, 400)
    assert (merged["run_delay"], merged["run_delay_samples"]) == (None, 50)


@given(durations, st.randoms(use_true_random=False), st.integers(1, 5))
def test_merged_sketches_sums_and_extremes_equal_those_of_one_report(
    values: list[float], chance: random.Random, parts: int
) -> None:
    groups: list[list[float]] = [[] for _ in range(parts)]
    for value in values:
        chance.choice(groups).append(value)
    made = [
        samples.report(samples.stage("load", group), run_id=f"run-{number}")
        for number, group in enumerate(groups)
        if group
    ]
    merged = RunReport.merge(*made).stages[0]
    whole = samples.stage("load", values)
    assert merged["count"] == len(values)
    assert same(merged["duration_s"]["sketch"], whole["duration_s"]["sketch"])
    expected = {**whole["duration_s"]}
    assert same({k: merged["duration_s"][k] for k in expected}, expected)


def merged(*changes: dict[str, Any]) -> RunReport:
    made = []
    for number, change in enumerate(changes):
        data = samples.data(run_id=f"run-{number}")
        data["run"] |= change
        made.append(RunReport(data))
    return RunReport.merge(*made)


def test_a_sketch_that_grew_too_large_joins_its_buckets() -> None:
    """Its percentiles are within the error that it tells."""
    values = [1.02**n for n in range(-200, 200)]
    made = [samples.report(samples.stage("x", [v]), run_id=f"{n}") for n, v in enumerate(values)]
    duration = RunReport.merge(*made).stages[0]["duration_s"]
    assert (
        duration["rel_error"] == duration["sketch"]["rel_error"] == pytest.approx(0.04, abs=0.001)
    )
    assert len(duration["sketch"]["buckets"]) <= 100
    assert sum(duration["sketch"]["buckets"].values()) == 400
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert duration[name] == pytest.approx(values[int(q * 399)], rel=duration["rel_error"])
    again = RunReport.merge(
        RunReport.merge(*made), samples.report(samples.stage("x", [1.0] * 9), run_id="fine")
    )
    assert again.stages[0]["duration_s"]["rel_error"] == duration["rel_error"]
    assert again.stages[0]["count"] == 409


def test_the_worst_result_wins_with_its_error() -> None:
    run = merged(
        {"result": "success"},
        {"result": "failure", "error_type": "KeyError", "partial": True},
        {"result": "cancellation"},
    ).run
    assert (run["result"], run["error_type"], run["partial"]) == ("failure", "KeyError", True)


def test_only_a_common_trace_is_kept() -> None:
    assert merged({"trace_id": "t"}, {"trace_id": "t"}).run["trace_id"] == "t"
    assert merged({"trace_id": "t"}, {"trace_id": "u"}).run["trace_id"] is None


def test_counts_are_added_and_ratios_computed_again() -> None:
    report = RunReport.merge(samples.full("a"), samples.full("b"))
    process = next(stage for stage in report.stages if stage["name"] == "process")
    assert process["count"] == 2000
    assert process["workers"] == 2
    assert process["items"] == {"in": 2000, "out": 1996}
    assert process["errors"] == {
        "total": 6,
        "by_type": {"ValueError": 4, "json.decoder.JSONDecodeError": 2},
    }
    assert process["share"] == {"busy": 0.25, "idle": 0.01, "blocked": 0.74}
    assert process["throughput"]["items_per_s"] == 1996 / 20
    (cache,) = report.caches
    assert (cache["hits"], cache["misses"], cache["hit_ratio"]) == (1800, 200, 0.9)
    assert (cache["evictions"], cache["expirations"]) == (14, None)
    assert report.resources["rss_bytes"] == {"avg": 60_000_000.0, "peak": 81_000_000}
    assert report.resources["network_io_bytes"] == {"receive": None, "transmit": None}
    assert report.telemetry["spans"] == {
        "created": 6002,
        "exported": 5000,
        "sampled_out": 0,
        "dropped": 2,
        "spooled": 0,
        "pending": 1000,
    }
    assert report.telemetry["metric_points"]["dropped"] == 12
    assert report.telemetry["guards"]["forbidden_keys"] == 4


def of_process(process: str | None, run_id: str, created: int) -> RunReport:
    made = samples.full_data(run_id)
    ledger = dict.fromkeys(made["telemetry"]["spans"], 0) | {"created": created, "pending": created}
    made["telemetry"] |= {"process": process, "spans": ledger}
    return RunReport(made)


def test_telemetry_of_a_process_counts_once_over_its_runs() -> None:
    """Its ledger continues from run to run, so the later one includes the earlier one."""
    first, later = of_process("1-aa", "a", 5), of_process("1-aa", "b", 8)
    other, unknown = of_process("2-bb", "c", 100), of_process(None, "d", 1000)
    more = of_process(None, "e", 10_000)
    for reports in ((later, unknown, first, other, more), (first, unknown, later, other, more)):
        merged = RunReport.merge(*reports).telemetry
        assert merged["spans"]["created"] == merged["spans"]["pending"] == 11_108
        assert "process" not in merged
    # these counts belong to each run
    assert merged["stage_spans"] == {"made": 15_000, "skipped": 0}


def test_a_report_cannot_be_merged_twice() -> None:
    with pytest.raises(ValueError, match="the report of run 'a' is there twice"):
        RunReport.merge(samples.full("a"), samples.full("b"), samples.full("a"))
    both = RunReport.merge(samples.full("a"), samples.full("b"))
    with pytest.raises(ValueError, match="the report of run 'b' is there twice"):
        RunReport.merge(both, samples.full("b"))


@pytest.mark.parametrize("wrong", [[samples.full("a"), samples.full("b")], {}, "report.json", None])
def test_only_reports_can_be_merged(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"reports must each be a RunReport, not \w+; .*\*reports"):
        RunReport.merge(wrong)
    with pytest.raises(TypeError, match="reports must each be a RunReport"):
        RunReport.merge(samples.full(), wrong)


def test_a_value_unknown_in_one_report_is_unknown_in_the_merged_one() -> None:
    plain = samples.stage("load", [1.0])
    poor = samples.stage("load", [2.0], workers=None)
    del poor["duration_s"]["sketch"]
    (stage,) = RunReport.merge(samples.report(plain), samples.report(poor, run_id="run-2")).stages
    assert stage["workers"] is None
    assert stage["duration_s"]["p50"] is None
    assert stage["duration_s"]["total"] == 3.0


def test_stages_of_one_name_but_different_kinds_are_not_merged() -> None:
    reports = (
        samples.report(samples.stage("x", [1.0], kind=kind), run_id=kind)
        for kind in ("fetch", "write")
    )
    assert [s["kind"] for s in RunReport.merge(*reports).stages] == ["fetch", "write"]


def test_the_verdict_covers_all_reports() -> None:
    merged = RunReport.merge(samples.full("a"), samples.full("b"))
    assert merged.bottleneck["stage"] == "write"


def test_merging_one_report_changes_nothing() -> None:
    assert RunReport.merge(samples.full()) == samples.full()


def test_a_merged_report_renders_in_every_format() -> None:
    report = RunReport.merge(samples.full("a"), samples.full("b"))
    assert all(report.render(form) for form in ("console", "html", "json", "markdown"))
    assert RunReport(report.to_dict()) == report


def test_reports_of_different_pipelines_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different pipelines do not merge: 'nightly', 'hourly'"):
        merged({}, {"pipeline": "hourly"})


def test_merging_no_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no report to merge"):
        RunReport.merge()

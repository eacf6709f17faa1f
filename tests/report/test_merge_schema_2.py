"""The keys of schema 2 merge beside those of schema 1."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.merge import merge
from tests.report import samples
from tests.report.test_merge import reports, same


def of_schema_2(
    run_id: str, wall_s: float, started: str, *, share: float, flight: float
) -> dict[str, Any]:
    stage = samples.stage("load", [1.0], workers=None, wall_s=wall_s)
    stage |= {
        "self_s": 0.5,
        "wall_s": 1.5,
        "cpu_s": 0.25,
        "run_share": share,
        "in_flight_avg": flight,
        "time_s": {"wall": 3.0, "running": 1.0, "awaiting": 0.5, "idle": 1.0, "blocked": 0.5},
        "service_by_in_flight": [
            {"in_flight": 1, "count": 3, "avg_s": 0.5},
            {"in_flight": 2, "count": 1 + int(flight), "avg_s": share},
        ],
        "share": {"running": 1 / 3, "awaiting": 1 / 6, "idle": 1 / 3, "blocked": 1 / 6},
    }
    made = samples.data([stage], wall_s=wall_s, run_id=run_id, started=started)
    stage["time_s"]["split_standard_error"] = 0.3 if share < 0.5 else 0.4
    made["run"]["outside_s"] = wall_s * (1 - share)
    made["limits"] = [
        {
            "name": "pool",
            "kind": "semaphore",
            "max": 4,
            "usage_avg": flight,
            "usage_peak": 3,
            "acquired": 10,
            "wait_s": samples.summary([0.1] * 10),
            "stages": [{"stage": "load", "waited_s": 1.0, "held_s": 2.0}],
        }
    ]
    return made


def test_the_keys_of_schema_2_are_merged() -> None:
    """A run of 10 s and one of 30 s, the day after."""
    parts = [
        of_schema_2("a", 10.0, "2026-01-01T00:00:00+00:00", share=0.2, flight=2.0),
        of_schema_2("b", 30.0, "2026-01-02T00:00:00+00:00", share=0.6, flight=1.0),
    ]
    merged = RunReport.merge(*map(RunReport, parts)).to_dict()
    (stage,), (limit,) = merged["stages"], merged["limits"]
    assert (stage["self_s"], stage["wall_s"], stage["cpu_s"]) == (1.0, 3.0, 0.5)
    assert stage["run_share"] == pytest.approx((0.2 * 10 + 0.6 * 30) / 40)
    assert stage["in_flight_avg"] == pytest.approx((2 * 10 + 1 * 30) / 40)
    assert merged["run"]["outside_s"] == pytest.approx(8.0 + 12.0)
    assert stage["time_s"] == {
        "wall": 6.0,
        "running": 2.0,
        "awaiting": 1.0,
        "idle": 2.0,
        "blocked": 1.0,
        # the squares of 0.3 and 0.4 add up
        "split_standard_error": pytest.approx(0.5),
    }
    assert stage["service_by_in_flight"] == [
        {"in_flight": 1, "count": 6, "avg_s": 0.5},
        {"in_flight": 2, "count": 5, "avg_s": pytest.approx((3 * 0.2 + 2 * 0.6) / 5)},
    ]
    assert stage["share"]["running"] == pytest.approx(1 / 3)
    assert "busy" not in stage["share"]
    assert limit["usage_avg"] == pytest.approx((2 * 10 + 1 * 30) / 40)
    assert (limit["max"], limit["usage_peak"], limit["acquired"]) == (4, 3, 20)
    assert limit["wait_s"]["avg"] == pytest.approx(0.1)
    assert sum(limit["wait_s"]["sketch"]["buckets"].values()) == 20
    assert limit["stages"] == [{"stage": "load", "waited_s": 2.0, "held_s": 4.0}]


def test_shares_of_runs_at_the_same_time_are_of_all_of_them() -> None:
    """Shares and the time outside add up to one run, and twice as many are in flight."""
    parts = [
        of_schema_2(name, 10.0, "2026-01-01T00:00:00+00:00", share=0.3, flight=2.0) for name in "ab"
    ]
    merged = RunReport.merge(*map(RunReport, parts))
    (stage,) = merged.stages
    assert merged.run["wall_s"] == 10.0
    assert stage["in_flight_avg"] == pytest.approx(4.0)
    assert stage["run_share"] == pytest.approx(0.3)
    assert merged.run["outside_s"] / 10.0 + stage["run_share"] == pytest.approx(1.0)


def test_what_only_one_schema_knows_is_unknown_in_a_report_of_both() -> None:
    new = of_schema_2("a", 10.0, "2026-01-01T00:00:00+00:00", share=0.2, flight=2.0)
    old = samples.data(
        [samples.stage("load", [1.0], share=(0.5, 0.25, 0.25), wall_s=10.0)], wall_s=10.0
    )
    old["schema"] = f"{new['schema'].rpartition('/')[0]}/1"
    merged = merge([old, new])
    assert merged["schema"] == new["schema"]
    (stage,) = merged["stages"]
    assert (stage["count"], stage["self_s"], stage["run_share"]) == (2, None, None)
    assert (stage["time_s"]["idle"], stage["time_s"]["running"]) == (3.5, None)
    assert merged["run"]["outside_s"] is None


@given(reports(), reports(), reports(), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_the_grouping_does_not_matter_in_schema_2_either(
    a: Any, b: Any, c: Any, days: list[int]
) -> None:
    for made, name, day in zip((a, b, c), "abc", days, strict=True):
        more = of_schema_2(name, 7.0, f"2026-01-0{1 + day}T00:00:00+00:00", share=0.3, flight=2.0)
        made["run"] |= more["run"] | {"wall_s": made["run"]["wall_s"]}
        made["stages"] = [s for s in made["stages"] if s["name"] != "load"] + more["stages"]
        made["limits"] = more["limits"]
    x, y, z = (RunReport(made) for made in (a, b, c))
    flat = RunReport.merge(x, y, z).to_dict()
    assert same(flat, RunReport.merge(RunReport.merge(x, y), z).to_dict())
    assert same(flat, RunReport.merge(x, RunReport.merge(y, z)).to_dict())


def test_of_several_runs_the_slowest_calls_are_kept() -> None:
    first, second = samples.full_data("run-1"), samples.full_data("run-2")
    first["stages"][0]["slowest"] = [samples.slow_call(s, "a" * 32) for s in (0.9, 0.5, 0.4, 0.2)]
    second["stages"][0]["slowest"] = [samples.slow_call(s, "b" * 32) for s in (0.8, 0.7, 0.1)]
    for made in (first, second):
        made["run"]["trace_url"] = "https://tempo.example/{trace_id}"
    merged = RunReport.merge(RunReport(first), RunReport(second))
    (write,) = [stage for stage in merged.stages if stage["name"] == "write"]
    assert [(c["duration_s"], c["trace_id"][0]) for c in write["slowest"]] == [
        (0.9, "a"), (0.8, "b"), (0.7, "b"), (0.5, "a"), (0.4, "a"),
    ]  # fmt: skip
    assert merged.run["trace_url"] == "https://tempo.example/{trace_id}"


def test_addresses_of_traces_that_differ_are_unknown_together() -> None:
    made = [samples.full_data(f"run-{n}") for n in range(2)]
    for number, one in enumerate(made):
        one["run"]["trace_url"] = f"https://tempo{number}.example/{{trace_id}}"
    assert RunReport.merge(*map(RunReport, made)).run["trace_url"] is None

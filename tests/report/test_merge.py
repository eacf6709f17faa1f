"""Merging gives the same as one report of everything."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.merge import merge
from tests.report import samples

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

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
    for name in ("p50", "p95", "p99"):
        # a report's percentiles are within the measured extremes
        clamped = min(max(expected[name], expected["min"]), expected["max"])
        assert merged["duration_s"][name] in {expected[name], clamped}
        del expected[name]
    assert same({k: merged["duration_s"][k] for k in expected}, expected)


def merged(*changes: dict[str, Any]) -> RunReport:
    made = []
    for number, change in enumerate(changes):
        data = samples.data(run_id=f"run-{number}")
        data["run"] |= change
        made.append(RunReport(data))
    return RunReport.merge(*made)


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
            samples.stage("w", [2.4], share=(0.96, 0.04, 0.0), wall_s=2.5),
            wall_s=2.5,
            run_id=f"worker-{number}",
            started=f"2026-05-04T03:02:{1 + number * 2:02d}.5+00:00",
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
    """A source that takes 80 of 100 s is no limit, in two runs at once or in turn."""

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

    assert (of(75.0)["kind"], of(75.0)["stage"]) == ("stage", "parse")
    assert of(0.0)["kind"] == "source"


def test_many_runs_leave_a_small_report() -> None:
    """It keeps the latest ids, the largest gaps, and the sums of all processes."""
    made = []
    for number in range(300):
        data = samples.full_data(f"run-{number}")
        data["run"] |= {"started": f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00+00:00"}
        made.append(RunReport(data))
    merged = RunReport.merge(*made)
    run = merged.run
    assert (run["merged_runs"], run["wall_s"]) == (300, 300 * 20.0)
    assert run["merged_from"] == [f"run-{number}" for number in range(284, 300)]
    assert len(run["spans"]) == 8
    assert sum(covered for _, _, covered in run["spans"]) == run["wall_s"]
    assert run["spans"][-1][1] == 299 * 60 + 20
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


# --- schema 2 -------------------------------------------------------------------------------


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
        "share": {"running": 1 / 3, "awaiting": 1 / 6, "idle": 1 / 3, "blocked": 1 / 6},
    }
    made = samples.data([stage], wall_s=wall_s, run_id=run_id, started=started)
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
    }
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
    new["schema"] = f"{new['schema'].rpartition('/')[0]}/2"
    old = samples.data(
        [samples.stage("load", [1.0], share=(0.5, 0.25, 0.25), wall_s=10.0)], wall_s=10.0
    )
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

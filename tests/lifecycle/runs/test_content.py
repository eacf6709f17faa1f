"""Test the numbers of a report: keys, statistics and unknown values."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured

FACTS = json.loads("""
{"schema":"otel_pipeline_metrics/report/1",
 "run":{"pipeline":"","id":"","trace_id":"","result":"","error_type":null,"started":"","wall_s":0,
   "partial":false},
 "stages":[{"name":"","kind":"","workers":1,"count":0,"errors":{"total":0,"by_type":{}},"retries":0,
   "items":{"in":0,"out":0},"bytes":{"in":null,"out":null},
   "duration_s":{"total":0,"avg":0,"min":0,"max":0,"p50":0,"p95":0,"p99":0,"rel_error":0},
   "throughput":{"wall_per_s":0,"busy_per_s":0},"share":{"busy":0,"idle":0,"blocked":0},
   "cpu_s":null}],
 "queues":[],
 "caches":[{"name":"","hits":0,"misses":0,"evictions":0,"expirations":0,"hit_ratio":null,
   "entries":0,"size_bytes":null}],
 "resources":{"samples":0,"cpu_utilization":{"avg":0,"peak":0},"rss_bytes":{"avg":0,"peak":0},
   "disk_io_bytes":{},"network_io_bytes":{},"limits":{"source":"cgroup2|cgroup1|host"}},
 "bottleneck":{"stage":null,"why":"","busy":0},
 "telemetry":{"spans":{"created":0,"sampled_out":0,"exported":0,"lost":0},"flush_s":0,
   "collector":"ok|unreachable|off"}}
""")
"""The sketch of the format that the library was designed from; none of it goes."""


def keys(data: Mapping[str, Any], above: str = "") -> set[str]:
    """Return every key of nested data; of lists, those of the first element."""
    found = set()
    for key, value in data.items():
        path = f"{above}.{key}" if above else key
        found.add(path)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, Mapping) and key != "by_type":
            found |= keys(inner, path)
    return found


def stage_of(report: opm.RunReport, name: str) -> dict[str, Any]:
    (found,) = (stage for stage in report.stages if stage["name"] == name)
    return found


@pytest.mark.parametrize("resources", [True, False])
def test_a_report_has_every_key_of_the_format(*, resources: bool) -> None:
    opm.register_cache("keys", lambda: {"hits": 1, "misses": 1})
    try:
        with opm.run("r", resources=resources) as run, opm.stage("s"):
            pass
    finally:
        opm.unregister_cache("keys")
    found = keys(run.report.to_dict())
    assert keys(FACTS) - found == set()


def test_an_unknown_value_is_null_and_never_zero() -> None:
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    data = json.loads(run.report.to_json())
    (stage,) = data["stages"]
    assert stage["kind"] is None
    assert stage["workers"] is None
    assert stage["items"] == stage["bytes"] == {"in": None, "out": None}
    assert stage["throughput"]["items_per_s"] is None
    resources = data["resources"]
    assert resources["samples"] == 0
    for part in ("cpu_utilization", "rss_bytes", "disk_io_bytes", "network_io_bytes"):
        assert set(resources[part].values()) == {None}


def test_a_known_zero_is_zero() -> None:
    with opm.run("r", resources=False) as run, opm.stage("s") as stage:
        stage.add_items(0)
        stage.add_bytes(0, "in")
    known = stage_of(run.report, "s")
    assert known["items"] == {"in": None, "out": 0}
    assert known["bytes"] == {"in": 0, "out": None}
    assert (known["errors"], known["retries"]) == ({"total": 0, "by_type": {}}, 0)


def test_the_numbers_are_exact_with_a_manual_clock(clock: Clock, captured: Captured) -> None:
    captured.configure(console=False)
    before = clock.unix()
    with opm.run("nightly", resources=False) as run:
        for seconds, fails in ((1.0, False), (2.0, True), (4.0, False)):
            with contextlib.suppress(KeyError), opm.process("parse") as stage:
                stage.add_items(10, "in")
                stage.add_items(5)
                stage.add_bytes(100)
                stage.retry(ConnectionError)
                clock.advance(seconds)
                if fails:
                    raise KeyError("x")
        clock.advance(3.0)
    report = run.report.to_dict()
    assert report["run"] == {
        "pipeline": "nightly",
        "id": run.id,
        "trace_id": f"{captured.spans()[-1].context.trace_id:032x}",
        "trace_url": None,
        "total": None,
        "result": "success",
        "error_type": None,
        "started": datetime.fromtimestamp(before, tz=timezone.utc).isoformat(),
        "wall_s": 10.0,
        "outside_s": 3.0,
        "partial": False,
    }
    (stage,) = report["stages"]
    duration = stage.pop("duration_s")
    assert {key: duration[key] for key in ("total", "avg", "min", "max")} == {
        "total": 7.0,
        "avg": 7.0 / 3,
        "min": 1.0,
        "max": 4.0,
    }
    assert duration["rel_error"] == 0.01
    assert duration["p50"] == pytest.approx(2.0, rel=0.01)
    assert {
        "name": "parse",
        "kind": "process",
        "count": 3,
        "cancelled": 0,
        "abandoned": 0,
        "errors": {"total": 1, "by_type": {"KeyError": 1}},
        "retries": 3,
        "items": {"in": 30, "out": 15},
        "bytes": {"in": None, "out": 300},
        "throughput": {"wall_per_s": 0.3, "busy_per_s": 3 / 7, "items_per_s": 1.5},
        "cpu_s": 0.0,
        "self_s": 7.0,
        "run_share": 0.7,
        "wall_s": 7.0,
        "in_flight_avg": 0.7,
        "callers": [{"stage": None, "wall_s": 7.0, "spawned": False}],
    }.items() <= stage.items()


def test_the_seconds_of_failed_and_of_repeated_calls(clock: Clock) -> None:
    """A call that tries again and then fails is a failed one."""
    with opm.run("r", resources=False) as run:
        for seconds, tries, fails in ((1, 0, False), (4, 2, False), (8, 0, True), (16, 1, True)):
            with contextlib.suppress(KeyError), opm.process("call") as call:
                clock.advance(seconds)
                for _ in range(tries):
                    call.retry(KeyError())
                if fails:
                    raise KeyError
    (stage,) = run.report.stages
    assert stage["failed_s"] == 24.0
    assert stage["retried"] == {"count": 1, "total_s": 4.0}


def test_who_calls_a_stage(clock: Clock) -> None:
    with opm.run("r", resources=False) as run:
        with opm.stage("outer"), opm.stage("inner"):
            clock.advance(2)
        with opm.stage("inner"):
            clock.advance(1)
    found = {stage["name"]: stage["callers"] for stage in run.report.stages}
    assert found["outer"] == [{"stage": None, "wall_s": 2.0, "spawned": False}]
    assert sorted(found["inner"], key=str) == [
        {"stage": "outer", "wall_s": 2.0, "spawned": False},
        {"stage": None, "wall_s": 1.0, "spawned": False},
    ]


def test_a_stage_without_calls_is_not_in_the_report() -> None:
    @opm.fetch
    def never() -> None: ...

    with opm.run("r", resources=False) as run:
        assert never is not None
    assert run.report.stages == []


def test_the_report_before_during_and_after(clock: Clock) -> None:
    run = opm.run("r", resources=False)
    before = run.report
    assert (before.run["result"], before.run["started"], before.run["wall_s"]) == (None, None, 0.0)
    assert (before.run["partial"], before.stages) == (True, [])
    with run:
        with opm.stage("s"):
            clock.advance(2)
        during = run.report
        assert (during.run["result"], during.run["wall_s"]) == (None, 2.0)
        assert during.run["partial"] is True
        assert stage_of(during, "s")["count"] == 1
        clock.advance(1)
    assert (run.report.run["result"], run.report.run["wall_s"]) == ("success", 3.0)
    assert run.report.run["partial"] is False
    clock.advance(5)
    assert run.report.run["wall_s"] == 3.0
    assert during.run["wall_s"] == 2.0  # an earlier report does not change


def exact_quantile(values: list[float], q: float) -> float:
    if len(values) * (1 - q) < 1 - 1e-9:  # too few for this quantile
        return max(values)
    return sorted(values)[math.floor(q * (len(values) - 1))]


durations = st.lists(
    st.floats(min_value=1e-6, max_value=1e6, allow_nan=False, allow_infinity=False),
    min_size=1,
    max_size=300,
)


@given(values=durations)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_statistics_are_exact_and_quantiles_within_the_stated_error(
    clock: Clock, values: list[float]
) -> None:
    taken = []
    with opm.run("r", resources=False) as run:
        for value in values:
            before = clock.time
            with opm.stage("s"):
                clock.advance(value)
            taken.append(clock.time - before)  # the clock rounds
    stage = stage_of(run.report, "s")
    found = stage["duration_s"]
    assert stage["count"] == len(values)
    assert (found["min"], found["max"]) == (min(taken), max(taken))
    assert found["total"] == pytest.approx(math.fsum(taken), rel=1e-9)
    assert found["avg"] == found["total"] / len(values)
    for key, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert found[key] == pytest.approx(
            exact_quantile(taken, q), rel=found["rel_error"] * 1.0001, abs=1e-9
        )
        assert found["min"] <= found[key] <= found["max"]


@given(values=durations)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_calls_with_items_have_the_same_statistics(clock: Clock, values: list[float]) -> None:
    """Their durations take another path through the library."""
    taken = []
    with opm.run("r", resources=False) as run:
        for value in values:
            before = clock.time
            with opm.stage("s") as stage:
                clock.advance(value)
                stage.add_items(2)
            taken.append(clock.time - before)
    found = stage_of(run.report, "s")
    assert (found["count"], found["items"]["out"]) == (len(values), 2 * len(values))
    duration = found["duration_s"]
    assert (duration["min"], duration["max"]) == (min(taken), max(taken))
    assert duration["p95"] == pytest.approx(exact_quantile(taken, 0.95), rel=0.010001, abs=1e-9)


def test_more_calls_than_a_buffer_holds_are_counted(clock: Clock) -> None:
    with opm.run("r", resources=False) as run:
        for number in range(5000):
            with opm.stage("s"):
                clock.advance(0.001 if number % 10 else 1.0)
    stage = stage_of(run.report, "s")
    assert stage["count"] == 5000
    assert stage["duration_s"]["p50"] == pytest.approx(0.001, rel=0.01)
    assert stage["duration_s"]["p95"] == pytest.approx(1.0, rel=0.01)


def test_a_cache_reports_its_counts_during_the_run() -> None:
    @functools.lru_cache(maxsize=2)
    def look_up(key: int) -> int:
        return key

    opm.register_cache("during the run", look_up)
    try:
        for key in (1, 1, 1, 2):
            look_up(key)  # before: 2 hits, 2 misses
        with opm.run("r", resources=False) as run:
            for key in (1, 2, 2, 9):
                look_up(key)
        look_up(9)  # after the run
    finally:
        opm.unregister_cache("during the run")
    (cache,) = (c for c in run.report.caches if c["name"] == "during the run")
    assert cache == {
        "name": "during the run",
        "hits": 3,
        "misses": 1,
        "evictions": None,
        "expirations": None,
        "hit_ratio": 0.75,
        "entries": 2,
        "size_bytes": None,
        "what_if": None,
    }


def test_a_cache_without_look_ups_has_no_ratio() -> None:
    counts = {"hits": 5, "misses": 5, "evictions": 2, "expirations": 1, "size_bytes": 64}
    opm.register_cache("idle", lambda: counts)
    try:
        with opm.run("r", resources=False) as run:
            pass
    finally:
        opm.unregister_cache("idle")
    (cache,) = (c for c in run.report.caches if c["name"] == "idle")
    assert (cache["hits"], cache["misses"], cache["hit_ratio"]) == (0, 0, None)
    assert (cache["evictions"], cache["expirations"], cache["size_bytes"]) == (0, 0, 64)


def test_a_cache_registered_in_the_run_counts_from_there() -> None:
    with opm.run("r", resources=False) as run:
        opm.register_cache("late", lambda: {"hits": 3, "misses": 1, "entries": 1})
    opm.unregister_cache("late")
    (cache,) = (c for c in run.report.caches if c["name"] == "late")
    assert (cache["hits"], cache["misses"], cache["hit_ratio"]) == (3, 1, 0.75)


def test_resources_are_sampled() -> None:
    with opm.run("r") as run:
        sum(range(200_000))
    resources = run.report.resources
    assert resources["samples"] >= 2
    assert resources["rss_bytes"]["peak"] >= resources["rss_bytes"]["avg"] > 1e6
    assert resources["disk_io_bytes"].keys() == {"read", "write"}
    assert resources["network_io_bytes"].keys() == {"receive", "transmit"}
    assert resources["limits"]["source"] in {"cgroup2", "cgroup1", "host"}
    assert resources["limits"]["cpus"] > 0
    # a short run has too few random moments for a share
    assert (resources["gil_held"], resources["run_delay"]) == (None, None)
    assert 0 <= resources["gil_held_samples"] < 50
    assert 0 <= resources["run_delay_samples"] < 50
    peak = resources["cpu_utilization"]["peak"]
    assert peak is None or 0 <= resources["cpu_utilization"]["avg"] <= peak <= 1


def test_data_is_a_copy(tmp_path: Path) -> None:
    with opm.run("r", resources=False) as run, opm.stage("s"):
        pass
    run.report.to_dict()["run"]["pipeline"] = "changed"
    run.report.to_dict()["stages"].clear()
    assert run.report.run["pipeline"] == "r"
    assert len(run.report.stages) == 1


def test_a_rate_over_a_tiny_duration_is_unknown(tmp_path: Path) -> None:
    """The rate would be infinite, which JSON does not have."""
    with opm.run("r", resources=False, report=tmp_path / "report.json"):
        opm.get_metrics_collector().record_stage("s", 5e-324)
    (stage,) = opm.RunReport.load(tmp_path / "report.json").stages
    assert stage["throughput"]["busy_per_s"] is None

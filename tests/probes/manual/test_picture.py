"""Test that the process's collector has what is recorded, decorated, registered and sampled."""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import pickle
from typing import TYPE_CHECKING, Any

import cachetools
import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core.stage_totals import totals
from otel_pipeline_metrics._lifecycle import collector as collecting
from otel_pipeline_metrics._probes.resources import levels, probe
from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.probes.conftest import Machine

HOUR = 3600.0
MIB = 1024 * 1024


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> opm.MetricsCollector:
    """Return the collector of a process in which nothing has happened yet."""
    totals.read()  # flushes what earlier tests left
    monkeypatch.setattr(totals, "_stages", {})
    monkeypatch.setattr(totals, "started", clock.now())
    monkeypatch.setattr(levels, "sampled", levels.SampledLevels())
    monkeypatch.setattr(collecting, "sampled", levels.sampled)
    monkeypatch.setattr(probe, "_probes", {})
    monkeypatch.setattr(collecting, "_collectors", {})
    return opm.get_metrics_collector()


# --- stages ------------------------------------------------------------------------------------


def test_decorated_stages_are_there_with_those_by_hand(
    process: opm.MetricsCollector, clock: Clock
) -> None:
    @opm.process("work")
    def work(seconds: float) -> None:
        clock.advance(seconds)
        if seconds > 4:
            raise ValueError("too long")

    work(1.0)
    with opm.run("r", resources=False):
        work(3.0)
    with pytest.raises(ValueError, match="too long"):
        work(5.0)
    process.record_stage("by hand", 2.0, count=4)
    with opm.run("other", resources=False):
        process.record_stage("by hand", 1.0)
    assert process.stages == {
        "by hand": {
            "count": 5,
            "total_duration_s": 3.0,
            "avg_duration_s": 0.6,
            "min_duration_s": 0.5,
            "max_duration_s": 1.0,
            "throughput_per_s": 5 / 3,
            "errors": 0,
        },
        "work": {
            "count": 3,
            "total_duration_s": 9.0,
            "avg_duration_s": 3.0,
            "min_duration_s": 1.0,
            "max_duration_s": 5.0,
            "throughput_per_s": 1 / 3,
            "errors": 1,
        },
    }


def test_a_stage_that_is_both_has_one_row(process: opm.MetricsCollector, clock: Clock) -> None:
    with opm.stage("both"):
        clock.advance(1.0)
    with opm.stage("both", kind="write"):
        clock.advance(2.0)
    process.record_stage("both", 4.0, count=2, error=True)
    assert process.stages["both"] == {
        "count": 4,
        "total_duration_s": 7.0,
        "avg_duration_s": 1.75,
        "min_duration_s": 1.0,
        "max_duration_s": 2.0,
        "throughput_per_s": 4 / 7,
        "errors": 1,
    }


def test_stages_from_before_the_first_request_count() -> None:
    done = run_python(
        "import otel_pipeline_metrics as opm\n"
        "@opm.stage\n"
        "def work(): pass\n"
        "for _ in range(3000): work()\n"
        "opm.configure(exporter='none', console=False)\n"
        "for _ in range(3000): work()\n"
        "print(opm.get_metrics_collector().stages['work'].count)\n"
        "opm.shutdown()\n"
        "work()\n"
        "print(opm.get_metrics_collector().stages['work'].count)\n"
    )
    assert (done.stdout.split(), done.stderr) == (["6000", "6001"], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_its_own_picture() -> None:
    done = run_python(
        "import os, sys, otel_pipeline_metrics as opm\n"
        "cache = opm.counted_cache({}, name='c')\n"
        "cache.get('x')\n"
        "with opm.stage('parent'): pass\n"
        "with opm.run('r'): pass\n"
        "print(opm.get_metrics_collector().resources.memory_samples, flush=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    cache.get('x'); cache.get('x')\n"
        "    data = opm.get_metrics_collector().export_json()\n"
        "    print(list(data.stages), data.caches['c'].misses, data.resources.memory_samples)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "data = opm.get_metrics_collector().export_json()\n"
        "print(list(data.stages), data.caches['c'].misses, data.resources.memory_samples)\n"
    )
    assert done.stdout.splitlines() == ["2", "[] 2 0", "['parent'] 1 2"], done.stderr


def test_another_collector_has_only_what_it_is_given(process: opm.MetricsCollector) -> None:
    own = opm.MetricsCollector()
    with opm.stage("decorated"):
        pass
    own.record_stage("own", 1.0)
    assert list(own.stages) == ["own"]
    assert list(process.stages) == ["decorated"]
    assert own.resources["cpu_samples"] == 0


# --- caches ------------------------------------------------------------------------------------


def test_registered_caches_are_there_with_those_by_hand(process: opm.MetricsCollector) -> None:
    counted: Any = opm.counted_cache(cachetools.LRUCache(2), name="counted")
    for key in (1, 2, 3):
        counted[key] = key
    assert counted.get(3) == 3

    @functools.lru_cache
    def square(number: int) -> int:
        return number * number

    opm.register_cache("square", square)
    square(2)
    opm.register_cache("whole", lambda: {"hits": 0, "misses": 0, "size_bytes": 2 * MIB})
    process.record_cache("by hand", 3, 1, evictions=2, size_bytes=MIB, expirations=4)
    unknown = {"evictions": None, "expirations": None, "size_mb": None}
    assert process.caches == {
        "by hand": {
            "hits": 3,
            "misses": 1,
            "hit_rate_pct": 75.0,
            "evictions": 2,
            "expirations": 4,
            "size_mb": 1.0,
        },
        "counted": {**unknown, "hits": 1, "misses": 0, "hit_rate_pct": 100.0, "evictions": 1},
        "square": {**unknown, "hits": 0, "misses": 1, "hit_rate_pct": 0.0},
        "whole": {**unknown, "hits": 0, "misses": 0, "hit_rate_pct": None, "size_mb": 2.0},
    }


def test_a_registered_source_wins_over_records_of_its_name(process: opm.MetricsCollector) -> None:
    opm.register_cache("c", lambda: {"hits": 1, "misses": 1})
    process.record_cache("c", 100, 100)
    assert (process.caches["c"].hits, process.caches["c"].misses) == (1, 1)


def test_cumulative_counts_replace_what_was_told_before(process: opm.MetricsCollector) -> None:
    process.record_cache("c", 5, 5, 1, 10, expirations=2)
    process.record_cache("c", 20, 10, 3, 20, expirations=4, cumulative=True)
    with opm.run("r", resources=False) as run:
        process.record_cache("c", 25, 15, 3, 30, expirations=5, cumulative=True)
        process.record_cache("c", 32, 16, 5, 40, expirations=6, cumulative=True)
    row = {"hits": 32, "misses": 16, "evictions": 5, "expirations": 6}
    assert process.caches["c"] == {
        **row,
        "hit_rate_pct": pytest.approx(100 * 2 / 3),
        "size_mb": 40 / MIB,
    }
    (cache,) = run.report.caches
    assert {key: cache[key] for key in row} == {
        "hits": 12,
        "misses": 6,
        "evictions": 2,
        "expirations": 2,
    }
    process.record_cache("c", 1, 1)
    assert (process.caches["c"].hits, process.caches["c"].expirations) == (33, 6)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_cumulative_must_be_true_or_false(process: opm.MetricsCollector, value: Any) -> None:
    with pytest.raises(TypeError, match=r"^cumulative must be True or False"):
        process.record_cache("c", 1, 1, cumulative=value)
    assert process.caches == {}


# --- resources ---------------------------------------------------------------------------------


def test_samples_of_monitors_are_there_once(
    process: opm.MetricsCollector, machine: Machine, clock: Clock
) -> None:
    machine.rss = 10 * MIB
    machine.disk = (MIB, 0)
    machine.network = (0, 0)
    with ResourceMonitor(HOUR) as one, ResourceMonitor(HOUR) as other:
        clock.advance(1)
        machine.user_s += 1  # half of two CPUs
        machine.rss = 30 * MIB
        machine.disk = (2 * MIB, MIB)
        machine.network = (3 * MIB, 3 * MIB)
        for monitor in (one, other):  # in one round, they share a reading
            assert monitor._session is not None
            monitor._take(monitor._session, 0.05)
    process.record_resources(100, 50, 8, 4)
    assert process.resources == {
        "avg_cpu_percent": 75.0,
        "peak_cpu_percent": 100.0,
        "avg_memory_mb": (10 + 30 + 50) / 3,
        "peak_memory_mb": 50.0,
        "avg_disk_io_mb": 5.0,
        "avg_network_io_mb": 5.0,
        "cpu_samples": 2,
        "memory_samples": 3,
    }


def test_samples_of_runs_are_there(
    process: opm.MetricsCollector, machine: Machine, clock: Clock
) -> None:
    machine.rss = MIB
    with opm.run("r", resources=HOUR):
        clock.advance(1)
        machine.rss = 3 * MIB
    resources = process.resources
    assert (resources.memory_samples, resources.avg_memory_mb) == (2, 2.0)


def test_what_cannot_be_read_is_unknown(
    process: opm.MetricsCollector, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.failing["memory_info"] = OSError()
    machine.failing["io_counters"] = OSError()
    machine.network = None
    with ResourceMonitor(HOUR):
        pass
    assert set(process.resources.values()) == {None, 0}


# --- rows, text, files -------------------------------------------------------------------------


def test_rows_are_read_by_key_and_by_attribute(process: opm.MetricsCollector) -> None:
    process.record_stage("s", 1.0)
    process.record_cache("c", 1, 0)
    process.record_resources(50, 10)
    data = process.export_json()
    assert data["stages"]["s"]["count"] == data.stages["s"].count == process.stages["s"].count == 1
    assert data.caches["c"].hit_rate_pct == data["caches"]["c"]["hit_rate_pct"] == 100.0
    assert data.resources.peak_cpu_percent == data["resources"]["peak_cpu_percent"] == 50.0
    assert isinstance(data, dict)
    row = data.stages["s"]
    with pytest.raises(AttributeError, match=r"^unknown$"):
        row.unknown  # noqa: B018
    with pytest.raises(AttributeError):
        row.count = 5
    for twin in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):  # noqa: S301
        assert twin == row
        assert twin.count == 1
    assert json.loads(json.dumps(row)) == row


def test_the_process_has_existed_longer_than_its_collector(
    process: opm.MetricsCollector, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.advance(5)
    monkeypatch.setattr(collecting, "_collectors", {})
    assert opm.get_metrics_collector().export_json()["duration_s"] == 5.0


def fill(process: opm.MetricsCollector, clock: Clock) -> None:
    with opm.stage("decorated"):
        clock.advance(2.0)
    process.record_stage("by hand", 0.5, count=10, error=True)
    process.record_cache("geo", 9, 1, size_bytes=MIB)
    process.record_resources(25, 64)


def test_it_renders_like_a_report(process: opm.MetricsCollector, clock: Clock) -> None:
    fill(process, clock)
    text = process.render()
    assert text == opm.RunReport(process.export_json()).render("console")
    assert text.startswith("run collector: in progress in 2.00 s\n2 stages, 1 error\n")
    lines = [line.split() for line in text.splitlines()]
    assert [
        "by",
        "hand",
        "-",
        "500",
        "ms",
        "10",
        "-",
        "50.0",
        "ms",
        *"---",
        "50.0",
        "ms",
        "1",
    ] in lines
    assert ["decorated", "-", "2.00", "s", "1", "-", "2.00", "s", *"---", "2.00", "s", "0"] in lines
    assert ["geo", "9", "1", "90", "%", "0", "0", "-"] in lines
    assert "avg 25 %" in text
    assert "avg 64.0 MiB" in text
    for form in ("markdown", "html"):
        assert "decorated" in process.render(form)
    with pytest.raises(ValueError, match=r"^format must be"):
        process.render("pdf")  # type: ignore[arg-type]


def test_json_of_render_is_a_report(process: opm.MetricsCollector, clock: Clock) -> None:
    fill(process, clock)
    report = opm.RunReport(json.loads(process.render("json")))
    assert [stage["name"] for stage in report.stages] == ["by hand", "decorated"]
    assert report.stages[0]["duration_s"]["avg"] == 0.05
    assert report.stages[0]["errors"]["total"] == 1
    assert report.caches[0]["size_bytes"] == MIB
    assert report.resources["cpu_utilization"] == {"avg": 0.25, "peak": 0.25}
    assert report.resources["rss_bytes"] == {"avg": 64 * MIB, "peak": 64 * MIB}
    assert report.run["wall_s"] == 2.0


def test_the_summary_is_logged(
    process: opm.MetricsCollector, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fill(process, clock)
    with caplog.at_level(logging.INFO, "otel_pipeline_metrics"):
        process.log_summary()
    assert [record.getMessage() for record in caplog.records] == [process.render()]
    assert caplog.records[0].levelname == "INFO"


def test_an_empty_collector_can_be_rendered(process: opm.MetricsCollector) -> None:
    assert "no stage ran" in process.render()
    assert "no stage ran" in opm.MetricsCollector().render()


def test_a_saved_export_is_loaded_as_a_report(
    process: opm.MetricsCollector, clock: Clock, tmp_path: Path
) -> None:
    fill(process, clock)
    path = tmp_path / "export_metrics.json"
    process.export_json(path)
    assert opm.RunReport.load(path).render() == process.render()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stages": {"s": {"count": "many"}}}, "stages 's': 'count' is not a number"),
        ({"stages": {"s": {"count": True}}}, "stages 's': 'count' is not a number"),
        ({"stages": {"s": 5}}, "stages 's' is not an object"),
        ({"caches": {"c": None}}, "caches 'c' is not an object"),
        ({"caches": {"c": {"hits": []}}}, "caches 'c': 'hits' is not a number"),
        ({"resources": {"cpu_samples": {}}}, "resources: 'cpu_samples' is not a number"),
    ],
)
def test_data_of_the_wrong_kind_is_refused(change: dict[str, Any], says: str) -> None:
    data = opm.MetricsCollector().export_json() | change
    with pytest.raises(ValueError, match=says):
        opm.RunReport(data)


def test_keys_of_later_versions_and_missing_ones_are_allowed() -> None:
    data = {
        "duration_s": 1.0,
        "stages": {"s": {"later": 1}},
        "caches": {"c": {}},
        "resources": {},
        "later": [],
    }
    report = opm.RunReport(data)
    assert report.stages[0]["count"] is None
    for form in ("console", "markdown", "html"):
        assert report.render(form)  # type: ignore[arg-type]

"""Test manual recording: its format, checks, files and the one of the process."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from datetime import datetime, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import collector as collecting
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock


# --- the format --------------------------------------------------------------------------------


def test_the_format_of_recorded_values(clock: Clock) -> None:
    collector = opm.MetricsCollector()
    started = clock.unix()
    collector.record_stage("fetch", 2.0, count=4)
    collector.record_stage("fetch", 1.0)
    collector.record_stage("fetch", 3.0, count=1, error=True)
    collector.record_stage("write", 0.5)
    collector.record_resources(10, 100, 1.5, 0.5)
    collector.record_resources(cpu_percent=30.0, memory_mb=50)
    collector.record_cache("geo", 3, 1, evictions=2, size_bytes=3 * 1024 * 1024)
    collector.record_cache("geo", 3, 1, evictions=1, size_bytes=1024 * 1024)
    clock.advance(12.5)
    assert collector.export_json() == {
        "start_time": datetime.fromtimestamp(started, tz=timezone.utc).isoformat(),
        "duration_s": 12.5,
        "stages": {
            "fetch": {
                "count": 6,
                "total_duration_s": 6.0,
                "avg_duration_s": 1.0,
                "min_duration_s": 0.5,
                "max_duration_s": 3.0,
                "throughput_per_s": 1.0,
                "errors": 1,
            },
            "write": {
                "count": 1,
                "total_duration_s": 0.5,
                "avg_duration_s": 0.5,
                "min_duration_s": 0.5,
                "max_duration_s": 0.5,
                "throughput_per_s": 2.0,
                "errors": 0,
            },
        },
        "resources": {
            "avg_cpu_percent": 20.0,
            "peak_cpu_percent": 30.0,
            "avg_memory_mb": 75.0,
            "peak_memory_mb": 100.0,
            "avg_disk_io_mb": 0.75,
            "avg_network_io_mb": 0.25,
            "cpu_samples": 2,
            "memory_samples": 2,
        },
        "caches": {
            "geo": {
                "hits": 6,
                "misses": 2,
                "hit_rate_pct": 75.0,
                "evictions": 3,
                "expirations": 0,
                "size_mb": 1.0,
            }
        },
    }


def test_without_records_unknown_values_are_null(collector: opm.MetricsCollector) -> None:
    data = collector.export_json()
    assert list(data) == ["start_time", "duration_s", "stages", "resources", "caches"]
    assert (data["stages"], data["caches"]) == ({}, {})
    assert data["resources"] == {
        "avg_cpu_percent": None,
        "peak_cpu_percent": None,
        "avg_memory_mb": None,
        "peak_memory_mb": None,
        "avg_disk_io_mb": None,
        "avg_network_io_mb": None,
        "cpu_samples": 0,
        "memory_samples": 0,
    }
    assert data["duration_s"] >= 0
    assert datetime.fromisoformat(data["start_time"]).tzinfo is not None


def test_without_items_and_look_ups_averages_are_unknown(collector: opm.MetricsCollector) -> None:
    collector.record_stage("empty", 1.5, count=0)
    collector.record_cache("idle", 0, 0)
    assert collector.stages["empty"] == {
        "count": 0,
        "total_duration_s": 1.5,
        "avg_duration_s": None,
        "min_duration_s": None,
        "max_duration_s": None,
        "throughput_per_s": 0.0,
        "errors": 0,
    }
    assert collector.caches["idle"]["hit_rate_pct"] is None


def test_without_time_the_throughput_is_unknown(collector: opm.MetricsCollector) -> None:
    collector.record_stage("instant", 0.0, count=10)
    stage = collector.stages["instant"]
    assert (stage["avg_duration_s"], stage["throughput_per_s"]) == (0.0, None)


def test_the_views_are_copies(collector: opm.MetricsCollector) -> None:
    collector.record_stage("s", 1.0)
    collector.record_cache("c", 1, 1)
    collector.stages["s"]["count"] = 99
    collector.caches.clear()
    collector.resources["cpu_samples"] = 99
    assert collector.stages["s"]["count"] == 1
    assert collector.caches["c"]["hits"] == 1
    assert collector.resources["cpu_samples"] == 0


def test_real_numbers_of_other_types_are_taken(collector: opm.MetricsCollector) -> None:
    """NumPy registers its numbers as real numbers, and a Fraction is one."""
    collector.record_stage("s", Fraction(1, 2), count=2)  # type: ignore[arg-type]
    collector.record_cache("c", hits=2.0, misses=1)  # type: ignore[arg-type]
    assert collector.stages["s"]["total_duration_s"] == 0.5
    assert collector.caches["c"]["hits"] == 2
    json.dumps(collector.export_json(), allow_nan=False)


# --- bad input ---------------------------------------------------------------------------------

NUMBERS: list[tuple[str, dict[str, Any], str]] = [
    ("record_stage", {"name": "s"}, "duration_s"),
    ("record_stage", {"name": "s", "duration_s": 1}, "count"),
    ("record_resources", {"memory_mb": 1}, "cpu_percent"),
    ("record_resources", {"cpu_percent": 1}, "memory_mb"),
    ("record_resources", {"cpu_percent": 1, "memory_mb": 1}, "disk_io_mb"),
    ("record_resources", {"cpu_percent": 1, "memory_mb": 1}, "network_io_mb"),
    ("record_cache", {"name": "c", "misses": 1}, "hits"),
    ("record_cache", {"name": "c", "hits": 1}, "misses"),
    ("record_cache", {"name": "c", "hits": 1, "misses": 1}, "evictions"),
    ("record_cache", {"name": "c", "hits": 1, "misses": 1}, "size_bytes"),
]


@pytest.mark.parametrize(("method", "others", "argument"), NUMBERS, ids=lambda v: str(v)[:20])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (-0.5, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
        ([1], TypeError),
    ],
    ids=repr,
)
def test_an_error_names_the_bad_number_and_nothing_is_recorded(
    collector: opm.MetricsCollector,
    method: str,
    others: dict[str, Any],
    argument: str,
    value: object,
    error: type[Exception],
) -> None:
    before = collector.export_json()
    with pytest.raises(error, match=rf"^{argument} must "):
        getattr(collector, method)(**others, **{argument: value})
    after = collector.export_json()
    for key in ("stages", "resources", "caches"):
        assert after[key] == before[key]


@pytest.mark.parametrize(
    ("method", "others", "argument"),
    [number for number in NUMBERS if number[2] in {"count", "hits", "misses", "evictions"}],
)
def test_a_count_with_a_fraction_is_refused(
    collector: opm.MetricsCollector, method: str, others: dict[str, Any], argument: str
) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a whole number"):
        getattr(collector, method)(**others, **{argument: 1.5})


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("", ValueError, "name must not be empty"),
        ("   ", ValueError, "name must not be empty"),
        ("x" * 129, ValueError, "name must be at most 128"),
        (None, TypeError, "name must be a string"),
        (7, TypeError, "name must be a string"),
    ],
    ids=repr,
)
def test_a_bad_name_is_refused(
    collector: opm.MetricsCollector, name: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        collector.record_stage(name, 1.0)
    with pytest.raises(error, match=says):
        collector.record_cache(name, 1, 1)
    assert collector.stages == collector.caches == {}


def test_error_is_keyword_only(collector: opm.MetricsCollector) -> None:
    with pytest.raises(TypeError):
        collector.record_stage("s", 1.0, 1, True)  # type: ignore[misc]


@given(
    records=st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=1e6),
            st.integers(min_value=0, max_value=1000),
            st.booleans(),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_random_records_add_up(records: list[tuple[float, int, bool]]) -> None:
    collector = opm.MetricsCollector()
    for seconds, count, error in records:
        collector.record_stage("s", seconds, count, error=error)
    stage = collector.stages["s"]
    assert stage["count"] == sum(count for _, count, _ in records)
    assert stage["errors"] == sum(error for *_, error in records)
    assert stage["total_duration_s"] == pytest.approx(math.fsum(s for s, *_ in records))
    each = [seconds / count for seconds, count, _ in records if count]
    assert stage["min_duration_s"] == min(each, default=None)
    assert stage["max_duration_s"] == max(each, default=None)
    json.dumps(collector.export_json(), allow_nan=False)


# --- files -------------------------------------------------------------------------------------


def test_the_file_has_the_returned_data(collector: opm.MetricsCollector, tmp_path: Path) -> None:
    collector.record_stage("größer", 1.0)
    path = tmp_path / "new" / "export_metrics.json"
    data = collector.export_json(path)
    assert json.loads(path.read_text(encoding="utf-8")) == data
    assert "größer" in path.read_text(encoding="utf-8")
    assert [path] == list(path.parent.iterdir())
    collector.record_stage("größer", 1.0)
    assert collector.export_json(str(path))["stages"]["größer"]["count"] == 2
    assert json.loads(path.read_text(encoding="utf-8"))["stages"]["größer"]["count"] == 2


def test_a_file_is_complete_or_missing(
    collector: opm.MetricsCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "export_metrics.json"
    path.write_text("the one before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        collector.export_json(path)
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


# --- the one of the process ---------------------------------------------------------------------


def test_the_process_has_one_collector() -> None:
    assert opm.get_metrics_collector() is opm.get_metrics_collector()
    assert isinstance(opm.get_metrics_collector(), opm.MetricsCollector)


def test_threads_that_race_get_the_same_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_collectors", {})
    barrier = threading.Barrier(8)
    found: list[opm.MetricsCollector] = []

    def ask() -> None:
        barrier.wait(10)
        found.append(opm.get_metrics_collector())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(collector) for collector in found}) == 1


def test_no_collector_exists_before_the_first_request() -> None:
    done = run_python(
        "import gc, otel_pipeline_metrics as opm\n"
        "def collectors():\n"
        "    return sum(isinstance(o, opm.MetricsCollector) for o in gc.get_objects())\n"
        "with opm.run('r', resources=False), opm.stage('s'): pass\n"
        "print(collectors())\n"
        "opm.get_metrics_collector()\n"
        "print(collectors())\n"
    )
    assert (done.stdout.split(), done.stderr) == (["0", "1"], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_its_own() -> None:
    done = run_python(
        "import os, otel_pipeline_metrics as opm\n"
        "opm.get_metrics_collector().record_stage('parent', 1.0)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    opm.get_metrics_collector().record_stage('child', 1.0)\n"
        "    os._exit(list(opm.get_metrics_collector().stages) != ['child'])\n"
        "print(os.waitpid(child, 0)[1], list(opm.get_metrics_collector().stages))\n"
    )
    assert done.stdout.strip() == "0 ['parent']"


def test_eight_threads_record_exactly(collector: opm.MetricsCollector) -> None:
    """Another thread reads all the time."""
    barrier = threading.Barrier(9)
    times = 2_000
    over = threading.Event()

    def record() -> None:
        barrier.wait(10)
        for number in range(times):
            collector.record_stage("s", 0.5, count=2, error=number % 4 == 0)
            collector.record_cache("c", 1, 2, evictions=1)
            collector.record_resources(50, 10)

    def read() -> None:
        barrier.wait(10)
        while not over.is_set():
            data = collector.export_json()
            for stage in data["stages"].values():
                assert stage["count"] == 4 * stage["total_duration_s"]

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()
    stage = collector.stages["s"]
    assert (stage["count"], stage["errors"]) == (8 * times * 2, 8 * times // 4)
    assert stage["total_duration_s"] == 8 * times * 0.5
    assert collector.caches["c"]["hits"] == 8 * times
    assert collector.caches["c"]["misses"] == 8 * times * 2
    assert collector.resources["cpu_samples"] == 8 * times


async def test_tasks_record_exactly(collector: opm.MetricsCollector) -> None:
    async def record() -> None:
        for _ in range(10):
            collector.record_stage("s", 1.0)
            await asyncio.sleep(0)

    await asyncio.gather(*(record() for _ in range(10)))
    assert collector.stages["s"]["count"] == 100

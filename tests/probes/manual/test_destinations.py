"""Test that manual records reach the metrics and the run's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.lifecycle.configure.support import Captured


def test_stages_reach_metrics_and_the_report(
    captured: Captured, collector: opm.MetricsCollector
) -> None:
    captured.configure(console=False)
    with opm.run("r", resources=False) as run:
        collector.record_stage("load", 0.25, count=10)
        collector.record_stage("load", 0.75, count=5, error=True)
    (stage,) = run.report.stages
    assert (stage["name"], stage["kind"], stage["count"]) == ("load", None, 2)
    assert stage["items"] == {"in": None, "out": 15}
    assert stage["errors"]["total"] == 1
    assert (stage["duration_s"]["total"], stage["duration_s"]["max"]) == (1.0, 0.75)

    points = captured.points()
    durations = {
        point.attributes.get("error.type"): (point.count, point.sum)
        for point in points["pipeline.stage.duration"]
        if point.attributes["pipeline.stage.name"] == "load"
    }
    assert durations == {None: (1, 0.25), "_OTHER": (1, 0.75)}
    items = {
        point.attributes.get("error.type"): point.value
        for point in points["pipeline.stage.items"]
        if point.attributes["pipeline.stage.name"] == "load"
    }
    assert items == {None: 10, "_OTHER": 5}


def test_outside_a_run_stages_reach_the_metrics(
    captured: Captured, collector: opm.MetricsCollector
) -> None:
    captured.configure(console=False)
    collector.record_stage("alone", 0.25)
    counts = captured.values("pipeline.stage.duration", "pipeline.stage.name", "pipeline.name")
    assert counts["alone", None] == 1


def test_caches_reach_metrics_and_the_report(
    captured: Captured, collector: opm.MetricsCollector, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    captured.configure(console=False)
    collector.record_cache(name, 1, 1)
    with opm.run("r", resources=False) as run:
        collector.record_cache(name, 6, 2, evictions=1, size_bytes=2048)
    (cache,) = (c for c in run.report.caches if c["name"] == name)
    assert (cache["hits"], cache["misses"], cache["hit_ratio"]) == (6, 2, 0.75)
    assert (cache["evictions"], cache["size_bytes"]) == (1, 2048)
    assert captured.values("pipeline.cache.hit.ratio", "cache.name")[name] == 0.7
    requests = captured.values("pipeline.cache.requests", "cache.name", "cache.request.type")
    assert (requests[name, "hit"], requests[name, "miss"]) == (7, 3)
    assert captured.values("pipeline.cache.evictions", "cache.name")[name] == 1
    assert captured.values("pipeline.cache.size", "cache.name")[name] == 2048


def test_resources_reach_the_report_of_a_run_without_sampling(
    collector: opm.MetricsCollector,
) -> None:
    with opm.run("r", resources=False) as run:
        collector.record_resources(cpu_percent=20, memory_mb=10)
        collector.record_resources(cpu_percent=60, memory_mb=30)
    resources = run.report.resources
    assert resources["samples"] == 2
    assert resources["cpu_utilization"] == {"avg": 0.4, "peak": 0.6}
    assert resources["rss_bytes"] == {"avg": 20 * 1024 * 1024, "peak": 30 * 1024 * 1024}


def test_a_run_with_sampling_does_not_report_recorded_resources(
    collector: opm.MetricsCollector,
) -> None:
    """An average of two sources would be wrong for both."""
    with opm.run("r") as run:
        collector.record_resources(cpu_percent=5, memory_mb=1)
    assert run.report.resources["rss_bytes"]["peak"] > 5 * 1024 * 1024
    assert collector.resources["peak_memory_mb"] == 1


def test_resources_reach_the_metrics_without_psutil(tmp_path: Path) -> None:
    """In a program that never reads psutil, they are the process's gauges."""
    done = run_python(
        "import otel_pipeline_metrics as opm\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "reader = InMemoryMetricReader()\n"
        "metrics.set_meter_provider(MeterProvider([reader]))\n"
        "opm.get_metrics_collector().record_resources(37.5, 64)\n"
        "for r in reader.get_metrics_data().resource_metrics:\n"
        "    for s in r.scope_metrics:\n"
        "        for m in s.metrics:\n"
        "            for p in m.data.data_points: print(m.name, p.value)\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    values = dict(line.split() for line in done.stdout.splitlines())
    assert float(values["process.cpu.utilization"]) == 0.375
    assert int(values["process.memory.usage"]) == 64 * 1024 * 1024


def test_a_record_makes_no_span(captured: Captured, collector: opm.MetricsCollector) -> None:
    """The time of its begin is unknown."""
    captured.configure(console=False)
    with opm.run("r", resources=False):
        collector.record_stage("s", 1.0)
    assert captured.span_names() == ["run r"]

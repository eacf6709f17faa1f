"""Test that what a run keeps of manual samples does not grow with their number."""

from __future__ import annotations

import threading
import tracemalloc

import otel_pipeline_metrics as opm


def test_samples_of_a_run_take_no_more_memory_than_one() -> None:
    collector = opm.get_metrics_collector()
    with opm.run("r", resources=False) as run:
        collector.record_resources(1.0, 1.0)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for n in range(20_000):
            collector.record_resources(100.0 + n, 2.0)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after - before < 20_000  # less than a byte for each
    resources = run.report.to_dict()["resources"]
    assert resources["samples"] == 20_001
    assert resources["cpu_utilization"]["peak"] == 200.99
    assert resources["rss_bytes"] == {
        "avg": (1 + 2 * 20_000) * 2**20 / 20_001,
        "peak": 2 * 2**20,
    }


def test_samples_of_every_thread_count() -> None:
    collector = opm.get_metrics_collector()

    def record(percent: float) -> None:
        for _ in range(100):
            collector.record_resources(percent, 1.0)

    with opm.run("r", resources=False) as run:
        threads = [threading.Thread(target=record, args=(100.0 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    resources = run.report.to_dict()["resources"]
    assert resources["samples"] == 400
    assert resources["cpu_utilization"] == {"avg": 1.5, "peak": 3.0}

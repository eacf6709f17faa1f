"""Test the exact console text of a report with fixed numbers."""
# ruff: noqa: E501 - a table is as wide as it is

from __future__ import annotations

from typing import Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.report import console


def stage(name: str, kind: str | None, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "workers": None,
        "count": 0,
        "cancelled": 0,
        "abandoned": 0,
        "errors": {"total": 0, "by_type": {}},
        "retries": 0,
        "items": {"in": None, "out": None},
        "bytes": {"in": None, "out": None},
        "duration_s": {},
        "throughput": {"wall_per_s": None, "busy_per_s": None, "items_per_s": None},
        "share": {"busy": None, "idle": None, "blocked": None},
        "cpu_s": None,
    }
    return {**data, **more}


def fixed(**more: Any) -> dict[str, Any]:
    """Return the data of a run of three stages."""
    data: dict[str, Any] = {
        "schema": "otel_pipeline_metrics/report/1",
        "run": {
            "pipeline": "nightly",
            "id": "0" * 32,
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "result": "failure",
            "error_type": "sqlite3.OperationalError",
            "started": "2026-11-23T05:50:43+00:00",
            "wall_s": 83.25,
            "partial": True,
        },
        "stages": [
            stage(
                "pages",
                "fetch",
                count=1,
                abandoned=1,
                items={"in": None, "out": 12_345},
                duration_s={
                    "total": 2.5,
                    "avg": 2.5,
                    "min": 2.5,
                    "max": 2.5,
                    "p50": 2.5,
                    "p95": 2.5,
                    "p99": 2.5,
                    "rel_error": 0.01,
                },
            ),
            stage(
                "parse",
                "process",
                count=1_240,
                errors={"total": 3, "by_type": {"ValueError": 2, "KeyError": 1}},
                items={"in": 12_345, "out": None},
                duration_s={
                    "total": 61.75,
                    "avg": 0.0498,
                    "min": 1e-5,
                    "max": 0.9,
                    "p50": 0.0421,
                    "p95": 0.118,
                    "p99": 0.75,
                    "rel_error": 0.01,
                },
            ),
            stage(
                "store",
                None,
                count=2,
                cancelled=1,
                duration_s={
                    "total": 0.0000308,
                    "avg": 0.0000154,
                    "min": 8e-7,
                    "max": 3e-5,
                    "p50": 8e-7,
                    "p95": 3e-5,
                    "p99": 3e-5,
                    "rel_error": 0.01,
                },
            ),
        ],
        "queues": [],
        "caches": [
            {
                "name": "geo",
                "hits": 9_315,
                "misses": 685,
                "evictions": None,
                "expirations": 12,
                "hit_ratio": 0.9315,
                "entries": 512,
                "size_bytes": None,
            },
            {
                "name": "never asked",
                "hits": 0,
                "misses": 0,
                "evictions": 0,
                "expirations": None,
                "hit_ratio": None,
                "entries": 0,
                "size_bytes": 0,
            },
        ],
        "resources": {
            "samples": 84,
            "cpu_utilization": {"avg": 0.4831, "peak": 0.987},
            "rss_bytes": {"avg": 57_900_000, "peak": 76_100_000},
            "disk_io_bytes": {"read": 512, "write": 6_837_000},
            "network_io_bytes": {"receive": None, "transmit": None},
            "limits": {"source": "host", "cpus": 2.0, "memory_bytes": None},
        },
        "bottleneck": {"stage": None, "why": "no queue is instrumented", "busy": None},
        "telemetry": {"spans": None, "flush_s": None, "collector": None},
    }
    return {**data, **more}


WHOLE = """\
run nightly: failure in 1 min 23 s (sqlite3.OperationalError)
3 stages, 3 errors, partial, trace 4bf92f3577b34da6a3ce929d0e0e4736

stage  kind       duration  count   items  avg/item      p50      p95      p99      max        \
                errors
pages  fetch        2.50 s      1  12,345    203 µs   2.50 s   2.50 s   2.50 s   2.50 s        \
       0 (1 abandoned)
parse  process  1 min 02 s  1,240  12,345   5.00 ms  42.1 ms   118 ms   750 ms   900 ms  3 \
(ValueError 2, KeyError 1)
store  -           30.8 µs      2       -   15.4 µs   800 ns  30.0 µs  30.0 µs  30.0 µs        \
       0 (1 cancelled)

cpu           avg 48 %      peak 99 %
memory (rss)  avg 55.2 MiB  peak 72.6 MiB
disk          read 512 B    write 6.52 MiB

cache         hits  misses  hit ratio  evictions  expirations  entries
geo          9,315     685       93 %          -           12      512
never asked      0       0          -          0            -        0"""


def test_a_report_with_every_value() -> None:
    assert opm.RunReport(fixed()).render("console") == WHOLE


def test_a_report_without_values() -> None:
    run = {**fixed()["run"], "result": "success", "error_type": None, "partial": False}
    run |= {"trace_id": None, "wall_s": 0.00042}
    data = fixed(run=run, stages=[], caches=[], resources={"samples": 0})
    assert opm.RunReport(data).render() == (
        "run nightly: success in 420 µs\n0 stages, 0 errors\n\nno stage ran\n\nresources: not sampled"
    )


def test_one_of_each_is_singular() -> None:
    one = stage("s", None, count=1, errors={"total": 1, "by_type": {"ValueError": 1}})
    one["duration_s"] = dict.fromkeys(("total", "p50", "p95", "p99"), 1.0)
    head = console.details(opm.RunReport(fixed(stages=[one])))
    assert head.startswith("1 stage, 1 error, ")


def test_a_run_in_progress() -> None:
    data = fixed()
    data["run"]["result"] = None
    assert console.headline(opm.RunReport(data)).startswith(
        "run nightly: in progress in 1 min 23 s"
    )

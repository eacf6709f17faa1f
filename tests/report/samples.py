"""Reports for every renderer: full ones, minimal ones, hostile ones."""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.quantile_sketch import REL_ERROR, Sketch
from otel_pipeline_metrics.report import SCHEMA, RunReport

if TYPE_CHECKING:
    from collections.abc import Sequence

Data = dict[str, Any]


def sketch(values: Sequence[float]) -> Sketch:
    made = Sketch()
    made.add_sorted(sorted(values))
    return made


def summary(values: Sequence[float]) -> Data:
    """Return a report's percentiles of values, with their sketch."""
    made = sketch(values)
    return {
        "avg": sum(values) / len(values) if values else None,
        "max": max(values, default=None),
        **made.percentiles(min(values, default=None), max(values, default=None)),
        "rel_error": REL_ERROR,
        "sketch": made.to_dict(),
    }


def duration(values: Sequence[float]) -> Data:
    return {
        "total": math.fsum(values),
        "min": min(values, default=None),
        **summary(values),
        "sum_of_squares": math.fsum(value * value for value in values),
    }


def stage(
    name: str,
    values: Sequence[float],
    *,
    kind: str | None = "process",
    wall_s: float = 20.0,
    workers: int | None = 1,
    share: tuple[float, float, float] | None = None,
    errors: dict[str, int] | None = None,
    items: tuple[int | None, int | None] = (None, None),
) -> Data:
    """Return a stage whose calls took `values`; `share` is busy, idle, blocked."""
    total = sum(values)
    moved = items[1] if items[1] is not None else items[0]
    busy, idle, blocked = share or (None, None, None)
    worker_s = wall_s * (workers or 1)
    return {
        "name": name,
        "kind": kind,
        "workers": workers,
        "count": len(values),
        "cancelled": 0,
        "abandoned": 0,
        "errors": {"total": sum((errors or {}).values()), "by_type": dict(errors or {})},
        "retries": 0,
        "items": {"in": items[0], "out": items[1]},
        "bytes": {"in": None, "out": None},
        "duration_s": duration(values),
        "throughput": {
            "wall_per_s": len(values) / wall_s,
            "busy_per_s": len(values) / total if total else None,
            "items_per_s": None if moved is None else moved / wall_s,
        },
        "time_s": {
            "wall": None if share is None else worker_s,
            **{
                state: None if part is None else part * worker_s
                for state, part in (("busy", busy), ("idle", idle), ("blocked", blocked))
            },
        },
        "share": {"busy": busy, "idle": idle, "blocked": blocked},
        "busiest_share": busy,
        "cpu_s": None,
    }


def queue(
    name: str,
    producers: Sequence[str],
    consumers: Sequence[str],
    *,
    capacity: int | None = 4,
    depth: tuple[float, int] = (3.9, 4),
    waits: Sequence[float] = (0.08, 0.08, 0.1),
) -> Data:
    return {
        "name": name,
        "capacity": capacity,
        "depth_avg": depth[0],
        "depth_peak": depth[1],
        "put": len(waits),
        "got": len(waits),
        "wait_s": summary(waits),
        "put_span_s": 19.0,
        "put_blocked_s": 13.5,
        "get_waited_s": 0.02,
        "producers": list(producers),
        "consumers": list(consumers),
    }


def data(
    stages: Sequence[Data] = (),
    queues: Sequence[Data] = (),
    *,
    pipeline: str = "nightly",
    wall_s: float = 20.0,
    run_id: str = "run-1",
    started: str = "2026-05-04T03:02:01+00:00",
) -> Data:
    """Return a report with the given parts only."""
    return {
        "schema": SCHEMA,
        "run": {
            "pipeline": pipeline,
            "id": run_id,
            "trace_id": None,
            "result": "success",
            "error_type": None,
            "started": started,
            "wall_s": wall_s,
            "partial": False,
            "total": None,
        },
        "stages": list(stages),
        "queues": list(queues),
        "caches": [],
        "resources": {"samples": 0},
        "bottleneck": {"stage": None, "why": "no queue is instrumented", "busy": None},
        "telemetry": {"spans": None, "flush_s": None, "collector": None},
    }


def report(*stages: Data, queues: Sequence[Data] = (), **more: Any) -> RunReport:
    return RunReport(data(stages, queues, **more))


def slow_call(seconds: float, trace_id: str | None = None, **more: Any) -> Data:
    return {
        "duration_s": seconds,
        "outcome": "ok",
        "error_type": None,
        "attributes": {},
        "trace_id": trace_id,
        "span_id": None if trace_id is None else trace_id[:16],
        **more,
    }


def window(
    start_s: float,
    stages: Sequence[tuple[str, int, tuple[float, float, float]]],
    queues: dict[str, int] | None = None,
    **more: Any,
) -> Data:
    """Return a second of a run: of each stage its calls and seconds busy, idle, blocked."""
    return {
        "start_s": start_s,
        "end_s": start_s + 1,
        "stages": [
            {
                "name": name,
                "kind": name if name in {"fetch", "write"} else "process",
                "count": count,
                "items": count,
                "calls_per_s": float(count),
                "items_per_s": float(count),
                "time_s": dict(zip(("busy", "idle", "blocked"), times, strict=True)),
            }
            for name, count, times in stages
        ],
        "queues": [{"name": name, "depth": depth} for name, depth in (queues or {}).items()],
        "cpu_utilization": None,
        "rss_bytes": None,
        **more,
    }


def full_windows() -> list[Data]:
    """Return 20 windows: process is the busiest stage of the first 6, then write."""
    made = []
    for second in range(20):
        early = second < 6
        made.append(
            window(
                float(second),
                [
                    ("write", 50, (0.3, 0.7, 0.0) if early else (0.98, 0.02, 0.0)),
                    ("fetch", 50, (0.1, 0.0, 0.9)),
                    ("process", 50, (0.9, 0.0, 0.1) if early else (0.25, 0.01, 0.74)),
                ],
                {"pages": 4, "parsed": 0 if early else 4},
                cpu_utilization=None if second == 9 else 0.3 + 0.12 * math.sin(second),
                rss_bytes=40_000_000 + 2_000_000 * second,
            )
        )
    return made


def full_data(run_id: str = "run-1") -> Data:
    """Return fetch 2 ms -> (4) -> process 5 ms -> (4) -> write 20 ms, with all other parts."""
    values = random.Random(4)  # noqa: S311
    fetch = [values.lognormvariate(math.log(0.002), 0.3) for _ in range(1000)]
    process = [values.lognormvariate(math.log(0.005), 0.25) for _ in range(1000)]
    write = [values.lognormvariate(math.log(0.0195), 0.1) for _ in range(1000)]
    made = data(
        [
            # a report lists stages in the order in which they first finished
            stage("write", write, kind="write", share=(0.98, 0.02, 0.0), items=(1000, 1000)),
            stage("fetch", fetch, kind="fetch", share=(0.1, 0.0, 0.9), items=(None, 1000)),
            stage(
                "process",
                process,
                share=(0.25, 0.01, 0.74),
                items=(1000, 998),
                errors={"ValueError": 2, "json.decoder.JSONDecodeError": 1},
            ),
        ],
        [
            queue("parsed", ["process"], ["write"], waits=[0.078] * 900 + [0.09] * 98),
            queue("pages", ["fetch"], ["process"], depth=(3.7, 4), waits=[0.075] * 1000),
        ],
        run_id=run_id,
    )
    made["run"]["trace_id"] = "0af7651916cd43dd8448eb211c80319c"
    made["stages"][0]["slowest"] = [
        slow_call(0.05, "4bf92f3577b34da6a3ce929d0e0e4736", attributes={"file.name": "a.csv"}),
        slow_call(0.04, outcome="error", error_type="TimeoutError"),
    ]
    made["windows"] = full_windows()
    made["caches"] = [
        {
            "name": "geo",
            "hits": 900,
            "misses": 100,
            "evictions": 7,
            "expirations": None,
            "hit_ratio": 0.9,
            "entries": 93,
            "size_bytes": 65536,
            "what_if": {"half": 0.8, "twice": 0.95, "four_times": None},
        }
    ]
    made["resources"] = {
        "samples": 20,
        "cpu_utilization": {"avg": 0.31, "peak": 0.47},
        "children_cpu_s": 1.25,
        "system_cpu_utilization": 0.4,
        "rss_bytes": {"avg": 60_000_000.0, "peak": 81_000_000},
        "disk_io_bytes": {"read": 17_043_456, "write": 6_828_032},
        "network_io_bytes": {"receive": None, "transmit": None},
        "gil_held": 0.62,
        "gil_held_samples": 190,
        "run_delay": 0.05,
        "run_delay_samples": 95,
        "limits": {"source": "cgroup2", "cpus": 2.0, "memory_bytes": 268_435_456},
        "series": [
            [float(t), None if t == 0 else 0.3 + 0.12 * math.sin(t), 40_000_000 + 2_000_000 * t]
            for t in range(21)
        ],
    }
    made["bottleneck"] = {
        "kind": "stage",
        "stage": "write",
        "ties": [],
        "busy": 0.98,
        "confidence": "high",
        "why": "write is busy 98 % of the time, and process is blocked on it for 74 %.",
        "advice": ["Add workers to write, or make each call of it shorter."],
        "name": "write",
        "evidence": [
            {"name": "part of the run that it needs", "value": 0.98, "line": 0.85, "for": True}
        ],
        "when": None,
        "what_if": [
            {
                "change": "workers",
                "name": "write",
                "stage": "write",
                "by": 1,
                "gain": [0.9, 1.0],
                "next": "write",
            }
        ],
        "assumptions": ["A further worker of write is as fast as those there are."],
    }
    made["telemetry"] = {
        "spans": {
            "created": 3001,
            "exported": 2500,
            "sampled_out": 0,
            "dropped": 1,
            "spooled": 0,
            "pending": 500,
        },
        "metric_points": {
            "created": 40,
            "exported": 34,
            "sampled_out": 0,
            "dropped": 6,
            "spooled": 0,
            "pending": 0,
        },
        "replayed": {"spans": 0, "metric_points": 0},
        "guards": {"forbidden_keys": 2, "other_values": 0, "cut_messages": 1},
        "process": f"4711-{run_id}",
        "stage_spans": {"made": 3000, "skipped": 0},
        "flush_s": 0.12,
        "collector": "ok",
    }
    return made


def full(run_id: str = "run-1") -> RunReport:
    return RunReport(full_data(run_id))


def in_turn() -> RunReport:
    """Return a run without queues, whose stages took turns, with long names of each style."""
    parts = {
        "collect_customer_transactions_from_the_warehouse": 6.0,
        "ParseDocumentContentVersion2": 9.0,
        "app.jobs.nightly.save": 3.0,
    }
    stages = [stage(name, [seconds / 30] * 30, workers=None) for name, seconds in parts.items()]
    for made, seconds in zip(stages, parts.values(), strict=True):
        made |= {"self_s": seconds, "run_share": seconds / 20}
        made["slowest"] = [slow_call(seconds / 30)]
    found = data(stages, pipeline="customer_transactions.nightly-import")
    found["run"]["outside_s"] = 2.0
    found["windows"] = [
        window(0.0, [(name, 30, (0.3, 0.0, 0.0)) for name in parts]),
        window(1.0, [(name, 30, (0.2, 0.0, 0.0)) for name in parts]),
    ]
    return RunReport(found)


HOSTILE = "<script>alert(1)</script>|`--><img src=x onerror=alert(2)>"


def hostile() -> RunReport:
    """Return a report in which every string is markup."""
    made = full_data()

    def poison(found: Any) -> Any:
        if isinstance(found, dict):
            return {
                (HOSTILE if key == "ValueError" else key): value
                if key in {"kind", "started", "sketch"}
                else poison(value)
                for key, value in found.items()
            }
        if isinstance(found, list):
            return [poison(value) for value in found]
        return f"{found} {HOSTILE}" if isinstance(found, str) else found

    return RunReport({**poison(copy.deepcopy(made)), "schema": SCHEMA})


def bare(pipeline: str = "empty") -> RunReport:
    """Return a report with the required fields only."""
    made = data()
    made["run"] = {"pipeline": pipeline}
    made["resources"], made["bottleneck"], made["telemetry"] = {}, {}, {}
    return RunReport(made)

"""Turn what a `MetricsCollector` exports into the data of a report."""

from __future__ import annotations

from typing import Any, Final

from otel_pipeline_metrics._core.lookup import number, ratio, whole
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.schema import SCHEMA

_MIB: Final = 1024 * 1024
_PARTS: Final = ("stages", "caches", "resources")


def is_collector_data(data: dict[str, Any]) -> bool:
    """Tell whether data is what `MetricsCollector.export_json()` returns."""
    parts = all(isinstance(data.get(name), dict) for name in _PARTS)
    return parts and "duration_s" in data and "schema" not in data


def as_report(data: dict[str, Any]) -> dict[str, Any]:
    """Return collector data as a report of a run in progress; others' values are unknown.

    Raises:
        ValueError: a row is not an object, or one of its values is not a number.
    """
    for part in ("stages", "caches"):
        for name, row in data[part].items():
            _check(row, f"{part} {name!r}")
    _check(data["resources"], "resources")
    wall_s = number(data, "duration_s")
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "run": {
            "pipeline": "collector",
            "id": None,
            "trace_id": None,
            "result": None,
            "error_type": None,
            "started": data.get("start_time"),
            "wall_s": wall_s,
            "partial": False,
            "total": None,
        },
        "stages": [_stage(name, row, wall_s) for name, row in data["stages"].items()],
        "queues": [],
        "caches": [_cache(name, row) for name, row in data["caches"].items()],
        "resources": _resources(data["resources"]),
        "telemetry": {},
    }
    return found | {"bottleneck": analyze(found)}


def _check(row: object, where: str) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"not whole collector data: {where} is not an object")
    for key, value in row.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"not whole collector data: {where}: {key!r} is not a number")


def _stage(name: str, row: dict[str, Any], wall_s: float | None) -> dict[str, Any]:
    count = whole(row, "count")
    seconds = {key: number(row, f"{key}_duration_s") for key in ("total", "avg", "min", "max")}
    return {
        "name": name,
        "kind": None,
        "workers": None,
        "count": count,
        "errors": {"total": whole(row, "errors"), "by_type": {}},
        "items": {"in": None, "out": None},
        "bytes": {"in": None, "out": None},
        "duration_s": {**seconds, **dict.fromkeys(("p50", "p95", "p99", "sketch"))},
        "throughput": {
            "wall_per_s": ratio(count, wall_s),
            "busy_per_s": number(row, "throughput_per_s"),
            "items_per_s": None,
        },
    }


def _cache(name: str, row: dict[str, Any]) -> dict[str, Any]:
    hits, misses = whole(row, "hits"), whole(row, "misses")
    size = number(row, "size_mb")
    return {
        "name": name,
        "hits": hits,
        "misses": misses,
        "evictions": whole(row, "evictions"),
        "expirations": whole(row, "expirations"),
        "hit_ratio": ratio(hits, (hits or 0) + (misses or 0)),
        "entries": None,
        "size_bytes": None if size is None else size * _MIB,
    }


def _resources(row: dict[str, Any]) -> dict[str, Any]:
    def pair(name: str, times: float) -> dict[str, float | None]:
        found = {key: number(row, f"{key}_{name}") for key in ("avg", "peak")}
        return {key: None if value is None else value * times for key, value in found.items()}

    return {
        "samples": max(whole(row, f"{name}_samples") or 0 for name in ("cpu", "memory")),
        "cpu_utilization": pair("cpu_percent", 0.01),
        "rss_bytes": pair("memory_mb", _MIB),
        "disk_io_bytes": {"read": None, "write": None},
        "network_io_bytes": {"receive": None, "transmit": None},
        "limits": None,
        "event_loop_delay_s": None,
        "series": None,
    }

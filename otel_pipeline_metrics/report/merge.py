"""One report from several: processes of one run, or runs of one pipeline.

Merging in whatever groups gives the same as one report that had seen everything, because only
what adds up is added: counts, seconds, sketches. Where it cannot be known, it is None.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.quantile_sketch import REL_ERROR, Sketch
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.flow import dig, names, number, whole
from otel_pipeline_metrics.report.merge_rules import (
    Data,
    _added,
    _common,
    _counts,
    _grouped,
    _max_known,
    _min_known,
    _plus,
    _rank,
    _ratio,
    _same,
    _sum,
    _times,
    _weighted,
)
from otel_pipeline_metrics.report.run_report import SCHEMA, RunReport

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


_RESULTS: Final = ("success", None, "cancellation", "timeout", "failure")
"""From the best to the worst; None is a run that never ended."""

_OF_A_PROCESS: Final = ("spans", "metric_points", "replayed", "guards")
"""Parts of the telemetry that count for a process and not for one run of it."""

_COLLECTORS: Final = ("off", "ok", "unreachable")


def merge(reports: Sequence[RunReport]) -> RunReport:
    """Return one report that has seen what the given ones have.

    The wall time reaches from the earliest start to the latest end. Averages over time are
    weighted by the time observed. A stage's workers add up, as those of several processes do.

    Raises:
        TypeError: something is no report.
        ValueError: there is no report, one is there twice, or they are of different pipelines.
    """
    if not reports:
        raise ValueError("there is no report to merge")
    for given in reports:
        _check_kind(given)
    if len(reports) == 1:
        return RunReport(reports[0].to_dict())
    parts = [report.to_dict() for report in reports]
    pipelines = list(dict.fromkeys(dig(part, "run", "pipeline") for part in parts))
    if len(pipelines) > 1:
        found = ", ".join(repr(name) for name in pipelines)
        raise ValueError(f"reports of different pipelines do not merge: {found}")
    run = _run([part["run"] for part in parts])
    ids: list[str | None] = run["merged_from"]
    twice = [one for one in ids if one and ids.count(one) > 1]
    if twice:
        raise ValueError(f"the report of run {twice[0]!r} is there twice")
    wall_s = run["wall_s"]
    # what an average of a single run is weighted by
    for part in parts:
        seconds = number(part["run"], "wall_s")
        for entry in (*part["queues"], part["resources"]):
            entry.setdefault("observed_s", seconds)
    merged = _common(parts) | {
        "schema": SCHEMA,
        "run": run,
        "stages": [
            _stage(entries, wall_s)
            for entries in _grouped(parts, "stages", lambda s: (s.get("name"), s.get("kind")))
        ],
        "queues": [_queue(e) for e in _grouped(parts, "queues", lambda q: q.get("name"))],
        "caches": [_cache(e) for e in _grouped(parts, "caches", lambda c: c.get("name"))],
        "resources": _resources([part["resources"] for part in parts]),
        "telemetry": _telemetry([part["telemetry"] for part in parts]),
    }
    return RunReport(merged | {"bottleneck": analyze(merged)})


def _check_kind(given: object) -> None:
    if not isinstance(given, RunReport):
        raise TypeError(
            f"reports must each be a RunReport, not {type(given).__name__}; "
            "those of a list are given as merge(*reports)"
        )


def _run(runs: list[Data]) -> Data:
    result = max((run.get("result") for run in runs), key=_rank(_RESULTS))
    worst = next(run for run in runs if run.get("result") == result)
    merged_from = [one for run in runs for one in (run.get("merged_from") or [run.get("id")])]
    started, wall_s = _span(runs)
    return _common(runs) | {
        "pipeline": runs[0].get("pipeline"),
        "id": _same([run.get("id") for run in runs]),
        "trace_id": _same([run.get("trace_id") for run in runs]),
        "result": result,
        "error_type": worst.get("error_type"),
        "started": started,
        "wall_s": wall_s,
        "partial": any(run.get("partial") for run in runs),
        "total": _sum([number(run, "total") for run in runs]),
        "merged_from": merged_from,
    }


def _span(runs: list[Data]) -> tuple[str | None, float | None]:
    """Return the earliest start, and the seconds from there to the latest end."""
    spans = []
    for run in runs:
        started, wall_s = run.get("started"), number(run, "wall_s")
        if not isinstance(started, str) or wall_s is None:
            return None, None
        begin = datetime.fromisoformat(started)
        spans.append((begin, begin + timedelta(seconds=wall_s), started))
    first = min(spans, key=lambda span: span[0])
    last = max(spans, key=lambda span: span[1])
    return first[2], (last[1] - first[0]) / timedelta(seconds=1)


def _stage(entries: list[Data], wall_s: float | None) -> Data:
    count = _plus([whole(entry, "count") for entry in entries]) or 0
    duration = _duration(entries, count)
    items = {way: _plus([whole(e, "items", way) for e in entries]) for way in ("in", "out")}
    moved = items["out"] if items["out"] is not None else items["in"]
    time_s = {
        state: _sum([number(entry, "time_s", state) for entry in entries])
        for state in ("wall", "busy", "idle", "blocked")
    }
    by_type = _counts([dig(entry, "errors", "by_type") for entry in entries])
    return _common(entries) | {
        "name": entries[0].get("name"),
        "kind": entries[0].get("kind"),
        "workers": _sum([whole(entry, "workers") for entry in entries]),
        "count": count,
        "cancelled": _plus([whole(entry, "cancelled") for entry in entries]) or 0,
        "abandoned": _plus([whole(entry, "abandoned") for entry in entries]) or 0,
        "errors": {
            "total": _plus([whole(entry, "errors", "total") for entry in entries]) or 0,
            "by_type": by_type,
        },
        "retries": _plus([whole(entry, "retries") for entry in entries]) or 0,
        "items": items,
        "bytes": {way: _plus([whole(e, "bytes", way) for e in entries]) for way in ("in", "out")},
        "duration_s": duration,
        "throughput": {
            "wall_per_s": _ratio(count, wall_s),
            "busy_per_s": _ratio(count, duration["total"]),
            "items_per_s": _ratio(moved, wall_s),
        },
        "time_s": time_s,
        "share": {
            state: _ratio(time_s[state], time_s["wall"]) for state in ("busy", "idle", "blocked")
        },
        "busiest_share": _max_known([number(entry, "busiest_share") for entry in entries]),
        "cpu_s": _sum([number(entry, "cpu_s") for entry in entries]),
    }


def _duration(entries: list[Data], count: int) -> Data:
    durations = [entry.get("duration_s") or {} for entry in entries]
    total = _plus([number(duration, "total") for duration in durations])
    sketch = _sketches(
        [
            (dig(duration, "sketch"), whole(entry, "count") or 0)
            for entry, duration in zip(entries, durations, strict=True)
        ]
    )
    low = _min_known([number(duration, "min") for duration in durations])
    high = _max_known([number(duration, "max") for duration in durations])
    return {
        "total": total,
        "avg": _ratio(total, count),
        "min": low,
        "max": high,
        **_quantiles(sketch, low, high),
        "sum_of_squares": _sum([number(duration, "sum_of_squares") for duration in durations]),
    }


def _sketches(found: list[tuple[Any, int]]) -> Sketch | None:
    """Return the merged sketch; None where one is missing, or of another relative error."""
    merged = Sketch()
    for data, count in found:
        if data is None and not count:
            continue
        try:
            merged.merge(Sketch.from_dict(data or {}))
        except (ValueError, TypeError, AttributeError):
            return None
    return merged


def _quantiles(sketch: Sketch | None, low: float | None, high: float | None) -> Data:
    """Return percentiles, within what was really seen, and the sketch that they come from."""
    if sketch is None:
        found: Data = dict.fromkeys(("p50", "p95", "p99"))
    else:
        found = dict(sketch.percentiles(low, high))
    return found | {"rel_error": REL_ERROR, "sketch": None if sketch is None else sketch.to_dict()}


def _queue(entries: list[Data]) -> Data:
    waits = [entry.get("wait_s") or {} for entry in entries]
    got = [whole(entry, "got") for entry in entries]
    sketch = _sketches([(dig(w, "sketch"), g or 0) for w, g in zip(waits, got, strict=True)])
    waited = [_times(number(w, "avg"), g) for w, g in zip(waits, got, strict=True)]
    capacities = [whole(entry, "capacity") for entry in entries]
    high = _max_known([number(wait, "max") for wait in waits])
    got_all = _sum(got)
    return _common(entries) | {
        "name": entries[0].get("name"),
        # one unbounded queue of that name makes them unbounded together
        "capacity": None if None in capacities else max(c for c in capacities if c is not None),
        "depth_avg": _weighted(entries, "depth_avg"),
        "depth_peak": _max_known([number(entry, "depth_peak") for entry in entries]),
        "put": _sum([whole(entry, "put") for entry in entries]),
        "got": got_all,
        "wait_s": {
            "avg": _ratio(_sum(waited), got_all),
            "max": high,
            **_quantiles(sketch, None, high),
        },
        "put_span_s": _sum([number(entry, "put_span_s") for entry in entries]),
        "put_blocked_s": _sum([number(entry, "put_blocked_s") for entry in entries]),
        "get_waited_s": _sum([number(entry, "get_waited_s") for entry in entries]),
        "producers": list(dict.fromkeys(n for e in entries for n in names(e, "producers"))),
        "consumers": list(dict.fromkeys(n for e in entries for n in names(e, "consumers"))),
        "observed_s": _sum([number(entry, "observed_s") for entry in entries]),
    }


def _cache(entries: list[Data]) -> Data:
    hits = _plus([whole(entry, "hits") for entry in entries]) or 0
    misses = _plus([whole(entry, "misses") for entry in entries]) or 0
    return _common(entries) | {
        "name": entries[0].get("name"),
        "hits": hits,
        "misses": misses,
        **{
            key: _sum([whole(entry, key) for entry in entries])
            for key in ("evictions", "expirations", "entries", "size_bytes")
        },
        "hit_ratio": _ratio(hits, hits + misses),
    }


def _resources(parts: list[Data]) -> Data:
    sampled = [part for part in parts if whole(part, "samples")]
    if not sampled:
        return {k: v for k, v in _common(parts).items() if k != "observed_s"} | {"samples": 0}
    return {
        **_common(sampled),
        "samples": _plus([whole(part, "samples") for part in sampled]),
        "cpu_utilization": {
            "avg": _weighted(sampled, "cpu_utilization", "avg"),
            "peak": _max_known([number(part, "cpu_utilization", "peak") for part in sampled]),
        },
        "rss_bytes": {
            "avg": _weighted(sampled, "rss_bytes", "avg"),
            "peak": _max_known([number(part, "rss_bytes", "peak") for part in sampled]),
        },
        "disk_io_bytes": {
            way: _sum([number(part, "disk_io_bytes", way) for part in sampled])
            for way in ("read", "write")
        },
        # counted for the whole host: two reports of the same minutes have counted it twice
        "network_io_bytes": {"receive": None, "transmit": None},
        # one line for several processes would jump from one to the other
        "series": None,
        "limits": _same([part.get("limits") for part in sampled]),
        "observed_s": _sum([number(part, "observed_s") for part in sampled]),
    }


def _telemetry(parts: list[Data]) -> Data:
    processes = _processes(parts)
    return {k: v for k, v in _common(parts).items() if k != "process"} | {
        **{name: _added([dig(one, name) for one in processes]) for name in _OF_A_PROCESS},
        "processes": processes,
        "stage_spans": _added([dig(part, "stage_spans") for part in parts]),
        "flush_s": _max_known([number(part, "flush_s") for part in parts]),
        "collector": max((part.get("collector") for part in parts), key=_rank(_COLLECTORS)),
    }


def _processes(parts: list[Data]) -> list[Data]:
    """Return the counts of each process once: its runs report the same, the later ones more."""
    latest: dict[Hashable, Data] = {}
    for part in parts:
        for one in part.get("processes") or [part]:
            counts = {name: one.get(name) for name in ("process", *_OF_A_PROCESS)}
            # who does not say which process it is, is one of its own
            key = one.get("process") or len(latest)
            if key not in latest or _created(latest[key]) < _created(counts):
                latest[key] = counts
    return list(latest.values())


def _created(counts: Data) -> int:
    return sum(whole(counts, kind, "created") or 0 for kind in ("spans", "metric_points"))

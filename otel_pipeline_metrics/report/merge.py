"""Merge reports: of the processes of a run, or of several runs of a pipeline.

Merging in any grouping gives the same result as one report of everything, because only counts,
seconds and sketches are added. A value that cannot be known is None.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import lookup
from otel_pipeline_metrics._core.lookup import get_path, get_strings, number, ratio, whole
from otel_pipeline_metrics._core.quantile_sketch import REL_ERROR, Sketch
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.merge_rules import (
    Data,
    add,
    common,
    group_entries,
    max_known,
    min_known,
    product,
    rank,
    same,
    sum_all,
    sum_counts,
    sum_known,
    sum_types,
    weighted,
)

if TYPE_CHECKING:
    from collections.abc import Hashable


# from the best to the worst; None is a run that never ended
_RESULTS: Final = ("success", None, "cancellation", "timeout", "failure")

# parts of the telemetry that a process counts over all its runs
_OF_A_PROCESS: Final = ("spans", "metric_points", "replayed", "guards")

_COLLECTORS: Final = ("off", "ok", "unreachable")


def merge(parts: list[Data]) -> Data:
    """Return the data of the merged report; the given data is changed.

    Raises:
        ValueError: a run is there twice, or the reports are of different pipelines.
    """
    pipelines = list(dict.fromkeys(get_path(part, "run", "pipeline") for part in parts))
    if len(pipelines) > 1:
        found = ", ".join(repr(name) for name in pipelines)
        raise ValueError(f"reports of different pipelines do not merge: {found}")
    run = _run([part["run"] for part in parts])
    ids: list[str | None] = run["merged_from"]
    twice = next((one for one in ids if one and ids.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"the report of run {twice!r} is there twice")
    # an average over time is weighted by the time that it covers
    for part in parts:
        part.setdefault("limits", [])
        for entry in (*part["queues"], *part["limits"], part["resources"]):
            entry.setdefault("observed_s", number(part["run"], "wall_s"))
    stages = group_entries(parts, "stages", lambda s: (s.get("name"), s.get("kind")))
    merged = common(parts) | {
        "run": run,
        "stages": [_stage(entries, run["wall_s"]) for entries in stages],
        "queues": [_queue(e) for e in group_entries(parts, "queues", lambda q: q.get("name"))],
        "limits": [_limit(e) for e in group_entries(parts, "limits", lambda one: one.get("name"))],
        "caches": [_cache(e) for e in group_entries(parts, "caches", lambda c: c.get("name"))],
        "resources": _resources([part["resources"] for part in parts]),
        "telemetry": _telemetry([part["telemetry"] for part in parts]),
    }
    return merged | {"bottleneck": analyze(merged)}


def _run(runs: list[Data]) -> Data:
    result = max((run.get("result") for run in runs), key=rank(_RESULTS))
    worst = next(run for run in runs if run.get("result") == result)
    merged_from = [one for run in runs for one in (run.get("merged_from") or [run.get("id")])]
    started, wall_s = _span(runs)
    return common(runs) | {
        "pipeline": runs[0].get("pipeline"),
        "id": same([run.get("id") for run in runs]),
        "trace_id": same([run.get("trace_id") for run in runs]),
        "result": result,
        "error_type": worst.get("error_type"),
        "started": started,
        "wall_s": wall_s,
        "partial": any(run.get("partial") for run in runs),
        "total": sum_all(runs, "total"),
        "merged_from": merged_from,
    }


def _span(runs: list[Data]) -> tuple[str | None, float | None]:
    """Return the earliest start and the seconds from it to the latest end."""
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
    count = sum_known(entries, "count") or 0
    duration = _duration(entries, count)
    items = {way: sum_known(entries, "items", way) for way in ("in", "out")}
    moved = items["out"] if items["out"] is not None else items["in"]
    time_s = {
        state: sum_all(entries, "time_s", state) for state in ("wall", "busy", "idle", "blocked")
    }
    return common(entries) | {
        "name": entries[0].get("name"),
        "kind": entries[0].get("kind"),
        "workers": sum_all(entries, "workers"),
        "count": count,
        "cancelled": sum_known(entries, "cancelled") or 0,
        "abandoned": sum_known(entries, "abandoned") or 0,
        "errors": {
            "total": sum_known(entries, "errors", "total") or 0,
            "by_type": sum_types([get_path(entry, "errors", "by_type") for entry in entries]),
        },
        "retries": sum_known(entries, "retries") or 0,
        "items": items,
        "bytes": {way: sum_known(entries, "bytes", way) for way in ("in", "out")},
        "duration_s": duration,
        "throughput": {
            "wall_per_s": ratio(count, wall_s),
            "busy_per_s": ratio(count, duration["total"]),
            "items_per_s": ratio(moved, wall_s),
        },
        "time_s": time_s,
        "share": {
            state: ratio(time_s[state], time_s["wall"]) for state in ("busy", "idle", "blocked")
        },
        "busiest_share": max_known(entries, "busiest_share"),
        "cpu_s": sum_all(entries, "cpu_s"),
    }


def _duration(entries: list[Data], count: int) -> Data:
    durations = [entry.get("duration_s") or {} for entry in entries]
    total = sum_known(durations, "total")
    low, high = min_known(durations, "min"), max_known(durations, "max")
    return {
        "total": total,
        "avg": ratio(total, count),
        "min": low,
        "max": high,
        **_quantiles(_sketch(entries, "duration_s", "count"), low, high),
        "sum_of_squares": sum_all(durations, "sum_of_squares"),
    }


def _sketch(entries: list[Data], key: str, count: str) -> Sketch | None:
    """Return the merged sketch; None if one is missing or has another relative error."""
    merged = Sketch()
    for entry in entries:
        data = get_path(entry, key, "sketch")
        if data is None and not whole(entry, count):
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
    waited = [product(number(e, "wait_s", "avg"), whole(e, "got")) for e in entries]
    capacities = [whole(entry, "capacity") for entry in entries]
    high = max_known(waits, "max")
    got = sum_all(entries, "got")
    return common(entries) | {
        "name": entries[0].get("name"),
        # together with an unbounded queue of that name, they are unbounded
        "capacity": None if None in capacities else max(c for c in capacities if c is not None),
        "depth_avg": weighted(entries, "depth_avg"),
        "depth_peak": max_known(entries, "depth_peak"),
        "put": sum_all(entries, "put"),
        "got": got,
        "wait_s": {
            "avg": ratio(add(waited), got),
            "max": high,
            **_quantiles(_sketch(entries, "wait_s", "got"), None, high),
        },
        "put_span_s": sum_all(entries, "put_span_s"),
        "put_blocked_s": sum_all(entries, "put_blocked_s"),
        "get_waited_s": sum_all(entries, "get_waited_s"),
        "producers": list(dict.fromkeys(n for e in entries for n in get_strings(e, "producers"))),
        "consumers": list(dict.fromkeys(n for e in entries for n in get_strings(e, "consumers"))),
        "observed_s": sum_all(entries, "observed_s"),
    }


def _limit(entries: list[Data]) -> Data:
    waits = [entry.get("wait_s") or {} for entry in entries]
    total, high = sum_all(waits, "total"), max_known(waits, "max")
    sketch = _sketch(entries, "wait_s", "acquired")
    kinds = {entry.get("kind") for entry in entries}
    most = [whole(entry, "max") for entry in entries]
    stages: dict[str | None, list[Data]] = {}
    for one in (one for entry in entries for one in lookup.entries(entry, "stages")):
        stages.setdefault(one.get("stage"), []).append(one)
    return common(entries) | {
        "name": entries[0].get("name"),
        "kind": kinds.pop() if len(kinds) == 1 else "mixed",
        "max": None if None in most else max(one for one in most if one is not None),
        "usage_avg": weighted(entries, "usage_avg"),
        "usage_peak": max_known(entries, "usage_peak"),
        "acquired": sum_all(entries, "acquired"),
        "wait_s": {
            "total": total,
            "avg": ratio(total, None if sketch is None else sketch.count()),
            "max": high,
            **_quantiles(sketch, None, high),
        },
        "stages": [
            {
                "stage": stage,
                "waited_s": sum_all(some, "waited_s"),
                "held_s": sum_all(some, "held_s"),
            }
            for stage, some in stages.items()
        ],
        "observed_s": sum_all(entries, "observed_s"),
    }


def _cache(entries: list[Data]) -> Data:
    hits = sum_known(entries, "hits") or 0
    misses = sum_known(entries, "misses") or 0
    return common(entries) | {
        "name": entries[0].get("name"),
        "hits": hits,
        "misses": misses,
        **{
            key: sum_all(entries, key)
            for key in ("evictions", "expirations", "entries", "size_bytes")
        },
        "hit_ratio": ratio(hits, hits + misses),
    }


def _resources(parts: list[Data]) -> Data:
    sampled = [part for part in parts if whole(part, "samples")]
    if not sampled:
        return {k: v for k, v in common(parts).items() if k != "observed_s"} | {"samples": 0}
    return {
        **common(sampled),
        "samples": sum_known(sampled, "samples"),
        "cpu_utilization": {
            "avg": weighted(sampled, "cpu_utilization", "avg"),
            "peak": max_known(sampled, "cpu_utilization", "peak"),
        },
        "rss_bytes": {
            "avg": weighted(sampled, "rss_bytes", "avg"),
            "peak": max_known(sampled, "rss_bytes", "peak"),
        },
        "disk_io_bytes": {way: sum_all(sampled, "disk_io_bytes", way) for way in ("read", "write")},
        # the host's total: two reports of the same minutes would count it twice
        "network_io_bytes": {"receive": None, "transmit": None},
        # one line of several processes would jump between them
        "series": None,
        "limits": same([part.get("limits") for part in sampled]),
        **_share_of_moments(sampled, "gil_held"),
        **_share_of_moments(sampled, "run_delay"),
        "observed_s": sum_all(sampled, "observed_s"),
    }


def _share_of_moments(parts: list[Data], key: str) -> Data:
    """Return a share of random moments, and their number: of the reports that know it."""
    samples = f"{key}_samples"
    known = [part for part in parts if None not in (number(part, key), number(part, samples))]
    count = sum_known(known or parts, samples)
    held = add([product(number(part, key), number(part, samples)) for part in known])
    return {key: ratio(held, count) if known else None, samples: count}


def _telemetry(parts: list[Data]) -> Data:
    processes = _processes(parts)
    return {k: v for k, v in common(parts).items() if k != "process"} | {
        **{name: sum_counts([get_path(one, name) for one in processes]) for name in _OF_A_PROCESS},
        "processes": processes,
        "stage_spans": sum_counts([get_path(part, "stage_spans") for part in parts]),
        "flush_s": max_known(parts, "flush_s"),
        "collector": max((part.get("collector") for part in parts), key=rank(_COLLECTORS)),
    }


def _processes(parts: list[Data]) -> list[Data]:
    """Return the counts of each process once, from its latest run, which has the most."""
    latest: dict[Hashable, Data] = {}
    for part in parts:
        for one in part.get("processes") or [part]:
            counts = {name: one.get(name) for name in ("process", *_OF_A_PROCESS)}
            # counts without a process id are taken for a process of their own
            key = one.get("process") or len(latest)
            if key not in latest or _created(latest[key]) < _created(counts):
                latest[key] = counts
    return list(latest.values())


def _created(counts: Data) -> int:
    return sum(whole(counts, kind, "created") or 0 for kind in ("spans", "metric_points"))

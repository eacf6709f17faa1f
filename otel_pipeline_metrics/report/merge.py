"""Merge reports: of the processes of a run, or of several runs of a pipeline.

Merging in any grouping gives the same result as one report of everything, because only counts,
seconds and sketches are added. A value that cannot be known is None.

Reports are read one after the other and added up in batches, so thousands of them need little
memory. The tables say how each key is merged; a key of a later version needs one line there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core.lookup import entries, get_path, number, ratio, whole
from otel_pipeline_metrics._core.quantile_sketch import Sketch
from otel_pipeline_metrics._core.slowest import SLOWEST
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report.merge_rules import (
    Data,
    all_elsewhere,
    common,
    count,
    counts_by_key,
    derive,
    forgotten,
    largest_limit,
    largest_of,
    max_known,
    merge_dicts,
    merge_means,
    merge_numbers_or_dicts,
    min_known,
    names,
    percentiles,
    product,
    rank,
    same,
    share_of_moments,
    sketch,
    sum_all,
    sum_errors,
    sum_known,
    sums_by_key,
)
from otel_pipeline_metrics.report.merge_runs import (
    OF_PROCESSES,
    WRITTEN_AT_THE_END,
    Processes,
    Runs,
    Spans,
    runs_in,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

Table = dict[str, Any]

_BATCH: Final = 100

# while merging, an entry holds the totals of its averages
_TOTALS: Final = "totals of averages"

# --- the tables -----------------------------------------------------------------------------
_STATES: Final = ("wall", "busy", "running", "awaiting", "idle", "blocked")
_BOTH_WAYS: Final = {"in": sum_known, "out": sum_known}
_QUANTILES: Final = dict.fromkeys(("p50", "p95", "p99"), forgotten)
_DISTRIBUTION: Final = {"avg": forgotten, "max": max_known, **_QUANTILES, "sketch": sketch}

_STAGE: Final[Table] = {
    "workers": sum_all,
    # seconds that its workers were there
    "worker_s": sum_all,
    "count": count,
    "cancelled": count,
    "abandoned": count,
    "errors": {"total": count, "by_type": counts_by_key},
    "retries": count,
    "failed_s": sum_all,
    "retried": {"count": count, "total_s": sum_all},
    "items": _BOTH_WAYS,
    "bytes": _BOTH_WAYS,
    "duration_s": _DISTRIBUTION | {"total": sum_known, "min": min_known, "sum_of_squares": sum_all},
    "time_s": {
        **dict.fromkeys((*_STATES, "loop_wait_most"), sum_all),
        "split_standard_error": sum_errors,
    },
    "share": dict.fromkeys(_STATES, forgotten),
    "throughput": dict.fromkeys(("wall_per_s", "busy_per_s", "items_per_s"), forgotten),
    "busiest_share": max_known,
    # of runs one after the other, it is unknown whether it was the same worker
    "busiest_s": forgotten,
    "self_s": sum_all,
    "wall_s": sum_all,
    "cpu_s": sum_all,
    "tasks": count,
    "in_flight": sum_known,
    "slowest": largest_of("duration_s", SLOWEST),
    "service_by_in_flight": lambda found: merge_means(found, "in_flight", "avg_s"),
    "callers": lambda found: merge_entries(found, ("stage",), {"wall_s": sum_all, "spawned": any}),
}
_QUEUE: Final[Table] = {
    "capacity": largest_limit,
    "depth_peak": max_known,
    "put": sum_all,
    "got": sum_all,
    "wait_s": _DISTRIBUTION,
    "put_span_s": sum_all,
    "put_blocked_s": sum_all,
    "get_waited_s": sum_all,
    "producers": names,
    "consumers": names,
    "observed_s": sum_all,
}
_CACHE: Final[Table] = {
    "hits": count,
    "misses": count,
    **dict.fromkeys(("evictions", "expirations", "entries", "size_bytes"), sum_all),
    "hit_ratio": forgotten,
    # the ratios of several caches at once are not those of one
    "what_if": forgotten,
}
_WAITING: Final[Table] = {"waited_s": sum_all, "held_s": sum_all}
_LIMIT: Final[Table] = {
    "kind": lambda found: found[0] if found.count(found[0]) == len(found) else "mixed",
    "max": largest_limit,
    "usage_peak": max_known,
    "acquired": sum_all,
    "wait_s": lambda found: merge_numbers_or_dicts(found, _DISTRIBUTION | {"total": sum_known}),
    "stages": lambda found: merge_entries(found, ("stage",), _WAITING),
    "observed_s": sum_all,
}


class Section(NamedTuple):
    """A list of entries in a report."""

    # what identifies an entry
    key: tuple[str, ...]
    rules: Table
    # the key of the number of durations behind a sketch
    measured: str
    # averages by path, each with what it is an average over: a key of the entry, or of the run.
    # They are merged as totals
    averages: Mapping[tuple[str, ...], tuple[str, ...]]


SECTIONS: Final = {
    "stages": Section(
        ("name", "kind"),
        _STAGE,
        "count",
        {
            ("in_flight_avg",): ("run", "wall_s"),
            ("run_share",): ("run", "observed_s"),
        },
    ),
    "queues": Section(
        ("name",), _QUEUE, "got", {("depth_avg",): ("observed_s",), ("wait_s", "avg"): ("got",)}
    ),
    "caches": Section(("name",), _CACHE, "hits", {}),
    "limits": Section(
        ("name",),
        _LIMIT,
        "acquired",
        {("usage_avg",): ("observed_s",), ("wait_s", "avg"): ("acquired",)},
    ),
}
_RESOURCES: Final = Section(
    (),
    {
        "run_delay_waited": sum_known,
        "children_cpu_s": sum_all,
        "system_cpu_utilization": forgotten,
        "samples": sum_known,
        "cpu_utilization": {"avg": forgotten, "peak": max_known},
        "rss_bytes": {"avg": forgotten, "peak": max_known},
        "disk_io_bytes": {"read": sum_all, "write": sum_all},
        # the host's total: two reports of the same minutes would count it twice
        "network_io_bytes": {"receive": forgotten, "transmit": forgotten},
        # one line of several processes would jump between them
        "series": forgotten,
        "limits": same,
        "observed_s": sum_all,
    },
    "samples",
    {
        ("cpu_utilization", "avg"): ("observed_s",),
        ("system_cpu_utilization",): ("observed_s",),
        ("rss_bytes", "avg"): ("observed_s",),
    },
)
# from the best to the worst; None is a run that never ended
_RESULTS: Final = ("success", None, "cancellation", "timeout", "failure")
_RUN: Final[Table] = {
    "id": same,
    "trace_id": same,
    "trace_url": same,
    "result": rank(_RESULTS),
    "partial": any,
    "total": sum_all,
    "outside_s": sum_all,
    "observed_s": sum_all,
    **dict.fromkeys(("parts", "parts_missing", "parts_rejected"), sum_known),
    "merged_runs": sum,
}
_TELEMETRY: Final[Table] = {
    "stage_spans": sums_by_key,
    "flush_s": max_known,
    "collector": rank(("off", "ok", "unreachable")),
}


# --- merging --------------------------------------------------------------------------------


def merge(parts: Iterable[Data]) -> Data:
    """Return the data of the merged report; the given data is left as it is.

    Args:
        parts: data of reports, read one after the other.

    Raises:
        ValueError: a run is there twice, the reports are of different pipelines, or there is
            none.
    """
    runs, spans, processes = Runs(), Spans(), Processes()
    batch: list[Data] = []
    alone, pipeline = None, None
    for index, part in enumerate(parts):
        run = part["run"]
        if index == 0:
            alone, pipeline = part, run.get("pipeline")
        else:
            alone = None
        if run.get("pipeline") != pipeline:
            found = f"{pipeline!r}, {run.get('pipeline')!r}"
            raise ValueError(f"reports of different pipelines do not merge: {found}")
        runs.add(run)
        spans.add(run, _observed_s(part))
        processes.add(part["telemetry"])
        batch.append(_opened(part))
        if len(batch) > _BATCH:
            batch = [_sums(batch)]
    if not batch:
        raise ValueError("there is no report to merge")
    if alone is not None:
        return alone
    merged = _closed(_sums(batch), runs.to_dict() | spans.to_dict(), processes.to_dict())
    return merged | {"bottleneck": analyze(merged)}


def _observed_s(part: Data) -> float | None:
    """Return how long the runs of a report lasted together."""
    wall_s, observed_s = number(part["run"], "wall_s"), number(part["run"], "observed_s")
    if observed_s is not None or not part["run"].get("merged_from"):
        return wall_s if observed_s is None else observed_s
    # written by a version whose wall time counted the gaps between runs
    places = (part["resources"], *entries(part, "queues"))
    known = [found for place in places if (found := number(place, "observed_s")) is not None]
    return max(known, default=wall_s)


# --- a report as sums -----------------------------------------------------------------------


def _opened(part: Data) -> Data:
    """Return a report whose averages are totals, so that they can be added."""
    run, observed_s = part["run"], _observed_s(part)
    over = {"wall_s": number(run, "wall_s"), "observed_s": observed_s}
    opened = {key: value for key, value in part.items() if key != "bottleneck"}
    opened["run"] = {k: v for k, v in run.items() if k not in WRITTEN_AT_THE_END} | {
        "observed_s": observed_s,
        "merged_runs": runs_in(run),
    }
    if "outside_s" in run:
        share = ratio(number(run, "outside_s"), over["wall_s"])
        opened["run"]["outside_s"] = product(share, observed_s)
    for name, section in SECTIONS.items():
        if name in part:
            opened[name] = [open_entry(entry, section, over) for entry in entries(part, name)]
    mean_s = ratio(observed_s, runs_in(run))
    for stage in opened["stages"]:
        stage.setdefault("worker_s", product(number(stage, "workers"), mean_s))
    opened["telemetry"] = {
        key: value for key, value in part["telemetry"].items() if key not in OF_PROCESSES
    }
    opened["resources"] = open_entry(part["resources"], _RESOURCES, over)
    return opened


def open_entry(given: Data, section: Section, over: Data) -> Data:
    """Return a copy of an entry whose averages are totals `over` the run's two times."""
    entry = dict(given)
    if "observed_s" in section.rules:
        entry.setdefault("observed_s", over["wall_s"])
    for key in ("duration_s", "wait_s"):
        # nothing was measured, so nothing is missing
        if isinstance(entry.get(key), dict) and not whole(entry, section.measured):
            entry[key] = {**entry[key], "sketch": entry[key].get("sketch") or Sketch().to_dict()}
    entry[_TOTALS] = {
        path: product(number(entry, *path), _over(entry, over, by))
        for path, by in section.averages.items()
        if path[-1] in (get_path(entry, *path[:-1]) or ())
    }
    entry[_TOTALS] |= {("depth_avg",): 0.0} if all_elsewhere(entry) else {}
    return entry


def _over(entry: Data, run: Data, by: tuple[str, ...]) -> float | None:
    return number(run, by[1]) if by[0] == "run" else number(entry, *by)


def _sums(parts: list[Data]) -> Data:
    """Return several reports of sums as one."""
    merged = common(parts) | {
        # the later of two versions has the keys of both
        "schema": max((part["schema"] for part in parts), key=_version),
        "run": _run([part["run"] for part in parts]),
        "resources": _resources([part["resources"] for part in parts]),
        "telemetry": merge_dicts([part["telemetry"] for part in parts], _TELEMETRY),
    }
    for name, section in SECTIONS.items():
        if any(name in part for part in parts):
            found = [entries(part, name) for part in parts]
            merged[name] = merge_entries(found, section.key, section.rules)
    return merged


def _version(schema: str) -> int:
    version = schema.rpartition("/")[2]
    return int(version) if version.isdecimal() else 0


def _run(runs: list[Data]) -> Data:
    merged = merge_dicts(runs, _RUN)
    worst = next(run for run in runs if run.get("result") == merged.get("result"))
    return merged | {"error_type": worst.get("error_type")}


def _resources(parts: list[Data]) -> Data:
    sampled = [part for part in parts if whole(part, "samples")]
    if sampled:
        merged = merge_dicts(sampled, {**_RESOURCES.rules, _TOTALS: _add_totals})
        return merged | share_of_moments(sampled, "gil_held", "run_delay")
    dropped = ("observed_s", _TOTALS)
    return {k: v for k, v in common(parts).items() if k not in dropped} | {"samples": 0}


def identity(entry: Data, key: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what tells an entry from others of its list."""
    return tuple(entry.get(name) for name in key)


def merge_entries(found: Iterable[Any], key: tuple[str, ...], rules: Table) -> list[Data]:
    """Return the merged entries of several lists, in order of appearance."""
    groups: dict[Hashable, list[Data]] = {}
    for part in found:
        for entry in part or ():
            groups.setdefault(identity(entry, key), []).append(entry)
    return [merge_dicts(group, {**rules, _TOTALS: _add_totals}) for group in groups.values()]


def _add_totals(found: Sequence[Any]) -> Data:
    every = [totals or {} for totals in found]
    paths = dict.fromkeys(path for totals in every for path in totals)
    return {path: sum_all([totals.get(path) for totals in every]) for path in paths}


# --- the merged report ----------------------------------------------------------------------


def _closed(sums: Data, run: Data, telemetry: Data) -> Data:
    """Return the report of the sums: averages, percentiles, rates and shares."""
    merged = sums | {"run": sums["run"] | run, "telemetry": sums["telemetry"] | telemetry}
    run = merged["run"]
    if "outside_s" in run:
        share = ratio(run["outside_s"], run["observed_s"])
        run["outside_s"] = product(share, run["wall_s"])
    for name, section in SECTIONS.items():
        for entry in merged.get(name, ()):
            close_entry(entry, section, run)
    for stage in merged["stages"]:
        derive(stage, run["wall_s"])
    for cache in merged["caches"]:
        cache["hit_ratio"] = ratio(cache["hits"], cache["hits"] + cache["misses"])
    close_entry(merged["resources"], _RESOURCES, run)
    return merged


def close_entry(entry: Data, section: Section, run: Data) -> None:
    """Turn the totals of an entry into averages again, and its sketch into percentiles."""
    for path, total in entry.pop(_TOTALS, {}).items():
        place = get_path(entry, *path[:-1])
        place[path[-1]] = ratio(total, _over(entry, run, section.averages[path]))
    if all_elsewhere(entry) and not entry.get("depth_avg"):  # not if other items are left in each
        entry["depth_avg"] = None
    for key in ("duration_s", "wait_s"):
        if isinstance(entry.get(key), dict):
            entry[key] |= percentiles(entry[key])

"""Take the latest part of a run: what was added to its sums since an earlier report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_pipeline_metrics._core.lookup import entries, number, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Sums, and averages over the run's wall time. Everything else is left as it is.
# By the part of the row that has them; "" is the row itself.
_Sums: TypeAlias = "Mapping[str, tuple[str, ...]]"
_STAGE_SUMS: Final[_Sums] = {
    "": ("count", "retries", "failed_s", "self_s", "wall_s", "cpu_s", "busiest_s"),
    "errors": ("total",),
    "retried": ("count", "total_s"),
    "duration_s": ("total", "sum_of_squares"),
    "time_s": ("running", "awaiting", "busy", "idle", "blocked", "loop_wait_most"),
}
_QUEUE_SUMS: Final[_Sums] = {"": ("put", "got", "put_blocked_s", "get_waited_s", "put_span_s")}
_LIMIT_SUMS: Final[_Sums] = {"": ("waited_s", "held_s")}
_RESOURCE_SUMS: Final[_Sums] = {"": ("children_cpu_s",)}


def since(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report of the time between two reports of a run in progress.

    It has what a verdict reads, and no more. How calls get slower with others in flight is that
    of the whole run, since only its begin shows it.
    """
    walls = tuple(number(data, "run", "wall_s") or 0.0 for data in (now, before))
    run = dict(now["run"]) | {"wall_s": walls[0] - walls[1]}
    outside = [number(data, "run", "outside_s") for data in (now, before)]
    if outside[0] is not None and outside[1] is not None:
        run["outside_s"] = max(0.0, outside[0] - outside[1])
    stages = [
        _since(row, old, _STAGE_SUMS, ("run_share", "in_flight_avg"), walls)
        for row, old in _pairs(now, before, "stages")
    ]
    for row in stages:
        # it may have been an earlier call
        row["duration_s"] = dict(row.get("duration_s") or {}) | {"max": None}
    resources, earlier = (data.get("resources") or {} for data in (now, before))
    return {
        **now,
        "run": run,
        "stages": stages,
        "resources": _since(resources, earlier, _RESOURCE_SUMS, (), walls),
        "queues": [
            _since(row, old, _QUEUE_SUMS, ("depth_avg",), walls)
            for row, old in _pairs(now, before, "queues")
        ],
        "limits": [_limit(row, old, walls) for row, old in _pairs(now, before, "limits")],
    }


def _pairs(
    now: Mapping[str, Any], before: Mapping[str, Any], part: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    earlier = {(row.get("name"), row.get("kind")): row for row in entries(before, part)}
    return [
        (row, earlier.get((row.get("name"), row.get("kind")), {})) for row in entries(now, part)
    ]


def _limit(row: dict[str, Any], old: dict[str, Any], walls: tuple[float, ...]) -> dict[str, Any]:
    earlier = {stage.get("stage"): stage for stage in entries(old, "stages")}
    stages = [
        _since(stage, earlier.get(stage.get("stage"), {}), _LIMIT_SUMS, (), walls)
        for stage in entries(row, "stages")
    ]
    return row | {"stages": stages}


def _since(
    row: dict[str, Any],
    old: dict[str, Any],
    sums: _Sums,
    averages: Sequence[str],
    walls: tuple[float, ...],
) -> dict[str, Any]:
    found = dict(row)
    for part, keys in sums.items():
        place = dict(found.get(part) or {}) if part else found
        earlier = old.get(part) or {} if part else old
        for key in keys:
            value = place.get(key)
            if value is not None:
                place[key] = max(0, value - (earlier.get(key) or 0))
        if part:
            found[part] = place
    for key in averages:
        value, earlier_value = number(row, key), number(old, key)
        if value is not None and old and earlier_value is None:
            found[key] = None  # it was not known at the beginning of that time
        elif value is not None:
            added = value * walls[0] - (earlier_value or 0.0) * walls[1]
            found[key] = ratio(max(0.0, added), walls[0] - walls[1])
    return found

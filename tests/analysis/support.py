"""Build reports with the fields that the verdict reads."""

from __future__ import annotations

from typing import Any

Data = dict[str, Any]


def stage(
    name: str,
    busy: float,
    idle: float = 0.0,
    blocked: float = 0.0,
    *,
    workers: int = 1,
    count: int = 1000,
    inside: float | None = None,
    errors: int = 0,
    retries: int = 0,
    spread: float = 0.0,
) -> Data:
    """Return a stage; times are of all its workers, `spread` is the coefficient of variation."""
    total = busy if inside is None else inside
    mean = total / count
    wall = busy + idle + blocked
    return {
        "name": name,
        "kind": "process",
        "workers": workers,
        "count": count,
        "errors": {"total": errors, "by_type": {}},
        "retries": retries,
        "duration_s": {
            "total": total,
            "sum_of_squares": count * mean**2 * (1 + spread**2),
        },
        "time_s": {"wall": wall, "busy": busy, "idle": idle, "blocked": blocked},
        "share": {"busy": busy / wall, "idle": idle / wall, "blocked": blocked / wall},
    }


def own(
    name: str,
    self_s: float,
    run_share: float,
    levels: dict[int, tuple[int, float]] | None = None,
    **more: Any,
) -> Data:
    """Return a stage whose waits are unknown, but not its own time.

    Args:
        name: the stage's.
        self_s: its own time, of all calls.
        run_share: the part of the run in which it was open, shared with others.
        levels: by number in flight, samples and their mean duration; one call at a time if None.
        more: other keys of its row.
    """
    found = unseen(name, self_s)
    rows = levels or {1: (found["count"], self_s / found["count"])}
    return found | {
        "self_s": self_s,
        "run_share": run_share,
        "in_flight_avg": self_s / 100.0,
        "service_by_in_flight": [
            {"in_flight": level, "count": count, "avg_s": mean}
            for level, (count, mean) in rows.items()
        ],
        "callers": [{"stage": None, "wall_s": self_s, "spawned": False}],
        **more,
    }


def change(found: Data, kind: str, name: str | None) -> tuple[float, float, str | None]:
    """Return what a change gains, at least and at most, and what limits the run then."""
    (row,) = [c for c in found["what_if"] if (c["change"], c["name"]) == (kind, name)]
    low, high = row["gain"]
    return low, high, row["next"]


def unseen(name: str, total: float) -> Data:
    """Return a stage whose waits are unknown."""
    nothing = dict.fromkeys(("wall", "busy", "idle", "blocked"))
    made = stage(name, total)
    return made | {"workers": None, "time_s": nothing, "share": dict(nothing)}


def queue(
    name: str,
    producers: list[str],
    consumers: list[str],
    *,
    blocked: float = 0.0,
    span: float = 100.0,
    capacity: int | None = 8,
) -> Data:
    return {
        "name": name,
        "capacity": capacity,
        # full if its producers waited for room
        "depth_avg": None
        if capacity is None
        else capacity * (0.9 if blocked > 0.3 * span else 0.5),
        "depth_peak": 4,
        "put": 1000,
        "got": 1000,
        "put_blocked_s": blocked,
        "get_waited_s": 0.0,
        "put_span_s": span,
        "producers": producers,
        "consumers": consumers,
    }


def report(
    stages: list[Data],
    queues: list[Data] | None = None,
    *,
    wall_s: float = 100.0,
    cpu: tuple[float, float, str] | None = None,
    loop_delay_s: float | None = None,
    partial: bool = False,
) -> Data:
    """Return a run; `cpu` is the utilization, the CPUs and what limits them."""
    resources: Data = {"samples": 0, "cpu_utilization": {"avg": None, "peak": None}}
    if cpu is not None:
        resources["cpu_utilization"] = {"avg": cpu[0], "peak": 1.0}
        resources["limits"] = {"source": cpu[2], "cpus": cpu[1]}
    if loop_delay_s is not None:
        resources["event_loop_delay_s"] = {"p95": loop_delay_s}
    return {
        "run": {"wall_s": wall_s, "partial": partial},
        "stages": stages,
        "queues": queues or [],
        "resources": resources,
    }


def example(**more: Any) -> Data:
    """Return the example: fetch 2 ms, process 5 ms, write 20 ms."""
    return report(
        [
            stage("fetch", busy=10, blocked=89, count=5000),
            stage("process", busy=25, blocked=74, idle=0.5, count=5000),
            stage("write", busy=99, idle=1, count=5000),
        ],
        [
            queue("a", ["fetch"], ["process"], blocked=89),
            queue("b", ["process"], ["write"], blocked=74),
        ],
        **more,
    )

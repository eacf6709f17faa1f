"""Compare a report with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.lifecycle.account.truth import OPEN, STATES

if TYPE_CHECKING:
    from tests.lifecycle.account.truth import Account

WITHIN_S = 1e-6
# Up to this share of a stage's busy time, what nobody can split is shared out like the rest.
UNKNOWN_SHARE = 0.05


def differences(report: dict[str, Any], true: Account, *, waits: bool, in_task: bool) -> list[str]:
    """Return what a report says otherwise than the truth."""
    found = _Differences()
    run = report["run"]
    rows = {row["name"]: row for row in report["stages"]}
    found.compare("run.wall_s", run["wall_s"], true.wall)
    found.compare("run.outside_s", run["outside_s"], true.wall - true.union_s)
    for name in sorted(true.stages):
        row = rows.get(name)
        if row is None:
            if true.wall_s[name]:
                found.all.append(f"{name} is missing")
            continue
        found.compare(f"{name}.wall_s", row["wall_s"], true.wall_s[name])
        found.compare(f"{name}.self_s", row["self_s"], true.self_s[name])
        if true.wall:
            share = true.shared_s[name] / true.wall
            found.compare(f"{name}.run_share", row["run_share"], share)
            average = true.wall_s[name] / true.wall
            found.compare(f"{name}.in_flight_avg", row["in_flight_avg"], average)
        _states(found, row, true, waits=waits, in_task=in_task)
    shared = sum(row["run_share"] * run["wall_s"] for row in rows.values() if row["run_share"])
    found.compare("sum of run_share", shared, true.union_s)
    if not true.overlaps:
        own = sum(row["self_s"] for row in rows.values())
        found.compare("sum of self_s", own, run["wall_s"] - run["outside_s"])
    if waits:
        told = sum(row["time_s"]["wall"] for row in rows.values() if row["workers"] is not None)
        known = {row["name"] for row in rows.values() if row["workers"] is not None}
        inside = sum(sum(true.time[name].values()) for name in known)
        nobodys = (
            true.workers_wall
            - true.outermost()
            - sum(sum(true.between[name].values()) for name in known)
        )
        # a worker's outermost stages, and its time outside of stages
        whole = told - inside + true.outermost() + nobodys
        found.compare("workers' wall", whole, true.workers_wall)
    return found.all


def _states(
    found: _Differences, row: dict[str, Any], true: Account, *, waits: bool, in_task: bool
) -> None:
    name, told = row["name"], row["time_s"]
    if row["workers"] is None and name in true.met and true.wall_s[name]:
        found.all.append(f"the workers of {name} are unknown")
    known = row["workers"] is not None
    inside, beside = true.time[name], true.between[name] if known else {}
    if not known and name in true.in_own_task:
        return
    busy = sum(inside[state] for state in OPEN) + beside.get("busy", 0.0)
    found.compare(f"{name}.busy", told["busy"], busy)
    if waits:
        for state in ("idle", "blocked"):
            found.compare(f"{name}.{state}", told[state], inside[state] + beside.get(state, 0.0))
        whole = sum(inside[state] for state in STATES) + sum(beside.values())
        found.compare(f"{name}.wall", told["wall"], whole)
    if name in true.recursive | true.in_own_task:
        return
    # a worker's own code is seen in a thread, where it runs, and not in a task
    unknown = true.unstepped[name] + (beside.get("busy", 0.0) if in_task else 0.0)
    running = inside["running"] + (0.0 if in_task else beside.get("busy", 0.0))
    if unknown > UNKNOWN_SHARE * busy:
        for state in OPEN:
            if told[state] is not None:
                found.all.append(f"{name}.{state} is {told[state]}, and nobody can tell")
    else:
        for state in OPEN:
            seconds = running if state == "running" else inside[state]
            found.compare(f"{name}.{state}", told[state], seconds, within=unknown)


class _Differences:
    def __init__(self) -> None:
        self.all: list[str] = []

    def compare(self, what: str, told: float | None, true: float, within: float = 0.0) -> None:
        if told is None or abs(told - true) > within + WITHIN_S:
            self.all.append(f"{what} is {told}, not {true}")

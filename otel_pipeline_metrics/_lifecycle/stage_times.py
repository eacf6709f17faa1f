"""Add the times of stages to a report: states, self time, share of the run, CPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import nesting, stage_time
from otel_pipeline_metrics._core.lookup import ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline_metrics._core.observed import WorkerTimes
    from otel_pipeline_metrics._core.records import StageKey, StageTime, TimeInStates
    from otel_pipeline_metrics._core.series import Cell, RunScope, Series


# The part of the busy time that could not be split at which the split is left out.
UNKNOWN_SHARE: Final = 0.05

_STATES: Final = ("running", "awaiting", "busy", "idle", "blocked")


class StageTimes:
    """The times of the stages of one run, as they are now.

    Args:
        scope: of the run.
        root: the scope's cell.
        wall_s: the duration of the run.
        now: `clock.now()` at its end, or during it.
        states: the time of each worker at each stage whose waits are known.
    """

    def __init__(
        self,
        scope: RunScope,
        root: Cell,
        wall_s: float,
        now: float,
        states: Mapping[WorkerTimes, Mapping[int | None, TimeInStates]],
    ) -> None:
        self._wall_s = wall_s
        self._now = now
        nesting.settle_shares(scope.shares, now)
        self.outside_s = max(0.0, wall_s - stage_time.open_time(scope, root, now))
        self._shares = scope.shares
        self._states = states
        # by key: stages that differ in fixed attributes only are one in a report
        self.stages: dict[StageKey, list[Series]] = {}
        for times in list(scope.times.values()):
            self.stages.setdefault(times.key, []).extend(times.variants[:1])

    def worker_ids(self, key: StageKey) -> set[int | None]:
        """Return the numbers of a stage's workers, if its waits are known."""
        return {
            number
            for main in self.stages.get(key, [])
            for number in self._states.get(main.times, {})
        }

    def row(self, key: StageKey) -> dict[str, Any]:
        """Return the part of a stage's row that is about its time."""
        mains = self.stages.get(key, [])
        variants = [each for main in mains for each in main.variants]
        by_hand = any(each.stage.form == "by hand" for each in variants)
        cpu = [stage_time.own_cpu(main) for main in mains]
        workers = [dict(self._states.get(main.times, {})) for main in mains]
        wall_s = sum(_wall(each) for each in variants)
        self_s = None if by_hand else sum(stage_time.self_time(main, self._now) for main in mains)
        return {
            "workers": len(set().union(*workers)) or None if workers else None,
            "in_flight": sum(each.active for each in variants),
            **self._states_of(mains, workers),
            "self_s": self_s,
            "run_share": None if self_s is None else self._run_share(mains, self_s),
            "wall_s": None if by_hand else wall_s,
            "in_flight_avg": None if by_hand else ratio(wall_s, self._wall_s),
            "cpu_s": None if None in cpu or not cpu else sum(filter(None, cpu)),
            "service_by_in_flight": _by_in_flight(variants),
            "tasks": len(set().union(*(each.account.tasks for each in variants))),
            "callers": [] if by_hand else _callers(variants),
        }

    def _run_share(self, mains: Sequence[Series], self_s: float) -> float | None:
        corrections = [self._shares.correction(main.stage.identity) for main in mains]
        return ratio(max(0.0, self_s + sum(corrections)), self._wall_s)

    def _states_of(
        self, mains: Sequence[Series], workers: Sequence[Mapping[int | None, TimeInStates]]
    ) -> dict[str, Any]:
        spent = [
            stage_time.of_stage(main, list(states.values()))
            for main, states in zip(mains, workers, strict=True)
        ]
        seconds = {name: sum(getattr(each, name) for each in spent) for name in _STATES}
        unknown = seconds["busy"]
        busy = seconds["busy"] = sum(seconds[name] for name in _STATES[:3])
        running: float | None = seconds["running"]
        awaiting: float | None = seconds["awaiting"]
        error = _split_error(mains, spent)
        if unknown > UNKNOWN_SHARE * busy or error is None:
            running = awaiting = error = None
        elif unknown and running is not None and awaiting is not None:
            # the rest is shared out like the others, and may be all of one kind
            known = running + awaiting
            error += unknown * max(running, awaiting) / known if known else unknown
            running, awaiting = (running * busy / known, awaiting * busy / known)
        wall = busy + seconds["idle"] + seconds["blocked"]
        time_s = {**seconds, "running": running, "awaiting": awaiting}
        walls = [t for states in workers for t in states.values()]
        return {
            "time_s": {
                "wall": wall,
                **time_s,
                "loop_wait_most": None if awaiting is None else min(awaiting, _late(mains)),
                "split_standard_error": error,
            },
            "share": {name: None if s is None else ratio(s, wall) for name, s in time_s.items()},
            "busiest_share": max(
                (t.busy / total for t in walls if (total := t.busy + t.idle + t.blocked)),
                default=None,
            ),
            "busiest_s": max((t.busy for t in walls), default=None),
        }


def _wall(series: Series) -> float:
    account = series.account
    return (
        account.ended + account.partial
        + account.idle + account.partial_idle
        + account.blocked + account.partial_blocked + account.partial_wait
    )  # fmt: skip


def _late(mains: Sequence[Series]) -> float:
    """Return the seconds in which suspended calls may have waited for the event loop, at most."""
    accounts = [each.account for main in mains for each in main.variants]
    found = [account.late.estimate(account.ended + account.partial) for account in accounts]
    return sum(each[0] for each in found if each is not None)


def _split_error(mains: Sequence[Series], spent: Sequence[StageTime]) -> float | None:
    """Return the standard error of the seconds running; None if nothing was split."""
    squares, known = 0.0, not any(time.running or time.awaiting or time.busy for time in spent)
    for main in mains:
        for each in main.variants:
            whole = each.account.ended + each.account.partial
            found = stage_time.running_of(each, whole)
            if found is not None:
                squares += found[1] ** 2
                known = True
    return math.sqrt(squares) if known else None


def _by_in_flight(variants: Sequence[Series]) -> list[dict[str, Any]]:
    """Return the mean duration of sampled calls by the number in flight when they began."""
    levels: dict[int, tuple[int, float]] = {}
    for each in variants:
        for level, (count, seconds) in list(each.account.by_in_flight.items()):
            before = levels.get(level, (0, 0.0))
            levels[level] = before[0] + count, before[1] + seconds
    return [
        {"in_flight": level, "count": count, "avg_s": seconds / count}
        for level, (count, seconds) in sorted(levels.items())
    ]


def _callers(variants: Sequence[Series]) -> list[dict[str, Any]]:
    """Return the seconds of calls by the stage that they were made in; null outside of stages."""
    found: dict[str | None, dict[str, Any]] = {}
    for each in variants:
        name = None if each.caller is None else each.caller.name
        row = found.setdefault(name, {"stage": name, "wall_s": 0.0, "spawned": False})
        row["wall_s"] += _wall(each)
        row["spawned"] = row["spawned"] or each.account.is_spawned_somewhere
    return list(found.values())

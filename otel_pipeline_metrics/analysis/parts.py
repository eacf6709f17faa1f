"""Read how much of the run each stage's own code took, waits for queues and limits left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import entries, get_path, number

if TYPE_CHECKING:
    from collections.abc import Mapping


# The largest number in flight that a report tells apart; it also stands for more.
MOST_IN_FLIGHT: Final = 16
# The number of tasks that stands for more.
MOST_TASKS: Final = 64
# Calls whose number in flight is above the usual one by two at this part of them begin at their
# own pace: a limit would hold it at the most.
VARIES: Final = 0.1
# Batches that end together begin with a call that finds no other in flight: so many of them do.
DRAINS: Final = 3
# From this part of its time on, a stage that overlaps no other is taken to be alone.
ALONE: Final = 0.95


@dataclass
class Part:
    """One stage's own time in a run, stages inside of it left out. Times are in seconds."""

    name: str
    count: int
    # of all calls together; without the stages inside
    own_s: float
    # the part of the run in which it was open, shared with other stages that were
    alone_s: float
    # the most calls at a time; None if unknown or beyond what is told apart
    most: int | None
    # coefficient of variation of the calls' durations, outliers left out; None if unknown
    spread: float | None
    # the shortest call; None if unknown
    least_s: float | None
    # the own time of the longest one, which no run is shorter than; 0 if unknown
    longest_s: float
    # on the event loop or in its thread, and suspended; None if unknown
    running_s: float | None
    awaiting_s: float | None
    cpu_s: float | None
    # the stages inside left out: how long it held the event loop, and the most that it waited for
    # its turn there; 0 if that is unknown
    held_s: float = 0.0
    late_s: float = 0.0
    # by the number in flight at the begin: samples, and their mean duration
    levels: dict[int, tuple[int, float]] = field(default_factory=dict)
    # whether about each of its calls was made in a task of its own
    in_own_tasks: bool = False
    # the stage that its calls were made in, in the same task or thread
    within: str | None = None

    @property
    def needs_s(self) -> float:
        """How long the run needs at least for its calls, as many at a time as there were."""
        return self.own_s / self.most if self.most else self.alone_s

    @property
    def is_alone(self) -> bool:
        """Whether hardly any other stage was open while it was."""
        calls = sum(count for count, _ in self.levels.values())
        at_a_time = sum(n * count for n, (count, _) in self.levels.items()) / calls if calls else 1
        return self.alone_s >= ALONE * self.own_s / at_a_time

    @property
    def never_drains(self) -> bool:
        """Whether its calls, each in a task of its own, overlap from the first to the last."""
        first, second = (self.levels.get(level, (0, 0.0))[0] for level in (1, 2))
        drains = first >= DRAINS and 2 * first > second
        return self.in_own_tasks and not drains and self.own_s > 1.5 * self.alone_s

    @property
    def begins_by_itself(self) -> bool:
        """Whether its calls begin at a pace that neither they nor a limit set."""
        if not self.never_drains or not self.most:
            return False
        usual = max(self.levels, key=lambda level: self.levels[level][0])
        above = sum(count for level, (count, _) in self.levels.items() if level >= usual + 2)
        return above >= VARIES * sum(count for count, _ in self.levels.values())


def read_parts(data: Mapping[str, Any], wall_s: float, runs: float) -> dict[str, Part]:
    """Return the parts of the stages whose own time is known, by name.

    Args:
        data: the report.
        wall_s: how long the run took; of merged runs, one of them.
        runs: how many merged runs there were at a time.
    """
    found: dict[str, Part] = {}
    # the longest call of several runs belongs to one of them
    merged = bool(get_path(data, "run", "merged_from"))
    for stage in entries(data, "stages"):
        own, share = number(stage, "self_s"), number(stage, "run_share")
        if own is None or share is None:
            continue
        name = str(stage.get("name"))
        levels = _levels(stage)
        found[name] = Part(
            name=name,
            count=int(number(stage, "count") or 0),
            own_s=own / runs,
            alone_s=share * wall_s,
            most=_most(stage, levels),
            spread=_spread(stage),
            least_s=number(stage, "duration_s", "min"),
            longest_s=0.0 if merged else _longest(stage, own),
            running_s=_over(number(stage, "time_s", "running"), runs),
            awaiting_s=_over(number(stage, "time_s", "awaiting"), runs),
            cpu_s=_over(number(stage, "cpu_s"), runs),
            levels=levels,
            within=_within(stage),
            in_own_tasks=_in_own_tasks(stage),
        )
        if number(stage, "tasks"):
            # else it runs in threads
            found[name].held_s = found[name].running_s or 0.0
            found[name].late_s = _over(number(stage, "time_s", "loop_wait_most"), runs) or 0.0
    _leave_out_inside(found)
    return found


def _leave_out_inside(parts: Mapping[str, Part]) -> None:
    """Take what stages hold the event loop, and wait for it, off those that they are inside of."""
    for part, held_s, late_s in [(part, part.held_s, part.late_s) for part in parts.values()]:
        around = parts.get(part.within or part.name)
        if around is not None and around is not part:
            around.held_s = max(0.0, around.held_s - held_s)
            around.late_s = max(0.0, around.late_s - late_s)


def _over(seconds: float | None, runs: float) -> float | None:
    return None if seconds is None else seconds / runs


def _levels(stage: Mapping[str, Any]) -> dict[int, tuple[int, float]]:
    found = {}
    for row in entries(stage, "service_by_in_flight"):
        level, count, mean = (number(row, key) for key in ("in_flight", "count", "avg_s"))
        if level and count and min(level, count) >= 1 and mean is not None:
            found[int(level)] = int(count), mean
    return found


def _most(stage: Mapping[str, Any], levels: Mapping[int, object]) -> int | None:
    """Return the most calls at a time."""
    most, average = max(levels, default=0), number(stage, "in_flight_avg") or 0.0
    if not most or most >= MOST_IN_FLIGHT:
        # it may have been any number
        return None
    return max(most, math.ceil(average - 0.05))


def _spread(stage: Mapping[str, Any]) -> float | None:
    count, total = number(stage, "count"), number(stage, "duration_s", "total")
    squares = number(stage, "duration_s", "sum_of_squares")
    if not total or squares is None or not count or count < 2:
        return None
    mean = total / count
    spread = math.sqrt(max(0.0, squares / count - mean * mean)) / mean
    half, most = number(stage, "duration_s", "p50"), number(stage, "duration_s", "p95")
    if half and most is not None:
        # the quantile of the normal distribution: a few very long calls do not count
        spread = min(spread, max(0.0, most / half - 1) / 1.645)
    return spread


def _longest(stage: Mapping[str, Any], own_s: float) -> float:
    total = number(stage, "duration_s", "total")
    return (number(stage, "duration_s", "max") or 0.0) * own_s / total if total else 0.0


def _in_own_tasks(stage: Mapping[str, Any]) -> bool:
    tasks, count = number(stage, "tasks") or 0, number(stage, "count") or 0
    return tasks > MOST_IN_FLIGHT and tasks >= 0.8 * min(MOST_TASKS, count)


def _within(stage: Mapping[str, Any]) -> str | None:
    """Return the stage that makes most of its calls, unless it makes them in other tasks."""
    callers = entries(stage, "callers")
    if not callers:
        return None
    most = max(callers, key=lambda row: number(row, "wall_s") or 0.0)
    name = most.get("stage")
    return None if name is None or most.get("spawned") else str(name)

"""What a report says about who waited for whom, in the terms of the verdict.

A report may come from a file or be merged from several, so nothing relies on a key being
there. Stages that are run by the same workers, one after the other with no queue in between,
are one station: they share those workers' time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MANY_WORKERS: Final = 8


EPHEMERAL: Final = 0.5
"""Workers for each invocation from which on every item seems to have had a worker of its own."""


MAX_WORKERS: Final = 256
"""Where `accounting` stops telling workers apart; beyond it their number means nothing."""


_SHARED: Final = 1.15


_PARTIAL: Final = 0.9


_TURNS_BUSY: Final = 0.85
"""Of the wall time: what stages that take turns must have been busy together."""


_TURNS_WALL: Final = 1.02
"""Of the wall time: what one worker cannot have spent more than."""


_TURNS_REST: Final = 0.05
"""Of the wall time: waits that stages taking turns do not have, and work besides the largest
stage's that makes taking turns worth a word."""


@dataclass
class Station:
    """One stage, or several that the same workers run in turn. Times are in seconds."""

    name: str
    """Of the stage with the most work in it."""
    names: list[str]
    workers: float
    ephemeral: bool
    """A worker for each item: how many there can be at a time is not known."""
    count: int
    errors: int
    retries: int
    busy: float
    idle: float
    blocked: float
    inside: float | None
    """Busy inside of invocations; the rest of `busy` is what the loop around them does."""
    permits: float
    """The part of `blocked` that was no put: waits for permits and rate limits."""
    noise: float
    """Relative standard error of the mean service time; 0 where it cannot be known."""
    gets: bool
    """Whether its input comes through an instrumented queue."""

    @property
    def wall(self) -> float:
        """Seconds of all its workers."""
        return self.busy + self.idle + self.blocked

    @property
    def work(self) -> float:
        """Seconds that its workers have to spend, whatever the other stages do."""
        return self.busy + self.permits

    @property
    def demand(self) -> float:
        """What the run asks of each worker: it takes at least that long."""
        return self.work / self.workers

    @property
    def share(self) -> float:
        """Busy, of its workers' time."""
        return self.busy / self.wall if self.wall else 0.0

    @property
    def blocked_share(self) -> float:
        """Blocked, of its workers' time."""
        return self.blocked / self.wall if self.wall else 0.0

    @property
    def between(self) -> float:
        """Busy outside of invocations."""
        return 0.0 if self.inside is None else max(0.0, self.busy - self.inside)


@dataclass
class Facts:
    """A whole run."""

    wall_s: float
    """Of a run; of several merged ones, on average."""
    stations: list[Station]
    """The one with the largest demand first."""
    source_s: float | None
    """How long whatever fills the first queue needed for it, waits for room left out; None
    where no queue is filled by something that is no stage."""
    unseen: dict[str, float] = field(default_factory=dict)
    """Seconds in stages whose waits are not known."""
    turns: list[Station] = field(default_factory=list)
    """The stages in their order, if all of them took turns in the same workers although there
    are queues between them; otherwise empty."""
    smallest_queue: tuple[str, int] | None = None
    cores: float | None = None
    """CPUs that one process kept busy on average."""
    utilization: float | None = None
    """Of the CPUs that all processes together may use, 0 to 1."""
    cpus: float | None = None
    quota: bool = False
    """Whether a cgroup sets `cpus`."""
    loop_delay_s: float | None = None
    loop_delay_usual_s: float | None = None
    """95th percentile of how late the event loop came round."""
    partial: bool = False
    runs: int = 1
    """How many were merged: their workers and times add up, whether at once or in turn."""

    @property
    def concurrency(self) -> float:
        """How many workers of a run were busy at a time, on average."""
        busy = sum(station.busy for station in self.stations)
        return busy / (self.wall_s * self.runs) if self.wall_s else 0.0

    @property
    def idle_share(self) -> float:
        """Idle, of the time of all workers."""
        wall = sum(station.wall for station in self.stations)
        return sum(station.idle for station in self.stations) / wall if wall else 0.0


def dig(data: object, *keys: str) -> Any:
    """Return what lies under the keys, or None where one of them is missing or null."""
    found: Any = data
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def number(data: object, *keys: str) -> float | None:
    """Return the finite number under the keys, or None."""
    found = dig(data, *keys)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return float(found)


def names_under(data: object, key: str) -> list[str]:
    """Return the strings listed under `key`."""
    found = dig(data, key)
    return [str(name) for name in found] if isinstance(found, list) else []


def entries(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the dicts listed under `key`."""
    found = data.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def facts_of(data: Mapping[str, Any]) -> Facts:
    """Read a report's data."""
    queues = entries(data, "queues")
    runs = max(1, len(names_under(data.get("run"), "merged_from")))
    wall_s = _wall(data, queues, runs)
    stations: list[Station] = []
    unseen: dict[str, float] = {}
    stages = entries(data, "stages")
    # a report that is silent on its queues may have been blocked on one
    permits = _permits(stages, queues) if isinstance(data.get("queues"), list) else {}
    for stage in stages:
        station = _station(stage, queues, wall_s, permits)
        if station is None:
            unseen[str(stage.get("name"))] = number(stage, "duration_s", "total") or 0.0
        else:
            stations.append(station)
    single, stations = stations, _joined(stations, queues, wall_s)
    facts = Facts(
        wall_s=wall_s,
        runs=runs,
        stations=sorted(stations, key=lambda station: station.demand, reverse=True),
        source_s=_source(queues, runs),
        unseen=unseen,
        turns=_turns(single, queues, wall_s, runs) if len(stations) > 1 else [],
        smallest_queue=_smallest(queues),
        loop_delay_s=number(data, "resources", "event_loop_delay_s", "p95"),
        loop_delay_usual_s=number(data, "resources", "event_loop_delay_s", "p50"),
        partial=bool(dig(data, "run", "partial")),
    )
    _read_cpu(facts, data)
    return facts


def _station(
    stage: Mapping[str, Any],
    queues: Sequence[Mapping[str, Any]],
    wall_s: float,
    permits: Mapping[str, float],
) -> Station | None:
    """Read a stage; None where its waits are not known."""
    times = [number(stage, "time_s", state) for state in ("busy", "idle", "blocked")]
    workers = number(stage, "workers")
    busy, idle, blocked = times
    if busy is None or idle is None or blocked is None or not workers:
        return None
    name = str(stage.get("name"))
    count = int(number(stage, "count") or 0)
    ephemeral = workers > MAX_WORKERS or (workers >= MANY_WORKERS and workers > EPHEMERAL * count)
    if ephemeral and wall_s:
        workers = max(1.0, (busy + idle + blocked) / wall_s)
    return Station(
        name=name,
        names=[name],
        workers=workers,
        ephemeral=ephemeral,
        count=count,
        errors=int(number(stage, "errors", "total") or 0),
        retries=int(number(stage, "retries") or 0),
        busy=busy,
        idle=idle,
        blocked=blocked,
        inside=number(stage, "duration_s", "total"),
        permits=permits.get(name, 0.0),
        noise=_noise(stage, count),
        gets=any(name in names_under(queue, "consumers") for queue in queues),
    )


def _noise(stage: Mapping[str, Any], count: int) -> float:
    total = number(stage, "duration_s", "total")
    squares = number(stage, "duration_s", "sum_of_squares")
    if not total or squares is None or count < 2:  # noqa: PLR2004 - one value has no spread
        return 0.0
    variance = max(0.0, squares / count - (total / count) ** 2)
    return math.sqrt(variance / count) / (total / count)


def _permits(
    stages: Sequence[Mapping[str, Any]], queues: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return how long each stage was blocked elsewhere than in puts, as far as that is told.

    A queue knows how long its producers waited together; what each of several did is shared
    out as they were blocked.
    """
    blocked = {
        str(stage.get("name")): number(stage, "time_s", "blocked") or 0.0 for stage in stages
    }
    left = dict(blocked)
    for queue in queues:
        producers = [name for name in names_under(queue, "producers") if name in blocked]
        together = sum(blocked[name] for name in producers)
        waited = number(queue, "put_blocked_s")
        for name in producers:
            if waited is None:
                left[name] = 0.0  # it may all have been this queue
            elif together:
                left[name] -= waited * blocked[name] / together
    # what is left of a difference of sums is no wait
    return {name: rest for name, rest in left.items() if rest > 0.05 * blocked[name]}


def _joined(
    stations: list[Station], queues: Sequence[Mapping[str, Any]], wall_s: float
) -> list[Station]:
    """Join neighbours that the same workers must have run, as far as a report can tell.

    The first of them feeds no queue and the next one gets from none, they had equally many
    workers, and neither had those workers for the whole of the run.
    """
    feeding = {name for queue in queues for name in names_under(queue, "producers")}
    joined: list[Station] = []
    for station in stations:
        before = joined[-1] if joined else None
        if (
            before is not None
            and not station.gets
            and before.names[-1] not in feeding
            and before.workers == station.workers
            and not (before.ephemeral or station.ephemeral)
            and max(before.wall, station.wall) < _PARTIAL * wall_s * station.workers
            and before.wall + station.wall < _SHARED * wall_s * station.workers
        ):
            joined[-1] = _both(before, station)
        else:
            joined.append(station)
    return joined


def _turns(
    stations: Sequence[Station], queues: Sequence[Mapping[str, Any]], wall_s: float, runs: int
) -> list[Station]:
    """Return the stages if the same workers ran all of them in turn, and none otherwise.

    Workers of their own would overlap: a stage's time lasts while it waits for the others. So
    their times, waits and all, do not add up to more than the wall, and hardly hold any waits.
    """
    workers = stations[0].workers
    if any(station.workers != workers or station.ephemeral for station in stations):
        return []
    wall = wall_s * workers
    busy = sum(station.busy for station in stations)
    whole = sum(station.wall for station in stations)
    if (
        busy < _TURNS_BUSY * wall
        or whole > _TURNS_WALL * wall
        or whole - busy > _TURNS_REST * wall
        or busy - max(station.busy for station in stations) < _TURNS_REST * wall
        or not _puts_between(stations, queues, runs)
    ):
        return []
    return list(stations)


def _puts_between(
    stations: Sequence[Station], queues: Sequence[Mapping[str, Any]], runs: int
) -> bool:
    """Tell whether other stages ran between the puts into a queue, as far as is known.

    Who has a worker of its own puts within its own time. A producer that was done early, in a
    run that took a while to set up, leaves times that add up to the wall as well.
    """
    known = False
    for queue in queues:
        span, producers = number(queue, "put_span_s"), names_under(queue, "producers")
        own = sum(
            station.wall / station.workers for station in stations if station.name in producers
        )
        if span is None or not own:
            continue
        known = True
        if span / runs > _TURNS_WALL * own:
            return True
    return not known


def _both(first: Station, second: Station) -> Station:
    larger = max(first, second, key=lambda station: station.work)
    known = first.inside is not None and second.inside is not None
    return Station(
        name=larger.name,
        names=[*first.names, *second.names],
        workers=first.workers,
        ephemeral=False,
        count=larger.count,
        errors=larger.errors,
        retries=larger.retries,
        busy=first.busy + second.busy,
        idle=first.idle + second.idle,
        blocked=first.blocked + second.blocked,
        inside=(first.inside or 0.0) + (second.inside or 0.0) if known else None,
        permits=first.permits + second.permits,
        noise=larger.noise,
        gets=first.gets,
    )


def _wall(data: Mapping[str, Any], queues: Sequence[Mapping[str, Any]], runs: int) -> float:
    """Return how long a run took; merged ones may have overlapped, or not."""
    observed = [number(data.get("resources"), "observed_s")]
    observed += [number(queue, "observed_s") for queue in queues]
    known = [seconds for seconds in observed if seconds is not None]
    if runs > 1 and known:
        return max(known) / runs
    return number(data, "run", "wall_s") or 0.0


def _source(queues: Sequence[Mapping[str, Any]], runs: int) -> float | None:
    """Return how long what fills the queues from outside was at it, its waits left out."""
    found = []
    for queue in queues:
        span, put = number(queue, "put_span_s"), number(queue, "put")
        if names_under(queue, "producers") or span is None or not put:
            continue
        work = max(0.0, span - (number(queue, "put_blocked_s") or 0.0))
        found.append(work / runs)  # each of merged runs had a source of its own
    return max(found, default=None)


def _smallest(queues: Sequence[Mapping[str, Any]]) -> tuple[str, int] | None:
    """Return the bounded queue with the least room, and its capacity."""
    bounded = [
        (str(queue.get("name")), int(capacity))
        for queue in queues
        if (capacity := number(queue, "capacity")) is not None
    ]
    return min(bounded, key=lambda found: found[1], default=None)


def _read_cpu(facts: Facts, data: Mapping[str, Any]) -> None:
    average = number(data, "resources", "cpu_utilization", "avg")
    cpus = number(data, "resources", "limits", "cpus")
    if average is None or not cpus:
        return
    facts.cpus = cpus
    facts.cores = facts.utilization = average * cpus
    facts.quota = str(dig(data, "resources", "limits", "source")).startswith("cgroup")
    # merged runs that overlapped used the CPUs at the same time
    whole = number(data, "run", "wall_s")
    overlap = facts.runs * facts.wall_s / whole if whole else 1.0
    processes = max(1.0, overlap)
    facts.utilization = min(1.0, average * processes)

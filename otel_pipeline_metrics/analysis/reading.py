"""Read the facts of a verdict from a report, in which any key may be missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import entries, get_path, get_strings, number
from otel_pipeline_metrics.analysis.cpu_left import read_cpu, starved
from otel_pipeline_metrics.analysis.facts import Facts, LimitFacts, QueueFacts, StageGroup
from otel_pipeline_metrics.analysis.parts import read_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MANY_WORKERS: Final = 8
# from so many workers per call on, each item seems to have a worker of its own
EPHEMERAL: Final = 0.5

# `accounting` distinguishes no more workers than these, so a larger number means nothing
MAX_WORKERS: Final = 256

_SHARED: Final = 1.15
_PARTIAL: Final = 0.9

# parts of the wall time, for stages that take turns: the least that they are busy together
_ROUND_ROBIN_BUSY: Final = 0.85
# the most that one worker can have spent
_ROUND_ROBIN_WALL: Final = 1.02
# the most that they wait, and the least work besides the largest stage's that is worth a mention
_ROUND_ROBIN_REST: Final = 0.05


def facts_of(data: Mapping[str, Any]) -> Facts:
    """Return the facts in a report's data."""
    queues = entries(data, "queues")
    runs = _runs_at_a_time(data)
    wall_s = _wall(data, queues, runs)
    groups: list[StageGroup] = []
    unseen: dict[str, float] = {}
    stages = entries(data, "stages")
    # without a list of queues, any blocked time may have been a put
    permits = _permit_waits(stages, queues) if isinstance(data.get("queues"), list) else {}
    got: dict[str, int] = {}
    for queue in queues:
        for name in get_strings(queue, "consumers"):
            got[name] = got.get(name, 0) + int(number(queue, "got") or 0)
    for stage in stages:
        group = _read_group(stage, got, wall_s, permits)
        if group is None:
            unseen[str(stage.get("name"))] = number(stage, "duration_s", "total") or 0.0
        else:
            groups.append(group)
    parts = read_parts(data, wall_s, runs)
    waits = {group.name: group.between for group in groups if group.again}
    single, groups = groups, _join_neighbours(groups, queues, wall_s)
    failing = {
        name: (_saved(stage, waits.get(name, 0.0)), counts)
        for name, stage in ((str(stage.get("name")), stage) for stage in stages)
        if any((counts := _failures(stage))[:2])
    }
    facts = Facts(
        wall_s=wall_s,
        runs=runs,
        groups=sorted(groups, key=lambda group: group.demand, reverse=True),
        source_s=_source(queues, runs, wall_s),
        unseen={name: s for name, s in unseen.items() if name not in parts},
        round_robin=_round_robin(single, queues, wall_s, runs) if len(groups) > 1 else [],
        smallest_queue=_smallest(queues),
        loop_delay_s=number(data, "resources", "event_loop_delay_s", "p95"),
        loop_delay_usual_s=number(data, "resources", "event_loop_delay_s", "p50"),
        partial=bool(get_path(data, "run", "partial")),
        parts=parts,
        saved={name: saved for name, (saved, _) in failing.items() if saved is not None},
        failures={name: counts for name, (_, counts) in failing.items()},
        queues=[_read_queue(queue) for queue in queues],
        limits=[_read_limit(limit, runs) for limit in entries(data, "limits")],
        gil_held=number(data, "resources", "gil_held"),
        run_delay=number(data, "resources", "run_delay"),
        starved=starved(data),
    )
    outside = number(data, "run", "outside_s")
    facts.outside_s = None if outside is None else outside / runs
    read_cpu(facts, data)
    return facts


def _read_queue(queue: Mapping[str, Any]) -> QueueFacts:
    capacity, depth = number(queue, "capacity"), number(queue, "depth_avg")
    return QueueFacts(
        name=str(queue.get("name")),
        capacity=None if capacity is None else int(capacity),
        producers=get_strings(queue, "producers"),
        consumers=get_strings(queue, "consumers"),
        put=int(number(queue, "put") or 0),
        got=int(number(queue, "got") or 0),
        fill=None if depth is None or not capacity else min(1.0, depth / capacity),
        span_s=number(queue, "put_span_s"),
        put_blocked_s=number(queue, "put_blocked_s"),
        get_waited_s=number(queue, "get_waited_s"),
    )


def _read_limit(limit: Mapping[str, Any], runs: float) -> LimitFacts:
    held: dict[str | None, float] = {}
    waited: dict[str | None, float] = {}
    known = True
    for row in entries(limit, "stages"):
        stage = None if row.get("stage") is None else str(row["stage"])
        seconds, waits = number(row, "held_s"), number(row, "waited_s")
        known = known and seconds is not None
        held[stage] = (seconds or 0.0) / runs
        waited[stage] = (waits or 0.0) / runs
    most = number(limit, "max")
    return LimitFacts(
        name=str(limit.get("name")),
        needs_s=sum(held.values()) / most if most and known and held else None,
        held_s=held if known else {},
        waited_s=waited,
        permits=None if most is None else int(most),
        is_executor=limit.get("kind") in {"thread pool", "process pool", "executor"},
    )


def _read_group(
    stage: Mapping[str, Any],
    got: Mapping[str, int],
    wall_s: float,
    permits: Mapping[str, float],
) -> StageGroup | None:
    """Return a stage as a group; None if its waits are unknown."""
    times = [number(stage, "time_s", state) for state in ("busy", "idle", "blocked")]
    workers = number(stage, "workers")
    worker_s = number(stage, "worker_s")
    if worker_s is not None and wall_s:
        # of merged runs: how many there were at a time
        workers = max(1.0, worker_s / wall_s)
    busy, idle, blocked = times
    if busy is None or idle is None or blocked is None or not workers:
        return None
    name = str(stage.get("name"))
    count = int(number(stage, "count") or 0)
    ephemeral = workers > MAX_WORKERS or (workers >= MANY_WORKERS and workers > EPHEMERAL * count)
    if ephemeral and wall_s:
        workers = max(1.0, (busy + idle + blocked) / wall_s)
    return StageGroup(
        name=name,
        names=[name],
        workers=workers,
        ephemeral=ephemeral,
        count=count,
        busy=busy,
        idle=idle,
        blocked=blocked,
        inside=number(stage, "duration_s", "total"),
        permit_wait_s=permits.get(name, 0.0),
        noise=_noise(stage, count),
        gets=name in got,
        shares={name: busy},
        hottest_s=number(stage, "busiest_s"),
        # as many more calls than items as failed
        again=count > got.get(name, count) >= count - _failures(stage)[0],
    )


def _failures(stage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a stage's errors, retries and calls."""
    errors, retries, calls = (
        int(number(stage, *path) or 0) for path in (("errors", "total"), ("retries",), ("count",))
    )
    return errors, retries, calls


def _saved(stage: Mapping[str, Any], waits_s: float) -> tuple[float, float] | None:
    """Return the part of a stage's time that is saved if no call fails and none tries again.

    A failed call costs what it took. It is then followed by another one, in which case all of its
    time is saved, with what its worker waited before that, or it is given up, and a good one would
    have taken the place of it.
    """
    failures, retries = number(stage, "errors", "total"), number(stage, "retries")
    if not failures and not retries:
        return None
    total, failed = number(stage, "duration_s", "total"), number(stage, "failed_s")
    retried, tried_again = number(stage, "retried", "count"), number(stage, "retried", "total_s")
    if not total or failed is None or retried is None or tried_again is None:
        return None
    failures = failures or 0.0
    # of calls that tried again, how long they would have taken without is known from the others
    plain = (number(stage, "count") or 0) - failures - retried
    if plain <= 0:
        return None
    good = max(0.0, total - failed - tried_again) / plain
    saved = tried_again - retried * good
    if waits_s:
        return (saved + failed) / total, (saved + failed + waits_s) / total
    return (saved + failed - failures * good) / total, (saved + failed) / total


def _noise(stage: Mapping[str, Any], count: int) -> float:
    total = number(stage, "duration_s", "total")
    squares = number(stage, "duration_s", "sum_of_squares")
    if not total or squares is None or count < 2:  # one value has no spread
        return 0.0
    mean = total / count
    variance = max(0.0, squares / count - mean * mean)
    return math.sqrt(variance / count) / mean if mean else 0.0


def _permit_waits(
    stages: Sequence[Mapping[str, Any]], queues: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return how long each stage was blocked outside puts, as far as that is known.

    A queue knows how long its producers waited together. Of several producers, each gets a part
    in proportion to its blocked time.
    """
    blocked = {
        str(stage.get("name")): number(stage, "time_s", "blocked") or 0.0 for stage in stages
    }
    left = dict(blocked)
    for queue in queues:
        producers = [name for name in get_strings(queue, "producers") if name in blocked]
        together = sum(blocked[name] for name in producers)
        waited = number(queue, "put_blocked_s")
        for name in producers:
            if waited is None:
                left[name] = 0.0  # all of it may have been this queue
            elif together:
                left[name] -= waited * blocked[name] / together
    # a small rest is a rounding error of sums, not a wait
    return {name: rest for name, rest in left.items() if rest > 0.05 * blocked[name]}


def _join_neighbours(
    groups: list[StageGroup], queues: Sequence[Mapping[str, Any]], wall_s: float
) -> list[StageGroup]:
    """Join neighbours that the same workers seem to have run.

    The first of them feeds no queue, the next one gets from none, both have the same number of
    workers, and neither had them for the whole run.
    """
    feeding = {name for queue in queues for name in get_strings(queue, "producers")}
    joined: list[StageGroup] = []
    for group in groups:
        before = joined[-1] if joined else None
        if (
            before is not None
            and not group.gets
            and before.names[-1] not in feeding
            and before.workers == group.workers
            and not (before.ephemeral or group.ephemeral)
            and max(before.wall, group.wall) < _PARTIAL * wall_s * group.workers
            and before.wall + group.wall < _SHARED * wall_s * group.workers
        ):
            joined[-1] = _join(before, group)
        else:
            joined.append(group)
    return joined


def _round_robin(
    groups: Sequence[StageGroup], queues: Sequence[Mapping[str, Any]], wall_s: float, runs: float
) -> list[StageGroup]:
    """Return the stages if the same workers ran all of them in turn, else none.

    Separate workers would overlap: the time of a stage goes on while it waits for the others.
    Times of stages that take turns add up to at most the wall time, with hardly any waits.
    """
    workers = groups[0].workers
    if any(group.workers != workers or group.ephemeral for group in groups):
        return []
    wall = wall_s * workers
    busy = sum(group.busy for group in groups)
    whole = sum(group.wall for group in groups)
    if (
        busy < _ROUND_ROBIN_BUSY * wall
        or whole > _ROUND_ROBIN_WALL * wall
        or whole - busy > _ROUND_ROBIN_REST * wall
        or busy - max(group.busy for group in groups) < _ROUND_ROBIN_REST * wall
        or not _puts_between(groups, queues, runs)
    ):
        return []
    return list(groups)


def _puts_between(
    groups: Sequence[StageGroup], queues: Sequence[Mapping[str, Any]], runs: float
) -> bool:
    """Tell whether other stages ran between the puts into a queue; True if unknown.

    A producer with its own worker puts within its own time. Times also add up to the wall time
    if a producer finished early, in a run that took a while to set up.
    """
    known = False
    walls: dict[str, float] = {}
    for group in groups:
        walls[group.name] = walls.get(group.name, 0.0) + group.wall / group.workers
    for queue in queues:
        span = number(queue, "put_span_s")
        own = sum(walls.get(name, 0.0) for name in dict.fromkeys(get_strings(queue, "producers")))
        if span is None or not own:
            continue
        known = True
        if span / runs > _ROUND_ROBIN_WALL * own:
            return True
    return not known


def _join(first: StageGroup, second: StageGroup) -> StageGroup:
    larger = max(first, second, key=lambda group: group.work)
    known = first.inside is not None and second.inside is not None
    return StageGroup(
        name=larger.name,
        names=[*first.names, *second.names],
        workers=first.workers,
        ephemeral=False,
        count=larger.count,
        busy=first.busy + second.busy,
        idle=first.idle + second.idle,
        blocked=first.blocked + second.blocked,
        inside=(first.inside or 0.0) + (second.inside or 0.0) if known else None,
        permit_wait_s=first.permit_wait_s + second.permit_wait_s,
        noise=larger.noise,
        gets=first.gets,
        shares=first.shares | second.shares,
    )


def _runs_at_a_time(data: Mapping[str, Any]) -> float:
    """Return how many of the merged runs ran at a time; of an earlier version's, all."""
    observed_s, wall_s = number(data, "run", "observed_s"), number(data, "run", "wall_s")
    if observed_s is not None and wall_s:
        return max(1.0, observed_s / wall_s)
    return max(1, len(get_strings(data.get("run"), "merged_from")))


def _wall(data: Mapping[str, Any], queues: Sequence[Mapping[str, Any]], runs: float) -> float:
    """Return how long the run took; of an earlier version's merged runs, how long one of them."""
    observed = [number(data.get("resources"), "observed_s")]
    observed += [number(queue, "observed_s") for queue in queues]
    known = [seconds for seconds in observed if seconds is not None]
    if runs > 1 and known and number(data, "run", "observed_s") is None:
        return max(known) / runs
    return number(data, "run", "wall_s") or 0.0


def _source(queues: Sequence[Mapping[str, Any]], runs: float, wall_s: float) -> float | None:
    """Return how long the source took to fill the queues, without its waits for room."""
    found = []
    for queue in queues:
        span, put = number(queue, "put_span_s"), number(queue, "put")
        if get_strings(queue, "producers") or span is None or not put:
            continue
        work = max(0.0, span - (number(queue, "put_blocked_s") or 0.0))
        # each merged run had its own source, and they worked at the same time or in turn
        observed_s = number(queue, "observed_s") or 0.0
        found.append(work / max(1.0, observed_s / wall_s if wall_s else runs))
    return max(found, default=None)


def _smallest(queues: Sequence[Mapping[str, Any]]) -> tuple[str, int] | None:
    """Return name and capacity of the smallest bounded queue."""
    bounded = [
        (str(queue.get("name")), int(capacity))
        for queue in queues
        if (capacity := number(queue, "capacity")) is not None
    ]
    return min(bounded, key=lambda found: found[1], default=None)

"""Find what a run cannot be faster than.

The bottleneck law: a run takes at least as long as each of its workers, limits and other steps
needs for its share of the work. What overlaps nothing else adds up instead (Amdahl's law). Both are
in Lazowska et al., "Quantitative System Performance", 1984, chapter 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics.analysis.gains import Bound, Bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.analysis.facts import Facts, QueueFacts, StageGroup
    from otel_pipeline_metrics.analysis.parts import Part


# From this part of a run on, what bounds it explains nearly all of it.
FULL: Final = 0.85
# From this part of a run on, a stage that always has as many calls in progress as it ever had
# has a pool of its own, which is never idle.
POOL: Final = 0.9
# What adds up cannot take longer than the run, but for errors of measurement.
ADDS_UP: Final = 1.02
# Less than this part of a run overlaps nothing at the begin and at the end of any pipeline.
PHASES: Final = 0.1
# A worker that was busy for so much longer than the average one has more than chance gives it.
HOT: Final = 1.25
# A stage whose part of the run is hardly more than half of its time was open with another one
# nearly always.
SHARED: Final = 0.55
# Below this average filling of its queue, and part of the time that producers wait for room, a
# stage keeps up.
KEEPS_UP: Final = 0.1
# From so many calls of each worker on, none of them is the worker's whole loop.
MANY_CALLS: Final = 10
# A smaller gain is not worth a line.
WORTH_A_LINE: Final = 0.05


def find_bounds(facts: Facts) -> Bounds:
    """Return what bounds a run."""
    found = [*_groups(facts), *_unwatched(facts)]
    if any(_is_full(bound, facts) and not _takes_what_there_is(bound, facts) for bound in found):
        found = [bound for bound in found if not _takes_what_there_is(bound, facts)]
    if not any(bound.group is not None for bound in found):
        return _without_queues(facts, found)
    steps = _steps(facts)
    if any(bound.part is not None and _is_full(bound, facts) for bound in found):
        # a stage that is called in tasks of their own is what such a step consists of
        steps = [bound for bound in steps if bound.kind != "undecorated"]
    others = [*_limits(facts), *steps]
    in_turn = {group.name for group in facts.round_robin}
    alone = [
        bound for bound in found if (bound.name in in_turn if in_turn else _is_alone(bound, facts))
    ]
    together = _sorted([bound for bound in found if bound not in alone] + others)
    if in_turn:
        return Bounds(facts.wall_s, _sorted(alone), [])
    whole = sum(bound.seconds for bound in alone)
    if whole < PHASES * facts.wall_s or (
        together and whole + together[0].seconds > ADDS_UP * facts.wall_s
    ):
        # if they do not add up they overlap: each waits for the next item of a slow source
        return _with_spread(facts, Bounds(facts.wall_s, [], _sorted([*found, *others])))
    return _with_spread(facts, Bounds(facts.wall_s, _sorted(alone), together))


def _is_full(bound: Bound, facts: Facts) -> bool:
    return bound.seconds >= FULL * facts.wall_s


def _takes_what_there_is(bound: Bound, facts: Facts) -> bool:
    """Tell whether a call takes all that has come meanwhile, and never lets anything wait.

    Such a stage is busy all the time whatever comes, and takes more at a time when more comes.
    """
    group = bound.group
    # of fewer calls, each may be a loop that takes item by item
    if group is None or group.count < MANY_CALLS * group.workers:
        return False
    before = [queue for queue in facts.queues if bound.name in queue.consumers]
    return bool(before) and all(
        queue.got >= 2 * group.count
        and queue.fill is not None
        and queue.fill < KEEPS_UP
        and queue.blocked_share is not None
        and queue.blocked_share < KEEPS_UP
        for queue in before
    )


def _with_spread(facts: Facts, bounds: Bounds) -> Bounds:
    """Note how much the calls of what bounds the run differ."""
    names = bounds.together[0].made_of if bounds.together else ()
    known = [facts.parts[name].spread for name in names if name in facts.parts]
    bounds.spread = min(1.0, max((spread for spread in known if spread), default=0.0))
    return bounds


def _sorted(bounds: list[Bound]) -> list[Bound]:
    return sorted(bounds, key=lambda bound: bound.seconds, reverse=True)


def _is_alone(bound: Bound, facts: Facts) -> bool:
    parts = [
        facts.parts[name] for name in bound.made_of if name is not None and name in facts.parts
    ]
    if not parts or bound.seconds >= FULL * facts.wall_s:
        return False
    if bound.group is not None and bound.group.share < FULL:
        # its workers wait for other stages, so they overlap them, in bursts
        return False
    return all(part.is_alone for part in parts)


def _groups(facts: Facts) -> list[Bound]:
    """Return a bound for each group of workers whose waits are known."""
    found = []
    inside: dict[str, list[str]] = {}
    for part in facts.parts.values():
        if part.within is not None and part.within != part.name:
            inside.setdefault(part.within, []).append(part.name)
    for group in facts.groups:
        if group.ephemeral and any(name in facts.parts for name in group.names):
            continue
        waited = sum(
            limit.waited_s.get(name, 0.0)
            for limit in facts.limits
            if limit.needs_s is not None
            for name in group.names
        )
        surely = group.surely
        permits = max(0.0, group.permit_wait_s - waited) / group.workers
        bound = Bound("stage", group.name, group.name, surely, group=group)
        if group.is_clear:
            bound.seconds = group.busy / group.workers
        bound.made_of = _made_of(group, facts, inside, bound.seconds)
        bound.workers = group.workers
        if len(group.names) == 1 and group.workers >= 2 and group.hottest_s is not None:
            mean = group.busy / group.workers
            if group.is_clear and group.hottest_s >= HOT * mean > 0:
                scale = group.hottest_s / mean
                bound.kind, bound.seconds = "skew", group.hottest_s
                bound.made_of = {name: s * scale for name, s in bound.made_of.items()}
                bound.workers = None
        found.append(bound)
        if permits > group.busy / group.workers:
            name = _waits_most_at(group, facts)
            found.append(Bound("limit", name or group.name, group.name, bound.seconds + permits))
    return found


def _waits_most_at(group: StageGroup, facts: Facts) -> str | None:
    """Return the limit that a group waits at most."""
    waits = {
        limit.name: sum(limit.waited_s.get(name, 0.0) for name in group.names)
        for limit in facts.limits
        if limit.needs_s is None
    }
    most = max(waits, key=waits.__getitem__, default=None)
    return most if most is not None and waits[most] > 0 else None


def _made_of(
    group: StageGroup, facts: Facts, inside: Mapping[str, list[str]], seconds: float
) -> dict[str | None, float]:
    """Return what a group's time consists of, with the stages `inside` that its own ones call."""
    names = [*group.names]
    for name in names:
        names += [each for each in inside.get(name, ()) if each not in names]
    own = {name: facts.parts[name].own_s / group.workers for name in names if name in facts.parts}
    if len(own) < len(names):
        whole = sum(group.shares.values())
        return {name: seconds * busy / whole for name, busy in group.shares.items() if whole}
    total = sum(own.values())
    # times are measured in two ways, which differ by little
    scale = seconds / total if total > seconds else 1.0
    return {name: scale * part for name, part in own.items()}


def _unwatched(facts: Facts) -> list[Bound]:
    """Return a bound for each stage whose workers' waits are unknown."""
    seen = {name for group in facts.groups if not group.ephemeral for name in group.names}
    found = []
    for part in facts.parts.values():
        if part.name in seen or _root(part, facts) in seen:
            continue
        seconds = max(part.needs_s, part.alone_s, part.longest_s)
        found.append(
            Bound(
                "stage",
                part.name,
                part.name,
                seconds,
                {part.name: seconds},
                workers=part.most,
                part=part,
            )
        )
    return found


def _root(part: Part, facts: Facts) -> str:
    """Return the outermost stage that a stage is called within."""
    seen = {part.name}
    while part.within is not None and part.within in facts.parts and part.within not in seen:
        part = facts.parts[part.within]
        seen.add(part.name)
    return part.name


def _without_queues(facts: Facts, found: list[Bound]) -> Bounds:
    """Return the bounds of a run whose waits are unknown.

    A stage that always has as many calls in progress as it ever had has a pool of its own. If
    there is none, the stages follow one another, in one task or in many.
    """
    limits = _limits(facts)
    in_turn = all(
        bound.part is not None and bound.part.most == 1 and bound.part.is_alone for bound in found
    )
    pools = [
        bound
        for bound in found
        if not in_turn
        and bound.part is not None
        and bound.part.most
        and bound.part.needs_s >= POOL * facts.wall_s
    ]
    if any(limit.seconds >= FULL * facts.wall_s for limit in limits):
        # how many calls of a stage there were at a time is a matter of the limit
        return Bounds(facts.wall_s, [], _sorted([*pools, *limits]))
    if pools:
        return _with_spread(facts, Bounds(facts.wall_s, [], _sorted([*found, *limits])))
    return _in_turn(facts, found)


def _in_turn(facts: Facts, found: list[Bound]) -> Bounds:
    """Return the bounds of stages that follow one another, in one task or in many."""
    outside = facts.outside_s or 0.0
    overlap = [
        bound
        for bound in found
        if bound.part is not None
        and bound.part.most
        and bound.part.own_s > 1.02 * bound.part.most * bound.part.alone_s
    ]
    lanes, unbounded = None, False
    if overlap:
        # each of them runs in many places at a time, so their own times tell their shares
        whole = sum(bound.part.own_s for bound in found if bound.part is not None)
        inside = facts.wall_s - outside
        lanes = whole / inside if inside else None
        unbounded = all(bound.part is not None and bound.part.in_own_tasks for bound in found)
        for bound in found:
            if bound.part is not None:
                bound.seconds = inside * bound.part.own_s / whole
    else:
        for bound in found:
            if bound.part is not None:
                bound.seconds = bound.part.alone_s
    for bound in found:
        bound.made_of = {bound.name: bound.seconds}
        part = bound.part
        if overlap and part is not None and part.most == 1:
            # at most all of it is saved, and nothing if others were open all the while
            is_shared = part.alone_s <= SHARED * part.own_s
            bound.overlapped = {bound.name: (0.0 if is_shared else part.alone_s, part.own_s)}
            bound.seconds = part.alone_s
            bound.made_of = {bound.name: bound.seconds}
    if outside > 0:
        found.append(Bound("undecorated", None, None, outside, {None: outside}))
    return Bounds(facts.wall_s, _sorted(found), [], lanes, unbounded)


def _limits(facts: Facts) -> list[Bound]:
    """Return a bound for each limit whose permits are counted."""
    found = []
    for limit in facts.limits:
        if limit.needs_s is None or not sum(limit.waited_s.values()):
            continue
        permits = limit.permits or 1
        made_of: dict[str | None, float] = {}
        for name, held in limit.held_s.items():
            part = facts.parts.get(str(name))
            if name is None or part is None:
                continue
            # who holds a permit for longer than its own calls take has others call inside, or
            # sends its work to another process
            if limit.is_executor or held <= 1.1 * part.own_s:
                made_of[name] = min(held, part.own_s) / permits
        own = {part.name: part.own_s for part in facts.parts.values()}
        whole = sum(own.values())
        if not made_of and 0.9 * whole <= sum(limit.held_s.values()) <= 1.1 * whole:
            # it is held around all of the stages
            made_of = {name: seconds / permits for name, seconds in own.items()}
        stage = max(limit.waited_s, key=limit.waited_s.__getitem__)
        found.append(Bound("limit", limit.name, stage, limit.needs_s, made_of))
    return found


# --- steps that are no stages --------------------------------------------------------------------


def _steps(facts: Facts) -> list[Bound]:
    """Return a bound for the source, and for each step between queues that is no stage."""
    unconsumed = [queue for queue in facts.queues if queue.got and not queue.consumers]
    found = []
    before = _upstream(facts, unconsumed)
    for queue in facts.queues:
        if queue.producers or not queue.put or queue.span_s is None:
            continue
        work = max(0.0, queue.span_s - (queue.put_blocked_s or 0.0)) / facts.runs
        feeder = [each for each in unconsumed if each is not queue]
        if not feeder or queue.name in before:
            found.append(Bound("source", queue.name, None, work, {queue.name: work}))
        else:
            name = feeder[0].name if len(feeder) == 1 else queue.name
            found.append(Bound("undecorated", name, None, work, {name: work}))
    named = {bound.name for bound in found}
    for queue in unconsumed:
        # nothing behind it tells how long its consumer takes: it is full, or it is not
        if queue.name in named or queue.fill is None or queue.get_waited_s is None:
            continue
        if _feeds_others(queue, facts):
            continue
        work = max(0.0, facts.wall_s - queue.get_waited_s / facts.runs)
        if queue.fill >= FILLED and (queue.blocked_share or 0.0) >= HELD_UP:
            found.append(Bound("undecorated", queue.name, None, work, {queue.name: work}))
    return found


# From this average filling on, the consumers of a queue are slower than its producers.
FILLED: Final = 0.5
# From this part of the time on, producers were held up by a full queue, and not by chance.
HELD_UP: Final = 0.3


def _feeds_others(queue: QueueFacts, facts: Facts) -> bool:
    """Tell whether what is got from a queue seems to be put into one that no stage fills."""
    before = _upstream(facts, [queue])
    return any(
        not each.producers and each.put and each is not queue and each.name not in before
        for each in facts.queues
    )


def _upstream(facts: Facts, queues: list[QueueFacts]) -> set[str]:
    """Return the names of the queues that lead to some queues, through stages."""
    found = {queue.name for queue in queues}
    while True:
        stages = {name for queue in facts.queues if queue.name in found for name in queue.producers}
        more = {q.name for q in facts.queues if stages & set(q.consumers)} - found
        if not more:
            return found
        found |= more

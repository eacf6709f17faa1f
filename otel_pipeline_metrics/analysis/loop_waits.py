"""Charge waits for the event loop to the stages that held it.

A task that is woken while others compute waits for its turn, which its own stage shows as awaiting.
Half the time of who computes shortens that wait by as much; a faster server does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.facts import Facts
    from otel_pipeline_metrics.analysis.gains import Bound, Bounds


# A task was woken at some time while others held the loop: half of that on average if it was at
# random, and nearly all of it where tasks go in step. At random it may be a little less, too.
LEAST: Final = 0.4


def held_by(facts: Facts) -> dict[str, float]:
    """Return the seconds in which each stage held the event loop."""
    return {part.name: part.held_s for part in facts.parts.values() if part.held_s}


def late_share(facts: Facts) -> float:
    """Return the part of the stages' own time that was a wait for the event loop, at most."""
    own = sum(part.own_s for part in facts.parts.values())
    return sum(part.late_s for part in facts.parts.values()) / own if own else 0.0


def charge(bounds: Bounds, facts: Facts) -> None:
    """Make waits for the event loop a part of what those take that held it."""
    holders = held_by(facts)
    whole = sum(holders.values())
    if not whole or not any(part.late_s for part in facts.parts.values()):
        return
    shares = {name: seconds / whole for name, seconds in holders.items()}
    for bound in [*bounds.alone, *bounds.together]:
        _charge(bound, shares, facts)


def _charge(bound: Bound, shares: dict[str, float], facts: Facts) -> None:
    parts = {
        name: (part, seconds / part.own_s)
        for name, seconds in bound.made_of.items()
        if (part := facts.parts.get(str(name))) is not None and part.own_s
    }
    late = {name: min(part.late_s, part.own_s) * scale for name, (part, scale) in parts.items()}
    ran = sum(min(part.held_s, part.own_s) * scale for part, scale in parts.values())
    moved = sum(late.values())
    if not moved:
        return
    for name in [*dict.fromkeys([*bound.made_of, *shares])]:
        before = bound.made_of.get(name, 0.0)
        most = before + moved * shares.get(str(name), 0.0) - late.get(name, 0.0)
        least = before + LEAST * (most - before)
        bound.overlapped[name] = min(least, most), max(least, most)
        bound.made_of[name] = (least + most) / 2
    # one loop runs one task at a time, however many there are
    bound.not_shared = ran + LEAST * moved, ran + moved

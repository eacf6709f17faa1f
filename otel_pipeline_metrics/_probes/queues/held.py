"""Tell what queues hold during a run, and for how long they did."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from otel_pipeline_metrics._probes.queues.registry import queues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.observed import QueueSeries


# About how many items of a large queue are looked at.
LOOKED_AT: Final = 1000


class Content(NamedTuple):
    """The items that are in one queue."""

    items: int = 0
    # those of which it is known when they were put, and the sum of these times
    known: int = 0
    put_at: float = 0.0


class Held(NamedTuple):
    """The items that are in the queues of one name."""

    items: int
    # those of which it is known for how long they were there, and the sum of that
    known: int
    seconds: float


UNKNOWN: Final = Content()


class HeldInRun:
    """What queues hold, since a run has begun."""

    def __init__(self) -> None:
        self._before: WeakKeyDictionary[Any, Content] = WeakKeyDictionary()

    def begin(self) -> None:
        """Look at what the queues hold now."""
        for name in queues.names():
            self._before.update(_contents(name))

    def during(self, series: QueueSeries, wall_s: float, now: float) -> tuple[Held, Held]:
        """Return what the queues of a name held as the run began, and what they hold now.

        Args:
            series: what happened at the queues.
            wall_s: seconds of the run until now.
            now: `clock.now()`.
        """
        found = {
            probe: (before, content)
            for probe, content in _contents(series.name).items()
            # An earlier queue of that name may be left with items, until it is collected. If no
            # item moves at all, the queues that all wait for are among these.
            if (before := self._before.get(probe, UNKNOWN)) != content
            # the oldest items of a stack stay in it, whatever moves above them
            or probe.at > now - wall_s
            or not (series.put or series.got)
        }
        before_now = list(found.values())
        return (
            _sum([before for before, _ in before_now], now - wall_s),
            _sum([content for _, content in before_now], now),
        )


def _contents(name: str) -> dict[Any, Content]:
    """Return what each queue of a name holds, as far as they tell."""
    # a depth that was only told, such as a consumer's lag, has no items here
    return {probe: _content(probe) for probe in queues.alive(name) if hasattr(probe, "times")}


def _content(probe: Any) -> Content:
    size = probe.depth()
    if size is None:
        return UNKNOWN
    # of a large queue some, since the program waits meanwhile
    step = max(1, size // LOOKED_AT)
    # a queue that was changed directly, or is being changed, holds the latest of them at most
    times = probe.times(step)[-(size // step) :] if size else []
    known = list(filter(None, times))
    sentinels = len(times) - len(known)
    return Content(size - step * sentinels, step * len(known), step * math.fsum(known))


def _sum(contents: Sequence[Content], now: float) -> Held:
    known = sum(each.known for each in contents)
    seconds = known * now - math.fsum(each.put_at for each in contents)
    return Held(sum(each.items for each in contents), known, seconds)

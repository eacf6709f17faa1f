"""Measure what the workers of an elastic pool do with their time."""

from __future__ import annotations

from typing import Final

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._pools.tuning import Tick

WORKING: Final = 0
IDLE: Final = 1
BLOCKED: Final = 2

# A tick is at least and at most so long, in seconds, and has so many items in between.
SHORTEST_S: Final = 0.05
LONGEST_S: Final = 0.5
ITEMS: Final = 6


class Meter:
    """The time of one worker; only its own task or thread writes it."""

    __slots__ = ("done", "seconds", "since", "state")

    def __init__(self) -> None:
        self.state = IDLE
        self.since = clock.now()
        self.seconds = [0.0, 0.0, 0.0]
        self.done = 0

    def enter(self, state: int) -> None:
        """Begin to work, or to wait for input or for room."""
        now = clock.now()
        self.seconds[self.state] += now - self.since
        self.state, self.since = state, now

    def read(self, now: float) -> tuple[float, float, float, int]:
        """Return the seconds in each state until now, and the items done."""
        seconds, state, since = list(self.seconds), self.state, self.since
        seconds[state] += max(0.0, now - since)
        working, idle, blocked = seconds
        return working, idle, blocked, self.done


class Meters:
    """The meters of a pool's workers, and what they showed since the last look."""

    def __init__(self) -> None:
        # worker by worker, also those that have left since the last look
        self._meters: list[Meter] = []
        self._left: set[Meter] = set()
        self._before = (0.0, 0.0, 0.0, 0)
        # of workers that left earlier
        self._gone = (0.0, 0.0, 0.0, 0)
        self._at = 0.0
        self._rate = 0.0

    def add(self) -> Meter:
        """Return the meter of a new worker."""
        meter = Meter()
        self._meters.append(meter)
        return meter

    def begin(self) -> None:
        """Begin the first tick."""
        self._at = clock.now()

    def remove(self, meter: Meter) -> None:
        """Take a worker out that leaves; what it did still counts."""
        meter.enter(WORKING)
        meter.since = float("inf")  # no time passes for it any more
        self._left.add(meter)

    def pause_s(self) -> float:
        """Return how long the next tick should be."""
        if not self._rate:
            return SHORTEST_S
        return min(max(ITEMS / self._rate, SHORTEST_S), LONGEST_S)

    def tick(self, bound: str | None) -> Tick:
        """Return what happened since the last look."""
        now = clock.now()
        left = list(self._left)
        readings = [meter.read(now) for meter in list(self._meters)]
        totals = _sum([self._gone, *readings])
        working, idle, blocked, done = (
            new - old for new, old in zip(totals, self._before, strict=True)
        )
        self._before = totals
        if left:
            self._gone = _sum([self._gone, *(meter.read(now) for meter in left)])
            for meter in left:  # in place: a worker may add its own meanwhile
                self._meters.remove(meter)
                self._left.discard(meter)
        seconds, self._at = max(now - self._at, 1e-9), now
        self._rate = done / seconds if done else self._rate / 2
        total = working + idle + blocked
        return Tick(
            seconds,
            int(done),
            idle / total if total > 0 else 0.0,
            blocked / total if total > 0 else 0.0,
            working / done if done else None,
            bound,
        )


def _sum(readings: list[tuple[float, float, float, int]]) -> tuple[float, float, float, int]:
    working, idle, blocked, done = (sum(column) for column in zip(*readings, strict=True))
    return working, idle, blocked, int(done)

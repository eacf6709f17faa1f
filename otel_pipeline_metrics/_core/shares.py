"""Divide the time in which several stages are open at once among them.

Each instant is divided equally among the stages that are open with no stage open inside of them,
however many calls of a stage are. While one call at most is open inside of another, that is the
call's own time, and nothing is counted here.

`_clock` is the sum of the parts that one stage would have got if it had always been open; so a
stage's part is what that clock went on by while it was, whatever the others did meanwhile. This is
the virtual time of fair queueing (Parekh and Gallager 1993).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from otel_pipeline_metrics._core.series import Cell


class _Innermost:
    """A stage with calls that have none open inside of them."""

    __slots__ = ("calls", "clock", "since")

    def __init__(self, clock: float, since: float) -> None:
        self.calls = 0
        self.clock = clock
        self.since = since


class Shares:
    """What the stages of one run got of the time in which several were open."""

    __slots__ = ("_alone", "_clock", "_innermost", "_last", "_shared", "concurrent", "outlived")

    def __init__(self) -> None:
        # calls with several open inside of them; there is something to divide while it is not 0
        self.concurrent = 0
        # by identity: calls that are over, with others still open inside of them
        self.outlived: dict[int, Cell] = {}
        self._innermost: dict[Hashable, _Innermost] = {}
        self._clock = 0.0
        self._last = 0.0
        # by stage: its part, and what its calls would have got if each had been alone
        self._shared: dict[Hashable, float] = {}
        self._alone: dict[Hashable, float] = {}

    def begin(self, stages: Iterable[Hashable], now: float) -> None:
        """Begin to divide: these stages have a call each that is open, none being inside."""
        self._last = now
        for stage in stages:
            self.add(stage, now)

    def end(self, now: float) -> None:
        """Divide nothing any more: one call at most is open inside of each other."""
        self.settle(now)
        self._innermost.clear()

    def add(self, stage: Hashable, now: float) -> None:
        """Count one more call that is open, with none open inside of it."""
        self._go_on(now)
        found = self._innermost.get(stage)
        if found is None:
            found = self._innermost[stage] = _Innermost(self._clock, now)
        self._add_alone(stage, found)
        found.calls += 1

    def remove(self, stage: Hashable, now: float) -> None:
        """Count one call less."""
        self._go_on(now)
        found = self._innermost.get(stage)
        if found is None:
            return
        self._add_alone(stage, found)
        found.calls -= 1
        if not found.calls:
            self._add_shared(stage, found)
            del self._innermost[stage]

    def settle(self, now: float) -> None:
        """Bring the sums up to date."""
        self._go_on(now)
        for stage, found in self._innermost.items():
            self._add_alone(stage, found)
            self._add_shared(stage, found)

    def correction(self, stage: Hashable) -> float:
        """Return the seconds to add to a stage's own time for its part of the run."""
        return self._shared.get(stage, 0.0) - self._alone.get(stage, 0.0)

    def _go_on(self, now: float) -> None:
        if now > self._last:
            more = (now - self._last) / len(self._innermost) if self._innermost else 0.0
            # at once: a signal handler may raise between two statements
            self._clock, self._last = self._clock + more, now

    def _add_alone(self, stage: Hashable, found: _Innermost) -> None:
        seconds = found.calls * (self._last - found.since)
        self._alone[stage] = self._alone.get(stage, 0.0) + seconds
        found.since = self._last

    def _add_shared(self, stage: Hashable, found: _Innermost) -> None:
        self._shared[stage] = self._shared.get(stage, 0.0) + self._clock - found.clock
        found.clock = self._clock

"""Decide which window comes next, so that a run is slowed by a tenth at most.

A stage is first made slower, which costs nothing where the stage does not matter: then it gains
nothing either. Those that matter are then made virtually faster, which costs nothing where they are
what limits the run.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._experiments.effects import LEAST_WINDOWS, Record

if TYPE_CHECKING:
    from collections.abc import Hashable

    from otel_pipeline_metrics._experiments.effects import Effect, Window
    from otel_pipeline_metrics._experiments.ledger import Mode

# Seconds of a window: long enough for so many calls of a usual stage, within these.
CALLS: Final = 50
SHORTEST_S: Final = 0.5
LONGEST_S: Final = 5.0
# Of a window, this part more goes by before it is measured, so that queues fill or empty.
LEAD_IN: Final = 0.3

# The part of a run by which experiments may slow it.
SLOWED: Final = 0.07
# So much of a run is left as it is, for comparison.
AS_IT_IS: Final = 0.35
# Stages that are tried: those with the most time of their own.
TRIED: Final = 10
# A stage is made slower by about this part of the time.
ADDED: Final = 0.15

# How many windows a stage gets at least and at most, and which range of a gain is enough.
WINDOWS: Final = 4
MOST_WINDOWS: Final = 60
# The same of windows that tell whether it matters.
SLOWER_WINDOWS: Final = 16
SURE: Final = 0.05
# So many windows end the experiment; before so many it goes on in any case.
ALL_WINDOWS: Final = 240
FEWEST_WINDOWS: Final = 40
# A stage that can gain less than this is not made faster.
LITTLE: Final = 0.06


class Schedule:
    """Which stage is virtually faster, or slower, when."""

    def __init__(self, began: float) -> None:
        self.record = Record()
        self._began = began
        # by stage: calls and seconds of them
        self.calls: dict[Hashable, list[float]] = {}
        # seconds by which the run got longer, estimated, and pauses of all workers
        self.slowed_s = 0.0
        self.paused_s = 0.0
        self._effects: dict[Hashable, Effect] = {}

    @property
    def targets(self) -> list[Hashable]:
        """The stages to try, those with the most time first."""
        ordered = sorted(self.calls, key=lambda stage: self.calls[stage][1], reverse=True)
        return ordered[:TRIED]

    def added_s(self, target: Hashable, now: float) -> float:
        """Return by how many seconds each call of a stage is to get longer."""
        windows = self.record.of("slower", target)
        ahead_s, seconds = sum(w.ahead_s for w in windows), sum(w.seconds for w in windows)
        count, spent_s = self.calls.get(target, (0.0, 0.0))
        if ahead_s > 0:
            mean_s = sum(w.added_s * w.seconds for w in windows) / seconds
            wanted = min(10.0, ADDED * seconds / ahead_s) * mean_s
        elif count:
            wanted = max(ADDED * (now - self._began) / count, 0.1 * spent_s / count)
        else:
            wanted = 0.0
        return min(wanted, ADDED * self.length_s(now))

    def length_s(self, now: float) -> float:
        """Return how long the next window is, without its lead-in."""
        elapsed = now - self._began
        rates = [count / elapsed for count, _ in self.calls.values() if count and elapsed > 0]
        if not rates:
            return SHORTEST_S
        return min(LONGEST_S, max(SHORTEST_S, CALLS / statistics.median(rates)))

    def add(self, window: Window) -> None:
        """Take a window that is over into account."""
        self.record.windows.append(window)
        self.paused_s += window.paused_s
        self._effects = self.effects()
        self.slowed_s = sum(self._slowed_by(one) for one in self.record.windows) * (1 + LEAD_IN)

    def effects(self) -> dict[Hashable, Effect]:
        """Return what is known of each stage so far."""
        return self.record.effects(self.targets)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to find out, or it takes too long."""
        windows = len(self.record.windows)
        open_ones = any(self._open(target) for target in self.targets)
        return windows >= ALL_WINDOWS or (windows >= FEWEST_WINDOWS and not open_ones)

    def next(self, now: float) -> tuple[Mode, Hashable]:
        """Return what the next window does, and to which stage."""
        record, elapsed = self.record, now - self._began
        base_s = sum(one.seconds for one in record.of("as it is"))
        all_s = sum(one.seconds for one in record.windows)
        if len(record.of("as it is")) < LEAST_WINDOWS - 1 or base_s < AS_IT_IS * all_s:
            return "as it is", None
        left = [(mode, target) for target in self.targets for mode in self._open(target)]
        left.sort(key=lambda one: len(record.of(*one)))
        for mode, target in left:
            if self.slowed_s + self._costs(mode, target, now) <= SLOWED * elapsed:
                return mode, target
        return "as it is", None

    def _open(self, target: Hashable) -> list[Mode]:
        """Return the mode in which a stage needs one more window, if any."""
        effect = self._effects.get(target)
        slower = len(self.record.of("slower", target))
        if effect is None or effect.pauses is None:
            return ["slower"] if slower < SLOWER_WINDOWS else []
        if not effect.pauses:
            return []
        most = None if effect.absorbs else effect.slower
        if most is not None and most.high <= LITTLE:
            return []
        # chance alone may leave more possible
        if most is not None and most.low <= LITTLE / 2 and slower < SLOWER_WINDOWS:
            return ["slower"]
        faster = len(self.record.of("faster", target))
        found = effect.faster
        unsure = found is None or found.high - found.low > 2 * SURE
        return ["faster"] if faster < WINDOWS or (unsure and faster < MOST_WINDOWS) else []

    def _costs(self, mode: Mode, target: Hashable, now: float) -> float:
        """Return by how much one more window slows the run, at most."""
        length = self.length_s(now) * (1 + LEAD_IN)
        known = self.record.of(mode, target)
        if not known:
            return ADDED * length
        return length * sum(map(self._slowed_by, known)) / sum(one.seconds for one in known)

    def _slowed_by(self, window: Window) -> float:
        """Return the seconds by which a window's pauses made the run longer, estimated."""
        effect = self._effects.get(window.target)
        if window.mode == "slower" and effect is not None:
            return window.seconds * max(0.0, effect.lost)
        if window.mode != "faster" or effect is None or effect.rate is None or not effect.ahead:
            return window.ahead_s
        # of a run of 1: what it lost while the stage was ahead
        lost = 1 - effect.rate * (1 - effect.ahead)
        return window.ahead_s * min(1.0, max(0.0, lost / effect.ahead))

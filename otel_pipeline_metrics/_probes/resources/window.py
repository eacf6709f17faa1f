"""Compute the utilisation between two readings of counters that only rise."""

from __future__ import annotations

from typing import Final

# The kernel counts the machine's CPU time in ticks of 10 ms: a shorter window is mostly noise.
MINIMUM_S: Final = 0.1


class Window:
    """The utilisation since one reader's previous reading, whatever other readers do."""

    def __init__(self) -> None:
        self._base: tuple[int, float, float, float] | None = None
        self._last: float | None = None

    def advance(self, epoch: int, at: float, busy: float | None, total: float) -> float | None:
        """Return the share of `busy` in `total` since the previous reading, 0 to 1.

        Args:
            epoch: changes when the counters restart, as after a fork.
            at: the time of this reading in seconds.
            busy: seconds of work so far; None if unknown.
            total: seconds of work that were possible so far.

        Returns:
            None at the first reading. Within `MINIMUM_S` of a reading, the same share again.
        """
        if busy is None:
            return None
        base = self._base
        if base is None or base[0] != epoch or busy < base[2] or total < base[3]:
            self._base = (epoch, at, busy, total)
            self._last = None
            return None
        if at - base[1] < MINIMUM_S or total <= base[3]:
            return self._last
        self._base = (epoch, at, busy, total)
        self._last = min(1.0, (busy - base[2]) / (total - base[3]))
        return self._last

"""Utilisation between two looks at counters that only rise."""

from __future__ import annotations

from typing import Final

MINIMUM_S: Final = 0.1
"""The kernel counts the machine's CPU time in ticks of 10 ms: a shorter window is mostly noise."""


class Window:
    """One reader's utilisation since its own last look, so that no reader shortens another's."""

    def __init__(self) -> None:
        self._base: tuple[int, float, float, float] | None = None
        self._last: float | None = None

    def advance(self, epoch: int, at: float, busy: float | None, total: float) -> float | None:
        """Return the share of `busy` in `total` since the look before, 0 to 1.

        Args:
            epoch: changes where the counters start anew, as after a fork.
            at: the time of this look in seconds.
            busy: seconds of work so far; None if unknown.
            total: seconds of work that would have been possible so far.

        Returns:
            None at the first look. Within `MINIMUM_S` of the look before, the share of then.
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

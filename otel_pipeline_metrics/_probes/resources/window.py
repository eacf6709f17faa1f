"""Compute the utilisation between two readings of counters that only rise."""

from __future__ import annotations

from typing import Final

# In a shorter window most shares are 0 or 1.
MINIMUM_S: Final = 0.1


class Window:
    """The utilisation since one reader's previous reading, whatever other readers do.

    Args:
        exact: the counters are exact at any moment, so that a first window may be shorter than
            `MINIMUM_S`. The kernel counts the machine's CPU time in ticks of 10 ms, which is not.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._base: tuple[int, float, float, float] | None = None
        self._last: float | None = None

    def needs_later(self, at: float) -> bool:
        """Tell whether a reading of that time is the first one, which gives no share."""
        return self._last is None and self._base is not None and at <= self._base[1]

    def advance(
        self,
        epoch: int,
        at: float,
        busy: float | None,
        total: float,
        began: float | None = None,
    ) -> float | None:
        """Return the share of `busy` in `total` since the previous reading, 0 to 1.

        Args:
            epoch: changes when the counters restart, as after a fork.
            at: the time of this reading in seconds.
            busy: seconds of work so far; None if unknown.
            total: seconds of work that were possible so far.
            began: the time at which the counters restarted from 0, if that is known.

        Returns:
            None at the first reading. Within `MINIMUM_S` of a reading, the same share again; there
            is none yet within that time of the first one: the share since then if the counters
            are exact, else None.
        """
        if busy is None:
            return None
        base = self._base
        if base is not None and base[0] != epoch and began is not None:
            base = self._base = (epoch, began, 0.0, 0.0)
            self._last = None
        if base is None or base[0] != epoch or busy < base[2] or total < base[3]:
            self._base = (epoch, at, busy, total)
            self._last = None
            return None
        if total <= base[3]:
            return self._last
        share = min(1.0, (busy - base[2]) / (total - base[3]))
        if at - base[1] < MINIMUM_S:
            return share if self._exact and self._last is None else self._last
        self._base = (epoch, at, busy, total)
        self._last = share
        return share

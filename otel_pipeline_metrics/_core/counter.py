"""A count that any thread, signal handler or gc callback may raise: without a lock."""

from __future__ import annotations

import itertools


class Counter:
    """Counts up."""

    __slots__ = ("_looks", "_up")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at nothing."""
        self._up = itertools.count()
        self._looks = 0

    def add(self) -> None:
        """Count one more; `next` on a counter is atomic, adding to a number is not."""
        next(self._up)

    def value(self) -> int:
        """Return the count; looking takes a number too, which is left out."""
        found = next(self._up) - self._looks
        self._looks += 1
        return found

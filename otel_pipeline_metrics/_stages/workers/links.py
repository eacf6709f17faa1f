"""Span links from a consumer to the producers of its items."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

FIRST_LINKS: Final = 64
LAST_LINKS: Final = 63
"""Of many producers of a batch the first 64 and the last 63 are linked: the SDK takes 128."""


class Links:
    """The producers of what a worker has got since it last entered a stage."""

    __slots__ = ("dropped", "first", "last")

    def __init__(self) -> None:
        self.first: list[Any] = []
        self.last: deque[Any] = deque(maxlen=LAST_LINKS)
        self.dropped = 0

    def add(self, link: Any) -> None:
        """Keep a link, or count it where too many came before."""
        if len(self.first) < FIRST_LINKS:
            self.first.append(link)
            return
        if len(self.last) == LAST_LINKS:
            self.dropped += 1
        self.last.append(link)

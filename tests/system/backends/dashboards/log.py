"""What a program did and when, kept by the program itself and apart from what it reports."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# what happened, by its name: when, and how much
Entries = dict[str, list[tuple[float, float]]]


class Log:
    """Keeps what happens, with the time on the clock that telemetry has too."""

    def __init__(self) -> None:
        self.entries: Entries = defaultdict(list)
        self.facts: dict[str, float] = {}

    def add(self, name: str, amount: float = 1) -> None:
        """Note that it happened now."""
        self.entries[name].append((time.time(), amount))

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Note how long the block took, when it has ended."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def write(self, path: Path) -> None:
        """Write it for `Truth.read`; nothing is half written."""
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps({"entries": self.entries, "facts": self.facts}))
        beside.replace(path)


class Truth:
    """What happened between two moments."""

    def __init__(self, entries: Entries, facts: dict[str, float], begin: float, end: float) -> None:
        self._entries = entries
        self.facts = facts
        self.begin = begin
        self.end = end

    @staticmethod
    def read(path: Path, begin: float, end: float) -> Truth:
        """Read what a program wrote."""
        found = json.loads(path.read_text())
        return Truth(found["entries"], found["facts"], begin, end)

    def amounts(self, name: str) -> list[float]:
        """Return what happened after the beginning, up to the end."""
        return [much for at, much in self._entries[name] if self.begin < at <= self.end]

    def ever(self, name: str) -> float:
        """Return the sum of all that happened."""
        return sum(much for _, much in self._entries[name])

    def count(self, name: str) -> int:
        """Return how often it happened."""
        return len(self.amounts(name))

    def rate(self, *names: str) -> float:
        """Return how much happened a second."""
        return sum(sum(self.amounts(name)) for name in names) / (self.end - self.begin)

    def calls(self, *names: str) -> float:
        """Return how often it happened a second."""
        return sum(map(self.count, names)) / (self.end - self.begin)

    def mean(self, name: str) -> float:
        """Return the mean amount."""
        amounts = self.amounts(name)
        return sum(amounts) / len(amounts)

    def quantile(self, name: str, of_all: float) -> float:
        """Return the amount that this share of all does not exceed, by the nearest rank."""
        amounts = sorted(self.amounts(name))
        return amounts[max(0, math.ceil(of_all * len(amounts)) - 1)]

    def growth(self, name: str) -> float:
        """Return how fast a level rose that was noted again and again."""
        levels = self._entries[name]
        first, last = (
            next(much for at, much in levels if at >= moment) for moment in (self.begin, self.end)
        )
        return (last - first) / (self.end - self.begin)

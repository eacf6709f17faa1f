"""Make traces of look-ups, and replay them in LRU caches of every size at once."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Hashable, Sequence

Trace = Sequence[Hashable]


def zipf(length: int, keys: int, exponent: float) -> Trace:
    """Return look-ups of words, of which the nth is `n**-exponent` times as popular."""
    weights = itertools.accumulate((n + 1) ** -exponent for n in range(keys))
    words = [f"word {n}" for n in range(keys)]
    return random.Random(1).choices(words, cum_weights=[*weights], k=length)  # noqa: S311


def mixed_scan(length: int, hot: int, scanned: int) -> Trace:
    """Return look-ups of a hot set, and of a scan that goes on between them."""
    source = random.Random(2)  # noqa: S311
    scan = itertools.cycle(range(scanned))
    return [
        ("hot", source.randrange(hot)) if source.random() < 0.7 else ("scan", next(scan))
        for _ in range(length)
    ]


def phased_scan(length: int, hot: int, scanned: int) -> Trace:
    """Return look-ups of a hot set, then a whole scan, and so on."""
    source = random.Random(3)  # noqa: S311
    found: list[Hashable] = []
    while len(found) < length:
        found += [("hot", int(hot * source.random() ** 2)) for _ in range(scanned)]
        found += [("scan", key) for key in range(scanned)]
    return found[:length]


def loop(length: int, keys: int) -> Trace:
    """Return look-ups of integers, over and over."""
    return [n % keys for n in range(length)]


def replayed(trace: Trace) -> Callable[[int], float]:
    """Return the hit ratio of an LRU cache of a given size that replays a trace.

    A look-up hits if fewer other keys than the size came since the last one of its key. A
    Fenwick tree over the trace counts the keys whose latest look-up came after a place.
    """
    tree = [0] * (len(trace) + 1)

    def add(place: int, amount: int) -> None:
        place += 1
        while place < len(tree):
            tree[place] += amount
            place += place & -place

    def up_to(place: int) -> int:
        place += 1
        total = 0
        while place:
            total += tree[place]
            place &= place - 1
        return total

    latest: dict[Hashable, int] = {}
    distances: list[int] = []
    for place, key in enumerate(trace):
        before = latest.get(key)
        if before is not None:
            distances.append(len(latest) - up_to(before))
            add(before, -1)
        add(place, 1)
        latest[key] = place
    distances.sort()
    return lambda size: bisect.bisect_left(distances, size) / len(trace)

"""Define the reading of a cache: its counts and levels at one moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.lookup import ratio

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Reuse:
    """Counts of watched look-ups in an LRU cache that another size would change.

    Each count stands for `scale` look-ups: 1 if every key is watched.
    """

    # hits that half the size would lose
    lost: int = 0
    # misses that twice the size would avoid, and those that only four times the size would
    near: int = 0
    far: int = 0
    scale: float = 1.0
    # whether `lost` is certain
    half_known: bool = True

    def _combined(self, other: Reuse, combine: Callable[[int, int], int]) -> Reuse:
        return Reuse(
            combine(self.lost, other.lost),
            combine(self.near, other.near),
            combine(self.far, other.far),
            self.scale,
            self.half_known,
        )

    def at_least(self, other: Reuse) -> Reuse:
        """Return the counts, those of `other` where they are larger."""
        return self._combined(other, max)

    def plus(self, other: Reuse) -> Reuse:
        """Return the counts and those of `other` together."""
        return self._combined(other, lambda one, more: one + more)

    def since(self, before: Reuse) -> Reuse:
        """Return the counts that came after `before`."""
        return self._combined(before, lambda now, then: max(0, now - then))


@dataclass(frozen=True)
class CacheReading:
    """A reading of a cache: counts since it was registered, and levels now.

    A count that the source does not have is None. `hits` and `misses` never decrease, even
    when the cache's own statistics are cleared.
    """

    name: str
    hits: int
    misses: int
    evictions: int | None = None
    expirations: int | None = None
    entries: int | None = None
    size_bytes: int | None = None
    # of an LRU cache with `what_if=True`
    reuse: Reuse | None = None

    def plus(self, before: CacheReading | None) -> CacheReading:
        """Return the counts with those of `before`; the levels stay."""
        if before is None:
            return self
        return replace(
            self,
            hits=self.hits + before.hits,
            misses=self.misses + before.misses,
            evictions=(self.evictions or 0) + (before.evictions or 0),
            expirations=(self.expirations or 0) + (before.expirations or 0),
        )

    @property
    def hit_ratio(self) -> float | None:
        """Hits over look-ups, 0 to 1; None before the first look-up."""
        return ratio(self.hits, self.hits + self.misses)

    @property
    def what_if(self) -> dict[str, float | None] | None:
        """The hit ratio at `half`, `twice` and `four_times` the size, 0 to 1.

        None without `what_if=True`, for a cache that is not LRU, and before the first look-up.
        """
        found, requests = self.reuse, self.hits + self.misses
        if found is None or not requests:
            return None

        def with_hits(more: float) -> float:
            return min(1.0, max(0.0, (self.hits + more * found.scale) / requests))

        return {
            "half": with_hits(-found.lost) if found.half_known else None,
            "twice": with_hits(found.near),
            "four_times": with_hits(found.near + found.far),
        }

"""Define the reading of a cache: its counts and levels at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from otel_pipeline_metrics._core.lookup import ratio


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

    @property
    def hit_ratio(self) -> float | None:
        """Hits over look-ups, 0 to 1; None before the first look-up."""
        return ratio(self.hits, self.hits + self.misses)

"""Sum up durations as they come: count, total, maximum and a quantile sketch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.quantile_sketch import REL_ERROR, Sketch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


class Distribution:
    """Running sums of durations in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self.max_s = 0.0
        self.sketch = Sketch()

    def copy(self) -> Self:
        """Return the same sums, to which durations can be added separately."""
        made = copy.copy(self)
        made.sketch = self.sketch.copy()
        return made

    def add_sorted(self, durations: Sequence[float]) -> None:
        """Add durations, at least one, smallest first."""
        self.count += len(durations)
        self.total_s += sum(durations)
        self.max_s = max(self.max_s, durations[-1])
        self.sketch.add_sorted(durations)

    def row(self, least_s: float | None = None, *, percentiles: bool = True) -> dict[str, Any]:
        """Return a report's part about them; unknown is None, never 0.

        Args:
            least_s: the smallest one: the sketch's error must not lead to a quantile below.
            percentiles: whether it has them, and what they are computed from.
        """
        found: dict[str, Any] = {
            "avg": ratio(self.total_s, self.count),
            "max": self.max_s if self.count else None,
        }
        if percentiles:
            found |= self.sketch.percentiles(least_s, self.max_s)
            found |= {"rel_error": REL_ERROR, "sketch": self.sketch.to_dict()}
        return found

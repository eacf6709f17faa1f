"""Sum up durations as they come: count, total, maximum and a quantile sketch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.quantile_sketch import Sketch

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

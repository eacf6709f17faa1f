"""Estimate the stages' shares of a run from what was open at random instants.

Where stages overlap, each instant is divided equally among the stages that are open with no stage
open inside of them. The mean over random instants is the share, and their spread gives its
standard error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import nesting

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from otel_pipeline_metrics._core.series import Cell


# With fewer, a share is unknown.
MIN_INSTANTS: Final = 100


class Instants:
    """Sums over random instants of one run."""

    __slots__ = ("_shares", "count")

    def __init__(self) -> None:
        self.count = 0
        # by stage: the sum of its shares, and of their squares
        self._shares: dict[Hashable, tuple[float, float]] = {}

    def take(self, root: Cell) -> None:
        """Look at what is open now in the run whose cell this is."""
        stages = {cell[0].stage.identity for cell in _innermost(root) if cell is not root}
        self.count += 1
        for stage in stages:
            share, square = self._shares.get(stage, (0.0, 0.0))
            part = 1 / len(stages)
            self._shares[stage] = share + part, square + part * part

    def share(self, stages: Iterable[Hashable]) -> tuple[float | None, float | None]:
        """Return the share of the run of these stages, and its standard error."""
        if self.count < MIN_INSTANTS:
            return None, None
        found = [self._shares.get(stage, (0.0, 0.0)) for stage in stages]
        mean = sum(share for share, _ in found) / self.count
        variance = max(0.0, sum(square for _, square in found) / self.count - mean * mean)
        return mean, math.sqrt(variance / self.count)


def _innermost(cell: Cell) -> list[Cell]:
    """Return the open calls with none open inside of them."""
    found, left = [], [cell]
    while left:
        each = left.pop()
        inside: Any = each[5]
        if isinstance(inside, nesting.Overlap):
            children = list(inside.children.values())
        else:
            children = [] if inside is None else [inside]
        left += children
        if not children:
            found.append(each)
    return found

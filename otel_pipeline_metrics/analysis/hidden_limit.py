"""See a limit inside of a stage that is not wrapped: calls take longer, the more are in flight.

Behind a limit of c, each of n calls gets its turn after n / c of the time that it takes alone. So
the time grows with the number in flight when a call begins, and more workers only wait longer.
The first calls of a run, which find few in flight, show how long a call takes alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.parts import Part


# From this growth on, and from so many standard errors, calls get slower for a reason.
GROWS: Final = 1.3
SURELY: Final = 2.5
# A stage whose calls differ by more cannot be judged by the few that found few others.
EVEN: Final = 1.0
# A call that takes less than this part of the usual has done no work.
NOTHING: Final = 0.1


@dataclass(frozen=True)
class Growth:
    """How a stage's calls get slower with the number in flight."""

    # how long a call takes with few others, and with as many as there were mostly, in seconds
    few_s: float
    many_s: float
    # how many there were mostly
    most: int
    # by how many standard errors the two differ
    deviations: float

    @property
    def ratio(self) -> float:
        """How many times longer a call takes."""
        return self.many_s / self.few_s

    @property
    def permits(self) -> float:
        """How many calls at a time the limit seems to allow."""
        return max(1.0, self.most / self.ratio)


def growth(part: Part | None, workers: float | None) -> Growth | None:
    """Return how a stage's calls get slower with the number in flight; None if they do not.

    Args:
        part: the stage's own time.
        workers: how many workers it has, if that is known.
    """
    if part is None or len(part.levels) < 2 or part.spread is None or (workers or 2) < 2:
        return None
    most = max(part.levels, key=lambda level: part.levels[level][0])
    low = [_of_level(part, level) for level in part.levels if level <= most / 2]
    count = sum(each[0] for each in low)
    if most < 2 or count < 1 or part.spread > EVEN:
        return None
    few_s = sum(seconds for _, seconds in low) / count if count else 0.0
    many_s = part.levels[most][1]
    if few_s <= 0 or many_s < GROWS * few_s:
        return None
    error = part.spread * many_s / math.sqrt(count)
    deviations = (many_s - few_s) / error if error else math.inf
    return Growth(few_s, many_s, most, deviations) if deviations >= SURELY else None


def _of_level(part: Part, level: int) -> tuple[int, float]:
    """Return the number of calls that found so many in flight, and their seconds.

    A call that takes next to nothing has found the end of its queue. One of each level may have
    been such a call, and is left out.
    """
    count, mean = part.levels[level]
    many_s = max(mean for _, mean in part.levels.values())
    if part.least_s is not None and part.least_s < NOTHING * many_s:
        return count - 1, count * mean - part.least_s
    return count, count * mean

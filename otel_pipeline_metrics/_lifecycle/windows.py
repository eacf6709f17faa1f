"""Keep how a run went in about twenty windows of time, however long it takes.

A window is the difference of two readings of sums that only rise. There are at most `MOST` of
them: then every second reading is dropped, and the windows are twice as wide from then on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core.lookup import ratio

if TYPE_CHECKING:
    from collections.abc import Mapping


MOST: Final = 40

# Runs at a time from which on each is looked at less often.
RUNS_AT_ONCE: Final = 20

# Stages that the windows tell apart: the first ones of the run.
MAX_STAGES: Final = 100

STATES: Final = ("running", "awaiting", "busy", "idle", "blocked")


class Reading(NamedTuple):
    """The sums of a run until a time."""

    at_s: float  # since the run's start
    # by name and kind: calls, items, and seconds in each state
    stages: Mapping[tuple[str, str | None], tuple[float | None, ...]]
    depths: Mapping[str, int]  # of queues, at that time
    cpu_s: float | None  # of the process
    capacity_s: float  # CPU seconds that it could have used
    rss_bytes: int | None


class Windows:
    """The readings of one run."""

    def __init__(self) -> None:
        self._readings: list[Reading] = []
        self._width_s = 0.0

    def is_due(self, at_s: float, least_s: float = 0.0) -> bool:
        """Tell whether the next reading is due; windows are not narrower than `least_s`."""
        width_s = max(self._width_s, least_s)
        return not self._readings or at_s - self._readings[-1].at_s >= width_s

    def add(self, reading: Reading) -> None:
        """Take a reading, which begins the next window."""
        readings = [*self._readings, reading]
        if len(readings) > MOST + 1:
            # the first and the last one stay
            readings = readings[::2]
            self._width_s = 0.9 * (readings[-1].at_s - readings[-2].at_s)
        self._readings = readings

    def rows(self, until: Reading) -> list[dict[str, Any]]:
        """Return the windows, the last one until now."""
        readings = [*self._readings, until] if self._readings else []
        return [_row(begin, end) for begin, end in pairwise(readings) if end.at_s > begin.at_s]


def _row(begin: Reading, end: Reading) -> dict[str, Any]:
    seconds = end.at_s - begin.at_s
    return {
        "start_s": begin.at_s,
        "end_s": end.at_s,
        "stages": [
            _stage(key, begin.stages.get(key, ()), sums, seconds)
            for key, sums in end.stages.items()
        ],
        "queues": [{"name": name, "depth": depth} for name, depth in end.depths.items()],
        "cpu_utilization": _utilization(begin, end),
        "rss_bytes": end.rss_bytes,
    }


def _stage(
    key: tuple[str, str | None],
    before: tuple[float | None, ...],
    sums: tuple[float | None, ...],
    seconds: float,
) -> dict[str, Any]:
    since = [
        None if new is None or old is None else max(0, new - old)
        for new, old in zip(sums, before or (0,) * len(sums), strict=True)
    ]
    count, items, *states = since
    return {
        "name": key[0],
        "kind": key[1],
        "count": count,
        "items": items,
        "calls_per_s": ratio(count, seconds),
        "items_per_s": ratio(items, seconds),
        "time_s": dict(zip(STATES, states, strict=True)),
    }


def _utilization(begin: Reading, end: Reading) -> float | None:
    possible = end.capacity_s - begin.capacity_s
    if begin.cpu_s is None or end.cpu_s is None or possible <= 0:
        return None
    return min(1.0, max(0.0, end.cpu_s - begin.cpu_s) / possible)

"""Keep what happened at the limits of one scope: permits, waits, and which stages held them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.observed import WorkerTimes


class LimitSeries:
    """What happened at one limit in one scope. Times are in seconds."""

    __slots__ = (
        "counted", "known", "level", "name", "passed", "peak", "uses", "waited", "waits"
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        # permits that were acquired, but for those of locks
        self.counted = 0
        # How many permits are held, and the most that were at a time. A lock that is the only limit
        # of its name is not in here: see `usage_peak`.
        self.level = 0
        self.peak = 0
        # whether every permit's release is seen, and so the level is known
        self.known = True
        # by stage, the one without a stage first
        self.uses: list[LimitUse] = []
        # waits that are not flushed yet, those that ended without a permit too
        self.waits: list[float] = []
        # permits that were waited for
        self.waited = 0
        # flushed: permits that were not waited for
        self.passed = 0

    @property
    def acquired(self) -> int:
        """The number of permits that were acquired."""
        return self.counted + self._locked()

    @property
    def usage_peak(self) -> int:
        """The most permits that were held at a time."""
        return self.peak or min(1, self._locked())

    def _locked(self) -> int:
        return int(sum(use.locked for use in list(self.uses)))

    def not_flushed(self) -> int:
        """Return how many permits were acquired without waiting since the last flush."""
        return max(0, self.acquired - self.waited - self.passed)


class LimitUse:
    """What one stage did at one limit in one scope. Times are in seconds."""

    __slots__ = ("by_stage", "held", "limit", "locked", "stage", "waited")

    def __init__(self, limit: LimitSeries, stage: str | None) -> None:
        self.limit = limit
        # None: outside of stages
        self.stage = stage
        # How often a lock was acquired. A whole number: adding to a float is faster than to an int.
        self.locked = 0.0
        # waited for permits; None: it cannot be told
        self.waited: float | None = 0.0
        # Outside of stages: by the stage that a worker is in or left last, whose permit it is.
        self.by_stage: dict[WorkerTimes | None, LimitUse] = {None: self} if stage is None else {}
        # by permits that were released
        self.held = 0.0
        limit.uses.append(self)

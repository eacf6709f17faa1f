"""Keep what happened at the limits of one scope: permits, waits, and which stages held them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.observed import WorkerTimes


class LimitSeries:
    """What happened at one limit in one scope. Times are in seconds."""

    __slots__ = (
        "acquired", "known", "name", "passed", "peak", "until_peak", "uses", "waited", "waits"
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        # permits
        self.acquired = 0
        # the most that were held at a time
        self.peak = 0
        # How many may be acquired before more are held than ever: the peak, and those released. So
        # an acquisition compares one count, and a release adds to one.
        self.until_peak = 0
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

    def not_flushed(self) -> int:
        """Return how many permits were acquired without waiting since the last flush."""
        return max(0, self.acquired - self.waited - self.passed)


class LimitUse:
    """What one stage did at one limit in one scope. Times are in seconds."""

    __slots__ = ("by_stage", "held", "limit", "stage", "waited")

    def __init__(self, limit: LimitSeries, stage: str | None) -> None:
        self.limit = limit
        # None: outside of stages
        self.stage = stage
        # waited for permits; None: it cannot be told
        self.waited: float | None = 0.0
        # Outside of stages: by the stage that a worker is in or left last, whose permit it is.
        self.by_stage: dict[WorkerTimes | None, LimitUse] = {None: self} if stage is None else {}
        # by permits that were released
        self.held = 0.0
        limit.uses.append(self)

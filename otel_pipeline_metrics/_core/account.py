"""Sum up a series' time, and estimate from samples how much of it ran and used a CPU.

The first calls of a series are all samples, and so is every call of a slow one; of the others, one
in a few. What is unknown of the others is estimated by the ratio estimator of Cochran, "Sampling
Techniques", 3rd ed., section 6: the sampled calls' running time by their duration, times the
duration of the others, which is known. Each sample has the weight of the calls that it stands for,
and the standard error is that of Poisson sampling (Särndal, Swensson and Wretman, "Model Assisted
Survey Sampling", section 3.5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import Counts


# Calls in flight that are told apart; the last one is for more.
MAX_IN_FLIGHT: Final = 16

# Tasks that are told apart; the last one is for more.
MAX_TASKS: Final = 64


class Sample(NamedTuple):
    """A call that was looked at closely. Times are in seconds."""

    elapsed: float  # without waits
    running: float | None  # on the event loop; None if only the rest was measured
    cpu: float | None  # None if it was not measured
    in_flight: int  # calls of its stage in progress when it began, itself included
    spawned: bool | None = None  # whether another task began it; None if unknown
    weight: float = 1.0  # how many calls it stands for
    cpu_weight: float = 1.0  # the same of its CPU time, which is measured in fewer calls
    task: int | None = None  # the identity of the task that made it; None for a thread
    late: float = 0.0  # suspended while others held the event loop, up to its next step


class Ratio:
    """The sums that estimate a total from samples of it and a known total.

    A sample that was drawn one in n stands for n calls, so its weight is n: the rate may change.
    """

    __slots__ = (
        "_d_xx", "_d_xy", "_d_yy", "_weighted_x", "_weighted_y", "calls", "count", "known",
        "known_part", "ratio", "sum_x", "sum_y",
    )  # fmt: skip

    def __init__(self) -> None:
        # of samples that stand for themselves: at that time all calls were samples
        self.known = self.known_part = 0.0
        # about how many calls all of them stand for
        self.calls = 0.0
        # of the others
        self.count = 0
        self.sum_x = self.sum_y = self._weighted_x = self._weighted_y = 0.0
        self._d_xx = self._d_xy = self._d_yy = 0.0
        # the part by the whole of the samples; None without any
        self.ratio: float | None = None

    def add(self, whole: float, part: float, *, weight: float) -> None:
        """Take a sample: a duration, the part of it that is estimated, and its weight."""
        self.calls += weight
        if weight <= 1:
            self.known += whole
            self.known_part += part
            if self.known > 0 and not self._weighted_x:
                self.ratio = self.known_part / self.known
            return
        self.count += 1
        self.sum_x += whole
        self.sum_y += part
        self._weighted_x += weight * whole
        self._weighted_y += weight * part
        if self._weighted_x > 0:
            self.ratio = self._weighted_y / self._weighted_x
        deviation = weight * (weight - 1)
        self._d_xx += deviation * whole * whole
        self._d_xy += deviation * whole * part
        self._d_yy += deviation * part * part

    def part_of(self, whole: float) -> float | None:
        """Return the part of a known total: the sum of all durations, sampled or not."""
        drawn = whole - self.known
        if drawn - self.sum_x <= 1e-9 * whole:
            return min(self.known_part + self.sum_y, max(0.0, whole))
        ratio = self.ratio
        return None if ratio is None else self.known_part + ratio * drawn

    def estimate(self, whole: float) -> tuple[float, float] | None:
        """Return the part of a known total, and its standard error; None without samples."""
        part, ratio, drawn = self.part_of(whole), self.ratio, whole - self.known
        rest = drawn - self.sum_x
        if part is None or ratio is None or rest <= 1e-9 * whole:
            return None if part is None else (part, 0.0)
        most = rest * max(ratio, 1 - ratio)
        if self.count < 2:
            # nothing is known of how the others vary
            return part, most
        squares = self._d_yy - 2 * ratio * self._d_xy + ratio * ratio * self._d_xx
        variance = max(0.0, squares) * self.count / (self.count - 1)
        error = drawn / self._weighted_x * math.sqrt(variance) * _for_few(self.count - 1)
        return part, min(error, most)


def _for_few(freedom: int) -> float:
    """Return by how much few samples widen an interval of 1.96 standard errors.

    This is Student's quantile by the normal one, Abramowitz and Stegun 26.7.5. Without it an
    interval of ten samples holds the truth in 92 % of cases, and one of three in 81 %.
    """
    return 1 + 1.2104 / freedom + 1.4401 / freedom**2 + 1.3040 / freedom**3


class Account:
    """The sums of one series. Times are in seconds."""

    __slots__ = (
        "_known_s", "_spawned_s", "blocked", "by_in_flight", "count", "cpu", "ended", "excess",
        "has_partial", "idle", "late", "partial", "partial_blocked", "partial_idle",
        "partial_running", "partial_sampled", "partial_wait", "running", "seen", "spawned", "tasks",
    )  # fmt: skip

    def __init__(self) -> None:
        self.count = 0
        # of the calls that are over, waits left out
        self.ended = 0.0
        # whether calls were in progress when they were last looked at
        self.has_partial = False
        # Of calls in progress: their time so far, waits that go on, what of the time is to be a
        # correction, and of those that are samples their time so far, and how much of it ran.
        self.forget_partial()
        # by details of a call in progress: the items and bytes that were reported
        self.seen: dict[Any, Counts] = {}
        self.idle = 0.0
        self.blocked = 0.0
        self.running = Ratio()
        self.cpu = Ratio()
        # of the time suspended, the most that was a wait for the event loop
        self.late = Ratio()
        # samples that another task than its caller's began; their seconds, and those of all
        # samples where that is known
        self.spawned = 0
        self._spawned_s = self._known_s = 0.0
        # by number in flight at the begin: samples, and their seconds
        self.by_in_flight: dict[int, tuple[int, float]] = {}
        # identities of the tasks that made samples
        self.tasks: set[int] = set()

    def forget_partial(self) -> None:
        """Forget what calls in progress had done when they were last looked at."""
        self.partial = self.partial_idle = self.partial_blocked = self.excess = 0.0
        self.partial_wait = self.partial_sampled = self.partial_running = 0.0

    def take(self, samples: list[Sample]) -> None:
        """Add samples."""
        for sample in samples:
            if sample.running is not None:
                self.running.add(sample.elapsed, sample.running, weight=sample.weight)
                self.late.add(sample.elapsed, sample.late, weight=sample.weight)
            if sample.cpu is not None:
                weight = 1.0 if sample.weight <= 1 else sample.cpu_weight
                self.cpu.add(sample.elapsed, sample.cpu, weight=weight)
            if sample.spawned is not None:
                self.spawned += sample.spawned
                self._spawned_s += sample.spawned * sample.elapsed
                self._known_s += sample.elapsed
            if sample.task is not None and len(self.tasks) < MAX_TASKS:
                self.tasks.add(sample.task)
            level = min(sample.in_flight, MAX_IN_FLIGHT)
            count, seconds = self.by_in_flight.get(level, (0, 0.0))
            self.by_in_flight[level] = count + 1, seconds + sample.elapsed

    @property
    def is_spawned(self) -> bool:
        """Whether most of its time is that of calls in tasks of their own."""
        return 2 * self._spawned_s > self._known_s

    @property
    def is_spawned_somewhere(self) -> bool:
        """Whether any of its calls is known to be made in a task of its own."""
        return self.spawned > 0

"""The facts that a verdict needs: who worked, and who waited for whom.

Stages that the same workers run one after the other, without a queue in between, form one
group: they share the time of those workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.parts import Part


# From this part of its busy time on, what a worker does between calls may be a wait that cannot
# be seen: at a queue that is not wrapped, or polling.
UNCLEAR: Final = 0.1


@dataclass
class QueueFacts:
    """One wrapped queue. Times are in seconds."""

    name: str
    capacity: int | None
    producers: list[str]
    consumers: list[str]
    put: int
    got: int
    # the average number of items in it, by its capacity; None if it is unbounded or unknown
    fill: float | None
    # from the first put to the last, and how long producers waited for room meanwhile
    span_s: float | None
    put_blocked_s: float | None
    get_waited_s: float | None

    @property
    def blocked_share(self) -> float | None:
        """The part of the time in which it was filled that its producers waited."""
        if self.put_blocked_s is None or not self.span_s:
            return None
        return self.put_blocked_s / self.span_s


@dataclass
class LimitFacts:
    """One wrapped limit. Times are in seconds."""

    name: str
    # how long the run needs at least for the permits held; None if it is unknown
    needs_s: float | None
    # by stage, what it held and what it waited; None is outside of stages
    held_s: dict[str | None, float]
    waited_s: dict[str | None, float]
    permits: int | None
    # its permits are the workers of an executor
    is_executor: bool = False


@dataclass
class StageGroup:
    """One stage, or several that the same workers run in turn. Times are in seconds."""

    # the name of its stage with the most work
    name: str
    names: list[str]
    workers: float
    # each item has a worker of its own, so the limit on workers is unknown
    ephemeral: bool
    count: int
    busy: float
    idle: float
    blocked: float
    # busy within calls; the rest of `busy` is spent in the loop around them
    inside: float | None
    # the part of `blocked` outside puts: waits for permits and rate limits
    permit_wait_s: float
    # relative standard error of the mean service time; 0 if unknown
    noise: float
    # whether its input comes through an instrumented queue
    gets: bool
    # the busy time of each of its stages
    shares: dict[str, float]
    # busy time of the worker that was busy for longest; None if unknown
    hottest_s: float | None = None
    # whether failed calls are made again, for the item that was got once
    again: bool = False

    @property
    def wall(self) -> float:
        """The time of all its workers."""
        return self.busy + self.idle + self.blocked

    @property
    def work(self) -> float:
        """The time that its workers need, whatever the other stages do."""
        return self.busy + self.permit_wait_s

    @property
    def demand(self) -> float:
        """The work of each worker: the run takes at least that long."""
        return self.work / self.workers

    @property
    def surely(self) -> float:
        """The work of each worker within calls: what it does between them may be a wait."""
        return self.demand if self.is_clear else (self.inside or 0.0) / self.workers

    @property
    def is_clear(self) -> bool:
        """Whether its workers spend nearly all of their busy time in calls, or before retries."""
        return self.again or self.between <= UNCLEAR * self.busy

    @property
    def share(self) -> float:
        """The busy share of its workers' time."""
        return self.busy / self.wall if self.wall else 0.0

    @property
    def blocked_share(self) -> float:
        """The blocked share of its workers' time."""
        return self.blocked / self.wall if self.wall else 0.0

    @property
    def between(self) -> float:
        """The busy time between calls."""
        return 0.0 if self.inside is None else max(0.0, self.busy - self.inside)


@dataclass
class Facts:
    """The facts of a whole run, or of several merged ones."""

    # of merged runs, the average
    wall_s: float
    # the largest demand first
    groups: list[StageGroup]
    # time in which the source filled the first queue, without waits for room; None if a stage
    # fills every queue
    source_s: float | None
    # seconds in stages whose waits are unknown
    unseen: dict[str, float] = field(default_factory=dict)
    # all stages in their order if the same workers ran them in turn despite queues between
    # them, else empty
    round_robin: list[StageGroup] = field(default_factory=list)
    smallest_queue: tuple[str, int] | None = None
    # CPUs that one process kept busy on average
    cores: float | None = None
    # of the CPUs that all processes together may use, 0 to 1
    utilization: float | None = None
    cpus: float | None = None
    # CPUs that child processes kept busy on average; None if unknown
    children: float | None = None
    # the busy part of all CPUs of the host, of all processes
    machine: float | None = None
    # whether a cgroup sets `cpus`
    quota: bool = False
    # 95th percentile and median of the event loop's delay
    loop_delay_s: float | None = None
    loop_delay_usual_s: float | None = None
    # the share of time in which a thread held the GIL, and in which one that was ready had no CPU
    gil_held: float | None = None
    run_delay: float | None = None
    # the same of fewer moments too, which is enough to doubt; None of hardly any
    starved: float | None = None
    # by name of a stage with failures or retries, the part of its calls' time that they would
    # have saved without, at least and at most
    saved: dict[str, tuple[float, float]] = field(default_factory=dict)
    # the same, also where that is unknown: errors, retries and calls
    failures: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    # by name, the own time of all stages where it is known
    parts: dict[str, Part] = field(default_factory=dict)
    queues: list[QueueFacts] = field(default_factory=list)
    limits: list[LimitFacts] = field(default_factory=list)
    # time in which no stage was open, or all that were waited; None if unknown
    outside_s: float | None = None
    partial: bool = False
    # how many merged runs there were at a time
    runs: float = 1

    @property
    def concurrency(self) -> float:
        """The average number of workers that were busy at a time."""
        busy = sum(group.busy for group in self.groups)
        return busy / (self.wall_s * self.runs) if self.wall_s else 0.0

    @property
    def idle_share(self) -> float:
        """The idle share of the time of all workers."""
        wall = sum(group.wall for group in self.groups)
        return sum(group.idle for group in self.groups) / wall if wall else 0.0

"""The facts that a verdict needs: who worked, and who waited for whom.

Stages that the same workers run one after the other, without a queue in between, form one
group: they share the time of those workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
    errors: int
    retries: int
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
    # whether a cgroup sets `cpus`
    quota: bool = False
    # 95th percentile and median of the event loop's delay
    loop_delay_s: float | None = None
    loop_delay_usual_s: float | None = None
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

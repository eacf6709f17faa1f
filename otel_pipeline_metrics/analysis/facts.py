"""What a report says about who waited for whom, in the terms of the verdict.

A report may come from a file or be merged from several, so nothing relies on a key being
there. Stages that are run by the same workers, one after the other with no queue in between,
are one group: they share those workers' time.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class StageGroup:
    """One stage, or several that the same workers run in turn. Times are in seconds."""

    name: str
    """Of the stage with the most work in it."""
    names: list[str]
    workers: float
    ephemeral: bool
    """A worker for each item: how many there can be at a time is not known."""
    count: int
    errors: int
    retries: int
    busy: float
    idle: float
    blocked: float
    inside: float | None
    """Busy inside of invocations; the rest of `busy` is what the loop around them does."""
    permit_wait_s: float
    """The part of `blocked` that was no put: waits for permits and rate limits."""
    noise: float
    """Relative standard error of the mean service time; 0 where it cannot be known."""
    gets: bool
    """Whether its input comes through an instrumented queue."""

    @property
    def wall(self) -> float:
        """Seconds of all its workers."""
        return self.busy + self.idle + self.blocked

    @property
    def work(self) -> float:
        """Seconds that its workers have to spend, whatever the other stages do."""
        return self.busy + self.permit_wait_s

    @property
    def demand(self) -> float:
        """What the run asks of each worker: it takes at least that long."""
        return self.work / self.workers

    @property
    def share(self) -> float:
        """Busy, of its workers' time."""
        return self.busy / self.wall if self.wall else 0.0

    @property
    def blocked_share(self) -> float:
        """Blocked, of its workers' time."""
        return self.blocked / self.wall if self.wall else 0.0

    @property
    def between(self) -> float:
        """Busy outside of invocations."""
        return 0.0 if self.inside is None else max(0.0, self.busy - self.inside)


@dataclass
class Facts:
    """A whole run."""

    wall_s: float
    """Of a run; of several merged ones, on average."""
    groups: list[StageGroup]
    """The one with the largest demand first."""
    source_s: float | None
    """How long whatever fills the first queue needed for it, waits for room left out; None
    where no queue is filled by something that is no stage."""
    unseen: dict[str, float] = field(default_factory=dict)
    """Seconds in stages whose waits are not known."""
    round_robin: list[StageGroup] = field(default_factory=list)
    """The stages in their order, if all of them took turns in the same workers although there
    are queues between them; otherwise empty."""
    smallest_queue: tuple[str, int] | None = None
    cores: float | None = None
    """CPUs that one process kept busy on average."""
    utilization: float | None = None
    """Of the CPUs that all processes together may use, 0 to 1."""
    cpus: float | None = None
    quota: bool = False
    """Whether a cgroup sets `cpus`."""
    loop_delay_s: float | None = None
    loop_delay_usual_s: float | None = None
    """95th percentile of how late the event loop came round."""
    partial: bool = False
    runs: int = 1
    """How many were merged: their workers and times add up, whether at once or in turn."""

    @property
    def concurrency(self) -> float:
        """How many workers of a run were busy at a time, on average."""
        busy = sum(group.busy for group in self.groups)
        return busy / (self.wall_s * self.runs) if self.wall_s else 0.0

    @property
    def idle_share(self) -> float:
        """Idle, of the time of all workers."""
        wall = sum(group.wall for group in self.groups)
        return sum(group.idle for group in self.groups) / wall if wall else 0.0

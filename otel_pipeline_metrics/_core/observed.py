"""What workers, queues and limits did in one scope, beside the calls of its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.limit_series import LimitUse
from otel_pipeline_metrics._core.records import NO_TIME

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import StageKey, TimeInStates, Times
    from otel_pipeline_metrics._core.series import RunScope, Series


class WorkerTimes:
    """The time of one stage's workers in one scope; all series of the stage share it."""

    __slots__ = ("key", "limits", "queued", "reported", "reported_cpu_s", "states", "variants")

    def __init__(self, key: StageKey) -> None:
        self.key = key
        # the stage's series of every form and caller
        self.variants: list[Series] = []
        # by worker: its time in each state since the scope began; empty without queues
        self.states: dict[int | None, TimeInStates] = {}
        # whether one of its workers has used an instrumented queue: then its waits are known
        self.queued = False
        # the time that the sinks have, in the order of `StageTime`
        self.reported: Times = NO_TIME
        self.reported_cpu_s = 0.0
        # by name: what the stage did at the limits that it acquired
        self.limits: dict[str, LimitUse] = {}

    def add_limit(self, name: str, scope: RunScope) -> LimitUse:
        """Return what this stage did at a limit, made if need be."""
        outside = scope.limits.get(name) or scope.add_limit(name)
        found = self.limits.get(name)
        if found is None:
            found = self.limits.setdefault(name, LimitUse(outside.limit, self.key.stage))
        return found


class QueueSeries:
    """What happened at one queue in one scope. Times are in seconds."""

    __slots__ = (
        "blocked", "consumers", "depth_peak", "first_put", "got", "idle", "last_put", "name",
        "producers", "put", "waits",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        # from put to get, of items that are not flushed yet
        self.waits: list[float] = []
        self.put = 0
        self.got = 0
        # `clock.now()` of the first put and of the last one
        self.first_put: float | None = None
        self.last_put: float | None = None
        # waited in put, all producers together
        self.blocked = 0.0
        # waited in get, all consumers together
        self.idle = 0.0
        self.depth_peak = 0
        self.producers: dict[str, None] = {}
        self.consumers: dict[str, None] = {}

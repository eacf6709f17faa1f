"""Keep pending results, in a series for each stage of each scope.

The hot path only appends to a series; `drain` flushes it to the sinks.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import span_budget
from otel_pipeline_metrics._core.limit_series import LimitSeries, LimitUse
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.records import StageKey, TimeInStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._core.records import EventTime, Sink, StageResult
    from otel_pipeline_metrics._core.stage_id import StageId


# Runs of other processes that are remembered at a time.
MAX_REMOTE_SCOPES: Final = 16


class Series(span_budget.SpanBudget):
    """The results of one stage in one scope that are not flushed yet."""

    __slots__ = (
        "attributes", "begun", "begun_before", "cache", "durations", "ended_before", "event_times",
        "exemplars", "key", "limits", "queued", "reported", "results", "scope", "sizes", "states",
    )  # fmt: skip

    def __init__(self, scope: RunScope, stage: StageId) -> None:
        super().__init__()
        self.scope = scope
        self.key = StageKey(scope.pipeline, stage.name, stage.kind)
        self.attributes = stage.attributes
        # of calls with only a duration: their busy seconds, see `Batch.durations`
        self.durations: list[float] = []
        # of those calls: the items that came out, see `Batch.sizes`
        self.sizes: list[int] = []
        self.results: list[StageResult] = []
        # of calls in progress too, so that a call without end keeps a bounded number
        self.event_times: list[EventTime] = []
        # one entry for each call since the last batch: appending is atomic, counting up is not
        self.begun: list[None] = []
        self.begun_before = 0
        self.ended_before = 0
        # by worker: its time in each state since the scope began; empty without queues
        self.states: dict[int | None, TimeInStates] = {}
        # whether one of its workers has used an instrumented queue: then its waits are known
        self.queued = False
        # the time in states that the sinks have
        self.reported = TimeInStates()
        # for the tracer: span attributes that are the same for every call
        self.cache: Any = None
        # by bucket: one of `durations` with a sampled span, and its context
        self.exemplars: dict[int, tuple[float, Any]] = {}
        # by name: what it did at the limits that it waited for
        self.limits: dict[str, LimitUse] = {}

    def add_limit(self, name: str) -> LimitUse:
        """Return what this stage did at a limit, made if need be."""
        outside = self.scope.limits.get(name) or self.scope.add_limit(name)
        found = self.limits.get(name)
        if found is None:
            found = self.limits.setdefault(name, LimitUse(outside.limit, self.key.stage))
        return found

    @property
    def pending(self) -> bool:
        """Whether results wait for the next flush."""
        return bool(self.durations or self.results or self.sizes or self.event_times)

    @property
    def active(self) -> int:
        """The number of calls in progress."""
        ended = self.ended_before + len(self.durations) + len(self.results)
        return max(0, self.begun_before + len(self.begun) - ended)


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


class RunScope:
    """What calls belong to: a run, or the process outside a run."""

    __slots__ = (
        "ended", "limits", "on_resources", "pipeline", "queues", "released", "remote", "run_id",
        "series", "sinks", "workers",
    )  # fmt: skip

    def __init__(
        self, pipeline: str | None = None, run_id: str | None = None, sinks: tuple[Sink, ...] = ()
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.sinks = sinks
        self.series: dict[StageId, Series] = {}
        self.queues: dict[str, QueueSeries] = {}
        # by name: what happened at limits outside of stages, with a reference to all the rest
        self.limits: dict[str, LimitUse] = {}
        # by number: the workers that have used a queue or a stage here
        self.workers: dict[int, Any] = {}
        # whether another process began it
        self.remote = False
        self.ended = False
        # whether its report is made: then it is forgotten while no call is in progress
        self.released = False
        # takes (CPU utilisation, RSS in bytes) that the program measured itself
        self.on_resources: Callable[[float, float], None] | None = None

    def add(self, stage: StageId) -> Series:
        """Return the series of `stage`, made if need be."""
        # a task or thread goes on with a run that was forgotten
        scopes.setdefault(self)
        return self.series.get(stage) or self.series.setdefault(stage, Series(self, stage))

    def add_queue(self, name: str) -> QueueSeries:
        """Return the series of a queue, made if need be."""
        scopes.setdefault(self)
        return self.queues.get(name) or self.queues.setdefault(name, QueueSeries(name))

    def add_limit(self, name: str) -> LimitUse:
        """Return what happened at a limit outside of stages, made if need be."""
        scopes.setdefault(self)
        found = self.limits.get(name)
        if found is None:
            found = self.limits.setdefault(name, LimitUse(LimitSeries(name), None))
        return found


class ScopeRef:
    """What a run's cell begins with: `cell[0].scope` works as it does for a series.

    A scope that referred to itself would be a reference cycle.
    """

    __slots__ = ("limits", "outer", "scope")

    def __init__(self, scope: RunScope, outer: Cell | None = None) -> None:
        self.scope = scope
        self.limits = scope.limits
        # what is current again when the run has ended
        self.outer = outer

    def add_limit(self, name: str) -> LimitUse:
        """Return what happened at a limit outside of stages, made if need be."""
        return self.scope.add_limit(name)


process_scope = RunScope()

# The scope of work without a context: the run in progress if there is exactly one.
default_scope = process_scope

# What is current: [ScopeRef] of a run, or [series, token, started, execution] of a call, followed
# by its open span, the context with that span and that context's token, if there is one.
# The token is None once the call is over. The execution is None until the call has more to report
# than its duration. A list of four is made at an eighth of an object's cost, and, unlike a value
# in the context, it is shared with the tasks that the call starts.
Cell = list[Any]

CELL_WITHOUT_SPAN: Final = 4  # the length of a call's cell

active_cell: ContextVar[Cell | None] = ContextVar("opm_current", default=None)

# The process, runs in progress, and runs that are over with calls in progress or pending.
scopes: dict[RunScope, None] = {process_scope: None}

# By run id: the scopes of runs in other processes whose work is done here.
_remote_scopes: dict[str, RunScope] = {}


def withdraw(attributes: Sequence[tuple[StageId, str]]) -> None:
    """Remove fixed attributes from their stages."""
    for stage, key in attributes:
        stage.attributes.pop(key, None)
    for series in all_series() if attributes else ():
        series.cache = None


def limit_spans(per_second: float | None) -> None:
    """Give every stage a new budget of spans; None: no limit."""
    span_budget.spans_per_second = per_second
    for series in all_series():
        series.reset_budget()


def current_scope() -> RunScope:
    """Return the scope that a call made here belongs to."""
    found = active_cell.get()
    scope: RunScope = default_scope if found is None else found[0].scope
    return scope


def open_scope(scope: RunScope) -> None:
    """Make a run's scope current, and the default one while it is the only run.

    It is not made current if the garbage collector runs this code.
    """
    scopes[scope] = None
    _update_default_scope()
    if not (gc_safety.running_in and gc_safety.here()):
        active_cell.set([ScopeRef(scope, _outside_ended(active_cell.get()))])


def close_scope(scope: RunScope) -> None:
    """End a run's scope, in any context.

    Calls in progress are flushed when they end. A run that began in this one stays current. When
    it ends, the innermost run that still goes on becomes current, so no token is kept: resetting
    one would bring back what was current when the run began.
    """
    scope.ended = True
    _update_default_scope()
    if gc_safety.running_in and gc_safety.here():
        return
    found = active_cell.get()
    going_on = _outside_ended(found)
    if going_on is not found:
        active_cell.set(going_on)


def _outside_ended(cell: Cell | None) -> Cell | None:
    """Return the first cell, from `cell` outwards, that is not of an ended run."""
    while cell is not None and isinstance(cell[0], ScopeRef) and cell[0].scope.ended:
        cell = cell[0].outer
    return cell


def remote_run_scope(pipeline: str, run_id: str) -> RunScope:
    """Return the scope in this process of a run that another process started.

    A child that was forked during the run has it; otherwise it is made. It never becomes the
    default, and the oldest is forgotten when there are too many.
    """
    for scope in list(scopes):
        if scope.run_id == run_id:
            return scope
    found = _remote_scopes.get(run_id)
    if found is None:
        found = RunScope(pipeline, run_id)
        found.remote = True
        found = _remote_scopes.setdefault(run_id, found)
        while len(_remote_scopes) > MAX_REMOTE_SCOPES:
            oldest = _remote_scopes.pop(next(iter(_remote_scopes)), None)
            if oldest is not None:
                oldest.released = True
    return found


def _update_default_scope() -> None:
    global default_scope  # read on the hot path, written here only
    ours = [s for s in list(scopes) if s is not process_scope and not s.remote]
    running = [s for s in ours if not s.ended]
    default_scope = running[0] if len(running) == 1 else process_scope


def all_series() -> Iterator[Series]:
    """Yield every series of every scope that is still known."""
    for scope in list(scopes):
        yield from list(scope.series.values())


@forking.in_child
def reset_after_fork() -> None:
    """Start a child from zero: the parent reports what it measured or began."""
    for scope in list(scopes):
        scope.queues.clear()
        scope.limits.clear()
        scope.workers.clear()
        # a call that began in the parent and ends here goes to a series that is never flushed
        scope.series.clear()

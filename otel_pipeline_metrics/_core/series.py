"""Where results wait: a series for each stage of each scope, and what is current where.

The hot path only appends to a series. `drain` takes what waits to the sinks.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from otel_pipeline_metrics._core import clock, hooks
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.records import StageKey, TimeInStates
from otel_pipeline_metrics._core.span_budget import (
    ENOUGH_TO_JUDGE,
    PASSED_AT_ONCE,
    SLOW_QUANTILE,
    SPAN_BURST,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextvars import Token

    from otel_pipeline_metrics._core.records import Sink, StageResult
    from otel_pipeline_metrics._core.stage_id import StageId


VISITED_BOUND: Final = 16
"""Runs of other processes that are remembered at a time."""


def withdraw(attributes: Sequence[tuple[StageId, str]]) -> None:
    """Take fixed attributes off their stages."""
    for stage, key in attributes:
        stage.attributes.pop(key, None)
    for series in all_series() if attributes else ():
        series.cache = None


class Series:
    """The results of one stage in one scope that no sink has seen yet."""

    __slots__ = (
        "attributes",
        "begun",
        "begun_before",
        "cache",
        "durations",
        "ended_before",
        "exemplars",
        "key",
        "late_left",
        "passed",
        "queued",
        "refilled_at",
        "reported",
        "results",
        "scope",
        "sizes",
        "slow_s",
        "spans_left",
        "spans_made",
        "states",
    )

    def __init__(self, scope: RunScope, stage: StageId) -> None:
        self.scope = scope
        self.key = StageKey(scope.pipeline, stage.name, stage.kind)
        self.attributes = stage.attributes
        self.durations: list[float] = []
        """Busy seconds of those with nothing else to say; see `Batch.durations`."""
        self.sizes: list[int] = []
        """Items that came out, of those of `plain` that tell; see `Batch.sizes`."""
        self.results: list[StageResult] = []
        self.begun: list[None] = []
        """One for each that began since the last batch; appending is atomic, adding is not."""
        self.begun_before = 0
        self.ended_before = 0
        self.states: dict[int | None, TimeInStates] = {}
        """By worker: its time in each state since the scope began; empty without queues."""
        self.queued = False
        """Whether a worker of it has met an instrumented queue: then its waits are seen."""
        self.reported = TimeInStates()
        """The time in states that sinks know of."""
        self.cache: Any = None
        """For the tracer: span attributes that are the same for every execution."""
        self.exemplars: dict[int, tuple[float, Any]] = {}
        """By bucket: one of `plain` with a sampled span, and its context."""
        self.spans_made = 0
        self.passed = 0
        """Invocations that went without a span since the last batch."""
        self.reset_budget()

    def reset_budget(self) -> None:
        """Begin the span budget anew."""
        rate = hooks.spans_per_second
        burst = math.inf if rate is None else SPAN_BURST if rate else 0
        self.spans_left: float = burst
        """While there is some, every invocation has a span."""
        self.late_left: float = burst
        """The same for spans made after the fact, of errors and of the slow ones."""
        self.slow_s = math.inf
        """From here on an invocation without a span gets one after the fact."""
        self.refilled_at = clock.now()

    @property
    def pending(self) -> bool:
        """Whether something waits for the sinks."""
        return bool(self.durations or self.results or self.sizes)

    @property
    def active(self) -> int:
        """How many are in progress."""
        ended = self.ended_before + len(self.durations) + len(self.results)
        return max(0, self.begun_before + len(self.begun) - ended)

    def refill(self) -> bool:
        """Let the span budget grow with time; tell whether there is some."""
        rate = hooks.spans_per_second
        if rate is None:
            return self.spans_left >= 1
        now = clock.now()
        more = (now - self.refilled_at) * rate
        if more < 1:
            return self.spans_left >= 1
        self.refilled_at = now
        self.spans_left = min(SPAN_BURST, self.spans_left + more)
        self.late_left = min(SPAN_BURST, self.late_left + more)
        return True

    def skip_span(self) -> bool:
        """Tell whether an invocation has no span, the budget being spent; look now and then."""
        self.passed += 1
        return self.passed % PASSED_AT_ONCE != 0 or not self.refill()

    def update_slow_threshold(self, plain: Sequence[float]) -> None:
        """Learn from sorted durations what is slow, while not every invocation has a span."""
        everyone, self.passed = not self.passed, 0
        self.refill()
        if everyone or self.late_left < 1 or len(plain) < ENOUGH_TO_JUDGE:
            self.slow_s = math.inf
        else:
            self.slow_s = plain[int(len(plain) * SLOW_QUANTILE)]


class QueueSeries:
    """What happened at one queue in one scope. Times are in seconds."""

    __slots__ = (
        "blocked", "consumers", "depth_peak", "first_put", "got", "idle", "last_put", "name",
        "producers", "put", "waits",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.waits: list[float] = []
        """From put to get, of items no sink has seen yet."""
        self.put = 0
        self.got = 0
        self.first_put: float | None = None
        self.last_put: float | None = None
        """`clock.now()` of the first put and the last one."""
        self.blocked = 0.0
        """Waited in put, all producers together."""
        self.idle = 0.0
        """Waited in get, all consumers together."""
        self.depth_peak = 0
        self.producers: dict[str, None] = {}
        self.consumers: dict[str, None] = {}


class RunScope:
    """What executions belong to: a run, or the process where there is none."""

    __slots__ = (
        "__weakref__", "ended", "on_resources", "pipeline", "queues", "run_id", "scope", "series",
        "sinks", "workers",
    )  # fmt: skip

    def __init__(
        self, pipeline: str | None = None, run_id: str | None = None, sinks: tuple[Sink, ...] = ()
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.sinks = sinks
        self.series: dict[StageId, Series] = {}
        self.queues: dict[str, QueueSeries] = {}
        self.workers: dict[int, Any] = {}
        """By their number: the workers that have met a queue or a stage here."""
        self.ended = False
        self.on_resources: Callable[[float, float], None] | None = None
        """Takes (CPU utilisation, RSS in bytes) that somebody measured by hand."""
        self.scope = self
        """Itself: the current cell begins with a series or a scope, and either tells its scope."""

    def add(self, stage: StageId) -> Series:
        """Return the series of `stage`, made if need be."""
        found = self.series.get(stage)
        return self.series.setdefault(stage, Series(self, stage)) if found is None else found

    def add_queue(self, name: str) -> QueueSeries:
        """Return the series of a queue, made if need be."""
        found = self.queues.get(name)
        return self.queues.setdefault(name, QueueSeries(name)) if found is None else found


process_scope = RunScope()
default_scope = process_scope
"""The scope of work that carries no context: the only run there is, else the process."""

Cell = list[Any]
"""What is current: [scope] of a run, or [series, token, started, execution] of an invocation, and
its open span, the context with that, and the token of that context, if there is one.

The token is None once the invocation is over; the execution is None until something beyond
its duration is said or seen. A list of four is made at an eighth of an object's cost, and,
unlike a value in the context, it is shared with the tasks that the invocation spawns.
"""

CELL_WITHOUT_SPAN: Final = 4
"""The length of an invocation's cell without a span."""

active_cell: ContextVar[Cell | None] = ContextVar("opm_current", default=None)

scopes: dict[RunScope, None] = {process_scope: None}
ended_scopes: WeakSet[RunScope] = WeakSet()
"""Runs that are over, while a task or thread that began in them may still go on."""
_visited: dict[str, RunScope] = {}
"""By run id: scopes of runs in other processes whose work is done here."""


def limit_spans(per_second: float | None) -> None:
    """Give every stage a budget of spans from now on; None for no limit."""
    hooks.spans_per_second = per_second
    for series in all_series():
        series.reset_budget()


def current_scope() -> RunScope:
    """Return the scope that an execution opened here would belong to."""
    found = active_cell.get()
    scope: RunScope = default_scope if found is None else found[0].scope
    return scope


def open_scope(scope: RunScope) -> Token[Cell | None] | None:
    """Make a run's scope current, and the process's own while it is the only run.

    None where the garbage collector called, and it could not be made current.
    """
    scopes[scope] = None
    _settle_ambient()
    return None if gc_safety.running_in and gc_safety.here() else active_cell.set([scope])


def close_scope(scope: RunScope, token: Token[Cell | None] | None) -> bool:
    """End a run's scope; False where this is not the context that it was opened in.

    What is still in flight in it is drained as it ends.
    """
    scope.ended = True
    _settle_ambient()
    if token is None or (gc_safety.running_in and gc_safety.here()):
        return False
    try:
        active_cell.reset(token)
    except ValueError:
        # an async generator or fixture closed elsewhere: it is not current here
        return False
    return True


def remote_run_scope(pipeline: str, run_id: str) -> RunScope:
    """Return the scope here of a run that goes on in another process.

    A child that was forked during the run has it; else it is made. It never becomes ambient, and
    the oldest is forgotten where many runs come by.
    """
    for scope in list(scopes):
        if scope.run_id == run_id:
            return scope
    found = _visited.get(run_id)
    if found is None:
        found = RunScope(pipeline, run_id)
        found.ended = True
        found = _visited.setdefault(run_id, found)
        ended_scopes.add(found)
        while len(_visited) > VISITED_BOUND:
            # what is still at work in it is drained all the same
            _visited.pop(next(iter(_visited)), None)
    return found


def _settle_ambient() -> None:
    """Work that has lost its context, as threads have, belongs to the only run there is."""
    global default_scope  # read on the hot path, written here only
    running = [s for s in list(scopes) if s is not process_scope and not s.ended]
    default_scope = running[0] if len(running) == 1 else process_scope


def all_series() -> Iterator[Series]:
    """Go through every series of every scope that is not forgotten yet."""
    for scope in (*list(scopes), *list(ended_scopes)):
        yield from list(scope.series.values())


@forking.in_child
def reset_after_fork() -> None:
    """Start a child from zero: what the parent measured, or began, is the parent's to report."""
    for scope in (*list(scopes), *list(ended_scopes)):
        scope.queues.clear()
        scope.workers.clear()
        # What ends now but began in the parent is appended to a series that nobody drains.
        scope.series.clear()

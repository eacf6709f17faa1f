"""Keep pending results, in a series for each stage of each scope.

The hot path only appends to a series; `drain` flushes it to the sinks.
"""

from __future__ import annotations

from contextvars import ContextVar
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, hooks, nesting, overlap
from otel_pipeline_metrics._core.account import Account, Sample
from otel_pipeline_metrics._core.limit_series import LimitSeries, LimitUse
from otel_pipeline_metrics._core.observed import QueueSeries, WorkerTimes
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import StageKey
from otel_pipeline_metrics._core.shares import Shares
from otel_pipeline_metrics._core.span_budget import SpanBudget
from otel_pipeline_metrics._core.stage_id import RUNS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from otel_pipeline_metrics._core.hooks import PartsOfRun
    from otel_pipeline_metrics._core.records import EventTime, Sink, StageResult
    from otel_pipeline_metrics._core.stage_id import StageId

    Key = tuple[StageId | None, frozenset[Hashable], StageId]

# Results that a series keeps before the thread that adds one more flushes them.
PENDING_BOUND: Final = 1024

# Pairs of caller and stage, inside of the same stages, that a run distinguishes.
MAX_PAIRS: Final = 4000


class Series:
    """The calls of one stage from one caller in one scope, inside of the same stages.

    The caller is the stage inside of which they were called, or none. So the time of all calls
    inside a stage is known without a look at each of them, and whether they are inside of a call
    of their own stage.
    """

    __slots__ = (
        "account", "around", "attributes", "budget", "cache", "called", "caller", "correction",
        "drawn_one_in", "due", "durations", "event_times", "exemplars", "inside_of", "kept", "key",
        "limits", "mean_s", "one_in", "plain", "pulled", "results", "returned", "runs", "sampled",
        "samples", "scope", "sizes", "slow_from", "slowest", "stage", "times", "turns",
        "until_due", "until_sample", "whole",
    )  # fmt: skip

    def __init__(self, scope: RunScope, stage: StageId, around: Series | None) -> None:
        self.scope = scope
        self.stage = stage
        # of the caller, and the identities of that stage and those that it is inside of
        self.around = around
        self.inside_of = _identities(around)
        # shared by the stage's series
        self.budget = scope.budgets.get(stage.identity) or scope.budgets.setdefault(
            stage.identity, SpanBudget()
        )
        self.times = scope.times.get(stage.identity) or scope.times.setdefault(
            stage.identity, WorkerTimes(StageKey(scope.pipeline, stage.name, stage.kind))
        )
        self.caller = None if around is None else around.stage
        # whether all of its calls' time runs, and counts: no other call of the stage is around
        self.runs = stage.form in RUNS and stage.identity not in self.inside_of
        self.key = self.times.key
        self.attributes = stage.attributes
        # The stages called inside of this one. A generator of another run, which this one pulls, is
        # there under its own series.
        self.called: dict[StageId | Series, Series] = {}
        # the `due` of those, for the hot path
        self.turns: dict[StageId, Iterator[Series]] = {}
        # Of a generator: the time of its steps by who pulled them, if not outside of stages, and of
        # such a series the one that has the results.
        self.pulled: list[Series] = []
        self.whole: Series | None = None
        # of calls with only a duration: their seconds, see `Batch.durations`
        self.durations: list[float] = []
        # of those calls: the items that came out, see `Batch.sizes`
        self.sizes: list[int] = []
        # with the details of each, None of one that the program measured
        self.results: list[tuple[StageResult, Any]] = []
        # of calls in progress too, so that a call without end keeps a bounded number
        self.event_times: list[EventTime] = []
        # The calls in progress by identity, but for those that the hot path began while none
        # overlapped: they are one in the other, so `nesting` finds them.
        self.kept: dict[int, Cell] = {}
        # This series, for each call until more is due than its duration: a sample or a flush.
        self.due: Iterator[Series] = iter(())
        # calls until the next sample after those
        self.until_due = 0
        # one call in so many is a sample, on average
        self.one_in = 8
        # the same as it was when the next sample was drawn; the first one was not
        self.drawn_one_in = 1
        # of a generator: its steps until the next sample
        self.until_sample = 0
        # samples so far, and about the mean of their durations
        self.sampled = 0
        self.mean_s = 0.0
        self.samples: list[Sample] = []
        # seconds to add to the time not spent in other stages, see `nesting`
        self.correction = 0.0
        # sums that only the holder of the drain lock changes
        self.account = Account()
        # for the tracer: span attributes that are the same for every call
        self.cache: Any = None
        # by bucket: one of `durations` with a sampled span, and its context
        self.exemplars: dict[int, tuple[float, Any]] = {}
        # the same of the slowest of them since the last batch, and how slow a call must be
        self.slowest: list[tuple[float, Any]] = []
        self.slow_from = 0.0
        self.limits = self.times.limits
        # of a plain function: the type of a result that was there when it returned, and all such
        # types by their identity
        self.returned: type = object
        self.plain: dict[int, type] = {}

    def let_pass(self, calls: int) -> None:
        """Let so many calls report their duration only."""
        self.due = repeat(self, calls)
        self.give_turns(self.scope if self.around is None else self.around)

    def give_turns(self, caller: Series | ScopeRef | RunScope) -> None:
        """Have the hot path find this series, for calls from one caller, until more is due."""
        coming = hooks.tracing_to_come
        turns = self.due if coming is None else coming.until_it_comes(self, self.due)
        caller.turns[self.stage] = turns

    def add_limit(self, name: str) -> LimitUse:
        """Return what this stage did at a limit, made if need be."""
        return self.times.add_limit(name, self.scope)

    @property
    def variants(self) -> list[Series]:
        """The series of this stage, of every form and caller."""
        return self.times.variants or [self]

    @property
    def pending(self) -> bool:
        """Whether results wait for the next flush."""
        return bool(self.durations or self.results or self.sizes or self.event_times)

    @property
    def active(self) -> int:
        """The number of calls in progress."""
        return len(self._in_progress())

    @property
    def open(self) -> list[Cell]:
        """The cells of the calls in progress."""
        return [*self._in_progress().values()]

    def _in_progress(self) -> dict[int, Cell]:
        nested = not_kept(self.scope)
        own = nested and {id(cell): cell for cell in nested if cell[0] is self}
        # read last, since another thread may move a call there
        return {**own, **self.kept} if own else self.kept

    def remove(self, cell: Cell) -> None:
        """Remove a call that is over, see `kept`; again does nothing."""
        self.kept.pop(id(cell), None)


# Python makes a new one each time it is asked for an empty one.
_NO_IDENTITIES: Final[frozenset[Hashable]] = frozenset()


def _identities(around: Series | None) -> frozenset[Hashable]:
    """Return the identities of a stage and of those around it."""
    if around is None:
        return _NO_IDENTITIES
    own: Hashable = around.stage.identity
    return around.inside_of if own in around.inside_of else around.inside_of | {own}


def _key_of(stage: StageId, around: Series | None) -> Key:
    return None if around is None else around.stage, _identities(around), stage


class RunScope:
    """What calls belong to: a run, or the process outside a run."""

    __slots__ = (
        "around", "budgets", "called", "correction", "ended", "inherited", "limits",
        "on_resources", "parts", "pipeline", "pools", "queues", "released", "remote", "run_id",
        "series", "shares", "sinks", "times", "turns", "workers",
    )  # fmt: skip

    def __init__(
        self, pipeline: str | None = None, run_id: str | None = None, sinks: tuple[Sink, ...] = ()
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.sinks = sinks
        # by caller, None outside of stages, the identities of the stages around, and stage
        self.series: dict[Key, Series] = {}
        # by the stage's identity: its budget of spans, and the time of its workers
        self.budgets: dict[Hashable, SpanBudget] = {}
        self.times: dict[Hashable, WorkerTimes] = {}
        # like those of a series, for the calls outside of stages
        self.called: dict[StageId | Series, Series] = {}
        self.turns: dict[StageId, Iterator[Series]] = {}
        self.correction = 0.0
        self.shares = Shares()
        self.queues: dict[str, QueueSeries] = {}
        # by name: what happened at limits outside of stages, with a reference to all the rest
        self.limits: dict[str, LimitUse] = {}
        # the pools of `workers()` that were entered in this run
        self.pools: list[Any] = []
        # by number: the workers that have used a queue or a stage here
        self.workers: dict[int, Any] = {}
        # whether another process began it, and whether this one is a fork of that
        self.remote = False
        self.inherited = False
        self.ended = False
        # whether its report is made: then it is forgotten while no call is in progress
        self.released = False
        # takes (CPU utilisation, RSS in bytes) that the program measured itself
        self.on_resources: Callable[[float, float], None] | None = None
        # of a run in another process: the context in which spans without one begin
        self.around: Any = None
        # of a run in this process: what takes parts that other processes measured
        self.parts: PartsOfRun | None = None

    def add(self, stage: StageId, around: Series | None = None) -> Series:
        """Return the series of `stage`, made if need be.

        Args:
            stage: the one that is called.
            around: the series of the stage that it is called in; None outside of stages.
        """
        # a task or thread goes on with a run that was forgotten
        if self not in scopes:
            scopes.setdefault(self, root_cell(self))
        found = self.series.get(_key_of(stage, around))
        if found is not None:
            return found
        if len(self.series) >= MAX_PAIRS:
            around = None
        made = self.series.setdefault(_key_of(stage, around), Series(self, stage, around))
        if made not in made.times.variants:
            made.times.variants.append(made)
        return made

    def forget(self) -> None:
        """Forget all series; they refer to each other and to this, so they would stay."""
        for worker in self.workers.values():
            worker.plain = False
        for outside in self.limits.values():
            outside.by_stage.clear()
            outside.limit.uses.clear()
        for series in self.series.values():
            series.times.variants.clear()
            for each in (series, *series.pulled):
                each.called.clear()
                each.turns.clear()
                each.due = iter(())
                each.account = Account()
            series.pulled.clear()
        for kept in (
            self.series, self.called, self.turns, self.budgets, self.times, self.queues,
            self.limits, self.pools, self.workers, self.shares.outlived,
        ):  # fmt: skip
            kept.clear()

    def add_queue(self, name: str) -> QueueSeries:
        """Return the series of a queue, made if need be."""
        if self not in scopes:
            scopes.setdefault(self, root_cell(self))
        return self.queues.get(name) or self.queues.setdefault(name, QueueSeries(name))

    def add_limit(self, name: str) -> LimitUse:
        """Return what happened at a limit outside of stages, made if need be."""
        if self not in scopes:
            scopes.setdefault(self, root_cell(self))
        made = LimitUse(LimitSeries(name), None)
        return self.limits.get(name) or self.limits.setdefault(name, made)


class ScopeRef:
    """What a run's cell begins with, in place of a series.

    A scope that referred to itself would be a reference cycle.
    """

    __slots__ = ("called", "limits", "outer", "scope", "turns")

    def __init__(self, scope: RunScope, outer: Cell | None = None) -> None:
        self.scope = scope
        self.called = scope.called
        self.turns = scope.turns
        self.limits = scope.limits
        # what is current again when the run has ended
        self.outer = outer

    def add_limit(self, name: str) -> LimitUse:
        """Return what happened at a limit outside of stages, made if need be."""
        return self.scope.add_limit(name)


# What is current, a call or a run:
#   0 the call's series, or the run's ScopeRef
#   1 the token that makes it current no more; None once the call is over, or while it has yielded
#   2 when it began or was resumed
#   3 its execution; None until it has more to report than its duration
#   4 the cell around it; None of a run
#   5 the call that is open inside of it, if any, or an `Overlap`
#   6 the sample that it is
#   7 its worker, if waits are known
#   8, 9, 10 its open span, the context with that span and, while current, the context around it
# Why it is a list: docs/architecture.md.
Cell = list[Any]

CELL_WITHOUT_SPAN: Final = 8  # the length of a call's cell


def root_cell(scope: RunScope, outer: Cell | None = None) -> Cell:
    """Return what is current in a run outside of stages."""
    return [ScopeRef(scope, outer), True, 0.0, None, None, None, None, None]


active_cell: ContextVar[Cell | None] = ContextVar("opm_current", default=None)

process_scope = RunScope()

# The process, runs in progress, and runs that are over with calls in progress or pending; each
# with the cell for calls outside of stages.
scopes: dict[RunScope, Cell] = {process_scope: root_cell(process_scope)}

# The scope of work without a context: the run in progress if there is exactly one.
default_scope = process_scope
default_cell = scopes[process_scope]


def add(cell: Cell, stage: StageId) -> Series:
    """Return the series of a stage called inside of a call or a run, made if need be."""
    caller, scope = cell[0], cell[0].scope
    if scope not in scopes:
        # a task or thread goes on with a run that was forgotten
        scopes.setdefault(scope, overlap.root_of(cell))
    found: Series = scope.add(stage, caller if isinstance(caller, Series) else None)
    caller.called[stage] = found
    return found


def cell_of_due(parent: Cell, stage: StageId) -> Cell:
    """Return the cell of a call inside of a call or a run, which `turns` has no turn for."""
    if hooks.tracing_to_come is not None:
        hooks.tracing_to_come.look()
    series = parent[0].called.get(stage) or add(parent, stage)
    return [series, True, 0.0, None, parent, None, None, None]


def goes_on(cell: Cell | None) -> Cell:
    """Return the innermost cell, from `cell` outwards, whose call is not over.

    A generator between items is not: what a task of its earlier steps calls is inside of it.
    """
    while cell is not None and cell[1] is None:
        if cell[3] is not None and cell[3].entry is not None:
            nesting.let_in(cell, clock.now())
            break
        cell = cell[4]
    return default_cell if cell is None else cell


def current_scope() -> RunScope:
    """Return the scope that a call made here belongs to."""
    found = active_cell.get()
    scope: RunScope = default_scope if found is None else found[0].scope
    return scope


def not_kept(scope: RunScope) -> list[Cell]:
    """Return the calls in progress of a scope that their series do not keep."""
    root = scopes.get(scope)
    return [] if root is None or root[5] is None else nesting.one_in_the_other(root)


def all_series() -> Iterator[Series]:
    """Yield every series of every scope that is still known."""
    for scope in list(scopes):
        yield from list(scope.series.values())


@forking.in_child
def reset_after_fork() -> None:
    """Start a child from zero: the parent reports what it measured or began."""
    for scope in list(scopes):
        # a call that began in the parent and ends here goes to a series that is never flushed
        scope.forget()
        scope.inherited = scope is not process_scope
        scope.parts = None

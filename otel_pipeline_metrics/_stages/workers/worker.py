"""`Worker`: a task or thread that runs stages, and its time in three states."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import TimeInStates, WaitState
from otel_pipeline_metrics._stages import execution as _execution

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import QueueSeries, RunScope, Series
    from otel_pipeline_metrics._stages.execution import Execution
    from otel_pipeline_metrics._stages.workers.links import LateLinks, Links


State = Literal["busy", "idle", "blocked"]

# Workers counted separately at one stage: a task for each item would make an endless number.
MAX_WORKERS: Final = 256

_numbers = itertools.count()

# The first number of this process; lower ones belong to the process it was forked from.
_first_number = 0


class OpenWait:
    """A wait in progress of one worker."""

    __slots__ = ("by", "level", "state", "worker")

    def __init__(self, worker: Worker, state: WaitState) -> None:
        self.worker = worker
        self.state: WaitState = state
        # the stage that waits: the worker waits only while this is its innermost stage
        self.level = worker.inside()
        # the task or thread that the wait happens in
        self.by = owner_here()


class Worker:
    """One task or thread at work in one scope, with the threads that work for it."""

    __slots__ = (
        "context", "got_from", "late", "lendable", "links", "mark", "met_queue", "number", "owner",
        "pending", "queue_since", "scope", "stack", "stage", "waits",
    )  # fmt: skip

    def __init__(self, owner: object, scope: RunScope) -> None:
        self.owner = owner
        self.scope = scope
        self.number = next(_numbers)
        # its time is shared out until then
        self.mark = clock.now()
        # the stages in progress, the innermost last
        self.stack: list[Execution] = []
        # the waits in progress, seldom more than one
        self.waits: list[OpenWait] = []
        # the outermost stage it is in, or the one it left last
        self.stage: Series | None = None
        # time of the stage that it enters next: waits for input; before the first one, all
        self.pending = TimeInStates()
        # the queues it got from since it last entered a stage
        self.got_from: dict[str, QueueSeries] = {}
        self.links: Links | None = None
        self.late: LateLinks = {}
        # the span context of the stage it left last, for items that it puts afterwards
        self.context: Any = None
        # whether its waits are known, and so the shares of its stages
        self.met_queue = False
        # the same since it last left a stage
        self.queue_since = False
        # whether a thread that its task waits for counts as this worker
        self.lendable = True

    @property
    def is_parents(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self.number < _first_number

    def account_until(self, now: float) -> None:
        """Share out the time until `now`."""
        seconds = now - self.mark
        if seconds <= 0.0:
            return
        self.mark = now
        state = self.state() if self.waits else "busy"
        if not self.stack:
            if self.stage is not None or self.queue_since:
                _count(self._outside(state), state, seconds)
            return
        for depth, execution in enumerate(self.stack):
            if state == "idle":
                execution.idle += seconds
                execution.duration_only = False
            elif state == "blocked":
                execution.blocked += seconds
                execution.duration_only = False
            series = execution.series and execution.series.main
            # a stage inside itself: its worker's time counts once
            if series is None or (depth and series in _mains(self.stack[:depth])):
                continue
            _count(states_of(series, self), state, seconds)

    def state(self) -> State:
        """Return the state it is in."""
        innermost = self.stack[-1] if self.stack else None
        for wait in reversed(self.waits):
            if wait.level is innermost:
                return wait.state
        return "busy"

    def _outside(self, state: State) -> TimeInStates:
        """Return the time in states that time outside of stages is added to."""
        if state == "idle" or self.stage is None:
            return self.pending
        return states_of(self.stage, self)

    def inside(self) -> Execution | None:
        """Return the innermost execution if this worker runs it."""
        execution = _execution.executing()
        return execution if execution is not None and execution.worker is self else None

    def mark_waits_seen(self, *, leaving: bool) -> None:
        """Record that this worker's waits, and so the shares of its stages, are known.

        Args:
            leaving: whether it still works for the stage it left last, and not for the next one.
        """
        self.met_queue = self.queue_since = True
        for execution in self.stack:
            if execution.series is not None:
                execution.series.main.queued = True
        if leaving and not self.stack and self.stage is not None:
            self.stage.queued = True

    def discard_time(self, now: float) -> None:
        """Count the time outside of stages until `now` for no stage."""
        if self.stack:
            return
        self.mark = now
        if self.stage is None:
            self.pending = TimeInStates()
            self.met_queue = self.queue_since = False

    def entered(self, series: Series, now: float) -> None:
        """Enter a stage, and count the time for it that was spent before."""
        series = series.main
        if self.stage is None or self.stage is series or self.queue_since:
            self.account_until(now)
        self.mark = now
        self.queue_since = False
        series.queued = series.queued or self.met_queue
        self.stage = series
        self.give_pending()
        if self.got_from:
            for queue in self.got_from.values():
                queue.consumers[series.key.stage] = None
            self.got_from.clear()

    def give_pending(self) -> None:
        """Add the pending time to the stage that it is in or left last."""
        if self.stage is None:
            return
        time, pending = states_of(self.stage, self), self.pending
        add_time(time, pending)
        pending.busy = pending.idle = pending.blocked = 0.0


def _mains(stack: list[Execution]) -> list[Series]:
    return [each.series.main for each in stack if each.series is not None]


def _count(time: TimeInStates, state: State, seconds: float) -> None:
    # written out: a call could let another thread run in between
    if state == "busy":
        time.busy += seconds
    elif state == "idle":
        time.idle += seconds
    else:
        time.blocked += seconds


def states_of(series: Series, worker: Worker) -> TimeInStates:
    """Return the time in states of a worker at a stage, made if need be."""
    states = series.states
    time = states.get(worker.number)
    if time is None:
        number = worker.number if len(states) < MAX_WORKERS else None
        time = states.setdefault(number, TimeInStates())
    return time


def owner_here() -> int | tuple[int]:
    """Return the running task's identity; outside a task, the thread's in a tuple.

    A task is one of asyncio or trio. A greenlet of gevent counts as a thread.
    """
    modules = sys.modules
    asyncio = modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()  # noqa: SLF001 - public in asyncio.events' docs
        if loop is not None:
            task = asyncio.current_task(loop)
            if task is not None:
                return id(task)
    if "trio" in modules or "gevent" in modules:
        return _trio_or_gevent_owner()
    return (threading.get_ident(),)


def in_task() -> bool:
    """Tell whether a task runs this code, and not a thread or greenlet of its own."""
    return isinstance(owner_here(), int)


def _trio_or_gevent_owner() -> int | tuple[int]:
    trio, gevent = sys.modules.get("trio"), sys.modules.get("gevent")
    # AttributeError: another thread is importing the module
    if trio is not None:
        try:
            return id(trio.lowlevel.current_task())
        except (AttributeError, RuntimeError):
            # RuntimeError: this thread runs no trio task
            pass
    if gevent is not None:
        try:
            greenlet = gevent.getcurrent()
        except AttributeError:
            pass
        else:
            # a thread's main greenlet has no parent; it keeps the owner it had before the import
            if greenlet.parent is not None:
                return (id(greenlet),)
    return (threading.get_ident(),)


def add_time(time: TimeInStates, more: TimeInStates) -> None:
    """Add `more` to `time`."""
    time.busy += more.busy
    time.idle += more.idle
    time.blocked += more.blocked
    time.between += more.between
    time.is_task = time.is_task or more.is_task


@forking.in_child
def _forget_parent() -> None:
    """Mark the workers that exist as the parent's."""
    global _first_number
    _first_number = next(_numbers)

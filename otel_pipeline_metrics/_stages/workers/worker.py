"""`Worker`: a task or thread that runs stages, and the log of what it did."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import drain, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import TimeInStates, WaitState
from otel_pipeline_metrics._stages.execution import Execution

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.series import Cell, RunScope, Series
    from otel_pipeline_metrics._stages.workers.links import LateLinks, Links


State = Literal["busy", "idle", "blocked"]

# What happened, as the log has it: (`clock.now()`, one of these, and what its comment names).
Event = tuple[float, int, Any, Any]
ENTER: Final = 0  # series; None
EXIT: Final = 1  # series; None
# the queue's name, None for a sentinel; the series of the call that it happened in
GOT: Final = 2
PUT: Final = 3
PUT_FOR: Final = 4  # the same, in the call of another worker
WAIT: Final = 5  # the state that begins or None; the state that the worker is in now
WAITED_TO_PUT: Final = 6  # None; None
JOINED: Final = 7  # None; None
TICK: Final = 8  # None; None

# Workers counted separately at one stage: a task for each item would make an endless number.
MAX_WORKERS: Final = 256

# The `context` of a worker that has not left a stage yet.
NO_STAGE: Final = object()

_numbers = itertools.count()

# The first number of this process; lower ones belong to the process it was forked from.
_first_number = 0

_running_loop = asyncio._get_running_loop  # noqa: SLF001 - public in asyncio.events' docs

# The task of each loop that runs one now, in any thread.
_tasks: Any = getattr(asyncio.tasks, "_current_tasks", {None: None})

# Before 3.12 the public function is written in Python, at three times the cost.
task_of: Callable[[Any], object] = (
    asyncio.current_task if sys.version_info >= (3, 12) else _tasks.get
)


class OpenWait:
    """A wait in progress of one worker."""

    __slots__ = ("by", "level", "state", "worker")

    def __init__(self, worker: Worker, state: WaitState) -> None:
        self.worker = worker
        self.state: WaitState = state
        # the call that waits: the worker waits only while this is its innermost call
        self.level = worker.inside()
        # the task or thread that the wait happens in
        self.by = owner_here()


class Account:
    """What the events of a worker's log so far have led to; see `replay`."""

    __slots__ = (
        "got_from", "mark", "met_queue", "opened", "pending", "queue_since", "stage", "state",
        "times",
    )  # fmt: skip

    def __init__(self) -> None:
        # its time is shared out until then; None before its first event
        self.mark: float | None = None
        # the stages of its calls in progress, the innermost last
        self.opened: list[Series] = []
        # the outermost stage it is in, or the one it left last
        self.stage: Series | None = None
        self.state: State = "busy"
        self.times: dict[Series, TimeInStates] = {}
        # time of the stage that it enters next: waits for input; before the first one, all
        self.pending = TimeInStates()
        # the queues it got from since it last entered a stage
        self.got_from: dict[str, None] = {}
        # whether its waits are known, and so the shares of its stages
        self.met_queue = False
        # the same since it last left a stage
        self.queue_since = False


class Worker:
    """One task or thread at work in one scope, with the threads that work for it."""

    __slots__ = (
        "account", "context", "late", "lendable", "links", "log", "loop", "number", "owner",
        "plain", "scope", "stack", "thread", "wait_mark", "waits",
    )  # fmt: skip

    def __init__(self, owner: object, scope: RunScope) -> None:
        self.owner = owner
        self.thread = threading.get_ident()
        # of the asyncio task that it is
        self.loop = _running_loop() if isinstance(owner, int) else None
        self.scope: RunScope | None = scope
        self.number = next(_numbers)
        # what happened since the last flush; others append at the end, see `drain`
        self.log: list[Event] = []
        self.account = Account()
        # the calls in progress, the innermost last
        self.stack: list[Cell] = []
        # the waits in progress, seldom more than one
        self.waits: list[OpenWait] = []
        # the time of waits is added to the calls until then
        self.wait_mark = 0.0
        # Whether an event only has to be appended to the log: there is no wait in progress, its
        # own task or thread made its calls, and the scope knows it.
        self.plain = False
        self.links: Links | None = None
        self.late: LateLinks = {}
        # the span context of the stage it left last, for items that it puts afterwards
        self.context: Any = NO_STAGE
        # whether a thread that its task waits for counts as this worker
        self.lendable = True

    @property
    def is_parents(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self.number < _first_number

    @property
    def is_task(self) -> bool:
        """Whether it is a task of asyncio or trio, and not a thread or a greenlet."""
        return isinstance(self.owner, int)

    def note(self, at: float, kind: int, what: Any = None, more: Any = None) -> None:
        """Append an event to the log, whatever state this worker is in."""
        scope = self.scope
        if scope is None or self.is_parents:
            return
        self.log.append((at, kind, what, more))
        if self.number not in scope.workers:
            self._enlist(scope)
        if len(self.log) >= drain.PENDING_BOUND:
            drain.drain_workers(scope)

    def _enlist(self, scope: RunScope) -> None:
        scope.workers[self.number] = self
        # seldom, so that many workers at a time are not looked at again for each new one
        if len(scope.workers) % MAX_WORKERS == 0:
            drain.drain_workers(scope)

    def settle(self) -> None:
        """Tell whether later events only have to be appended."""
        self.plain = (
            not self.waits
            and self.scope is not None
            and not self.is_parents
            and self.number in self.scope.workers
            and all(opener_of(cell) == self.owner for cell in self.stack)
        )

    def state(self) -> State:
        """Return the state it is in."""
        innermost = self.stack[-1] if self.stack else None
        for wait in reversed(self.waits):
            if wait.level is innermost:
                return wait.state
        return "busy"

    def count_wait(self, now: float) -> None:
        """Add the time of waits until `now` to the calls in progress."""
        seconds, self.wait_mark = now - self.wait_mark, max(now, self.wait_mark)
        state = self.state()
        if seconds <= 0.0 or state == "busy":
            return
        for cell in self.stack:
            execution: Execution = cell[3] or Execution(cell)
            cell[3] = execution
            execution.duration_only = False
            if state == "idle":
                execution.idle += seconds
            else:
                execution.blocked += seconds

    def inside(self) -> Cell | None:
        """Return the innermost call if this worker runs it."""
        cell = current_call()
        return cell if cell is not None and cell[4] is self else None


def current_call() -> Cell | None:
    """Return the call in progress that this code belongs to."""
    cell = series.active_cell.get()
    return None if cell is None or len(cell) == 1 or cell[1] is None else cell


def opener_of(cell: Cell) -> object:
    """Return the task or thread that runs a call of a worker."""
    execution: Execution | None = cell[3]
    if execution is not None and execution.opener is not None:
        return execution.opener
    return cell[4].owner


def owner_here() -> int | tuple[int]:
    """Return the running task's identity; outside a task, the thread's in a tuple.

    A task is one of asyncio or trio. A greenlet of gevent counts as a thread.
    """
    # asking for the loop costs more than the rest
    if _tasks:
        loop = _running_loop()
        if loop is not None:
            task = task_of(loop)
            if task is not None:
                return id(task)
    modules = sys.modules
    if "trio" in modules or "gevent" in modules:
        return _trio_or_gevent_owner()
    return (threading.get_ident(),)


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


@forking.in_child
def _forget_parent() -> None:
    """Mark the workers that exist as the parent's."""
    global _first_number
    _first_number = next(_numbers)

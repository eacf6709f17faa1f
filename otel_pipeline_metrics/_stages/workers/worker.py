"""`Worker`: a task or thread that runs stages, and the log of what it did."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import drain, nesting, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._stages.execution import execution_of
from otel_pipeline_metrics._stages.workers.account import ENTER, MAX_WORKERS, STEPS, Account

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.observed import WorkerTimes
    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._core.series import Cell, RunScope
    from otel_pipeline_metrics._stages.execution import Execution, Pulled
    from otel_pipeline_metrics._stages.workers.account import Event, State
    from otel_pipeline_metrics._stages.workers.links import LateLinks, Links


# The `context` of a worker that has not left a stage yet.
NO_STAGE: Final = object()

_numbers = itertools.count()

# The first number of this process; lower ones belong to the process it was forked from.
_first_number = 0

_running_loop = asyncio._get_running_loop

# The task of each loop that runs one now, in any thread.
tasks: Any = getattr(asyncio.tasks, "_current_tasks", {None: None})

# Before 3.12 the public function is written in Python, at three times the cost.
task_of: Callable[[Any], object] = (
    asyncio.current_task if sys.version_info >= (3, 12) else tasks.get
)


class OpenWait:
    """A wait in progress of one worker."""

    __slots__ = ("at", "by", "level", "since", "start", "state", "worker")

    def __init__(self, worker: Worker, state: WaitState, now: float) -> None:
        self.worker = worker
        self.state: WaitState = state
        self.since = now
        # the counts of the queue or limit that will have this wait once it is over
        self.at: object = None
        # of a task of an executor: the wait is over once that has begun, at `start.at`
        self.start: Any = None
        # the call that waits: the worker waits only while this is its innermost call
        self.level = worker.inside()
        # the task or thread that the wait happens in
        self.by = owner_here()


class Run:
    """Steps of a generator that a worker pulls one after the other, with no other event between.

    They are logged as one event at the end, and what they were so far is read at each flush.
    """

    __slots__ = (
        "base", "began", "between", "execution", "part", "tasks", "thread", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, execution: Execution, part: Pulled) -> None:
        self.worker = worker
        # None once it is over
        self.thread: int | None = worker.thread
        # empty while the thread tells which worker runs this code
        self.tasks: Any = (True,) if {"trio", "gevent"} & sys.modules.keys() else tasks
        self.execution = execution
        # the time of its steps, also of those before
        self.part = part
        self.base = part.open_s
        self.began = part.ended
        # seconds between the steps that the account of the worker has: of the flushing thread
        self.between = 0.0

    @property
    def over(self) -> bool:
        """Whether its steps are logged."""
        return self.thread is None

    def is_here(self) -> bool:
        """Tell whether this code is run by the worker's own task or thread."""
        return self.worker.owner == owner_here()

    def event(self) -> Event:
        """Return what the log says of the steps so far."""
        part = self.part
        return part.ended, STEPS, self, part.open_s - self.base, self.began

    def end(self) -> None:
        """Log the steps; one that is in progress is a call like others."""
        worker, cell = self.worker, self.execution.cell
        if self.over:
            return
        if cell[1] is not None and cell[7] is worker:
            worker.stack.append(cell)
            worker.told = None
        # Twice is harmless: a signal handler may raise here, and a thread that pulls the next item
        # may do the same.
        worker.log.append(self.event())
        worker.run = self.execution.run = self.thread = None


class Worker:
    """One task or thread at work in one scope, with the threads that work for it."""

    __slots__ = (
        "account", "context", "late", "lendable", "links", "log", "loop", "number", "owner",
        "plain", "resting", "run", "scope", "stack", "stage", "thread", "told", "wait_mark",
        "waits",
    )  # fmt: skip

    def __init__(self, owner: object, scope: RunScope) -> None:
        self.owner = owner
        self.thread = threading.get_ident()
        # of the asyncio task that it is
        self.loop = _running_loop() if isinstance(owner, int) else None
        self.scope = scope
        self.number = next(_numbers)
        # what happened since the last flush; others append at the end, see `drain`
        self.log: list[Event] = []
        self.account = Account(scope, self.number, is_task=self.is_task)
        # the calls in progress, the innermost last
        self.stack: list[Cell] = []
        # the outermost stage it is in, or the one it left last
        self.stage: WorkerTimes | None = None
        # the last call whose begin is logged: it is if anything happens before its end
        self.told: Cell | None = None
        # the waits in progress, seldom more than one
        self.waits: list[OpenWait] = []
        # the calls that are not open because of a wait
        self.resting: list[Cell] = []
        # the time of waits is added to the calls until then
        self.wait_mark = 0.0
        # Whether an event only has to be appended to the log: there is no wait in progress, its
        # own task or thread made its calls, and the scope knows it.
        self.plain = False
        # steps that are not logged one by one; any other event ends this
        self.run: Run | None = None
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

    def note(
        self, at: float, kind: int, what: Any = None, call: Any = None, began: float = 0.0
    ) -> None:
        """Append an event to the log, whatever state this worker is in."""
        if self.is_parents:
            return
        self.end_run()
        self.tell_begins()
        self.log.append((at, kind, what, call, began))
        self.enlist()
        if len(self.log) >= drain.PENDING_BOUND:
            drain.drain_workers(self.scope)

    def enlist(self) -> None:
        """Have the log flushed with those of the scope's other workers."""
        workers = self.scope.workers
        if self.number not in workers:
            workers[self.number] = self
            # not for each new worker, since this looks at all of them
            if len(workers) % MAX_WORKERS == 0:
                drain.drain_workers(self.scope)

    def tell_begins(self) -> None:
        """Log the begin of the calls in progress, before something happens in them."""
        if not self.stack or self.stack[-1] is self.told:
            return
        self.told = self.stack[-1]
        for cell in self.stack:
            # a begin that is logged twice counts once
            if cell[1] is not None:
                self.log.append((cell[2], ENTER, cell[0].times, id(cell), 0.0))
            else:
                # it is just about to begin: a signal handler or a destructor does this
                self.told = None

    def settle(self) -> None:
        """Tell whether later events only have to be appended."""
        self.plain = (
            not self.waits
            and self.run is None
            and not self.is_parents
            and self.number in self.scope.workers
            and all(opener_of(cell) == self.owner for cell in self.stack)
        )

    def begin_run(self, execution: Execution, part: Pulled) -> Run | None:
        """Have the next steps of a generator logged as one, if nothing else is in progress."""
        if not self.plain or self.stack or self.late:
            return None
        self.plain = False
        self.run = execution.run = Run(self, execution, part)
        return self.run

    def end_run(self) -> None:
        """Log the steps that were not logged one by one, before something else is."""
        if self.run is not None:
            self.run.end()

    def state(self) -> State:
        """Return the state it is in."""
        innermost = self.stack[-1] if self.stack else None
        for wait in reversed(self.waits):
            if wait.level is innermost:
                return wait.state
        return "busy"

    def count_wait(self, now: float) -> None:
        """Add the time of waits until `now` to the calls in progress."""
        since, self.wait_mark = self.wait_mark, max(now, self.wait_mark)
        seconds = now - since
        state = self.state()
        if seconds <= 0.0 or state == "busy":
            return
        for cell in self.stack:
            execution = execution_of(cell)
            execution.bare = False
            if state == "idle":
                execution.idle += seconds
            else:
                execution.blocked += seconds
            watch = cell[6]
            if watch is not None and watch.stepping is not None:
                # a wait that did not suspend it, such as that of a function that it calls
                watch.running -= max(0.0, now - max(since, watch.stepping))

    def rest(self, now: float) -> None:
        """Close the calls in progress while this worker waits, and open them again."""
        waits = self.state() != "busy"
        if waits == bool(self.resting):
            return
        if waits:
            self.resting = self.stack[:]
            for cell in reversed(self.resting):
                nesting.pause(cell, now)
        else:
            resting, self.resting = self.resting, []
            for cell in resting:
                if cell[1] is not None:
                    nesting.enter(cell, now)

    def inside(self) -> Cell | None:
        """Return the innermost call if this worker runs it."""
        cell = current_call()
        return cell if cell is not None and cell[7] is self else None


def current_call() -> Cell | None:
    """Return the call in progress that this code belongs to."""
    cell = series.active_cell.get()
    return None if cell is None or cell[4] is None or cell[1] is None else cell


def opener_of(cell: Cell) -> object:
    """Return the task or thread that runs a call of a worker."""
    execution = cell[3]
    if execution is not None and execution.opener is not None:
        return execution.opener
    return cell[7].owner


def in_task() -> bool:
    """Tell whether a task runs this code, and not a thread or greenlet of its own."""
    return isinstance(owner_here(), int)


def owner_here() -> int | tuple[int]:
    """Return the running task's identity; outside a task, the thread's in a tuple.

    A task is one of asyncio or trio. A greenlet of gevent counts as a thread.
    """
    # asking for the loop costs more than the rest
    if tasks:
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

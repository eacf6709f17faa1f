"""The time of each worker in three states: busy, idle, blocked.

A worker is the asyncio task or the thread that runs a stage. All of its time, from the first
we see of it, is shared out, so the three states add up to its wall time:

- idle: inside a get of an instrumented queue, waiting for input;
- blocked: inside a put of one, waiting for room, or in `waiting()`;
- busy: the rest, awaited I/O included.

Inside a stage it is the stage's. Outside, a wait for input belongs to the stage that the
worker enters next, and everything else to the stage it left last, so a worker loop that gets,
calls a stage and puts is told the same as a stage that does all three. Time between two
different stages with no queue in between is neither's. Nothing here runs before the first
queue is instrumented.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics import _clock, _hooks, _series
from otel_pipeline_metrics._model import TimeInStates, WaitState

if TYPE_CHECKING:
    from otel_pipeline_metrics._execution import Execution
    from otel_pipeline_metrics._series import Cell, QueueSeries, Scope, Series

MAX_WORKERS: Final = 256
"""Workers told apart at one stage; a task for each item would make an endless number."""

FIRST_LINKS: Final = 64
LAST_LINKS: Final = 63
"""Of many producers of a batch the first 64 and the last 63 are linked: the SDK takes 128."""

_numbers = itertools.count()
_worker: ContextVar[Worker | None] = ContextVar("opm_worker", default=None)


class Links:
    """The producers of what a worker has got since it last entered a stage."""

    __slots__ = ("dropped", "first", "last")

    def __init__(self) -> None:
        self.first: list[Any] = []
        self.last: deque[Any] = deque(maxlen=LAST_LINKS)
        self.dropped = 0

    def add(self, link: Any) -> None:
        """Keep a link, or count it where too many came before."""
        if len(self.first) < FIRST_LINKS:
            self.first.append(link)
            return
        if len(self.last) == LAST_LINKS:
            self.dropped += 1
        self.last.append(link)


class Worker:
    """One task or thread at work in one scope. Only that task or thread changes it."""

    __slots__ = (
        "context", "depth", "got_from", "links", "mark", "met_queue", "number", "owner",
        "pending_busy", "pending_idle", "scope", "stage", "waiting",
    )  # fmt: skip

    def __init__(self, owner: object, scope: Scope) -> None:
        self.owner = owner
        self.scope = scope
        self.number = next(_numbers)
        self.mark = _clock.now()
        """Until when its time outside of stages is shared out."""
        self.depth = 0
        self.stage: Series | None = None
        """The stage it is in, or left last."""
        self.pending_idle = 0.0
        """Waited for the input of the stage that it enters next."""
        self.pending_busy = 0.0
        """Spent before its first stage, which is that stage's."""
        self.waiting: tuple[WaitState, float] | None = None
        """The wait it is in now, and since when."""
        self.got_from: dict[str, QueueSeries] = {}
        """The queues it got from since it last entered a stage."""
        self.links: Links | None = None
        self.context: Any = None
        """The span context of the stage it left last, for what it puts."""
        self.met_queue = False

    def outside_until(self, now: float) -> None:
        """Share out the time outside of stages that was no wait."""
        self._share("busy", now - self.mark)
        self.mark = now

    def at_queue(self) -> None:
        """Note that this worker's waits can be seen: its stages' shares are known."""
        self.met_queue = True
        if self.stage is not None:
            self.stage.queued = True

    def _share(self, state: Literal["busy", "idle", "blocked"], seconds: float) -> None:
        if state == "idle":
            self.pending_idle += seconds
        elif self.stage is None:
            self.pending_busy += seconds
        else:
            time = states_of(self.stage, self)
            if state == "busy":
                time.busy += seconds
            else:
                time.blocked += seconds

    def waited_outside(self, state: WaitState, now: float) -> None:
        """Share out a wait outside of stages."""
        self._share(state, now - self.mark)
        self.mark = now

    def add_link(self, link: Any) -> None:
        """Remember a producer of what was got, for the stage that it is got for."""
        if self.links is None:
            self.links = Links()
        self.links.add(link)

    def entered(self, series: Series, now: float) -> None:
        """Give the stage what was spent for it before."""
        if self.stage is None or self.stage is series:
            self.outside_until(now)
        self.mark = now
        series.queued = series.queued or self.met_queue
        time = states_of(series, self)
        time.idle += self.pending_idle
        time.busy += self.pending_busy
        self.pending_idle = self.pending_busy = 0.0
        self.stage = series
        for queue in self.got_from.values():
            queue.consumers[series.key.stage] = None
        self.got_from.clear()


def states_of(series: Series, worker: Worker) -> TimeInStates:
    """Return where a worker's time at a stage is kept."""
    states = series.states
    time = states.get(worker.number)
    if time is None:
        number = worker.number if len(states) < MAX_WORKERS else None
        time = states.setdefault(number, TimeInStates())
    return time


def here(scope: Scope | None = None) -> Worker:
    """Return the worker that runs this code, made if need be."""
    owner = _owner()
    found = _series.executing()
    if found is not None and found.opener == owner and found.worker is not None:
        inside: Worker = found.worker
        return inside
    scope = scope or _series.current_scope()
    worker = _worker.get()
    if worker is not None and worker.scope is scope and _is_of(worker, owner):
        return worker
    worker = Worker(owner, scope)
    _worker.set(worker)
    if len(scope.workers) < MAX_WORKERS:
        scope.workers[worker.number] = worker
    return worker


def _owner() -> int | tuple[int]:
    """Return the running task's identity, or the thread's in a tuple where there is none."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()  # noqa: SLF001 - public in asyncio.events' docs
        if loop is not None:
            task = asyncio.current_task(loop)
            if task is not None:
                return id(task)
    return (threading.get_ident(),)


def _is_of(worker: Worker, owner: object) -> bool:
    if worker.owner == owner:
        return True
    # `asyncio.to_thread` runs with a copy of its task's context, and the task waits for it:
    # that thread does the task's work. With more than one at a time each is its own worker.
    return isinstance(owner, tuple) and not isinstance(worker.owner, tuple) and not worker.depth


class Accounting:
    """What the hot path calls once a queue is instrumented."""

    def opened(self, execution: Execution) -> None:
        """Give an execution the producers of what its worker got for it."""
        worker = here(execution.scope)
        links, worker.links = worker.links, None
        if links is not None:
            execution.links = (*links.first, *links.last)
            execution.links_dropped = links.dropped

    def resuming(self, execution: Execution, parent: Cell | None) -> None:
        """Begin to share out time to an execution, or go on after a pause."""
        now = _clock.now()
        execution.parent = parent
        execution.accounted = now
        execution.waited = execution.idle + execution.blocked
        worker = here(execution.scope)
        execution.worker = worker
        execution.opener = _owner()
        if worker.depth == 0 and execution.series is not None:
            worker.entered(execution.series, now)
        worker.depth += 1

    def paused(self, execution: Execution, now: float) -> None:
        """Share out the time since then: it ends, or pauses."""
        worker: Worker | None = execution.worker
        series = execution.series
        if worker is None or series is None:
            return
        waits = execution.idle + execution.blocked - execution.waited
        states_of(series, worker).busy += now - execution.accounted - waits
        execution.worker = None
        worker.depth -= 1
        if worker.depth == 0:
            worker.mark = now
            if execution.span is not None:
                worker.context = execution.span.get_span_context()

    def wait_begins(self, state: WaitState, now: float) -> Worker:
        """Let the worker here wait; return it."""
        worker = here()
        worker.at_queue()
        if worker.depth == 0:
            worker.outside_until(now)
        worker.waiting = (state, now)
        return worker

    def wait_ends(self, worker: Worker, state: WaitState, seconds: float, now: float) -> None:
        """Share out a wait."""
        worker.waiting = None
        if worker.depth == 0:
            worker.waited_outside(state, now)
        else:
            _waited_inside(worker, state, seconds)


def _waited_inside(worker: Worker, state: WaitState, seconds: float) -> None:
    """Count a wait for the stage it happened in, and for those around that one."""
    cell = _series.current.get()
    while cell is not None and len(cell) > 1:
        execution: Execution | None = cell[3]
        if execution is None:
            return
        series = execution.series
        if series is not None and execution.worker is worker:
            time = states_of(series, worker)
            series.queued = True
            execution.plain = False
            if state == "idle":
                execution.idle += seconds
                time.idle += seconds
            else:
                execution.blocked += seconds
                time.blocked += seconds
        cell = execution.parent


def snapshot(scope: Scope, now: float) -> dict[Series, dict[int | None, TimeInStates]]:
    """Return the time in states of every stage of a scope whose waits are seen, until `now`.

    What is not shared out yet is added: the wait that a worker is in, and what it waited for
    a stage that it has not entered, which goes to the one it left last. Changes nothing.
    """
    states = {
        series: {
            number: TimeInStates(time.busy, time.idle, time.blocked)
            for number, time in list(series.states.items())
        }
        for series in list(scope.series.values())
        if series.queued
    }
    for worker in list(scope.workers.values()):
        series = worker.stage
        if series is None or series not in states:
            continue
        number = worker.number if worker.number in states[series] else None
        time = states[series].setdefault(number, TimeInStates())
        time.idle += worker.pending_idle
        wait = worker.waiting
        if wait is not None:
            state, began = wait
            setattr(time, state, getattr(time, state) + max(0.0, now - began))
    return states


def skip() -> None:
    """Let the time since the worker here left its stage be nobody's."""
    worker = here()
    if worker.depth == 0:
        worker.mark = _clock.now()


def watch() -> None:
    """Begin to account; from now on the hot path calls here."""
    if _hooks.workers is None:
        _hooks.workers = Accounting()


_hooks.watch = watch

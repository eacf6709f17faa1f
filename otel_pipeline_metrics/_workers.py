"""The time of each worker in three states: busy, idle, blocked.

A worker is the asyncio task or the thread that runs a stage. All of its time, from the first
we see of it, is shared out, so the three states add up to its wall time:

- idle: inside a get of an instrumented queue, waiting for input;
- blocked: inside a put of one, waiting for room, or in `waiting()`;
- busy: the rest, awaited I/O included.

Inside a stage it is the stage's, and that of the stages around it. Outside, a wait for input
belongs to the stage that the worker enters next, and everything else to the stage it left
last, so a worker loop that gets, calls a stage and puts is told the same as a stage that does
all three. Before its first stage the time since its first get is that stage's, unless it puts:
what only feeds a queue, or hands on, is no stage. Time between two different stages with no
queue in between is neither's. Nothing here runs before the first queue is instrumented.

A wait need not happen in the task it is for: `asyncio.wait_for(queue.get(), 1)` has a task of
its own until Python 3.11, `asyncio.to_thread(queue.get)` a thread. The worker that asked is
the one that waits.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics import _clock, _draining, _guard, _hooks, _series
from otel_pipeline_metrics._execution import Execution
from otel_pipeline_metrics._model import TimeInStates, WaitState

if TYPE_CHECKING:
    from contextvars import Context

    from otel_pipeline_metrics._series import Cell, QueueSeries, Scope, Series

State = Literal["busy", "idle", "blocked"]

MAX_WORKERS: Final = 256
"""Workers told apart at one stage; a task for each item would make an endless number."""

FIRST_LINKS: Final = 64
LAST_LINKS: Final = 63
"""Of many producers of a batch the first 64 and the last 63 are linked: the SDK takes 128."""

_numbers = itertools.count()
_first_number = 0
"""Of the workers of this process; those before are of the process that it was forked from."""
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


class Wait:
    """A wait in progress, of one worker."""

    __slots__ = ("by", "level", "state", "worker")

    def __init__(self, worker: Worker, state: WaitState) -> None:
        self.worker = worker
        self.state: WaitState = state
        self.level = worker.inside()
        """The stage that waits: only while that is the worker's innermost, the worker does."""
        self.by = _owner()
        """The task or thread that it happens in."""


class Worker:
    """One task or thread at work in one scope, and whoever waits for it."""

    __slots__ = (
        "context", "got_from", "late", "lends", "links", "mark", "met_queue", "number", "owner",
        "pending", "queue_since", "scope", "stack", "stage", "waits",
    )  # fmt: skip

    def __init__(self, owner: object, scope: Scope) -> None:
        self.owner = owner
        self.scope = scope
        self.number = next(_numbers)
        self.mark = _clock.now()
        """Until when its time is shared out."""
        self.stack: list[Execution] = []
        """What it runs now, the innermost last."""
        self.waits: list[Wait] = []
        """Mostly one or none."""
        self.stage: Series | None = None
        """The outermost stage it is in, or the one it left last."""
        self.pending = TimeInStates()
        """Of the stage that it enters next: waits for input; before the first one, all."""
        self.got_from: dict[str, QueueSeries] = {}
        """The queues it got from since it last entered a stage."""
        self.links: Links | None = None
        self.late: dict[Execution, deque[Any]] = {}
        """Links of stages in progress that may not be the last ones of theirs."""
        self.context: Any = None
        """The span context of the stage it left last, for what it puts."""
        self.met_queue = False
        """Whether its waits can be seen, so that its stages' shares are known."""
        self.queue_since = False
        """The same since it last left a stage."""
        self.lends = True
        """Whether a thread that its task may wait for may be it."""

    def settle(self, now: float) -> None:
        """Share out the time until now."""
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
                execution.plain = False
            elif state == "blocked":
                execution.blocked += seconds
                execution.plain = False
            series = execution.series
            # a stage in itself: its worker's time passes once
            if series is None or (depth and series in [e.series for e in self.stack[:depth]]):
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
        """Return where time outside of stages goes."""
        if state == "idle" or self.stage is None:
            return self.pending
        return states_of(self.stage, self)

    def inside(self) -> Execution | None:
        """Return the stage of this worker that the code here is in."""
        execution = _series.executing()
        return execution if execution is not None and execution.worker is self else None

    def at_queue(self, *, leaving: bool) -> None:
        """Note that this worker's waits can be seen: its stages' shares are known.

        Args:
            leaving: whether it is done with the stage it left last, and not about to begin one.
        """
        self.met_queue = self.queue_since = True
        for execution in self.stack:
            if execution.series is not None:
                execution.series.queued = True
        if leaving and not self.stack and self.stage is not None:
            self.stage.queued = True

    def forget(self, now: float) -> None:
        """Let the time outside of stages until now be nobody's."""
        if self.stack:
            return
        self.mark = now
        if self.stage is None:
            self.pending = TimeInStates()
            self.met_queue = self.queue_since = False

    def add_link(self, link: Any) -> None:
        """Remember a producer of what was got, for the stage that it is got for."""
        if self.links is None:
            self.links = Links()
        self.links.add(link)

    def link_inside(self, execution: Execution, link: Any) -> None:
        """Link a stage in progress to a producer: at once, or when it ends or pauses."""
        if execution.span is None:
            return
        if len(execution.links) < FIRST_LINKS:
            execution.links = (*execution.links, link)
            execution.link(link)
            return
        late = self.late.get(execution)
        if late is None:
            room = max(0, FIRST_LINKS + LAST_LINKS - len(execution.links))
            late = self.late[execution] = deque(maxlen=room)
        if len(late) == late.maxlen:
            execution.links_dropped += 1
        late.append(link)

    def link_late(self, execution: Execution) -> None:
        """Link a stage to the producers that were the last, and say how many are left out."""
        late = self.late.pop(execution, None)
        if late is None:
            return
        execution.links = (*execution.links, *late)
        for link in late:
            execution.link(link)
        if execution.links_dropped and execution.span is not None:
            execution.span.drop_links(execution.links_dropped)

    def entered(self, series: Series, now: float) -> None:
        """Give the stage what was spent for it before."""
        if self.stage is None or self.stage is series or self.queue_since:
            self.settle(now)
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
        """Give the stage that it is in, or left last, what is pending."""
        if self.stage is None:
            return
        time, pending = states_of(self.stage, self), self.pending
        _add(time, pending)
        pending.busy = pending.idle = pending.blocked = 0.0


def _count(time: TimeInStates, state: State, seconds: float) -> None:
    # written out: no call in between, so that no thread comes in between
    if state == "busy":
        time.busy += seconds
    elif state == "idle":
        time.idle += seconds
    else:
        time.blocked += seconds


def states_of(series: Series, worker: Worker) -> TimeInStates:
    """Return where a worker's time at a stage is kept."""
    states = series.states
    time = states.get(worker.number)
    if time is None:
        number = worker.number if len(states) < MAX_WORKERS else None
        time = states.setdefault(number, TimeInStates())
    return time


def here(scope: Scope | None = None, *, waits: bool = False, owner: object | None = None) -> Worker:
    """Return the worker that runs this code, made if need be.

    Args:
        scope: of the stage that begins; the current one if None.
        waits: whether it is about to wait, or has just done so, at a queue.
        owner: the task or thread that runs this code, if that is known.
    """
    owner = owner or _owner()
    found = _series.executing()
    if found is not None and found.worker is not None:
        inside: Worker = found.worker
        if inside.number >= _first_number and (
            found.opener == owner or (waits and _waits_for(inside, found, owner))
        ):
            return inside
    scope = scope or _series.current_scope()
    before = _worker.get()
    if before is not None and (before.scope is not scope or before.number < _first_number):
        before = None
    if before is not None and _is_of(before, owner):
        return before
    worker = Worker(owner, scope)
    if before is not None and before.owner == owner:
        # a thread that this task does not wait for is that worker now
        worker.stage, worker.context, worker.lends = before.stage, before.context, False
    _worker.set(worker)
    _enlist(worker)
    return worker


def come_along(context: Context) -> None:
    """Let a thread that is about to run in a copy of another's context be who it was before."""
    mine = _worker.get()
    if mine is not None and mine.owner == _owner():
        context.run(_worker.set, mine)


def come_back(context: Context) -> None:
    """Let the thread stay the worker that it was in that context; not one that it was lent."""
    then = context.get(_worker)
    if then is not None and then.owner == _owner():
        _worker.set(then)


def _enlist(worker: Worker) -> None:
    """Let snapshots see a worker, if there is room beside those that still have to be seen."""
    workers = worker.scope.workers
    if len(workers) >= MAX_WORKERS:
        for other in list(workers.values()):
            if not other.stack and not other.waits and other.pending == TimeInStates():
                workers.pop(other.number, None)
    if len(workers) < MAX_WORKERS:
        workers[worker.number] = worker


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
    """Tell whether a task or thread is the worker that its context brought along.

    `asyncio.to_thread` runs with a copy of its task's context, and the task waits for it: that
    thread does the task's work. Where two are at it at a time, the second is on its own.
    """
    if worker.stack:
        return worker.owner == owner and worker.stack[-1].opener == owner
    if worker.owner != owner and (
        not worker.lends or not isinstance(owner, tuple) or isinstance(worker.owner, tuple)
    ):
        return False
    return not any(isinstance(wait.by, tuple) and wait.by != owner for wait in worker.waits)


def _waits_for(worker: Worker, execution: Execution, owner: object) -> bool:
    """Tell whether a thread waits for the task whose stage its context brought along."""
    return (
        isinstance(owner, tuple)
        and not isinstance(execution.opener, tuple)
        and worker.stack[-1:] == [execution]
        and not worker.waits
    )


class Accounting:
    """What the hot path calls once a queue is instrumented.

    A stage whose worker's time cannot be kept is measured all the same.
    """

    def opened(self, execution: Execution) -> None:
        """Give an execution the producers of what its worker got for it. Never raises."""
        try:
            mine = _worker.get()
            if mine is None or mine.links is None:
                return
            worker = here(execution.scope)
            links, worker.links = worker.links, None
            if links is not None:
                execution.links = (*links.first, *links.last)
                execution.links_dropped = links.dropped
        except Exception:  # noqa: BLE001 - as said
            _guard.fault("what a stage's input was made by")

    def resuming(self, execution: Execution) -> None:
        """Begin to share out time to an execution, or go on after a pause. Never raises."""
        try:
            now = _clock.now()
            execution.opener = owner = _owner()
            worker = here(execution.scope, owner=owner)
            if worker.stack:
                worker.settle(now)
            elif execution.series is not None:
                worker.entered(execution.series, now)
            worker.stack.append(execution)
            execution.worker = worker
        except Exception:  # noqa: BLE001 - as said
            _guard.fault("the time of a stage's worker")

    def paused(self, execution: Execution, now: float) -> None:
        """Share out the time since then: it ends, or pauses."""
        worker: Worker | None = execution.worker
        if worker is None:
            return
        execution.worker = None
        if worker.number < _first_number:
            return
        try:
            worker.settle(now)
        finally:
            worker.stack.remove(execution)
        if worker.late:
            worker.link_late(execution)
        if not worker.stack:
            worker.queue_since = False
            span = execution.span
            worker.context = None if span is None else span.identity()

    def wait_begins(self, state: WaitState, now: float) -> Wait:
        """Let the worker here wait; return what `wait_ends` takes."""
        return begin_wait(here(waits=True), state, now)

    def wait_ends(self, worker: Wait, state: WaitState, seconds: float, now: float) -> None:  # noqa: ARG002
        """Share out a wait."""
        # one `waiting()` may be in use in many tasks: it is this one's latest that ends
        owner = _owner()
        own = [wait for wait in here(waits=True).waits if wait.by == owner]
        end_wait(own[-1] if own else worker, now)


def begin_wait(worker: Worker, state: WaitState, now: float) -> Wait:
    """Let a worker wait, in the code that runs here."""
    worker.settle(now)
    wait = Wait(worker, state)
    worker.waits.append(wait)
    worker.at_queue(leaving=state == "blocked")
    return wait


def end_wait(wait: Wait, now: float) -> None:
    """Let a worker go on."""
    worker = wait.worker
    try:
        if worker.number >= _first_number:
            worker.settle(now)
    finally:
        if wait in worker.waits:
            worker.waits.remove(wait)


def putting(queue: QueueSeries, now: float, asked: Worker | None = None) -> Any:
    """Note the stage that puts; return the context of its span.

    Args:
        queue: that it puts into.
        now: `_clock.now()`.
        asked: the worker that puts, where the code here runs for another.
    """
    worker = asked or here(waits=True)
    worker.settle(now)
    worker.at_queue(leaving=True)
    execution = worker.inside()
    if execution is None and worker.stage is not None:
        queue.producers[worker.stage.key.stage] = None
        return worker.context
    if execution is None:
        # it only feeds, unless it does so for the stage that its task was made in
        worker.forget(now)
        execution = _series.executing()
    if execution is None or execution.series is None:
        return None
    queue.producers[execution.series.key.stage] = None
    return None if execution.span is None else execution.span.identity()


def got(queue: QueueSeries, link: Any, now: float, asked: Worker | None = None) -> None:
    """Note the stage that gets, or let the one that the worker enters next be noted.

    Args:
        queue: that it got from.
        link: to the producer, if there is one to link to.
        now: `_clock.now()`.
        asked: as in `putting`.
    """
    worker = asked or here(waits=True)
    worker.settle(now)
    worker.at_queue(leaving=False)
    execution = worker.inside()
    if execution is None:
        worker.got_from[queue.name] = queue
        if link is not None:
            worker.add_link(link)
        return
    if execution.series is not None:
        queue.consumers[execution.series.key.stage] = None
    if link is not None:
        worker.link_inside(execution, link)


def has_put(worker: Worker) -> None:
    """Let what a worker without a stage spent on putting be nobody's."""
    if worker.stage is None:
        worker.forget(_clock.now())


def skip(asked: Worker | None = None) -> None:
    """Let the time since the worker here left its stage be nobody's."""
    worker = asked or here(waits=True)
    worker.forget(_clock.now())
    if not worker.stack:
        # what it does from now on has nothing to do with the queues before
        worker.met_queue = worker.queue_since = False


def snapshot(scope: Scope, now: float) -> dict[Series, dict[int | None, TimeInStates]]:
    """Return the time in states of every stage of a scope whose waits are seen, until `now`.

    What is not shared out yet is added: the stage or the wait that a worker is in, and what it
    waited for a stage that it has not entered, which goes to the one it left last. Where the
    scope has ended, that is shared out for good and told to the sinks, so that metrics say the
    same.
    """
    if scope.ended:
        _settle(scope, now)
    states = {
        series: {
            number: TimeInStates(time.busy, time.idle, time.blocked)
            for number, time in list(series.states.items())
        }
        for series in list(scope.series.values())
        if series.queued
    }
    for worker in list(scope.workers.values()):
        for series, more in _unsettled(worker, now):
            if series in states:
                number = worker.number if worker.number in states[series] else None
                _add(states[series].setdefault(number, TimeInStates()), more)
    return states


def _unsettled(worker: Worker, now: float) -> list[tuple[Series, TimeInStates]]:
    """Return what is not shared out yet of a worker's time, and to which stages it goes."""
    stack, last, state = list(worker.stack), worker.stage, worker.state()
    more = TimeInStates()
    if stack or state != "busy":
        setattr(more, state, max(0.0, now - worker.mark))
    if stack:
        return [(series, more) for series in {e.series for e in stack} if series is not None]
    if last is None:
        return []
    _add(more, worker.pending)
    return [(last, more)]


def _settle(scope: Scope, now: float) -> None:
    """Share out what is not, and tell the sinks."""
    for worker in list(scope.workers.values()):
        if worker.stack or worker.waits:
            worker.settle(now)
        worker.give_pending()
    for series in list(scope.series.values()):
        if series.queued:
            _draining.drain_series(series)


def _add(time: TimeInStates, more: TimeInStates) -> None:
    time.busy += more.busy
    time.idle += more.idle
    time.blocked += more.blocked


def watch() -> None:
    """Begin to account; from now on the hot path calls here."""
    if _hooks.workers is None:
        _hooks.workers = Accounting()
        for cell in _entered_before():
            _catch_up(cell)


def _entered_before() -> list[Cell]:
    """Return the invocations that this task or thread is in, the outermost first.

    Those that its context merely brought along are another's: they cannot be reset here.
    """
    found: list[Cell] = []
    cell = _series.current.get()
    try:
        while cell is not None and len(cell) > 1 and cell[1] is not None:
            _series.current.reset(cell[1])
            found.append(cell)
            cell = _series.current.get()
    except ValueError:
        pass
    found.reverse()
    for cell in found:
        cell[1] = _series.current.set(cell)
    return found


def _catch_up(cell: Cell) -> None:
    """Account for an invocation from its beginning, though that was before."""
    if cell[3] is None:
        cell[3] = Execution(cell)
    execution: Execution = cell[3]
    worker = here(execution.scope)
    if worker.stack:
        worker.settle(cell[2])
    elif execution.series is not None:
        worker.entered(execution.series, cell[2])
    worker.stack.append(execution)
    execution.worker = worker
    execution.opener = worker.owner


_hooks.watch = watch


def _forget_parent() -> None:
    """Let the parent's workers be none of a forked child's, whatever still knows them."""
    global _first_number  # noqa: PLW0603 - as said
    _first_number = next(_numbers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)

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

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks, series
from otel_pipeline_metrics._core.records import TimeInStates, WaitState
from otel_pipeline_metrics._stages import execution as _execution
from otel_pipeline_metrics._stages.execution import Execution
from otel_pipeline_metrics._stages.workers.worker import (
    MAX_WORKERS,
    OpenWait,
    Worker,
    owner_here,
)

if TYPE_CHECKING:
    from contextvars import Context

    from otel_pipeline_metrics._core.series import Cell, QueueSeries, RunScope


class Accounting:
    """What the hot path calls once a queue is instrumented.

    A stage whose worker's time cannot be kept is measured all the same.
    """

    def opened(self, execution: Execution) -> None:
        """Give an execution the producers of what its worker got for it. Never raises."""
        try:
            mine = last_worker()
            if mine is None or mine.links is None:
                return
            worker = current_worker(execution.scope)
            links, worker.links = worker.links, None
            if links is not None:
                execution.links = (*links.first, *links.last)
                execution.links_dropped = links.dropped
        except Exception:
            errors.log_internal_error("what a stage's input was made by")

    def resuming(self, execution: Execution) -> None:
        """Begin to share out time to an execution, or go on after a pause. Never raises."""
        try:
            now = clock.now()
            execution.opener = owner = owner_here()
            worker = current_worker(execution.scope, owner=owner)
            if worker.stack:
                worker.account_until(now)
            elif execution.series is not None:
                worker.entered(execution.series, now)
            worker.stack.append(execution)
            execution.worker = worker
        except Exception:
            errors.log_internal_error("the time of a stage's worker")

    def paused(self, execution: Execution, now: float) -> None:
        """Share out the time since then: it ends, or pauses."""
        worker: Worker | None = execution.worker
        if worker is None:
            return
        execution.worker = None
        if worker.is_parents:
            return
        try:
            worker.account_until(now)
        finally:
            worker.stack.remove(execution)
        if worker.late:
            worker.link_late(execution)
        if not worker.stack:
            worker.queue_since = False
            span = execution.span
            worker.context = None if span is None else span.identity()

    def wait_begins(self, state: WaitState, now: float) -> OpenWait:
        """Let the worker here wait; return what `wait_ends` takes."""
        return begin_wait(current_worker(waits=True), state, now)

    def wait_ends(self, worker: OpenWait, state: WaitState, seconds: float, now: float) -> None:  # noqa: ARG002
        """Share out a wait."""
        # one `waiting()` may be in use in many tasks: it is this one's latest that ends
        owner = owner_here()
        own = [wait for wait in current_worker(waits=True).waits if wait.by == owner]
        end_wait(own[-1] if own else worker, now)


def begin_wait(worker: Worker, state: WaitState, now: float) -> OpenWait:
    """Let a worker wait, in the code that runs here."""
    worker.account_until(now)
    wait = OpenWait(worker, state)
    worker.waits.append(wait)
    worker.mark_waits_seen(leaving=state == "blocked")
    return wait


def end_wait(wait: OpenWait, now: float) -> None:
    """Let a worker go on."""
    worker = wait.worker
    try:
        if not worker.is_parents:
            worker.account_until(now)
    finally:
        if wait in worker.waits:
            worker.waits.remove(wait)


def on_put(queue: QueueSeries | None, now: float, asked: Worker | None = None) -> Any:
    """Note the stage that puts; return the context of its span.

    Args:
        queue: that it puts into; None where what it puts is a sentinel, which nobody produced.
        now: `clock.now()`.
        asked: the worker that puts, where the code here runs for another.
    """
    worker = asked or worker_at_queue()
    worker.account_until(now)
    worker.mark_waits_seen(leaving=True)
    execution = worker.inside() if worker.stack else None
    if execution is None and worker.stage is not None:
        if queue is None:
            return None
        queue.producers[worker.stage.key.stage] = None
        return worker.context
    if execution is None:
        # it only feeds, unless it does so for the stage that its task was made in
        worker.discard_time(now)
        execution = _execution.executing()
    if queue is None or execution is None or execution.series is None:
        return None
    queue.producers[execution.series.key.stage] = None
    return None if execution.span is None else execution.span.identity()


def on_get(queue: QueueSeries | None, link: Any, now: float, asked: Worker | None = None) -> None:
    """Note the stage that gets, or let the one that the worker enters next be noted.

    Args:
        queue: that it got from; None where what it got is a sentinel, which nobody consumes.
        link: to the producer, if there is one to link to.
        now: `clock.now()`.
        asked: as in `on_put`.
    """
    worker = asked or worker_at_queue()
    worker.account_until(now)
    worker.mark_waits_seen(leaving=False)
    if queue is None:
        return
    execution = worker.inside() if worker.stack else None
    if execution is None:
        worker.got_from[queue.name] = queue
        if link is not None:
            worker.add_link(link)
        return
    if execution.series is not None:
        queue.consumers[execution.series.key.stage] = None
    if link is not None:
        worker.link_inside(execution, link)


def after_put(worker: Worker) -> None:
    """Let what a worker without a stage spent on putting be nobody's."""
    if worker.stage is None:
        worker.discard_time(clock.now())


def on_join(asked: Worker | None = None) -> None:
    """Let the time since the worker here left its stage be nobody's."""
    worker = asked or current_worker(waits=True)
    worker.discard_time(clock.now())
    if not worker.stack:
        # what it does from now on has nothing to do with the queues before
        worker.met_queue = worker.queue_since = False


def watch() -> None:
    """Begin to account; from now on the hot path calls here."""
    if hooks.workers is None:
        hooks.workers = Accounting()
        for cell in _entered_before():
            _catch_up(cell)


def _entered_before() -> list[Cell]:
    """Return the invocations that this task or thread is in, the outermost first.

    Those that its context merely brought along are another's: they cannot be reset here.
    """
    found: list[Cell] = []
    cell = series.active_cell.get()
    try:
        while cell is not None and len(cell) > 1 and cell[1] is not None:
            series.active_cell.reset(cell[1])
            found.append(cell)
            cell = series.active_cell.get()
    except ValueError:
        pass
    found.reverse()
    for cell in found:
        cell[1] = series.active_cell.set(cell)
    return found


def _catch_up(cell: Cell) -> None:
    """Account for an invocation from its beginning, though that was before."""
    if cell[3] is None:
        cell[3] = Execution(cell)
    execution: Execution = cell[3]
    worker = current_worker(execution.scope)
    if worker.stack:
        worker.account_until(cell[2])
    elif execution.series is not None:
        worker.entered(execution.series, cell[2])
    worker.stack.append(execution)
    execution.worker = worker
    execution.opener = worker.owner


hooks.watch = watch


_worker_of_context: ContextVar[Worker | None] = ContextVar("opm_worker", default=None)


def last_worker() -> Worker | None:
    """Return the worker that this context has known last."""
    return _worker_of_context.get()


def current_worker(
    scope: RunScope | None = None, *, waits: bool = False, owner: object | None = None
) -> Worker:
    """Return the worker that runs this code, made if need be.

    Args:
        scope: of the stage that begins; the current one if None.
        waits: whether it is about to wait, or has just done so, at a queue.
        owner: the task or thread that runs this code, if that is known.
    """
    owner = owner or owner_here()
    found = _execution.executing()
    if found is not None and found.worker is not None:
        inside: Worker = found.worker
        if not inside.is_parents and (
            found.opener == owner or (waits and _waits_for(inside, found, owner))
        ):
            return inside
    scope = scope or series.current_scope()
    before = _worker_of_context.get()
    if before is not None and (before.scope is not scope or before.is_parents):
        before = None
    if before is not None and _is_of(before, owner):
        return before
    worker = Worker(owner, scope)
    if before is not None and before.owner == owner:
        # a thread that this task does not wait for is that worker now
        worker.stage, worker.context, worker.lendable = before.stage, before.context, False
    _worker_of_context.set(worker)
    _enlist(worker)
    return worker


def worker_at_queue() -> Worker:
    """Return the worker that runs this code and is about to wait, or may have waited, at a queue.

    The same as `current_worker(waits=True)`, with the two most frequent answers first: this is
    asked at every put and get.
    """
    owner = owner_here()
    cell = series.active_cell.get()
    if cell is None or len(cell) == 1 or cell[1] is None or cell[3] is None:
        found = _worker_of_context.get()
        scope = series.default_scope if cell is None else cell[0].scope
        if (
            found is not None
            and found.owner == owner
            and found.scope is scope
            and not found.stack
            and not found.waits
            and not found.is_parents
        ):
            return found
    else:
        inside: Worker | None = cell[3].worker
        if inside is not None and cell[3].opener == owner and not inside.is_parents:
            return inside
    return current_worker(waits=True, owner=owner)


def carry_into(context: Context) -> None:
    """Let a thread that is about to run in a copy of another's context be who it was before."""
    mine = _worker_of_context.get()
    if mine is not None and mine.owner == owner_here():
        context.run(_worker_of_context.set, mine)


def carry_back(context: Context) -> None:
    """Let the thread stay the worker that it was in that context; not one that it was lent."""
    then = context.get(_worker_of_context)
    if then is not None and then.owner == owner_here():
        _worker_of_context.set(then)


def _enlist(worker: Worker) -> None:
    """Let snapshots see a worker, if there is room beside those that still have to be seen."""
    workers = worker.scope.workers
    if len(workers) >= MAX_WORKERS:
        for other in list(workers.values()):
            if not other.stack and not other.waits and other.pending == TimeInStates():
                workers.pop(other.number, None)
    if len(workers) < MAX_WORKERS:
        workers[worker.number] = worker


def _is_of(worker: Worker, owner: object) -> bool:
    """Tell whether a task or thread is the worker that its context brought along.

    `asyncio.to_thread` runs with a copy of its task's context, and the task waits for it: that
    thread does the task's work. Where two are at it at a time, the second is on its own.
    """
    if worker.stack:
        return worker.owner == owner and worker.stack[-1].opener == owner
    if worker.owner != owner and (
        not worker.lendable or not isinstance(owner, tuple) or isinstance(worker.owner, tuple)
    ):
        return False
    # asked at every put and get, and mostly there is no wait to look at
    return not worker.waits or not any(
        isinstance(wait.by, tuple) and wait.by != owner for wait in worker.waits
    )


def _waits_for(worker: Worker, execution: Execution, owner: object) -> bool:
    """Tell whether a thread waits for the task whose stage its context brought along."""
    return (
        isinstance(owner, tuple)
        and not isinstance(execution.opener, tuple)
        and worker.stack[-1:] == [execution]
        and not worker.waits
    )

"""Share out the time of each worker among three states: busy, idle, blocked.

A worker is the task of asyncio or trio, the greenlet of gevent, or the thread that runs a stage.
All of its time, from its first stage or queue on, is shared out, so the three states add up to
its wall time:

- idle: inside a get of an instrumented queue, waiting for input;
- blocked: inside a put of one, waiting for room, or in `waiting()`;
- busy: the rest, awaited I/O included.

Time inside a stage counts for that stage and for the stages around it. Outside a stage, a wait
for input counts for the stage that the worker enters next, and everything else for the stage it
left last. So a worker loop that gets, calls a stage and puts is reported like a stage that does
all three. Before the first stage, the time since the first get counts for that stage, unless the
worker puts: a worker that only fills a queue, or moves items between queues, is not a stage. Time
between two different stages counts for neither if no queue is used in between. Nothing here runs
before the first queue is instrumented.

A wait may happen in another task than the one it is for: `asyncio.wait_for(queue.get(), 1)` runs
in a task of its own before Python 3.12, `asyncio.to_thread(queue.get)` in a thread. It counts for
the worker that asked for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks, series
from otel_pipeline_metrics._core.records import TimeInStates, WaitState
from otel_pipeline_metrics._stages import execution as _execution
from otel_pipeline_metrics._stages.workers.links import Links, link_in_progress, link_late
from otel_pipeline_metrics._stages.workers.worker import MAX_WORKERS, OpenWait, Worker, owner_here

if TYPE_CHECKING:
    from contextvars import Context

    from otel_pipeline_metrics._core.series import Cell, QueueSeries, RunScope
    from otel_pipeline_metrics._stages.execution import Execution


class Accounting:
    """What the hot path calls once a queue is instrumented.

    An internal error here loses a worker's time, but not the stage's own numbers.
    """

    def opened(self, execution: Execution) -> None:
        """Give an execution the links to the producers of its input. Never raises."""
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
            errors.log_internal_error("linking a stage to the producers of its input")

    def resuming(self, execution: Execution) -> None:
        """Count time for an execution that begins or resumes. Never raises."""
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
            errors.log_internal_error("counting the time of a stage's worker")

    def paused(self, execution: Execution, now: float) -> None:
        """Count the time of an execution that ends or pauses."""
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
            link_late(worker.late, execution)
        if not worker.stack:
            worker.queue_since = False
            span = execution.span
            worker.context = None if span is None else span.identity()

    def wait_begins(self, state: WaitState, now: float) -> OpenWait:
        """Begin a wait of the current worker; return what `wait_ends` takes."""
        return begin_wait(current_worker(waits=True), state, now)

    def wait_ends(self, wait: OpenWait, now: float) -> None:
        """End a wait, and count its time."""
        # one `waiting()` may be open in many tasks: the last one of this task ends
        owner = owner_here()
        own = [each for each in current_worker(waits=True).waits if each.by == owner]
        end_wait(own[-1] if own else wait, now)


def begin_wait(worker: Worker, state: WaitState, now: float) -> OpenWait:
    """Begin a wait of a worker, in the current task or thread."""
    worker.account_until(now)
    wait = OpenWait(worker, state)
    worker.waits.append(wait)
    worker.mark_waits_seen(leaving=state == "blocked")
    return wait


def end_wait(wait: OpenWait, now: float) -> None:
    """End a wait of a worker."""
    worker = wait.worker
    try:
        if not worker.is_parents:
            worker.account_until(now)
    finally:
        if wait in worker.waits:
            worker.waits.remove(wait)


def on_put(queue: QueueSeries | None, now: float, asked: Worker | None = None) -> Any:
    """Record which stage puts; return the context of its span.

    Args:
        queue: the queue that it puts into; None if it puts a sentinel, which has no producer.
        now: `clock.now()`.
        asked: the worker that puts, if another task or thread does it on its behalf.
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
        # it only fills the queue, or it works for the stage that started its task
        worker.discard_time(now)
        execution = _execution.executing()
    if queue is None or execution is None or execution.series is None:
        return None
    queue.producers[execution.series.key.stage] = None
    return None if execution.span is None else execution.span.identity()


def on_get(queue: QueueSeries | None, link: Any, now: float, asked: Worker | None = None) -> None:
    """Record which stage gets: the current one, or the one entered next.

    Args:
        queue: the queue that it got from; None if it got a sentinel, which has no consumer.
        link: to the producer, if its span is known.
        now: `clock.now()`.
        asked: the worker that gets, if another task or thread does it on its behalf.
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
            if worker.links is None:
                worker.links = Links()
            worker.links.add(link)
        return
    if execution.series is not None:
        queue.consumers[execution.series.key.stage] = None
    if link is not None:
        link_in_progress(worker.late, execution, link)


def after_put(worker: Worker) -> None:
    """Count the time that a worker without a stage spent on putting for no stage."""
    if worker.stage is None:
        worker.discard_time(clock.now())


def on_join(asked: Worker | None = None) -> None:
    """Count the time since the current worker left its stage for no stage."""
    worker = asked or current_worker(waits=True)
    worker.discard_time(clock.now())
    if not worker.stack:
        # its work from now on is unrelated to the queues before
        worker.met_queue = worker.queue_since = False


def watch() -> None:
    """Begin the accounting: from now on the hot path calls `Accounting`."""
    if hooks.workers is None:
        hooks.workers = Accounting()
        for cell in _entered_before():
            _catch_up(cell)


def _entered_before() -> list[Cell]:
    """Return the calls that this task or thread is inside of, the outermost first.

    Calls that its context was copied with belong to another one, and cannot be reset here.
    """
    found: list[Cell] = []
    cell = series.active_cell.get()
    try:
        while cell is not None and cell[4] is not None and cell[1] is not None:
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
    """Account for a call from its beginning, which was before the accounting began."""
    execution = _execution.execution_of(cell)
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
    """Return the last worker of this context."""
    return _worker_of_context.get()


def current_worker(
    scope: RunScope | None = None, *, waits: bool = False, owner: object | None = None
) -> Worker:
    """Return the worker that runs this code, made if need be.

    Args:
        scope: the scope of the stage that begins; the current one if None.
        waits: whether it is about to wait at a queue, or has just waited.
        owner: the task or thread that runs this code, if it is known.
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
        # the worker before now works for a thread that this task does not wait for
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
    if cell is None or cell[4] is None or cell[1] is None or cell[3] is None:
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
    """Keep the thread's worker while it runs in a copy of another context."""
    mine = _worker_of_context.get()
    if mine is not None and mine.owner == owner_here():
        context.run(_worker_of_context.set, mine)


def carry_back(context: Context) -> None:
    """Keep the worker that the thread had in that context, unless it is a task's."""
    then = context.get(_worker_of_context)
    if then is not None and then.owner == owner_here():
        _worker_of_context.set(then)


def _enlist(worker: Worker) -> None:
    """Make a worker visible to snapshots, if there is room or one to replace."""
    workers = worker.scope.workers
    if len(workers) >= MAX_WORKERS:
        for other in list(workers.values()):
            if not other.stack and not other.waits and other.pending == TimeInStates():
                workers.pop(other.number, None)
    if len(workers) < MAX_WORKERS:
        workers[worker.number] = worker


def _is_of(worker: Worker, owner: object) -> bool:
    """Tell whether a task or thread counts as the worker of its copied context.

    `asyncio.to_thread` runs with a copy of its task's context, and the task waits for it: that
    thread does the task's work. Of two threads at a time, the second is a worker of its own.
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
    """Tell whether a thread works for the task whose context it has a copy of."""
    return (
        isinstance(owner, tuple)
        and not isinstance(execution.opener, tuple)
        and worker.stack[-1:] == [execution]
        and not worker.waits
    )

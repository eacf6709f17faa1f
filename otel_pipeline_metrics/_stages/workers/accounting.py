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

A call, a put or a get only appends what happened to the log of its worker; `replay` derives the
above from it when the log is flushed. Found out at once are: which worker it is, the seconds that
a call waited, since they are part of its result, and the links between spans.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, drain, errors, hooks, series
from otel_pipeline_metrics._core.drain import PENDING_BOUND
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN
from otel_pipeline_metrics._stages.execution import execution_of, make_execution
from otel_pipeline_metrics._stages.invocation import ensure_execution, open_span, start_span
from otel_pipeline_metrics._stages.workers import finding, replay
from otel_pipeline_metrics._stages.workers.account import (
    EXIT,
    GOT,
    JOINED,
    PUT,
    PUT_FOR,
    WAIT,
    WAITED_TO_PUT,
)
from otel_pipeline_metrics._stages.workers.finding import current_worker
from otel_pipeline_metrics._stages.workers.links import Links, link_in_progress, link_late
from otel_pipeline_metrics._stages.workers.worker import (
    NO_STAGE,
    OpenWait,
    Worker,
    current_call,
    owner_here,
    task_of,
)

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._core.series import Cell, RunScope
    from otel_pipeline_metrics._stages.execution import Execution


class Accounting:
    """What the hot path calls once a queue is instrumented.

    An internal error here loses a worker's time, but not the stage's own numbers.
    """

    __slots__ = ()

    # whether the time of workers is shared out, see `watch`, and whether there is more to each call
    accounts = True
    pauses = False

    def accounting(self) -> Accounting:
        """Return this."""
        return self

    def opened(self, execution: Execution) -> None:
        """Give an execution the links to the producers of its input. Never raises."""
        try:
            mine = finding.worker_of_context.get()
            if mine is not None and mine.links is not None:
                _take_links(execution, current_worker(execution.scope))
        except Exception:
            errors.log_internal_error("linking a stage to the producers of its input")

    def entered(self, cell: Cell) -> None:
        """Count time for a call that begins, with its span, or resumes. Never raises."""
        try:
            stage, worker = cell[0], finding.worker_of_context.get()
            if cell[3] is not None:
                # a generator resumes, which is another begin
                if worker is not None:
                    worker.told = None
            elif hooks.tracing is not None:
                _open_span(cell, worker)
            if (
                worker is not None
                and worker.plain
                and worker.scope is stage.scope
                and worker.thread == get_ident()
                and worker.owner
                == (owner_here() if worker.loop is None else id(task_of(worker.loop)))
            ):
                if worker.stack:
                    worker.tell_begins()
                else:
                    worker.stage = stage.times
                cell[7] = worker
                worker.stack.append(cell)
            else:
                _enter(cell, clock.now())
        except Exception:
            errors.log_internal_error("counting the time of a stage's worker")

    def left(self, cell: Cell, now: float) -> None:
        """Count the time of a call that ends or pauses. Never raises."""
        worker: Worker | None = cell[7]
        if worker is None:
            return
        try:
            stack = worker.stack
            if worker.plain and stack and stack[-1] is cell:
                stack.pop()
                worker.log.append((now, EXIT, cell[0].times, id(cell), cell[2]))
                # a generator goes on and off many times before its result is flushed
                if cell[3] is not None and len(worker.log) >= PENDING_BOUND:
                    drain.drain_workers(worker.scope)
            else:
                _leave(worker, cell, now)
            # not before: it is left again if a signal handler has raised meanwhile
            cell[7] = None
            execution = cell[3]
            if (
                worker.late
                or len(cell) > CELL_WITHOUT_SPAN
                or (execution is not None and execution.span is not None)
            ):
                _span_left(worker, cell)
            elif not stack:
                worker.context = None
        except Exception:
            errors.log_internal_error("counting the time of a stage's worker")

    def wait_begins(self, state: WaitState, now: float) -> OpenWait:
        """Begin a wait of the current worker; return what `wait_ends` takes."""
        return begin_wait(current_worker(waits=True), state, now)

    def wait_ends(self, wait: OpenWait, now: float) -> None:
        """End a wait, and count its time."""
        # one `waiting()` may be open in many tasks: the last one of this task ends
        owner = owner_here()
        own = [each for each in current_worker(waits=True).waits if each.by == owner]
        end_wait(own[-1] if own else wait, now)

    def replay(self, scope: RunScope, *, in_progress: bool = False) -> None:
        """Derive the time of a scope's workers from their logs; the drain lock is held.

        Args:
            scope: whose workers.
            in_progress: whether calls and waits in progress count until now.
        """
        replay.replay_logs(scope, in_progress=in_progress)


def _open_span(cell: Cell, worker: Worker | None) -> None:
    """Open the span of a call that begins, with links to the producers of its input."""
    if worker is None or worker.links is None:
        open_span(cell)
        return
    execution = cell[3] = make_execution(cell)
    _take_links(execution, current_worker(execution.scope))
    start_span(execution)


def _enter(cell: Cell, now: float) -> None:
    """Begin a call of a worker that is new, waits, or has another thread work for it."""
    owner = owner_here()
    worker = current_worker(cell[0].scope, owner=owner)
    worker.end_run()
    worker.tell_begins()
    if worker.waits:
        worker.count_wait(now)
    cell[7], worker.told = worker, None
    if owner != worker.owner:
        if cell[3] is None:
            execution_of(cell)
        cell[3].opener = owner
    if not worker.stack:
        worker.stage = cell[0].times
    worker.stack.append(cell)
    worker.enlist()
    _note_state(worker, now)


def _leave(worker: Worker, cell: Cell, now: float) -> None:
    """End a call of a worker that waits, or not the one that it began last."""
    if worker.is_parents:
        return
    worker.end_run()
    if worker.waits:
        worker.count_wait(now)
    # cells are lists: `remove` would compare what is in them
    worker.stack[:] = [each for each in worker.stack if each is not cell]
    worker.note(now, EXIT, cell[0].times, id(cell), cell[2])
    _note_state(worker, now)


def _note_state(worker: Worker, now: float) -> None:
    """Log the state of a worker, which a wait may have changed; tell whether it is plain now."""
    if worker.waits:
        worker.note(now, WAIT, None, worker.state())
        worker.rest(now)
    worker.settle()


def begin_wait(worker: Worker, state: WaitState, now: float) -> OpenWait:
    """Begin a wait of a worker, in the current task or thread."""
    worker.end_run()
    worker.plain = False
    if worker.waits:
        worker.count_wait(now)
    for cell in worker.stack:
        # it has more to report than its duration, whenever the wait ends
        execution_of(cell)
    wait = OpenWait(worker, state, now)
    worker.waits.append(wait)
    worker.wait_mark = now
    worker.note(now, WAIT, state, worker.state())
    worker.rest(now)
    return wait


def end_wait(wait: OpenWait, now: float) -> None:
    """End a wait of a worker."""
    worker = wait.worker
    try:
        if not worker.is_parents:
            worker.count_wait(now)
    finally:
        if wait in worker.waits:
            worker.waits.remove(wait)
        worker.note(now, WAIT, None, worker.state())
        worker.rest(now)
        worker.settle()


def note_put(name: str | None, worker: Worker) -> None:
    """Record that a worker puts, or another task or thread on its behalf.

    Args:
        name: of the queue that it puts into; None if it puts a sentinel, which has no producer.
        worker: that puts.
    """
    cell = series.active_cell.get()
    if cell is None or cell[4] is None or cell[1] is None:
        kind, stage = PUT, None
    else:
        kind, stage = PUT if cell[7] is worker else PUT_FOR, cell[0].times
    if worker.plain and name is not None:
        if worker.stack:
            worker.tell_begins()
        worker.log.append((clock.now(), kind, name, stage, 0.0))
    else:
        worker.note(clock.now(), kind, name, stage)
        worker.settle()


def note_got(name: str | None, link: Any, worker: Worker) -> None:
    """Record that a worker got an item: its stage did, or the one it enters next.

    Args:
        name: of the queue that it got from; None if it got a sentinel, which has no consumer.
        link: to the producer, if its span is known.
        worker: that gets, maybe through another task or thread.
    """
    cell, stage = series.active_cell.get(), None
    if cell is not None and cell[4] is not None and cell[7] is worker and cell[1] is not None:
        stage = cell[0].times
    if worker.plain and name is not None:
        if worker.stack:
            worker.tell_begins()
        worker.log.append((clock.now(), GOT, name, stage, 0.0))
    else:
        worker.note(clock.now(), GOT, name, stage)
        worker.settle()
    if link is not None:
        _link(worker, link)


def producer_of(worker: Worker) -> Any:
    """Return the span context of the stage that a worker puts an item for."""
    cell = current_call()
    if cell is not None and cell[7] is not worker and worker.context is not NO_STAGE:
        cell = None
    if cell is None:
        return None if worker.context is NO_STAGE else worker.context
    execution = ensure_execution(cell)
    return None if execution is None or execution.span is None else execution.span.identity()


def _link(worker: Worker, link: Any) -> None:
    """Link the stage that got an item, or the one entered next, to the producer."""
    execution = ensure_execution(worker.inside())
    if execution is not None:
        link_in_progress(worker.late, execution, link)
    else:
        if worker.links is None:
            worker.links = Links()
        worker.links.add(link)


def after_put(worker: Worker) -> None:
    """Count the time that a worker without a stage spent on putting for no stage."""
    worker.note(clock.now(), WAITED_TO_PUT)


def on_join(asked: Worker | None = None) -> None:
    """Count the time since the current worker left its stage for no stage."""
    worker = asked or current_worker(waits=True)
    worker.note(clock.now(), JOINED)
    worker.settle()


def watch() -> None:
    """Begin the accounting: from now on the hot path calls `Accounting`."""
    found = hooks.workers
    if found is not None and found.accounts:
        return
    hooks.set_workers(Accounting() if found is None else found.accounting())
    for cell in _entered_before():
        _enter(cell, cell[2])


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


hooks.watch = watch


def _take_links(execution: Execution, worker: Worker) -> None:
    links, worker.links = worker.links, None
    if links is not None:
        execution.links = (*links.first, *links.last)
        execution.links_dropped = links.dropped


def _span_left(worker: Worker, cell: Cell) -> None:
    """Link the span of a call that ends or pauses; keep its context for later puts."""
    if worker.is_parents:
        return
    if worker.late and cell[3] is not None:
        link_late(worker.late, cell[3])
    if not worker.stack:
        execution, span = cell[3], None
        if execution is not None:
            span = execution.span
        elif len(cell) > CELL_WITHOUT_SPAN and hooks.tracing is not None:
            span = hooks.tracing.span_of(cell)
        worker.context = None if span is None else span.identity()

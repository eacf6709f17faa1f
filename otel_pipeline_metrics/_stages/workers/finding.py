"""Find the worker that runs this code: its task or thread, or the one that it works for."""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import drain, errors, series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._stages.workers.worker import (
    Worker,
    current_call,
    opener_of,
    owner_here,
    task_of,
)

if TYPE_CHECKING:
    from contextvars import Context

    from otel_pipeline_metrics._core.series import Cell, RunScope


worker_of_context: ContextVar[Worker | None] = ContextVar("opm_worker", default=None)


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
    cell = current_call()
    inside: Worker | None = None if cell is None else cell[7]
    if cell is not None and inside is not None and not inside.is_parents:
        inside.end_run()
        opener = opener_of(cell)
        if opener == owner or (waits and _waits_for(inside, cell, opener, owner)):
            return inside
    scope = scope or series.current_scope()
    before = worker_of_context.get()
    if before is not None and (before.scope is not scope or before.is_parents):
        before = None
    if before is not None and _is_of(before, owner):
        return before
    worker = Worker(owner, scope)
    if before is not None and before.owner == owner:
        # the worker before now works for a thread that this task does not wait for
        drain.drain_workers(scope)
        worker.account.stage, worker.context = before.account.stage, before.context
        worker.stage = before.stage
        worker.lendable = False
    if not (gc_safety.here()):
        worker_of_context.set(worker)
    return worker


def requesting_worker() -> Worker | None:
    """Return the worker that asks for a put, a get or a permit. Never raises.

    The same as `current_worker(waits=True)`, with the most frequent answer first: this is asked at
    every put and get. Another task may run what was asked for.
    """
    try:
        found = worker_of_context.get()
        if found is not None and found.plain and found.thread == get_ident():
            cell = series.active_cell.get()
            if found.scope is (series.default_scope if cell is None else cell[0].scope) and (
                found.owner == (owner_here() if found.loop is None else id(task_of(found.loop)))
            ):
                return found
        return current_worker(waits=True)
    except Exception:  # the user's call goes on
        errors.log_internal_error("asking a queue")
        return None


def carry_into(context: Context) -> None:
    """Keep the thread's worker while it runs in a copy of another context."""
    mine = worker_of_context.get()
    if mine is not None and mine.owner == owner_here():
        context.run(worker_of_context.set, mine)


def carry_back(context: Context) -> None:
    """Keep the worker that the thread had in that context, unless it is a task's."""
    then = context.get(worker_of_context)
    if then is not None and then.owner == owner_here():
        worker_of_context.set(then)


def _is_of(worker: Worker, owner: object) -> bool:
    """Tell whether a task or thread counts as the worker of its copied context.

    `asyncio.to_thread` runs with a copy of its task's context, and the task waits for it: that
    thread does the task's work. Of two threads at a time, the second is a worker of its own.
    """
    if worker.stack:
        return worker.owner == owner == opener_of(worker.stack[-1])
    if worker.owner != owner and (
        not worker.lendable or not isinstance(owner, tuple) or isinstance(worker.owner, tuple)
    ):
        return False
    return not any(isinstance(wait.by, tuple) and wait.by != owner for wait in worker.waits)


def _waits_for(worker: Worker, cell: Cell, opener: object, owner: object) -> bool:
    """Tell whether a thread works for the task whose context it has a copy of."""
    return (
        isinstance(owner, tuple)
        and not isinstance(opener, tuple)
        and bool(worker.stack)
        and worker.stack[-1] is cell
        and not worker.waits
    )

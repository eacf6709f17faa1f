"""Suspend and resume the execution of a generator, which runs from item to item."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks, nesting
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.abandoned import DETACHED, abandon
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._stages import sampling
from otel_pipeline_metrics._stages.closing import close, deactivate, step_span
from otel_pipeline_metrics._stages.execution import (
    NOOP_EXECUTION,
    Execution,
    Pulled,
    make_execution,
)
from otel_pipeline_metrics._stages.invocation import (
    count_items,
    leave,
    not_begun,
    start_span,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from otel_pipeline_metrics._core.series import Cell, Series
    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._stages.workers.worker import Run


def begin_suspended(stage: StageId) -> Execution:
    """Begin an execution that is not current until it is resumed. Never raises."""
    cell: Any = None
    try:
        if hooks.tracing_to_come is not None:
            hooks.tracing_to_come.look()
        parent = _series.goes_on(_series.active_cell.get())
        # who pulls its items may change, so the whole has no caller, and each step has one
        series = parent[0].scope.add(stage)
        cell = [series, None, 0.0, None, parent, None, None, None]
        execution = make_execution(cell)
        cell[3] = execution
        execution.entry = cell
        execution.ensure_details()
        series.kept[id(cell)] = cell
        if not gc_safety.here():
            if hooks.workers is not None:
                hooks.workers.opened(execution)
            start_span(execution)
            step_span(execution, "suspend")
        return execution  # noqa: TRY300 - a signal handler may raise here
    except Exception:  # an internal error must not stop the stage
        not_begun(cell)
        return NOOP_EXECUTION
    except BaseException:  # of a signal handler
        abandon(cell)
        raise


def next_step(
    execution: Execution, parent: Cell | None, run: Run | None = None
) -> tuple[Cell, Pulled]:
    """Return the cell of a step, a call inside of the consumer's, and the time of all such."""
    if parent is None or parent[1] is None:
        parent = _series.goes_on(parent)
    whole = execution.series
    steps = execution.cell[0] if whole is None else _of_steps(parent, whole)
    part = execution.ensure_details().pulls.setdefault(steps, Pulled())
    cell = execution.cell
    if cell is execution.entry or cell[0] is not steps or cell[4] is not parent:
        if cell is not execution.entry:
            # tasks of its steps go on inside of who pulled it before
            cell[3] = None
        cell = execution.cell = [steps, None, 0.0, None, parent, None, None, None]
    cell[3], cell[6], cell[7] = execution, None, None
    if run is not None and run.part is part:
        cell[7] = run.worker
    elif run is not None:
        # it is pulled in another run of the program
        run.end()
    return cell, part


def _of_steps(puller: Cell, whole: Series) -> Series:
    """Return the series of the steps of a generator that a call or a run pulls, made if need be.

    Args:
        puller: the cell of that call or run.
        whole: the series that has the generator's results.
    """
    around, stage = puller[0], whole.stage
    if around.scope is whole.scope:
        found: Series = around.called.get(stage) or _series.add(puller, stage)
    else:
        found = around.called.get(whole) or around.called.setdefault(
            whole, _series.Series(whole.scope, stage, None)
        )
        if found not in whole.times.variants:
            whole.times.variants.append(found)
    if found is not whole and found.whole is not whole and whole.scope.add(stage) is whole:
        # it did not begin before a fork, or in a run that was forgotten
        found.whole = whole
        whole.pulled.append(found)
    return found


def resume(execution: Execution, counted: int) -> Cell:
    """Make a suspended execution current and count its time. Never raises.

    Args:
        execution: of the generator.
        counted: the steps before this one to take off the steps until the next sample.

    Returns:
        The cell of this step.
    """
    if execution.series is None:
        return NOOP_EXECUTION.cell
    cell: Any = None
    try:
        execution.cell[0].until_sample -= counted
        run = execution.run
        if run is not None:
            run.end()
        cell, _ = next_step(execution, _series.active_cell.get())
        steps, parent = cell[0], cell[4]
        if gc_safety.here():
            cell[1] = DETACHED
        else:
            if execution.span is not None:
                step_span(execution, "resume")
            if hooks.workers is not None:
                hooks.workers.entered(cell)
            cell[1] = _series.active_cell.set(cell)
        steps.until_sample -= 1
        if steps.until_sample < 0:
            sampling.begin(cell, known=True)
        began = cell[2] = clock.now()
        if parent[5] is None and cell[5] is None and "overlapping" not in gc_safety.extras:
            parent[5] = cell
        else:
            nesting.enter(cell, began)
    except BaseException:
        if execution.span is not None:
            step_span(execution, "suspend")
        abandon(cell)
        failed(execution, "resuming")
    return execution.cell


def pause(execution: Execution, now: float = 0.0) -> Run | None:
    """Suspend an execution: it is no longer current and its time stops. Never raises.

    Args:
        execution: of the generator.
        now: the time, if it is known.

    Returns:
        The run of steps that begins, if its worker need not be told of them one by one.
    """
    cell = execution.cell
    if execution.series is None or cell[1] is None:
        return None
    try:
        now = now or clock.now()
        worker = cell[7]
        leave(cell, now)
        elapsed = now - cell[2]
        part = execution.ensure_details().pulls[cell[0]]
        part.ended = now
        waited = execution.idle + execution.blocked - execution.waited
        if waited:
            elapsed -= waited
            part.waited_s += waited
            execution.waited += waited
        part.open_s += elapsed
        deactivate(execution, now)
        if cell[6] is not None:
            sampling.end(cell, elapsed, now)
        cell[1] = None
        if worker is not None and execution.span is None and not gc_safety.others:
            begun: Run | None = worker.begin_run(execution, part)
            return begun
    except BaseException:
        abandon(cell)
        failed(execution, "pausing")
    return None


def failed(execution: Execution, what: str) -> Cell:
    """Log the current internal error; return the cell of the step."""
    errors.log_internal_error(f"{what} a generator stage")
    return execution.cell


def not_paused(execution: Execution, error: Exception) -> None:
    """Pause after the hot path failed to: the step may have begun in another context."""
    if isinstance(error, ValueError) and not errors.from_signal_handler(error):
        pause(execution)
    else:
        failed(execution, "pausing")


def finish(execution: Execution | None, error: BaseException | None = None, steps: int = 0) -> None:
    """Close an execution, suspended or not. Never raises.

    Args:
        execution: of the generator.
        error: the exception that ended it.
        steps: those to take off the steps until the next sample, with the one that ended it.
    """
    if execution is None:
        return
    try:
        pause(execution)
        if execution.run is not None:
            execution.run.end()
        if execution.series is not None:
            execution.cell[0].until_sample -= steps
        if execution.details is not None:
            execution.elapsed = execution.before() + execution.waited
        close(execution, error)
    except BaseException:
        abandon(execution.cell)
        abandon(execution.entry)
        errors.log_internal_error("closing a generator stage")


def yielded(execution: Execution, count: Callable[[Any], int] | None, value: Any) -> None:
    """Count a yielded value as one item, or with `count`. Never raises."""
    if execution.series is not None and count is not None:
        count_items(execution, count, value)


def first_step(source: AsyncGenerator[Any, Any], execution: Execution) -> Awaitable[Any]:
    """Start `source` without registering it with the event loop.

    A loop that ends closes every async generator that registered, all at once. The wrapper closes
    its source itself. If both did, one of them would find the source "already running", and
    asyncio would log that as the user's error.

    A wrapper that outlives its loop is dropped silently, like any async generator, thanks to the
    finalizer set here. Without it Python would close the source, and warn if that awaits.
    """

    def dropped(_: AsyncGenerator[Any, Any]) -> None:
        finish(execution, GeneratorExit())

    previous = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, dropped)
    try:
        return source.asend(None)
    finally:
        sys.set_asyncgen_hooks(*previous)

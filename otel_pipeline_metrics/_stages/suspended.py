"""Suspend and resume the execution of a generator, which runs from item to item."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks, nesting
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import active_cell
from otel_pipeline_metrics._stages import sampling
from otel_pipeline_metrics._stages.execution import NOOP_EXECUTION, Execution
from otel_pipeline_metrics._stages.invocation import (
    DETACHED,
    close,
    count_items,
    deactivate,
    start_span,
    step_span,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._core.stage_id import StageId


def begin_suspended(stage: StageId) -> Execution:
    """Begin an execution that is not current until it is resumed. Never raises."""
    try:
        parent = _series.goes_on(active_cell.get())
        # who pulls its items may change, so it has no caller
        series = parent[0].scope.add(stage)
        cell: Cell = [series, None, 0.0, None, parent, None, None, None]
        execution = cell[3] = Execution(cell)
        execution.ensure_details()
        series.begun.append(cell)
        if not (gc_safety.running_in and gc_safety.here()):
            if hooks.workers is not None:
                hooks.workers.opened(execution)
            start_span(execution)
            step_span(execution, "suspend")
    except Exception:
        errors.log_internal_error("opening a generator stage")
        return NOOP_EXECUTION
    return execution


def resume(execution: Execution) -> None:
    """Make a suspended execution current and count its time. Never raises."""
    series = execution.series
    if series is None:
        return
    try:
        cell = execution.cell
        parent = active_cell.get()
        if parent is None or parent[1] is None:
            parent = _series.goes_on(parent)
        execution.puller = parent[0]
        cell[4] = parent
        if gc_safety.running_in and gc_safety.here():
            cell[1] = DETACHED
        else:
            if execution.span is not None:
                step_span(execution, "resume")
            if hooks.workers is not None:
                hooks.workers.entered(cell)
            cell[1] = active_cell.set(cell)
        steps = series.until_sample = series.until_sample - 1
        if steps < 0:
            sampling.begin(cell)
        began = cell[2] = clock.now()
        if parent[5] is None and cell[5] is None and not nesting.overlapping:
            parent[5] = cell
        else:
            nesting.resume(cell, began)
    except Exception:
        errors.log_internal_error("resuming a generator stage")


def pause(execution: Execution) -> None:
    """Suspend an execution: it is no longer current and its time stops. Never raises."""
    if execution.series is None:
        return
    try:
        cell, now = execution.cell, clock.now()
        parent = cell[4]
        if parent[5] is cell and cell[5] is None and not nesting.overlapping:
            parent[5] = None
        else:
            nesting.close(cell, now)
        elapsed = now - cell[2]
        execution.elapsed += elapsed
        waited = execution.idle + execution.blocked
        if waited != execution.waited:
            elapsed -= waited - execution.waited
            execution.waited = waited
        pulls, puller = execution.ensure_details().pulls, execution.puller
        pulls[puller] = pulls.get(puller, 0.0) + elapsed
        deactivate(execution, now)
        if cell[6] is not None:
            sampling.end(cell, elapsed)
    except Exception:
        errors.log_internal_error("pausing a generator stage")


def finish(execution: Execution, error: BaseException | None = None) -> None:
    """Close a suspended execution. Never raises."""
    try:
        close(execution, error)
    except Exception:
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

"""Begin and end calls that report more than a duration, and end blocks.

`wrappers` handles all others in its hot path: two clock reads, one context variable, a list of
eight, one append; nothing is aggregated and no lock is taken. A block, and a call that reports
more, have an `Execution`, which costs as much again.

The context variable is always named with its module: Python makes an object of each method that is
called of a name that was imported, which takes longer than the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors, hooks, nesting, privacy
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.abandoned import DETACHED, abandon
from otel_pipeline_metrics._core.drain import drain_series
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.process.gc_safety import extras
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN, PENDING_BOUND, Cell
from otel_pipeline_metrics._core.validation import check_count
from otel_pipeline_metrics._stages import sampling
from otel_pipeline_metrics._stages.closing import add_late_span, close, deactivate
from otel_pipeline_metrics._stages.execution import (
    NOOP_EXECUTION,
    execution_of,
    make_execution,
)
from otel_pipeline_metrics._stages.workers.account import EXIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics._core.series import Series
    from otel_pipeline_metrics._stages.execution import Execution


def begin(cell: Cell, *, due: bool) -> float:
    """Make a call current where the hot path cannot, and note when it began.

    Args:
        cell: of the call.
        due: whether `Series.due` was over.
    """
    series, parent = cell[0], cell[4]
    try:
        cell[1] = None  # it is not current yet
        if "p" in extras and gc_safety.here():
            # the garbage collector makes the call
            cell[1] = DETACHED
            execution = cell[3] = make_execution(cell)
            execution.bare = False
        else:
            if hooks.workers is not None:
                hooks.workers.entered(cell)
            elif hooks.tracing is not None:
                open_span(cell)
            cell[1] = _series.active_cell.set(cell)
        if due and cell[6] is None:
            sampling.wake(cell)
        began: float
        began = cell[2] = clock.now()
        # last, since nothing may come between that and the end
        if parent[5] is None and "overlapping" not in extras:
            parent[5] = cell
        else:
            series.kept[id(cell)] = cell
            nesting.enter(cell, began)
        return began  # noqa: TRY300 - a signal handler may raise here
    except BaseException:
        # it may have opened a span without being current
        abandon(cell)
        raise


def not_begun(cell: Cell | None) -> Cell:
    """Log the current internal error; return the cell of a call that is not measured."""
    abandon(cell)
    return unmeasured("beginning a stage")


def unmeasured(where: str) -> Cell:
    """Log the current internal error; return the cell of a call that is not measured."""
    errors.log_internal_error(where)
    return NOOP_EXECUTION.cell


def end_in_other_context(
    cell: Cell,
    error: Exception,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """End a call after the hot path failed to: it may have begun in another context."""
    other_context = isinstance(error, ValueError) and not errors.from_signal_handler(error)
    execution = ensure_execution(cell) if other_context else None
    if execution is not None:
        execution.bare = False
        end(cell, None, count, returned)
    else:
        abandon(cell)
        unmeasured("ending a stage")


def end(  # noqa: C901, PLR0912 - the hot path of blocks
    cell: Cell,
    error: BaseException | None = None,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """End a call where the hot path cannot. Never raises.

    Args:
        cell: of the call.
        error: the exception that ended the user's code.
        count: counts the items of `returned`.
        returned: what the user's code returned.
    """
    execution = cell[3]
    if error is not None or not (
        execution.bare if execution is not None else count is None or len(cell) == CELL_WITHOUT_SPAN
    ):
        _end_with_details(cell, error, count, returned)
        return
    try:
        now = clock.now()
        series, parent, worker, elapsed = cell[0], cell[4], cell[7], now - cell[2]
        if parent[5] is cell and cell[5] is None and "overlapping" not in extras:
            parent[5] = None
        else:
            nesting.close(cell, now)
        if (
            worker is not None
            and hooks.logs_calls
            and hooks.tracing is None
            and worker.plain
            and (stack := worker.stack)
            and stack[-1] is cell
            and execution is None
            and not worker.late
        ):
            # `left` written out
            stack.pop()
            worker.log.append((now, EXIT, series.times, id(cell), cell[2]))
            cell[7] = None
            if not stack:
                worker.context = None
        elif hooks.workers is not None:
            hooks.workers.left(cell, now)
        _series.active_cell.reset(cell[1])
        size: int | None = None
        if count is not None:
            try:
                size = check_count(count(returned), "n")
            except BaseException as failed:  # the call's result must not be lost with its count
                _log_not_counted(series, failed)
        execution = cell[3]  # another thread may have made it meanwhile
        if execution is not None:
            execution.series = cell[3] = None
        if series.kept:
            series.remove(cell)
        cell[1], durations = None, series.durations
        if size is not None:
            series.sizes.append(size)
        if cell[6] is not None:
            sampling.end(cell, elapsed, now)
        if hooks.tracing is not None and (
            len(cell) > CELL_WITHOUT_SPAN or elapsed > series.budget.slow_s
        ):
            # before the duration is there, so that a flush takes both
            with errors.suppress_errors("ending a span"):
                _close_or_add_span(cell, elapsed, size)
        durations.append(elapsed)
        if len(durations) >= PENDING_BOUND:
            drain_series(series)
    except Exception as failed:
        end_in_other_context(cell, failed, count, returned)
    except BaseException:
        abandon(cell)
        raise


def _end_with_details(
    cell: Cell, error: BaseException | None, count: Callable[[Any], int] | None, returned: Any
) -> None:
    execution = ensure_execution(cell)
    if execution is None:
        return
    try:
        now = clock.now()
        leave(cell, now)
        execution.elapsed += now - cell[2]
        deactivate(execution, now)
        if cell[6] is not None:
            sampling.end(cell, execution.elapsed - execution.idle - execution.blocked, now)
        if count is not None:
            count_items(execution, count, returned)
        close(execution, error)
    except BaseException:
        abandon(cell)
        # an internal error, or a callback's, must not change the outcome
        errors.log_internal_error("ending a stage")


def leave(cell: Cell, now: float) -> None:
    """Close a call for the one around it."""
    parent = cell[4]
    if parent[5] is cell and cell[5] is None and "overlapping" not in extras:
        parent[5] = None
    else:
        nesting.close(cell, now)


def _close_or_add_span(cell: Cell, elapsed: float, size: int | None) -> None:
    """End the span of a call, or make one of a slow call."""
    if len(cell) == CELL_WITHOUT_SPAN:
        add_late_span(cell[0], elapsed, size)
    elif hooks.tracing is not None:
        hooks.tracing.close(cell, elapsed)


def ensure_execution(cell: Cell | None) -> Execution | None:
    """Return the execution of a current call, made if need be; None without one."""
    if cell is None or cell[4] is None or cell[1] is None:
        return None
    return execution_of(cell)


def current_execution() -> Execution:
    """Return the innermost execution; outside a stage, one that keeps nothing."""
    cell = _series.active_cell.get()
    if cell is not None and cell[1] is not None:
        execution: Execution | None = cell[3]
        if execution is not None:
            return execution
    return ensure_execution(cell) or NOOP_EXECUTION


def start_span(execution: Execution) -> None:
    """Open the span of an execution, if the budget allows."""
    open_span(execution.cell, execution.links, execution.links_dropped)
    execution.adopt_span()


def open_span(cell: Cell, links: Sequence[Any] = (), links_dropped: int = 0) -> None:
    """Open the span of a call that begins, if the budget allows."""
    try:
        if hooks.tracing is not None:
            hooks.tracing.open(cell, links, links_dropped)
    except Exception:  # the call is measured without a span
        errors.log_internal_error("starting a span")


def count_items(execution: Execution, count: Callable[[Any], int], value: Any) -> None:
    """Count items with the user's `items`; log once if it fails."""
    try:
        execution.add_items(count(value))
    except BaseException as error:  # the call's result must not be lost with its count
        _log_not_counted(execution.series, error)


def _log_not_counted(series: Series | None, error: BaseException) -> None:
    """Log what `items` raised; what was raised into it from outside is raised further."""
    if errors.raised_into(error):
        raise error
    key = series.key if series is not None else None
    errors.warn_once(
        f"items of {key}",
        "the items= of stage %r failed with %s: %s; its items are not counted",
        key.stage if key else "?",
        errors.name_of(error),
        privacy.sanitized_message(error),
    )


@forking.in_child
def _leave_to_parent() -> None:
    """Close the calls that a forked child is inside of: the parent reports them."""
    cell = _series.active_cell.get()
    while cell is not None and cell[4] is not None:
        execution = ensure_execution(cell)
        if execution is not None:
            execution.series = None
        cell = cell[4]

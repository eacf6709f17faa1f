"""The accounting of one execution.

The hot path is written out in `wrappers`: two clock reads, one context variable, a list of
four, two appends. Nothing is aggregated there and no lock is taken. What is here is for whatever
has more to say than a duration: it has an `Execution`, which costs as much again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import clock, errors, hooks, privacy
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.drain import PENDING_BOUND, drain_series
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.records import StageResult, outcome_of, qualified_name
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN, Cell, active_cell
from otel_pipeline_metrics._core.validation import check_count
from otel_pipeline_metrics._stages.execution import NOOP_EXECUTION, Details, Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics._core.series import Series
    from otel_pipeline_metrics._core.stage_id import StageId


DETACHED: Final = object()
"""In a cell's place of a token: measured, but not current."""


# --- invocations ------------------------------------------------------------------------------


def begin(stage: StageId) -> Cell:
    """Begin an invocation of `stage` and make it current. Never raises."""
    try:
        parent = active_cell.get()
        scope = _series.default_scope if parent is None else parent[0].scope
        series = scope.series.get(stage)
        if series is None:
            series = scope.add(stage)
        series.begun.append(None)
        cell: Cell = [series, None, 0.0, None]
        if gc_safety.running_in and gc_safety.here():
            detached(cell)
        else:
            if hooks.workers is not None:
                attach_worker(cell)
            elif hooks.tracing is not None:
                open_span(cell)
            cell[1] = active_cell.set(cell)
        cell[2] = clock.now()
    except Exception:  # a fault of ours must not keep the stage from running
        return unmeasured("beginning a stage")
    return cell


def detached(cell: Cell) -> Any:
    """Let an invocation be measured without being current: the garbage collector called it."""
    cell[1] = DETACHED
    cell[3] = Execution(cell)
    return DETACHED


def unmeasured(where: str) -> Cell:
    """Report the fault being handled; return what stands for an invocation not measured."""
    errors.log_internal_error(where)
    return NOOP_EXECUTION.cell


def end_in_other_context(
    cell: Cell,
    error: Exception,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """End an invocation that could not be ended in the short way, or report the fault."""
    elsewhere = isinstance(error, ValueError) and not errors.from_signal_handler(error)
    if elsewhere and ensure_execution(cell) is not None:
        # in another context than it began in; now that it has an execution, the long way
        end(cell, None, count, returned)
        return
    unmeasured("ending a stage")


def end(
    cell: Cell,
    error: BaseException | None = None,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """End an invocation that has more to tell than its duration. Never raises.

    The wrappers end all others themselves.

    Args:
        cell: what `begin` returned, or a wrapper made.
        error: what the user's code was left with.
        count: how many items `returned` is.
        returned: what the user's code returned.
    """
    if cell[3] is None and error is None and count is not None and len(cell) == CELL_WITHOUT_SPAN:
        _end_counted(cell, count, returned)
        return
    execution = ensure_execution(cell)
    if execution is None:
        return
    try:
        now = clock.now()
        execution.elapsed += now - cell[2]
        _put_aside(execution, now)
        if count is not None:
            count_items(execution, count, returned)
        _close(execution, error)
    except Exception:  # the stage's own outcome stands, whatever befalls us
        errors.log_internal_error("ending a stage")


def _end_counted(cell: Cell, count: Callable[[Any], int], returned: Any) -> None:
    """End an invocation that has its duration and its items to tell, and nothing else."""
    try:
        series, elapsed = cell[0], clock.now() - cell[2]
        active_cell.reset(cell[1])
        cell[1] = None
        size = _size_of(series, count, returned)
        series.durations.append(elapsed)
        if elapsed > series.slow_s:
            add_late_span(series, elapsed, size)
        if len(series.durations) >= PENDING_BOUND:
            drain_series(series)
    except Exception as error:
        end_in_other_context(cell, error, count, returned)


def begin_block(stage: StageId) -> Execution:
    """Begin an invocation that the user's code is given a handle of. Never raises."""
    execution = ensure_execution(begin(stage))
    return NOOP_EXECUTION if execution is None else execution


def ensure_execution(cell: Cell | None) -> Execution | None:
    """Return the execution of a current invocation, made if need be; None outside of any."""
    if cell is None or len(cell) == 1 or cell[1] is None:
        return None
    execution: Execution | None = cell[3]
    if execution is None:
        execution = cell[3] = Execution(cell)
    return execution


def current_execution() -> Execution:
    """Return the innermost execution here, or one that keeps nothing where there is none."""
    return ensure_execution(active_cell.get()) or NOOP_EXECUTION


def attach_worker(cell: Cell) -> None:
    """Tell the worker of an invocation that begins, and open its span if one is wanted."""
    workers = hooks.workers
    if workers is None:
        return
    execution = cell[3] = Execution(cell)
    workers.opened(execution)
    _start_span(execution)
    workers.resuming(execution)


def _start_span(execution: Execution) -> None:
    open_span(execution.cell, execution.links, execution.links_dropped)
    execution.adopt_span()


def open_span(cell: Cell, links: Sequence[Any] = (), links_dropped: int = 0) -> None:
    """Open the span of an invocation that begins, if one is wanted."""
    try:
        if hooks.tracing is not None:
            hooks.tracing.open(cell, links, links_dropped)
    except Exception:  # it is measured without a span
        errors.log_internal_error("starting a span")


def add_late_span(series: Series, elapsed: float, items_out: int | None = None) -> None:
    """Make a span, after the fact, for an invocation that was slow among its like."""
    if hooks.tracing is not None:
        hooks.tracing.record_late_span(series, StageResult(elapsed, items_out=items_out))


def count_items(execution: Execution, count: Callable[[Any], int], value: Any) -> None:
    """Add what the user's `items` says of a value; where it fails, that is said once."""
    try:
        execution.add_items(count(value))
    except Exception as error:  # counting is ours to lose, the result is not
        _not_counted(execution.series, error)


def _size_of(series: Series, count: Callable[[Any], int], value: Any) -> int | None:
    """Count the items of an invocation that has nothing else to tell; None where it fails."""
    try:
        size = check_count(count(value), "n")
    except Exception as error:
        _not_counted(series, error)
        return None
    series.sizes.append(size)
    return size


def _not_counted(series: Series | None, error: Exception) -> None:
    if errors.from_signal_handler(error):
        raise error
    key = series.key if series is not None else None
    errors.warn_once(
        f"items of {key}",
        "the items= of stage %r failed with %s: %s; its items are not counted",
        key.stage if key else "?",
        type(error).__name__,
        privacy.sanitized_message(error),
    )


# --- inside ------------------------------------------------------------------------------------


def _trace(execution: Execution, step: Literal["suspend", "resume"]) -> None:
    """Take a step of the execution's span; it is measured whether that works or not."""
    span = execution.span
    if span is None:
        return
    try:
        if step == "suspend":
            span.suspend()
        else:
            span.resume()
    except Exception:
        errors.log_internal_error(f"a span's {step}")


def _put_aside(execution: Execution, now: float) -> None:
    """Let nothing of the execution be current, and its worker's time be shared out."""
    if hooks.workers is not None:
        try:
            hooks.workers.paused(execution, now)
        except Exception:  # the invocation's own numbers stand
            errors.log_internal_error("a worker's time")
    token, execution.cell[1] = execution.cell[1], None
    if token is None or token is DETACHED or (gc_safety.running_in and gc_safety.here()):
        return
    try:
        active_cell.reset(token)
    except ValueError:
        # closed from another task: nothing of it is current here
        return
    if execution.span is not None:
        _trace(execution, "suspend")


def _close(execution: Execution, error: BaseException | None) -> None:
    series = execution.series
    if series is None:
        return
    if execution.duration_only and error is None:
        if execution.span is not None:
            with errors.suppress_errors("ending a span"):
                execution.span.close(execution.elapsed)
        elif execution.elapsed > series.slow_s:
            add_late_span(series, execution.elapsed)
        series.durations.append(execution.elapsed)
    else:
        series.results.append(_result(execution, error))
    execution.series = None  # closed: a second end and late words change nothing
    execution.cell[3] = None  # and no cycle for the garbage collector to find
    if len(series.durations) >= PENDING_BOUND or len(series.results) >= PENDING_BOUND:
        drain_series(series)


def _result(execution: Execution, error: BaseException | None) -> StageResult:
    detail = execution.details or Details()
    outcome = outcome_of(error)
    failure = error if outcome == "error" else None
    result = StageResult(
        busy_s=execution.elapsed - execution.idle - execution.blocked,
        idle_s=execution.idle,
        blocked_s=execution.blocked,
        outcome=outcome,
        error_type=None if failure is None else qualified_name(type(failure)),
        items_in=detail.items_in,
        items_out=detail.items_out,
        bytes_in=detail.bytes_in,
        bytes_out=detail.bytes_out,
        retries=tuple(detail.retries.items()) if detail.retries else (),
        attributes=detail.attributes,
        event_times=detail.event_times or (),
        error_message=None if failure is None else privacy.message_of(failure),
    )
    series, tracing = execution.series, hooks.tracing
    if series is None:
        return result
    try:
        if execution.span is not None:
            context = execution.span.end(result)
        elif tracing is not None and (outcome == "error" or result.busy_s > series.slow_s):
            context = tracing.record_late_span(series, result)
        else:
            return result
    except Exception:  # the numbers stand without the span
        errors.log_internal_error("ending a span")
        return result
    return result if context is None else result._replace(context=context)


@forking.in_child
def _leave_to_parent() -> None:
    """Let what a forked child is in the middle of be its parent's: no number and no span of it."""
    cell = active_cell.get()
    while cell is not None and len(cell) > 1:
        execution = ensure_execution(cell)
        if execution is not None:
            execution.series = None  # closed
        outer = getattr(cell[1], "old_value", None)
        cell = outer if isinstance(outer, list) else None

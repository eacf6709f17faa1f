"""Close executions: keep their results, and end their spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from otel_pipeline_metrics._core import errors, hooks, privacy, records
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.abandoned import DETACHED
from otel_pipeline_metrics._core.drain import drain_series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.records import StageResult, error_type_of, outcome_of
from otel_pipeline_metrics._core.series import PENDING_BOUND
from otel_pipeline_metrics._core.slowest import keep_slowest
from otel_pipeline_metrics._stages.execution import Details, retried_type

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Series
    from otel_pipeline_metrics._stages.execution import Execution


_STEPS: Final = ("step", "async step")


def step_span(execution: Execution, step: Literal["suspend", "resume"]) -> None:
    """Suspend or resume the span of an execution. Never raises."""
    if execution.span is not None:
        try:
            getattr(execution.span, step)()
        except Exception:
            errors.log_internal_error(f"a span's {step}")


def deactivate(execution: Execution, now: float) -> None:
    """Make an execution no longer current, and stop its worker's time."""
    if hooks.workers is not None:
        hooks.workers.left(execution.cell, now)
    token, execution.cell[1] = execution.cell[1], None
    if token is None or token is DETACHED or (gc_safety.here()):
        return
    try:
        _series.active_cell.reset(token)
    except (ValueError, RuntimeError):
        # it is current in another task only, which did not close it; or an exception interrupted
        # its end just after this
        return
    if execution.span is not None:
        step_span(execution, "suspend")


def close(execution: Execution, error: BaseException | None) -> None:
    """Keep the result of an execution, and end its span."""
    series = execution.series
    if series is None:
        return
    execution.series = None  # closed: ending it again or adding details changes nothing
    entry = execution.entry or execution.cell
    series.remove(entry)
    waited = execution.idle or execution.blocked
    if error is None and execution.details is None and not waited:
        if execution.span is not None:
            with errors.suppress_errors("ending a span"):
                execution.span.close(execution.elapsed)
        elif execution.elapsed > series.budget.slow_s:
            add_late_span(series, execution.elapsed)
        series.durations.append(execution.elapsed)
    else:
        series.results.append((_result(execution, series, error), execution.details))
    entry[3] = execution.cell[3] = None  # leaves no cycle to the garbage collector
    if len(series.durations) >= PENDING_BOUND or len(series.results) >= PENDING_BOUND:
        drain_series(series)


def _result(execution: Execution, series: Series, error: BaseException | None) -> StageResult:
    # not with `isinstance`, which asks the program's class for `__class__`
    if error is not None and issubclass(type(error), tuple(records.asks_for_retry)):
        # the engine calls it again: an attempt, not a failure
        execution.count_retry(retried_type(getattr(error, "exc", None)))
        error = None
    details = execution.details or Details()
    if series.stage.form in _STEPS and issubclass(type(error), (StopIteration, StopAsyncIteration)):
        error = None  # the end of the iteration
    outcome = outcome_of(error)
    failure = error if outcome == "error" else None
    idle, blocked, retries = execution.idle, execution.blocked, list(details.retries.items())
    # in the order of its fields, since names take as long as all the rest
    result = StageResult(
        # the parts may exceed the whole by a rounding error
        max(0.0, execution.elapsed - idle - blocked),
        idle,
        blocked,
        outcome,
        None if failure is None else error_type_of(failure),
        *details.totals(),
        # the next number of a count is how often it was advanced
        tuple([(kind, next(retried)) for kind, retried in retries]),
        details.attributes or None,
        error_message=None if failure is None else privacy.message_of(failure),
    )
    context, tracing = None, hooks.tracing
    try:
        if execution.span is not None:
            context = execution.span.end(result)
        elif tracing is not None and (outcome == "error" or result.busy_s > series.budget.slow_s):
            context = tracing.record_late_span(series, result)
    except Exception:  # the numbers stand without the span
        errors.log_internal_error("ending a span")
    return result if context is None else result._replace(context=context)


def add_late_span(series: Series, elapsed: float, items_out: int | None = None) -> None:
    """Make the span of a slow call after it has ended."""
    if hooks.tracing is not None:
        result = StageResult(elapsed, items_out=items_out)
        context = hooks.tracing.record_late_span(series, result)
        if context is not None and elapsed > series.slow_from:
            keep_slowest(series, elapsed, context)

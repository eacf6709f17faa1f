"""The accounting of one execution.

The hot path is `enter` and `leave`: two clock reads, one context variable, one list append.
Nothing is aggregated there and no lock is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from otel_pipeline_metrics import _clock, _guard, _hooks, _series
from otel_pipeline_metrics._execution import NOTHING, Details, Execution
from otel_pipeline_metrics._model import StageResult, outcome_of, qualified_name
from otel_pipeline_metrics._series import PENDING_BOUND, StageId, current, drain_series

if TYPE_CHECKING:
    from collections.abc import Callable


# --- the hot path ---------------------------------------------------------------------------


def enter(stage: StageId) -> Execution:
    """Open an execution of `stage` and make it current. Never raises."""
    try:
        # `_open` once more, written out: a call less is a tenth of the whole
        parent = current.get()
        scope = _series.ambient if parent is None else parent.scope
        series = scope.series.get(stage)
        if series is None:
            series = scope.add(stage)
        execution = Execution()
        execution.series = series
        execution.scope = scope
        series.active[execution] = None
        if _hooks.workers is not None:
            _hooks.workers.opened(execution)
        if _hooks.tracing is not None:
            try:
                _hooks.tracing.start(execution)
            except Exception:  # noqa: BLE001 - it is measured without a span
                _guard.fault("starting a span")
        if _hooks.workers is not None:
            _hooks.workers.resuming(execution, parent)
        execution.token = current.set(execution)
        execution.started = _clock.now()
    except Exception:  # noqa: BLE001 - a fault of ours must not keep the stage from running
        _guard.fault("opening a stage")
        return NOTHING
    return execution


def leave(
    execution: Execution,
    error: BaseException | None = None,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """Close an execution that was entered here. Never raises.

    Args:
        execution: what `enter` returned.
        error: what the user's code was left with.
        count: how many items `returned` is.
        returned: what the user's code returned.
    """
    series = execution.series
    if series is None:
        return
    try:
        now = _clock.now()
        elapsed = now - execution.started
        if _hooks.workers is not None:
            _hooks.workers.paused(execution, now)
        if execution.plain and error is None and count is None:
            execution.series = None
            del series.active[execution]
            try:  # noqa: SIM105 - contextlib.suppress costs more than all of this
                current.reset(execution.token)  # type: ignore[arg-type]  # set by `enter`
            except ValueError:
                # a block closed from another context, where nothing of it is current
                pass
            series.plain.append(elapsed)
            if len(series.plain) >= PENDING_BOUND:
                drain_series(series)
            return
        execution.elapsed += elapsed
        if _unset_current(execution):
            _trace(execution, "suspend")
        if count is not None:
            count_items(execution, count, returned)
        _close(execution, error)
    except Exception:  # noqa: BLE001 - the stage's own outcome stands, whatever befalls us
        _guard.fault("closing a stage")


# --- executions that are put aside and taken up again: generators ----------------------------


def prepare(stage: StageId) -> Execution:
    """Open an execution that is not current yet. Never raises."""
    try:
        execution = _open(stage)
        if _hooks.workers is not None:
            _hooks.workers.opened(execution)
        _trace(execution, "start")
        _trace(execution, "suspend")
    except Exception:  # noqa: BLE001 - as in `enter`
        _guard.fault("opening a generator stage")
        return NOTHING
    return execution


def resume(execution: Execution) -> None:
    """Make a prepared execution current and let its time count. Never raises."""
    if execution.series is None:
        return
    try:
        _trace(execution, "resume")
        if _hooks.workers is not None:
            _hooks.workers.resuming(execution, current.get())
        execution.token = current.set(execution)
        execution.started = _clock.now()
    except Exception:  # noqa: BLE001 - as in `enter`
        _guard.fault("resuming a generator stage")


def pause(execution: Execution) -> None:
    """Put an execution aside: its time stops, nothing of it stays current. Never raises."""
    if execution.series is None:
        return
    try:
        now = _clock.now()
        execution.elapsed += now - execution.started
        if _hooks.workers is not None:
            _hooks.workers.paused(execution, now)
        if _unset_current(execution):
            _trace(execution, "suspend")
    except Exception:  # noqa: BLE001 - as in `leave`
        _guard.fault("pausing a generator stage")


def finish(execution: Execution, error: BaseException | None = None) -> None:
    """Close an execution that is paused. Never raises."""
    if execution.series is None:
        return
    try:
        _close(execution, error)
    except Exception:  # noqa: BLE001 - as in `leave`
        _guard.fault("closing a generator stage")


def yielded(execution: Execution, count: Callable[[Any], int] | None, value: Any) -> None:
    """Count what a generator gave its consumer: one item, or what `count` says. Never raises."""
    if execution.series is None:
        return
    if count is not None:
        count_items(execution, count, value)
        return
    detail = execution.detail()
    detail.items_out = (detail.items_out or 0) + 1


def count_items(execution: Execution, count: Callable[[Any], int], value: Any) -> None:
    """Add what the user's `items` says of a value; where it fails, that is said once."""
    try:
        execution.add_items(count(value))
    except Exception as error:  # noqa: BLE001 - counting is ours to lose, the result is not
        key = execution.series.key if execution.series is not None else None
        _guard.once(
            f"items of {key}",
            "the items= of stage %r failed with %s: %s; its items are not counted",
            key.stage if key else "?",
            type(error).__name__,
            error,
        )


# --- inside ------------------------------------------------------------------------------------


def _open(stage: StageId) -> Execution:
    parent = current.get()
    scope = _series.ambient if parent is None else parent.scope
    series = scope.add(stage)
    execution = Execution()
    execution.series = series
    execution.scope = scope
    series.active[execution] = None
    return execution


def _trace(execution: Execution, step: Literal["start", "suspend", "resume"]) -> None:
    """Take a step of the execution's span; it is measured whether that works or not."""
    if _hooks.tracing is None or (step != "start" and execution.span is None):
        return
    try:
        getattr(_hooks.tracing, step)(execution)
    except Exception:  # noqa: BLE001 - as said
        _guard.fault(f"a span's {step}")


def _unset_current(execution: Execution) -> bool:
    """Take the execution off; False where this is not the context that it was put on in."""
    token, execution.token = execution.token, None
    if token is None:
        return False
    try:
        current.reset(token)
    except ValueError:
        # closed from another task: nothing of it is current here
        return False
    return True


def _close(execution: Execution, error: BaseException | None) -> None:
    series = execution.series
    if series is None:
        return
    series.active.pop(execution, None)
    if execution.plain and error is None:
        series.plain.append(execution.elapsed)
    else:
        series.results.append(_result(execution, error))
    execution.series = None  # closed: a second leave and late words change nothing
    if len(series.plain) >= PENDING_BOUND or len(series.results) >= PENDING_BOUND:
        drain_series(series)


def _result(execution: Execution, error: BaseException | None) -> StageResult:
    detail = execution.details or Details()
    outcome = outcome_of(error)
    result = StageResult(
        busy_s=execution.elapsed - execution.idle - execution.blocked,
        idle_s=execution.idle,
        blocked_s=execution.blocked,
        outcome=outcome,
        error_type=None if error is None or outcome != "error" else qualified_name(type(error)),
        items_in=detail.items_in,
        items_out=detail.items_out,
        bytes_in=detail.bytes_in,
        bytes_out=detail.bytes_out,
        retries=tuple(detail.retries.items()) if detail.retries else (),
        attributes=detail.attributes,
        event_times=detail.event_times or (),
    )
    if execution.span is None or _hooks.tracing is None:
        return result
    try:
        context = _hooks.tracing.end(execution, result)
    except Exception:  # noqa: BLE001 - the numbers stand without the span
        _guard.fault("ending a span")
        return result
    return result if context is None else result._replace(context=context)


def innermost() -> Execution:
    """Return the innermost execution here, or one that keeps nothing where there is none."""
    found = current.get()
    if isinstance(found, Execution) and found.series is not None:
        return found
    return NOTHING

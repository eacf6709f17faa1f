"""Measure generators and async generators, item by item."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import hooks as _hooks
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import active_cell
from otel_pipeline_metrics._core.stage_id import StageId
from otel_pipeline_metrics._stages.execution import NOOP_EXECUTION, Execution
from otel_pipeline_metrics._stages.invocation import (
    DETACHED,
    _close,
    _put_aside,
    _start_span,
    _trace,
    count_items,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._stages.wrappers import ItemCounter


# --- invocations that are put aside and taken up again: generators --------------------------------


def begin_suspended(stage: StageId) -> Execution:
    """Open an execution that is not current yet. Never raises."""
    try:
        parent = active_cell.get()
        scope = _series.default_scope if parent is None else parent[0].scope
        series = scope.add(stage)
        series.begun.append(None)
        execution = Execution([series, None, 0.0, None])
        execution.cell[3] = execution
        if not (gc_safety.running_in and gc_safety.here()):
            if _hooks.workers is not None:
                _hooks.workers.opened(execution)
            _start_span(execution)
            _trace(execution, "suspend")
    except Exception:
        errors.log_internal_error("opening a generator stage")
        return NOOP_EXECUTION
    return execution


def resume(execution: Execution) -> None:
    """Make a prepared execution current and let its time count. Never raises."""
    if execution.series is None:
        return
    try:
        cell = execution.cell
        if gc_safety.running_in and gc_safety.here():
            cell[1] = DETACHED
        else:
            _trace(execution, "resume")
            if _hooks.workers is not None:
                _hooks.workers.resuming(execution)
            cell[1] = active_cell.set(cell)
        cell[2] = clock.now()
    except Exception:
        errors.log_internal_error("resuming a generator stage")


def pause(execution: Execution) -> None:
    """Put an execution aside: its time stops, nothing of it stays current. Never raises."""
    if execution.series is None:
        return
    try:
        now = clock.now()
        execution.elapsed += now - execution.cell[2]
        _put_aside(execution, now)
    except Exception:
        errors.log_internal_error("pausing a generator stage")


def finish(execution: Execution, error: BaseException | None = None) -> None:
    """Close an execution that is paused. Never raises."""
    if execution.series is None:
        return
    try:
        _close(execution, error)
    except Exception:
        errors.log_internal_error("closing a generator stage")


def yielded(execution: Execution, count: Callable[[Any], int] | None, value: Any) -> None:
    """Count what a generator gave its consumer: one item, or what `count` says. Never raises."""
    if execution.series is None:
        return
    if count is not None:
        count_items(execution, count, value)
        return
    detail = execution.ensure_details()
    detail.items_out = (detail.items_out or 0) + 1


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        execution = begin_suspended(stage)
        # Closing is one more throw, as `close()` itself does it; `left` remembers it, since
        # the source may answer it with a plain return.
        given = left = None
        held: list[Any] = []  # empty while the consumer works: batches are large
        try:
            source = function(*args, **kwargs)
            del args, kwargs
            step: Callable[[Any], Any] = source.send
            while True:
                resume(execution)
                try:
                    held.append(step(given))
                except StopIteration as stop:
                    returned = stop.value
                    break
                finally:
                    pause(execution)
                yielded(execution, items, held[0])
                try:
                    given = left = None
                    step, given = source.send, (yield held.pop())
                except GeneratorExit as closed:
                    step, given, left = source.throw, closed, closed
                except BaseException as thrown:  # it is the source's to answer
                    step, given = source.throw, thrown
        except BaseException as error:
            given = left = None  # the error's traceback holds this frame: no cycle with it
            finish(execution, error)
            raise
        finish(execution, left)
        return returned

    return wrapper


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        execution = begin_suspended(stage)
        step: Awaitable[Any] | None = None
        left: BaseException | None = None
        held: list[Any] = []
        try:
            source = function(*args, **kwargs)
            del args, kwargs
            step = _first_step(source, execution)
            while True:
                resume(execution)
                try:
                    held.append(await step)
                except StopAsyncIteration:
                    break
                finally:
                    pause(execution)
                yielded(execution, items, held[0])
                try:
                    step = left = None
                    step = source.asend((yield held.pop()))
                except GeneratorExit as closed:
                    step, left = source.athrow(closed), closed
                except BaseException as thrown:  # it is the source's to answer
                    step = source.athrow(thrown)
        except BaseException as error:
            step = left = None  # the error's traceback holds this frame: no cycle with it
            finish(execution, error)
            raise
        finish(execution, left)

    return wrapper


def _first_step(source: AsyncGenerator[Any, Any], execution: Execution) -> Awaitable[Any]:
    """Start `source` unseen by the event loop.

    The loop closes every async generator it has seen start, all at once, when it ends. The
    wrapper closes its source itself; were both to do it, one of them would find the source
    "already running", and asyncio would log that as the user's error.

    A wrapper that outlives its loop is dropped without a word, as any async generator is.
    The finalizer keeps it so: without one, Python would close the source, and complain
    where that has something to await.
    """

    def dropped(_: AsyncGenerator[Any, Any]) -> None:
        finish(execution, GeneratorExit())

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, dropped)
    try:
        return source.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)

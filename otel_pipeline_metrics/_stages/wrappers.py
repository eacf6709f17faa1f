"""Wrap functions and coroutine functions: the hot path.

A call that reports only its duration is handled right here, written out twice, since two more
function calls would add a fifth to its cost. `signature` gives both wrappers the parameters of the
user's function. Calls that report more go to `invocation`. The user's function never runs inside
a guard. The wrappers close over names and functions only, and reach the context variable through
modules, so that decorated functions pickle, also by value (cloudpickle).
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, nesting
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN
from otel_pipeline_metrics._stages import sampling
from otel_pipeline_metrics._stages.generators import async_generator_wrapper, generator_wrapper
from otel_pipeline_metrics._stages.invocation import (
    add_late_span,
    detached,
    end,
    end_in_other_context,
    unmeasured,
)
from otel_pipeline_metrics._stages.signature import with_signature_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otel_pipeline_metrics._core.series import Cell
    from otel_pipeline_metrics._core.stage_id import Form, StageId

    ItemCounter = Callable[[Any], int]


# The methods that raise at the end of an iteration, and the functions that call them.
_STEPS: Final = frozenset({"__next__", "__anext__", "next", "anext"})


def wrap(
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    """Return a callable of the same kind as `function` that measures it as `stage`."""
    called = called_by(function)
    if inspect.isasyncgenfunction(called):
        return async_generator_wrapper(function, stage.of("async generator"), items)
    if inspect.isgeneratorfunction(called):
        return generator_wrapper(function, stage.of("generator"), items)
    steps = getattr(called, "__name__", None) in _STEPS
    if inspect.iscoroutinefunction(called):
        form: Form = "async step" if steps else "coroutine"
        return with_signature_of(_coroutine, function, stage.of(form), items)
    return with_signature_of(_function, function, stage.of("step") if steps else stage, items)


def called_by(function: Callable[..., Any]) -> Any:
    """Return what runs when `function` is called: inside a `partial`, or its `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    # Python 3.10 does not count the bound methods of C as routines
    if inspect.isroutine(function) or isinstance(function, types.MethodWrapperType):
        return function
    return type(function).__call__


def _function(  # noqa: C901, PLR0915 - the hot path
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - the hot path
        # --- it begins
        try:
            current, now = _series.active_cell, clock.now
            parent: Any = current.get()
            if parent is None:
                parent = _series.default_cell
            elif parent[1] is None:
                parent = _series.goes_on(parent)
            try:
                series = parent[0].called[stage]
            except KeyError:
                series = parent[0].add(stage)
            cell: Cell = [series, None, 0.0, None, parent, None, None, None]
            tracing, workers = hooks.tracing, hooks.workers
            if gc_safety.running_in and gc_safety.here():
                token = detached(cell)
            else:
                if workers is not None:
                    workers.entered(cell)
                elif tracing is not None:
                    try:
                        tracing.open(cell)
                    except Exception:  # the call is measured without a span
                        errors.log_internal_error("starting a span")
                token = cell[1] = current.set(cell)
            series.begun.append(cell)
            if series.watch:
                sampling.begin(cell)
            began = cell[2] = now()
            # last, since nothing may come between that and the end
            if parent[5] is None and not nesting.overlapping:
                parent[5] = cell
            else:
                nesting.enter(parent, cell, began)
        except Exception:  # an internal error must not stop the stage
            cell = unmeasured("beginning a stage")
        # --- the user's
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            end(cell, error)
            raise
        # --- it ends
        if cell[3] is not None or items is not None:
            end(cell, None, items, returned)
            return returned
        try:
            ended = now()
            if parent[5] is cell and cell[5] is None and not nesting.overlapping:
                parent[5] = None
            else:
                nesting.close(cell, ended)
            elapsed = ended - began
            if workers is not None:
                workers.left(cell, ended)
            current.reset(token)
            durations = series.durations
            durations.append(elapsed)
            cell[1] = None
            if tracing is not None:
                if len(cell) > CELL_WITHOUT_SPAN:
                    tracing.close(cell, elapsed)
                elif elapsed > series.budget.slow_s:
                    add_late_span(series, elapsed)
            if len(durations) >= series.wakes_at:
                sampling.wake(series)
        except Exception as error:  # an internal error must not change the outcome
            end_in_other_context(cell, error)
        return returned

    return wrapper


def _coroutine(  # noqa: C901, PLR0915 - the hot path
    function: Callable[..., Awaitable[Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - the hot path
        # --- it begins
        try:
            current, now = _series.active_cell, clock.now
            parent: Any = current.get()
            if parent is None:
                parent = _series.default_cell
            elif parent[1] is None:
                parent = _series.goes_on(parent)
            try:
                series = parent[0].called[stage]
            except KeyError:
                series = parent[0].add(stage)
            cell: Cell = [series, None, 0.0, None, parent, None, None, None]
            tracing, workers = hooks.tracing, hooks.workers
            if gc_safety.running_in and gc_safety.here():
                token = detached(cell)
            else:
                if workers is not None:
                    workers.entered(cell)
                elif tracing is not None:
                    try:
                        tracing.open(cell)
                    except Exception:  # the call is measured without a span
                        errors.log_internal_error("starting a span")
                token = cell[1] = current.set(cell)
            series.begun.append(cell)
            if series.watch:
                sampling.begin(cell)
            began = cell[2] = now()
            # last, since nothing may come between that and the end
            if parent[5] is None and not nesting.overlapping:
                parent[5] = cell
            else:
                nesting.enter(parent, cell, began)
        except Exception:  # an internal error must not stop the stage
            cell = unmeasured("beginning a stage")
        # --- the user's
        try:
            awaited = function(*args, **kwargs)
            if cell[6] is not None:
                awaited = sampling.driven(cell[6], awaited)
            returned = await awaited
        except BaseException as error:
            end(cell, error)
            raise
        # --- it ends
        if cell[3] is not None or items is not None:
            end(cell, None, items, returned)
            return returned
        try:
            ended = now()
            if parent[5] is cell and cell[5] is None and not nesting.overlapping:
                parent[5] = None
            else:
                nesting.close(cell, ended)
            elapsed = ended - began
            if workers is not None:
                workers.left(cell, ended)
            current.reset(token)
            durations = series.durations
            durations.append(elapsed)
            cell[1] = None
            if tracing is not None:
                if len(cell) > CELL_WITHOUT_SPAN:
                    tracing.close(cell, elapsed)
                elif elapsed > series.budget.slow_s:
                    add_late_span(series, elapsed)
            if len(durations) >= series.wakes_at:
                sampling.wake(series)
        except Exception as error:  # an internal error must not change the outcome
            end_in_other_context(cell, error)
        return returned

    return wrapper

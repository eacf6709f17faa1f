"""The four thin wrappers around a user's function: plain, coroutine, generator, async generator.

What costs most when it is called is written out here, in the plain and in the coroutine wrapper:
an invocation with nothing to tell but its duration. Two calls would be a fifth of that. `signature`
gives these two the parameters of the function. All else is in `invocation`, once. The user's
function never runs inside a guard. The wrappers close over names and functions alone, and reach
the context variable through modules, so that decorated functions pickle, by value too
(cloudpickle).
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import hooks as _hooks
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.drain import PENDING_BOUND, drain_series
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.series import PLAIN
from otel_pipeline_metrics._stages.invocation import (
    apart,
    end,
    failed,
    finish,
    not_ended,
    observe,
    pause,
    prepare,
    resume,
    show_slow,
    yielded,
)
from otel_pipeline_metrics._stages.signature import wrapper_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from otel_pipeline_metrics._core.series import Cell, StageId
    from otel_pipeline_metrics._stages.execution import Execution

    ItemCounter = Callable[[Any], int]


def wrap(
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    """Return `function` measured as `stage`, of the same kind of callable as it was."""
    called: Any = function
    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called):
        # an instance with __call__ is what its __call__ is
        called = type(called).__call__
    if inspect.isasyncgenfunction(called):
        return _async_generator(function, stage, items)
    if inspect.isgeneratorfunction(called):
        return _generator(function, stage, items)
    if inspect.iscoroutinefunction(called):
        return wrapper_of(_coroutine, function, stage, items)
    return wrapper_of(_plain, function, stage, items)


def _plain(  # noqa: C901 - the hot path, written out
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912 - the hot path, written out
        # --- it begins
        try:
            current, now = _series.current, clock.now
            parent = current.get()
            scope = _series.ambient if parent is None else parent[0].scope
            try:
                series = scope.series[stage]
            except KeyError:
                series = scope.add(stage)
            series.begun.append(None)
            cell: Cell = [series, None, 0.0, None]
            tracing = _hooks.tracing
            if gc_safety.running_in and gc_safety.here():
                token = apart(cell)
            else:
                if _hooks.workers is not None:
                    observe(cell)
                elif tracing is not None:
                    try:
                        tracing.open(cell)
                    except Exception:  # noqa: BLE001 - it is measured without a span
                        errors.fault("starting a span")
                token = cell[1] = current.set(cell)
            began = cell[2] = now()
        except Exception:  # noqa: BLE001 - a fault of ours must not keep the stage from running
            cell = failed("beginning a stage")
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
            elapsed = now() - began
            current.reset(token)
            cell[1] = None
            plain = series.plain
            plain.append(elapsed)
            if tracing is not None:
                if len(cell) > PLAIN:
                    tracing.close(cell, elapsed)
                elif elapsed > series.slow_s:
                    show_slow(series, elapsed)
            if len(plain) >= PENDING_BOUND:
                drain_series(series)
        except Exception as error:  # noqa: BLE001 - the stage's own outcome stands, whatever befalls us
            not_ended(cell, error)
        return returned

    return wrapper


def _coroutine(  # noqa: C901 - the hot path, written out
    function: Callable[..., Awaitable[Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912 - as above
        # --- it begins
        try:
            current, now = _series.current, clock.now
            parent = current.get()
            scope = _series.ambient if parent is None else parent[0].scope
            try:
                series = scope.series[stage]
            except KeyError:
                series = scope.add(stage)
            series.begun.append(None)
            cell: Cell = [series, None, 0.0, None]
            tracing = _hooks.tracing
            if gc_safety.running_in and gc_safety.here():
                token = apart(cell)
            else:
                if _hooks.workers is not None:
                    observe(cell)
                elif tracing is not None:
                    try:
                        tracing.open(cell)
                    except Exception:  # noqa: BLE001 - it is measured without a span
                        errors.fault("starting a span")
                token = cell[1] = current.set(cell)
            began = cell[2] = now()
        except Exception:  # noqa: BLE001 - a fault of ours must not keep the stage from running
            cell = failed("beginning a stage")
        # --- the user's
        try:
            returned = await function(*args, **kwargs)
        except BaseException as error:
            end(cell, error)
            raise
        # --- it ends
        if cell[3] is not None or items is not None:
            end(cell, None, items, returned)
            return returned
        try:
            elapsed = now() - began
            current.reset(token)
            cell[1] = None
            plain = series.plain
            plain.append(elapsed)
            if tracing is not None:
                if len(cell) > PLAIN:
                    tracing.close(cell, elapsed)
                elif elapsed > series.slow_s:
                    show_slow(series, elapsed)
            if len(plain) >= PENDING_BOUND:
                drain_series(series)
        except Exception as error:  # noqa: BLE001 - the stage's own outcome stands, whatever befalls us
            not_ended(cell, error)
        return returned

    return wrapper


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        execution = prepare(stage)
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
                except BaseException as thrown:  # noqa: BLE001 - it is the source's to answer
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
        execution = prepare(stage)
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
                except BaseException as thrown:  # noqa: BLE001 - it is the source's to answer
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

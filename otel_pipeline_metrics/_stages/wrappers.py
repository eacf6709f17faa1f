"""Wrap functions and coroutine functions: the hot path.

A call that reports only its duration is handled right here, written out twice, since two more
function calls would add a fifth to its cost. `signature` makes the wrappers of a function from
these makers. Calls that report more go to `invocation`. The user's function never runs inside a
guard. The wrappers reach this package through `internals`, so that they pickle.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._stages.generators import async_generator_wrapper, generator_wrapper
from otel_pipeline_metrics._stages.internals import internals
from otel_pipeline_metrics._stages.measured import is_measured, measured
from otel_pipeline_metrics._stages.signature import with_signature_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from otel_pipeline_metrics._core.stage_id import Form, StageId

    ItemCounter = Callable[[Any], int]


# The methods that raise at the end of an iteration, and the functions that call them.
_STEPS: Final = frozenset({"__next__", "__anext__", "next", "anext"})


def wrap(
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    """Return a callable of the same kind as `function` that measures it as `stage`."""
    called = called_by(function)
    steps = getattr(called, "__name__", None) in _STEPS
    form: Form = "step" if steps else "call"
    make: Any = _function
    if inspect.isasyncgenfunction(called):
        make, form = async_generator_wrapper, "async generator"
    elif _flags_of(called) & inspect.CO_ITERABLE_COROUTINE:
        make, form = _coroutine, "coroutine"
    elif inspect.isgeneratorfunction(called):
        make, form = generator_wrapper, "generator"
    # one that is only marked as a coroutine function begins at its call
    elif _flags_of(called) & inspect.CO_COROUTINE:
        make, form = _coroutine, "async step" if steps else "coroutine"
    wrapper = with_signature_of(make, function, stage.of(form), items)
    if type(function) is not types.FunctionType:
        return measured(function, wrapper, form not in {"call", "step"}, (wrap, stage, items))
    vars(wrapper)["__opm_items__"] = items  # for who decorates it anew
    if _flags_of(called) & inspect.CO_ITERABLE_COROUTINE:
        wrapper = types.coroutine(with_signature_of(_iterable, wrapper))
    return wrapper


def called_by(function: Any) -> Any:
    """Return what runs when `function` is called: inside a `partial`, or its `__call__`."""
    while isinstance(function, functools.partial) or is_measured(function):
        function = vars(function)["__wrapped__"] if is_measured(function) else function.func
    # Python 3.10 does not count the bound methods of C as routines
    if inspect.isroutine(function) or isinstance(function, types.MethodWrapperType):
        return function
    return type(function).__call__


def _flags_of(called: Any) -> int:
    flags = getattr(getattr(called, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def _function(  # noqa: C901 - the hot path
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912 - the hot path
        cell: Any = None
        try:
            # --- it begins
            try:
                current, now = internals.active_cell, internals.clock.now
                parent: Any = current.get()
                if parent is None:
                    parent = internals.series.default_cell
                elif parent[1] is None:
                    parent = internals.series.goes_on(parent)
                try:
                    series = next(parent[0].turns[stage])
                except internals.no_turn:
                    cell = internals.series.cell_of_due(parent, stage)
                    token, began = None, internals.invocation.begin(cell, due=True)
                else:
                    cell = [series, True, 0.0, None, parent, None, None, None]
                    # by falling through: where Python 3.10 jumps, it may switch threads
                    if not internals.extras and parent[5] is None:
                        parent[5] = cell
                        token = cell[1] = current.set(cell)
                        began = cell[2] = now()
                    else:
                        token, began = None, internals.invocation.begin(cell, due=False)
            except internals.failure:  # an internal error must not stop the stage
                cell, token = internals.invocation.not_begun(cell), None
            # --- the user's
            try:
                returned = function(*args, **kwargs)
            except internals.anything as error:
                internals.invocation.end(cell, error)
                raise
            # --- it ends
            if token is None or items is not None:
                return internals.later.end(cell, items, returned)
            if (
                returned is not None
                and type(returned) is not series.returned
                and internals.later.is_later(series, returned)
            ):
                return internals.later.end(cell, items, returned)
            try:
                elapsed = now() - began
                # by falling through: where Python 3.10 jumps, it may switch threads
                if cell[3] is None and cell[5] is None:
                    parent[5] = None
                else:
                    internals.invocation.end(cell)
                    return returned
                current.reset(token)
                cell[1] = None
                series.durations.append(elapsed)
            except internals.failure as error:  # an internal error must not change the outcome
                internals.invocation.end_in_other_context(cell, error)
            return returned  # noqa: TRY300 - the handler is for what is raised at this line too
        except internals.anything:
            if cell is not None and cell[1] is not None:
                internals.invocation.abandon(cell)
            raise

    return wrapper


def _coroutine(  # noqa: C901 - the hot path
    function: Callable[..., Awaitable[Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Awaitable[Any]]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912 - the hot path
        cell: Any = None
        try:
            # --- it begins
            try:
                current, now = internals.active_cell, internals.clock.now
                parent: Any = current.get()
                if parent is None:
                    parent = internals.series.default_cell
                elif parent[1] is None:
                    parent = internals.series.goes_on(parent)
                try:
                    series = next(parent[0].turns[stage])
                except internals.no_turn:
                    cell = internals.series.cell_of_due(parent, stage)
                    token, began = None, internals.invocation.begin(cell, due=True)
                else:
                    cell = [series, True, 0.0, None, parent, None, None, None]
                    # by falling through: where Python 3.10 jumps, it may switch threads
                    if not internals.extras and parent[5] is None:
                        parent[5] = cell
                        token = cell[1] = current.set(cell)
                        began = cell[2] = now()
                    else:
                        token, began = None, internals.invocation.begin(cell, due=False)
            except internals.failure:  # an internal error must not stop the stage
                cell, token = internals.invocation.not_begun(cell), None
            # --- the user's
            try:
                awaited = function(*args, **kwargs)
                if token is None and cell[6] is not None:
                    awaited = internals.sampling.driven(cell, awaited)
                returned = await awaited
            except internals.anything as error:
                internals.invocation.end(cell, error)
                raise
            # --- it ends
            if token is None or items is not None:
                internals.invocation.end(cell, None, items, returned)
                return returned
            try:
                elapsed = now() - began
                # by falling through: where Python 3.10 jumps, it may switch threads
                if cell[3] is None and cell[5] is None:
                    parent[5] = None
                else:
                    internals.invocation.end(cell)
                    return returned
                current.reset(token)
                cell[1] = None
                series.durations.append(elapsed)
            except internals.failure as error:  # an internal error must not change the outcome
                internals.invocation.end_in_other_context(cell, error)
            return returned  # noqa: TRY300 - the handler is for what is raised at this line too
        except internals.anything:
            if cell is not None and cell[1] is not None:
                internals.invocation.abandon(cell)
            raise

    return wrapper


def _iterable(
    function: Callable[..., Awaitable[Any]],
) -> Callable[..., Generator[Any, Any, Any]]:
    """Make a generator function, for `types.coroutine`, of a coroutine function."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from function(*args, **kwargs))  # type: ignore[misc]

    return wrapper

"""Measure a call of a plain function until its result is there: a future, or a coroutine.

A future is returned itself and measured until it is done, a coroutine in one that drives it. What
ran at the call counts too.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, nesting
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.abandoned import DETACHED
from otel_pipeline_metrics._core.series import active_cell
from otel_pipeline_metrics._stages import closing, invocation, sampling, suspended
from otel_pipeline_metrics._stages.execution import execution_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.series import Cell, Series
    from otel_pipeline_metrics._core.stage_id import Form
    from otel_pipeline_metrics._stages.execution import Execution

    ItemCounter = Callable[[Any], int]


# Types that a series remembers as those of results.
_MAX_TYPES: Final = 256


def is_later(series: Series, returned: Any) -> bool:
    """Tell whether the result of a call is still to come; `returned` is of an unusual type."""
    kind = type(returned)
    if id(kind) in series.plain:
        return False
    if kind is types.CoroutineType or _is_future(kind) or _is_coroutine(kind):
        return True
    if len(series.plain) < _MAX_TYPES:
        # by identity: comparing types may be the program's code
        series.plain[id(kind)] = kind
        series.returned = kind
    return False


def end(cell: Cell, items: ItemCounter | None, returned: Any) -> Any:
    """End a call of a plain function, now or later; return what it is to return."""
    series = cell[0]
    if (
        returned is None
        or series is None
        or type(returned) is series.returned
        or not is_later(series, returned)
    ):
        invocation.end(cell, None, items, returned)
        return returned
    try:
        if _is_future(type(returned)):
            _watch(cell, items, returned)
            return returned
        return _driven(_moved(cell, "coroutine"), items, returned)
    except Exception:  # the program gets its own
        errors.log_internal_error("measuring a call whose result comes later")
        return returned


def _is_future(kind: type) -> bool:
    futures = sys.modules.get("concurrent.futures._base")
    future = None if futures is None else futures.Future
    # as `asyncio.isfuture`, without asking the program's classes
    return any(each is future or "_asyncio_future_blocking" in vars(each) for each in kind.__mro__)


def _is_coroutine(kind: type) -> bool:
    """Tell whether it is a coroutine not of Python's own, such as Cython's."""
    return all(
        any(name in vars(each) for each in kind.__mro__) for name in ("__await__", "send", "throw")
    )


def _moved(cell: Cell, form: Form) -> Execution:
    """Take a call out of its context, and go on with it in another form of its stage."""
    execution, before, now = execution_of(cell), cell[0], clock.now()
    invocation.leave(cell, now)
    execution.elapsed += now - cell[2]
    execution.bare = False
    closing.deactivate(execution, now)
    cell[3] = cell[6] = None
    before.remove(cell)
    parent, stage = cell[4], before.stage.of(form)
    series = parent[0].called.get(stage) or _series.add(parent, stage)
    execution.cell = [series, None, now, execution, parent, None, None, None]
    execution.series = series
    series.kept[id(execution.cell)] = execution.cell
    return execution


# --- futures -----------------------------------------------------------------------------------


def _watch(cell: Cell, items: ItemCounter | None, future: Any) -> None:
    if future.done():
        # a callback would be called by the event loop
        error, result = _outcome(future)
        invocation.end(cell, error, None if error else items, result)
        return
    # what of its time runs is unknown, as in a block of a task
    goes_on = _moved(cell, "task block").cell
    goes_on[1] = DETACHED
    nesting.enter(goes_on, goes_on[2])
    future.add_done_callback(functools.partial(_done, goes_on, items))


def _done(cell: Cell, items: ItemCounter | None, future: Any) -> None:
    with errors.suppress_errors("ending a call whose future is done"):
        error, result = _outcome(future)
        invocation.end(cell, error, None if error else items, result)


def _outcome(future: Any) -> tuple[BaseException | None, Any]:
    """Return a future's exception and result; its exception stays one that was not retrieved."""
    if future.cancelled():
        return asyncio.CancelledError(), None
    return getattr(future, "_exception", None), getattr(future, "_result", None)


# --- coroutines --------------------------------------------------------------------------------


class _Held:
    """A coroutine until somebody awaits it.

    One that is never awaited is closed, since the coroutine around it warns of that already.
    """

    __slots__ = ("coroutine", "execution")

    def __init__(self, coroutine: Any, execution: Execution) -> None:
        self.coroutine = coroutine
        self.execution = execution

    def take(self) -> Any:
        coroutine, self.coroutine = self.coroutine, None
        return coroutine

    def __del__(self) -> None:
        if self.coroutine is not None:
            self.coroutine.close()
            suspended.finish(self.execution, GeneratorExit())


def _driven(execution: Execution, items: ItemCounter | None, coroutine: Any) -> Any:
    around: Any = _await(_Held(coroutine, execution), execution, items)
    around.__name__ = getattr(coroutine, "__name__", around.__name__)
    around.__qualname__ = getattr(coroutine, "__qualname__", around.__qualname__)
    return around


async def _await(held: _Held, execution: Execution, items: ItemCounter | None) -> Any:
    awaited, cell, at_the_call = held.take(), execution.cell, execution.elapsed
    _resume(execution)
    try:
        returned = await (awaited if cell[6] is None else sampling.driven(cell, awaited))
    except BaseException as error:
        _add_to_sample(cell, at_the_call)
        invocation.end(cell, error)
        raise
    _add_to_sample(cell, at_the_call)
    invocation.end(cell, None, items, returned)
    return returned


def _resume(execution: Execution) -> None:
    """Make a moved call current. Never raises."""
    try:
        cell, parent = execution.cell, active_cell.get()
        if parent is None or parent[1] is None:
            parent = _series.goes_on(parent)
        cell[4] = parent
        if execution.span is not None:
            closing.step_span(execution, "resume")
        if hooks.workers is not None:
            hooks.workers.entered(cell)
        cell[1] = active_cell.set(cell)
        if next(cell[0].due, None) is None:
            sampling.wake(cell, known=True)
        cell[2] = clock.now()
        nesting.enter(cell, cell[2])
    except Exception:
        errors.log_internal_error("resuming a call whose result comes later")


def _add_to_sample(cell: Cell, at_the_call: float) -> None:
    """Count what ran at the call as running."""
    watch = cell[6]
    if watch is not None and watch.running is not None:
        watch.running += at_the_call

"""Carry the context into threads and processes.

A thread of a pool lacks the context in which its work was submitted: the run, the stage around it
and the current span. A process has only what was pickled.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, TypeVar, cast

from opentelemetry import context as context_api

from otel_pipeline_metrics._core import errors, hooks, remote_runs, series
from otel_pipeline_metrics._core.process.forking import this_process
from otel_pipeline_metrics._stages.workers import finding

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


def _propagator() -> Any:
    """Return what OTEL_PROPAGATORS names; W3C trace context if that cannot be loaded."""
    try:
        from opentelemetry import propagate as named
    except Exception as error:  # the API raises it at its import
        from opentelemetry.trace.propagation import tracecontext

        errors.warn_once(
            "propagators", "OTEL_PROPAGATORS cannot be used (%s); tracecontext is used", error
        )
        return tracecontext.TraceContextTextMapPropagator()
    return named


PROPAGATOR: Final = _propagator()


P = ParamSpec("P")
R = TypeVar("R")


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` so that it runs in the current context, wherever it is called.

    Context variables are carried along, and with them the run, the stage around, and
    OpenTelemetry's current span and baggage. The caller does not see changes to them. The result
    may be called any number of times, by several threads at a time. A coroutine function gives a
    coroutine function.

    It pickles if `function` does. Another process gets the W3C headers of the span and the
    baggage, and the run's name and id: spans there are children of the one current here, and
    metrics count stages for the run. The run's report counts this process only; for the others see
    `Run.context()`, and `wrap_executor`, which brings theirs back.

    Raises:
        TypeError: `function` is not callable, or is a generator function, which runs in the
            context of the code that iterates.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("function must not be a generator function: it runs where it is iterated")
    if inspect.iscoroutinefunction(function):
        return cast("Callable[P, R]", _coroutine_function(function))
    return Propagated(function)


class Propagated(Generic[P, R]):
    """A function and the context that it runs in."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._context = contextvars.copy_context()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a copy of the context: a context takes one call at a time."""
        return run_in(self._context.copy(), self._function, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle with the part of the context that another process can use."""
        return FromOtherProcess, (self._function, *self.carried(), this_process())

    @property
    def function(self) -> Callable[P, R]:
        """The function alone."""
        return self._function

    def carried(self) -> tuple[dict[str, str], str | None, str | None]:
        """Return what of the context another process can use."""
        return self._context.copy().run(carried)


class FromOtherProcess(Generic[P, R]):
    """A function that another process sent."""

    def __init__(
        self,
        function: Callable[P, R],
        headers: dict[str, str],
        pipeline: str | None,
        run_id: str | None,
        sender: str = "",
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._carried = headers, pipeline, run_id
        self._sender = sender

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function as part of the run in the process that sent it."""
        with SentWork(arrived=self._sender != this_process()):
            context = contextvars.copy_context()
            context.run(_restore, *self._carried)
            return run_in(context, self._function, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle for yet another process."""
        return FromOtherProcess, (self._function, *self._carried, self._sender)


class SentWork:
    """A `with` block around a call of work that another process sent; its own part never raises.

    It has a worker configure itself, where it may, and flush. It leaves our outermost frames out of
    a traceback, so what is printed is as without us; in Python 3.10, where that looks at no
    exception again, one stays.

    Args:
        arrived: whether the work has come from another process, and not back.
    """

    frames: ClassVar = {FromOtherProcess.__call__.__code__}

    def __init__(self, *, arrived: bool = True) -> None:
        self._arrived = arrived
        self._end: Callable[[], None] | None = None

    @classmethod
    def inside(cls, function: Callable[P, R]) -> Callable[P, R]:
        """Mark a function that has such a block, or is called in one: its frames are left out."""
        cls.frames.add(function.__code__)
        return function

    def __enter__(self) -> None:
        if self._arrived and hooks.begin_work is not None:
            with errors.suppress_errors("configuring a worker"):
                self._end = hooks.begin_work()

    def __exit__(self, kind: object, error: BaseException | None, whole: Any) -> None:
        if self._end is not None:
            self._end()
        if error is None:
            return
        found = whole
        while found is not None and found.tb_frame.f_code in self.frames:
            found = found.tb_next
        # an assignment would call a `__setattr__` of the program
        BaseException.with_traceback(error, found)
        if sys.version_info < (3, 11) and found is not whole:
            whole.tb_next = found


def carried() -> tuple[dict[str, str], str | None, str | None]:
    """Return what another process can use: the headers, and name and id of the run."""
    headers: dict[str, str] = {}
    with errors.suppress_errors("propagating to another process"):
        PROPAGATOR.inject(headers)
    scope = series.current_scope()
    return headers, scope.pipeline, scope.run_id


def attach_carried(headers: dict[str, str]) -> None:
    """Make current what headers from another process carry."""
    # None: no propagator is configured, as by a file that names none
    context_api.attach(PROPAGATOR.extract(headers) or context_api.get_current())


def _restore(headers: dict[str, str], pipeline: str | None, run_id: str | None) -> None:
    with errors.suppress_errors("propagating from another process"):
        attach_carried(headers)
    if pipeline is not None and run_id is not None:
        scope = remote_runs.remote_run_scope(pipeline, run_id)
        series.active_cell.set(series.scopes.get(scope) or series.root_cell(scope))


@SentWork.inside
def run_in(
    context: contextvars.Context, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run a function in a context; its time counts for the current thread."""
    if hooks.workers is None:
        return context.run(function, *args, **kwargs)
    finding.carry_into(context)
    try:
        return context.run(function, *args, **kwargs)
    finally:
        finding.carry_back(context)


def _coroutine_function(function: Any) -> Any:
    context = contextvars.copy_context()

    @functools.wraps(function)
    async def propagated(*args: Any, **kwargs: Any) -> Any:
        own = context.copy()
        return await _steps(own, own.run(function, *args, **kwargs))

    return propagated


@types.coroutine
def _steps(
    context: contextvars.Context, coroutine: Coroutine[Any, Any, R]
) -> Generator[Any, Any, R]:
    """Run a coroutine, each step of it in `context`."""
    step: Callable[[Any], Any] = coroutine.send
    given: Any = None
    while True:
        try:
            awaited = context.run(step, given)
        except StopIteration as over:
            return cast("R", over.value)
        try:
            given = yield awaited
            step = coroutine.send
        except BaseException as error:  # the coroutine handles cancellation too
            given, step = error, coroutine.throw

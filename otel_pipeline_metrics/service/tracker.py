"""Time a block or a function, and report how it ended."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._stages.workers.worker import owner_here

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from typing_extensions import Self

    # takes the seconds and the exception that ended the block
    Report = Callable[[float, BaseException | None], None]
    AsyncReport = Callable[[float, BaseException | None], Awaitable[None]]


# Quoted, since Python 3.10 cannot subscript classmethod at run time.
F = TypeVar(
    "F", bound=Union["Callable[..., Any]", "classmethod[Any, Any, Any]", "staticmethod[Any, Any]"]
)


class _Block:
    """One use of a tracker. What the block raises passes through."""

    __slots__ = ("_started", "_tracker")

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __enter__(self) -> None:
        self._started = clock.now()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with errors.suppress_errors("reporting an operation"):
            self._tracker.report(clock.now() - self._started, error)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        report = self._tracker.async_report
        if report is None:
            self.__exit__(kind, error, traceback)
            return
        with errors.suppress_errors("reporting an operation"):
            await report(clock.now() - self._started, error)


class Tracker:
    """A context manager, with `with` and `async with`, and a decorator.

    It decorates functions, coroutine functions, generator functions, async generator functions,
    methods, `classmethod` and `staticmethod`. Many tasks and threads may use one at a time.

    Args:
        report: takes the seconds and the exception of each use.
        async_report: the same where waiting is possible.
    """

    __slots__ = ("_open", "async_report", "report")

    def __init__(self, report: Report, async_report: AsyncReport | None = None) -> None:
        self.report = report
        self.async_report = async_report
        # by task or thread, the blocks that it is in
        self._open: dict[object, list[_Block]] = {}

    def __enter__(self) -> Self:
        """Begin to time a block."""
        self._begin().__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Report the block; what it raised is raised further."""
        block = self._end()
        if block is not None:
            block.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        """Begin to time a block."""
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Report the block; what it raised is raised further."""
        block = self._end()
        if block is not None:
            await block.__aexit__(kind, error, traceback)

    def _begin(self) -> _Block:
        block = _Block(self)
        self._open.setdefault(owner_here(), []).append(block)
        return block

    def _end(self) -> _Block | None:
        if not self._open:
            return None  # one exit too many
        owner: object = owner_here()
        if owner not in self._open:
            # another task closes the block, as a fixture's may be: the latest is the best guess
            owner = next(reversed(self._open))
        blocks = self._open[owner]
        block = blocks.pop()
        if not blocks:
            del self._open[owner]
        return block

    def __call__(self, function: F) -> F:
        """Return a wrapper of `function` that is timed at each call.

        Raises:
            TypeError: `function` is not callable, or is a class.
        """
        return cast("F", self._decorate(function))

    def _decorate(self, function: Any) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self._decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"this decorates a function or a method, not {function!r:.80}")
        for is_kind, wrap in (
            (inspect.iscoroutinefunction, self._coroutine),
            (inspect.isasyncgenfunction, self._async_generator),
            (inspect.isgeneratorfunction, self._generator),
        ):
            if is_kind(function) or is_kind(type(function).__call__):
                return wrap(function)
        return self._function(function)

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _Block(self):
                return function(*args, **kwargs)

        return wrapper

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            async with _Block(self):
                return await function(*args, **kwargs)

        return wrapper

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with _Block(self):
                return (yield from function(*args, **kwargs))

        return wrapper

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            async with _Block(self):
                source = function(*args, **kwargs)
                step = source.asend(None)
                while True:
                    try:
                        value = await step
                    except StopAsyncIteration:
                        return
                    try:
                        step = source.asend((yield value))
                    except GeneratorExit:
                        await source.aclose()
                        raise
                    except BaseException as thrown:  # the source handles it
                        step = source.athrow(thrown)

        return wrapper

"""Turn a function into one each of whose calls is a run."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._stages.wrappers import called_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def each_call(function: Any, begin: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Return a wrapper of a function or coroutine function that runs it in `begin()`."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(each_call(function.__func__, begin))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"a run decorates a function or a method, not {function!r:.80}")
    called = called_by(function)
    flags = getattr(getattr(called, "__code__", None), "co_flags", 0)
    # `types.coroutine` makes one of a generator
    awaits = inspect.iscoroutinefunction(called) or flags & inspect.CO_ITERABLE_COROUTINE
    if not awaits and (inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)):
        raise TypeError(
            f"a run decorates no generator, such as {function!r:.80}: its call ends before the "
            "first item; use `with run(...)` where the items are consumed"
        )
    if awaits:

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await function(*args, **kwargs)

        return coroutine

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with begin():
            return function(*args, **kwargs)

    return wrapper

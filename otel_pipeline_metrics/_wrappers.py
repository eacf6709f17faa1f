"""The four thin wrappers around a user's function: plain, coroutine, generator, async generator.

They hold only calls, `await` and `yield`; the accounting exists once, in `_measure`. The
user's function never runs inside a guard. The wrappers close over names and functions alone,
and reach the context variable through importable functions, so that decorated functions
pickle, by value too (cloudpickle).
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._measure import (
    StageId,
    enter,
    finish,
    leave,
    pause,
    prepare,
    resume,
    yielded,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    ItemCounter = Callable[[Any], int]


def wrap(
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    """Return `function` measured as `stage`, of the same kind of callable as it was."""
    called = function
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        # an instance with __call__ is what its __call__ is
        called = type(function).__call__
    if inspect.isasyncgenfunction(called):
        return _async_generator(function, stage, items)
    if inspect.isgeneratorfunction(called):
        return _generator(function, stage, items)
    if inspect.iscoroutinefunction(called):
        return _coroutine(function, stage, items)
    return _plain(function, stage, items)


def _plain(
    function: Callable[..., Any], stage: StageId, items: ItemCounter | None
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = enter(stage)
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            leave(execution, error)
            raise
        leave(execution, None, items, returned)
        return returned

    return wrapper


def _coroutine(
    function: Callable[..., Awaitable[Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = enter(stage)
        try:
            returned = await function(*args, **kwargs)
        except BaseException as error:
            leave(execution, error)
            raise
        leave(execution, None, items, returned)
        return returned

    return wrapper


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        execution = prepare(stage)
        try:
            source = function(*args, **kwargs)
            send, given = source.send, None
            while True:
                resume(execution)
                try:
                    value = send(given)
                except StopIteration as stop:
                    returned = stop.value
                    break
                finally:
                    pause(execution)
                yielded(execution, items, value)
                try:
                    send, given = source.send, (yield value)
                except GeneratorExit:
                    resume(execution)
                    try:
                        source.close()
                    finally:
                        pause(execution)
                    raise
                except BaseException as thrown:  # noqa: BLE001 - it is the source's to answer
                    send, given = source.throw, thrown
        except BaseException as error:
            finish(execution, error)
            raise
        finish(execution)
        return returned

    return wrapper


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        execution = prepare(stage)
        try:
            source = function(*args, **kwargs)
            step = _first_step(source)
            while True:
                resume(execution)
                try:
                    value = await step
                except StopAsyncIteration:
                    break
                finally:
                    pause(execution)
                yielded(execution, items, value)
                try:
                    step = source.asend((yield value))
                except GeneratorExit:
                    resume(execution)
                    try:
                        await source.aclose()
                    finally:
                        pause(execution)
                    raise
                except BaseException as thrown:  # noqa: BLE001 - it is the source's to answer
                    step = source.athrow(thrown)
        except BaseException as error:
            finish(execution, error)
            raise
        finish(execution)

    return wrapper


def _first_step(source: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Start `source` unseen by the event loop.

    The loop closes every async generator it has seen start, all at once, when it ends. The
    wrapper closes its source itself; were both to do it, one of them would find the source
    "already running", and asyncio would log that as the user's error.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return source.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)

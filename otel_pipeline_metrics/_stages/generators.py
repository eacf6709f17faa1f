"""Measure generators and async generators item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._stages.internals import internals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._stages.wrappers import ItemCounter


def generator_wrapper(
    function: Callable[..., Generator[Any, Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a generator function that measures `function` item by item."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        suspended = internals.suspended
        resume, pause = suspended.resume, suspended.pause
        execution = suspended.begin_suspended(stage)
        details = execution.ensure_details()
        # `close()` throws GeneratorExit into the source, so this does the same. `left` keeps the
        # exception, since the source may answer it by returning.
        given = left = None
        held: list[Any] = []  # releases a batch, which may be large, while the consumer works
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
                if items is None:
                    details.yielded += 1
                else:
                    suspended.yielded(execution, items, held[0])
                try:
                    given = left = None
                    step, given = source.send, (yield held.pop())
                except GeneratorExit as closed:
                    step, given, left = source.throw, closed, closed
                except BaseException as thrown:  # the source handles it
                    step, given = source.throw, thrown
        except BaseException as error:
            given = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error)
            raise
        suspended.finish(execution, left)
        return returned

    return wrapper


def async_generator_wrapper(
    function: Callable[..., AsyncGenerator[Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that measures `function` item by item."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        suspended = internals.suspended
        resume, pause = suspended.resume, suspended.pause
        execution = suspended.begin_suspended(stage)
        details = execution.ensure_details()
        step: Awaitable[Any] | None = None
        left: BaseException | None = None
        held: list[Any] = []
        try:
            source = function(*args, **kwargs)
            del args, kwargs
            step = suspended.first_step(source, execution)
            while True:
                resume(execution)
                try:
                    watch = execution.cell[6]
                    if watch is not None:
                        step = internals.sampling.driven(watch, step)
                    held.append(await step)
                except StopAsyncIteration:
                    break
                finally:
                    pause(execution)
                if items is None:
                    details.yielded += 1
                else:
                    suspended.yielded(execution, items, held[0])
                try:
                    step = left = None
                    step = source.asend((yield held.pop()))
                except GeneratorExit as closed:
                    step, left = source.athrow(closed), closed
                except BaseException as thrown:  # the source handles it
                    step = source.athrow(thrown)
        except BaseException as error:
            step = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error)
            raise
        suspended.finish(execution, left)

    return wrapper

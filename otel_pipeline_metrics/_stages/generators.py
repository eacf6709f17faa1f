"""Measure generators and async generators item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._stages.internals import internals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from otel_pipeline_metrics._core.stage_id import StageId
    from otel_pipeline_metrics._stages.wrappers import ItemCounter


def generator_wrapper(  # noqa: C901, PLR0915 - the hot path
    function: Callable[..., Generator[Any, Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a generator function that measures `function` item by item."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: C901, PLR0912, PLR0915 - the hot path
        suspended = internals.suspended
        # `close()` throws GeneratorExit into the source, so this does the same. `left` keeps the
        # exception, since the source may answer it by returning.
        execution: Any = None
        given = left = None
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            series, pulls, here, pulled = execution.series, details.pulls, None, 0.0
            current, now, extras = internals.active_cell, internals.clock.now, internals.extras
            source = function(*args, **kwargs)
            del args, kwargs
            send = step = source.send
            while True:
                # --- `resume` written out
                try:
                    if extras or series is None:
                        cell, token = suspended.resume(execution), None
                    else:
                        parent: Any = current.get()
                        if parent is None:
                            parent = internals.series.default_cell
                        elif parent[1] is None:
                            parent = internals.series.goes_on(parent)
                        cell = [series, None, 0.0, execution, parent, None, None, None]
                        execution.cell = cell
                        if parent[0] is not here:
                            here = execution.puller = parent[0]
                            pulled = pulls.get(here, 0.0)
                        token = cell[1] = current.set(cell)
                        left_out = series.until_sample = series.until_sample - 1
                        if left_out < 0:
                            internals.sampling.begin(cell, known=True)
                        began = cell[2] = now()
                        if parent[5] is None and not extras:
                            parent[5] = cell
                        else:
                            internals.nesting.enter(parent, cell, began)
                except Exception:  # an internal error must not stop the stage
                    cell, token = suspended.failed(execution, "resuming"), None
                # --- the user's
                try:
                    value = step(given)
                except StopIteration as stop:
                    returned = stop.value
                    break
                # --- `pause` written out
                try:
                    if extras or token is None or cell[6] is not None:
                        suspended.pause(execution)
                        here = None
                    else:
                        elapsed = now() - began
                        if parent[5] is cell and cell[5] is None and not extras:
                            parent[5] = None
                        else:
                            internals.nesting.close(cell, began + elapsed)
                        current.reset(token)
                        cell[1] = cell[3] = None
                        pulls[here] = pulled = pulled + elapsed
                except Exception:
                    suspended.failed(execution, "pausing")
                if items is None:
                    details.yielded += 1
                else:
                    suspended.yielded(execution, items, value)
                try:
                    given = left = None
                    step = send
                    # a batch, which may be large, is released while the consumer works
                    given = yield (value, value := None)[0]
                except GeneratorExit as closed:
                    step, given, left = source.throw, closed, closed
                except BaseException as thrown:  # the source handles it
                    step, given = source.throw, thrown
            suspended.finish(execution, left)
            return returned  # noqa: TRY300 - the handler is for what is raised at this line too
        except BaseException as error:
            given = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error)
            raise

    return wrapper


def async_generator_wrapper(
    function: Callable[..., AsyncGenerator[Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that measures `function` item by item."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        suspended = internals.suspended
        resume, pause = suspended.resume, suspended.pause
        execution: Any = None
        step: Awaitable[Any] | None = None
        left: BaseException | None = None
        held: list[Any] = []
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            source = function(*args, **kwargs)
            del args, kwargs
            step = suspended.first_step(source, execution)
            while True:
                watch = resume(execution)[6]
                try:
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
            suspended.finish(execution, left)
        except BaseException as error:
            step = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error)
            raise

    return wrapper

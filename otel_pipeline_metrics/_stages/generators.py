"""Measure generators and async generators item by item.

Both wrappers have the steps that report only their time written out, like those of `wrappers`;
`suspended` has all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._stages.internals import internals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

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
        # so far, and those that the series has taken off the steps until its next sample
        steps = counted = 0
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            nothing = suspended.NOOP_EXECUTION.cell
            series, cell, alone = execution.cell[0], nothing, 0
            current, now, references = (
                internals.active_cell, internals.clock.now, internals.references,
            )  # fmt: skip
            extras = internals.extras if execution.series is not None else nothing
            source = function(*args, **kwargs)
            del args, kwargs
            send = step = source.send
            while True:
                # --- it begins, or goes on
                try:
                    if extras:
                        cell, token = suspended.resume(execution, steps - counted), None
                        series, counted = cell[0], steps + 1
                    else:
                        parent: Any = current.get()
                        if parent is None:
                            parent = internals.series.default_cell
                        # the last step's serves again if nothing else, such as a task, has it
                        if parent is not cell[4] or parent[1] is None or references(cell) != alone:
                            series.until_sample -= steps - counted
                            cell, part = suspended.next_step(execution, parent)
                            series, parent, alone = cell[0], cell[4], references(cell)
                            sample_at, counted = steps + max(0, series.until_sample), steps
                        token = cell[1] = current.set(cell)
                        if steps >= sample_at:
                            series.until_sample -= steps - counted
                            token = internals.sampling.begin(cell, known=True)
                            sample_at, counted = steps + 1 + max(0, series.until_sample), steps + 1
                        began = cell[2] = now()
                        # last, since nothing may come between that and the end
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
                # --- it pauses
                try:
                    if token is None:
                        suspended.pause(execution)
                        cell = nothing
                    else:
                        elapsed = now() - began
                        if parent[5] is cell and cell[5] is None and not extras:
                            parent[5] = None
                            current.reset(token)
                            cell[1] = None
                            part[0] += elapsed
                        else:
                            suspended.pause(execution)
                            cell = nothing
                except Exception as error:
                    cell = nothing
                    suspended.not_paused(execution, error)
                steps += 1
                if items is None:
                    details.yielded = steps
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
            suspended.finish(execution, left, steps - counted)
            return returned  # noqa: TRY300 - the handler is for what is raised at this line too
        except BaseException as error:
            given = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error, steps - counted)
            raise

    return wrapper


def async_generator_wrapper(  # noqa: C901, PLR0915 - the hot path
    function: Callable[..., AsyncGenerator[Any, Any]], stage: StageId, items: ItemCounter | None
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that measures `function` item by item."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: C901, PLR0912, PLR0915 - the hot path
        suspended = internals.suspended
        # `close()` throws GeneratorExit into the source, so this does the same. `left` keeps the
        # exception, since the source may answer it by returning.
        execution: Any = None
        step: Any = None
        left: Any = None
        # so far, and those that the series has taken off the steps until its next sample
        steps = counted = 0
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            nothing = suspended.NOOP_EXECUTION.cell
            series, cell, alone = execution.cell[0], nothing, 0
            current, now, references = (
                internals.active_cell, internals.clock.now, internals.references,
            )  # fmt: skip
            extras = internals.extras if execution.series is not None else nothing
            source = function(*args, **kwargs)
            del args, kwargs
            send, step = source.asend, suspended.first_step(source, execution)
            while True:
                # --- it begins, or goes on
                try:
                    if extras:
                        cell, token = suspended.resume(execution, steps - counted), None
                        series, counted = cell[0], steps + 1
                    else:
                        parent: Any = current.get()
                        if parent is None:
                            parent = internals.series.default_cell
                        # the last step's serves again if nothing else, such as a task, has it
                        if parent is not cell[4] or parent[1] is None or references(cell) != alone:
                            series.until_sample -= steps - counted
                            cell, part = suspended.next_step(execution, parent)
                            series, parent, alone = cell[0], cell[4], references(cell)
                            sample_at, counted = steps + max(0, series.until_sample), steps
                        token = cell[1] = current.set(cell)
                        if steps >= sample_at:
                            series.until_sample -= steps - counted
                            token = internals.sampling.begin(cell, known=True)
                            sample_at, counted = steps + 1 + max(0, series.until_sample), steps + 1
                        began = cell[2] = now()
                        # last, since nothing may come between that and the end
                        if parent[5] is None and not extras:
                            parent[5] = cell
                        else:
                            internals.nesting.enter(parent, cell, began)
                except Exception:  # an internal error must not stop the stage
                    cell, token = suspended.failed(execution, "resuming"), None
                # --- the user's
                try:
                    if token is None and cell[6] is not None:
                        step = internals.sampling.driven(cell[6], step)
                    value = await step
                except StopAsyncIteration:
                    break
                # --- it pauses
                try:
                    if token is None:
                        suspended.pause(execution)
                        cell = nothing
                    else:
                        elapsed = now() - began
                        if parent[5] is cell and cell[5] is None and not extras:
                            parent[5] = None
                            current.reset(token)
                            cell[1] = None
                            part[0] += elapsed
                        else:
                            suspended.pause(execution)
                            cell = nothing
                except Exception as error:
                    cell = nothing
                    suspended.not_paused(execution, error)
                steps += 1
                if items is None:
                    details.yielded = steps
                else:
                    suspended.yielded(execution, items, value)
                try:
                    step = left = None
                    # a batch, which may be large, is released while the consumer works
                    step = send((yield (value, value := None)[0]))
                except GeneratorExit as closed:
                    step, left = source.athrow(closed), closed
                except BaseException as thrown:  # the source handles it
                    step = source.athrow(thrown)
            suspended.finish(execution, left, steps - counted)
        except BaseException as error:
            step = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error, steps - counted)
            raise

    return wrapper

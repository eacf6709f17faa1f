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
        parent: Any = None
        # so far, and those that the series has taken off the steps until its next sample
        steps = counted = 0
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            nothing, default = suspended.NOOP_EXECUTION.cell, internals.series
            series, puller, run = execution.cell[0], nothing, None
            current, now = internals.active_cell, internals.clock.now
            ident = internals.ident
            extras = every_extra = internals.extras if execution.series is not None else nothing
            source = function(*args, **kwargs)
            del args, kwargs
            send = step = source.send
            while True:
                # --- it begins, or goes on
                try:
                    if extras or (
                        run is not None
                        and (ident() != run.thread or (run.tasks and not run.is_here()))
                    ):
                        cell = suspended.resume(execution, steps - counted)
                        series, counted, parent = cell[0], steps + 1, nothing
                    else:
                        parent = current.get(default.default_cell)
                        # the last step's serves again
                        if parent is not puller or parent[1] is None:
                            series.until_sample -= steps - counted
                            cell, part = suspended.next_step(execution, parent, run)
                            series, parent = cell[0], cell[4]
                            puller, pulled = parent, part.open_s
                            sample_at, counted = steps + max(0, series.until_sample), steps
                        token = current.set(cell)
                        # the time first, since the token tells that it is in progress
                        began = cell[2] = now()
                        cell[1] = token
                        if parent[5] is None and cell[5] is None and not extras:
                            parent[5] = cell
                        else:
                            internals.nesting.enter(cell, began)
                        if steps >= sample_at:
                            series.until_sample -= steps - counted
                            internals.sampling.begin(cell, known=True)
                            sample_at, counted = steps + 1 + max(0, series.until_sample), steps + 1
                            parent, cell[2] = nothing, now()
                except Exception:  # an internal error must not stop the stage
                    cell, parent = suspended.failed(execution, "resuming"), nothing
                # --- the user's
                try:
                    value = step(given)
                except StopIteration as stop:
                    returned = stop.value
                    break
                # --- it pauses
                try:
                    ended = now()
                    if (
                        parent[5] is cell
                        and cell[5] is None
                        and not extras
                        and (run is None or run.thread is not None)
                    ):
                        parent[5] = None
                        current.reset(token)
                        cell[1] = None
                        part.ended = ended
                        part.open_s = pulled = pulled + (ended - began)
                    else:
                        run, puller = suspended.pause(execution, ended), nothing
                        extras = every_extra if run is None else internals.others
                except Exception as error:
                    puller = nothing
                    suspended.not_paused(execution, error)
                steps += 1
                if items is None:
                    details.yielded = steps
                else:
                    suspended.yielded(execution, items, value)
                try:
                    if given is not None:
                        given = left = None
                        step = send
                    # a batch, which may be large, is released while the consumer works
                    given = yield (value, value := None)[0]
                except GeneratorExit as closed:
                    step, given, left = source.throw, closed, closed
                except BaseException as thrown:  # the source handles it
                    step, given = source.throw, thrown
            suspended.finish(execution, left, steps + 1 - counted)
            return returned  # noqa: TRY300 - the handler is for what is raised at this line too
        except BaseException as error:
            given = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error, steps + 1 - counted)
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
        parent: Any = None
        # so far, and those that the series has taken off the steps until its next sample
        steps = counted = 0
        try:
            execution = suspended.begin_suspended(stage)
            details = execution.ensure_details()
            nothing, default = suspended.NOOP_EXECUTION.cell, internals.series
            series, puller, run = execution.cell[0], nothing, None
            current, now = internals.active_cell, internals.clock.now
            ident = internals.ident
            extras = every_extra = internals.extras if execution.series is not None else nothing
            source = function(*args, **kwargs)
            del args, kwargs
            send, step = source.asend, suspended.first_step(source, execution)
            while True:
                # --- it begins, or goes on
                try:
                    if extras or (
                        run is not None
                        and (ident() != run.thread or (run.tasks and not run.is_here()))
                    ):
                        cell = suspended.resume(execution, steps - counted)
                        series, counted, parent = cell[0], steps + 1, nothing
                    else:
                        parent = current.get(default.default_cell)
                        # the last step's serves again
                        if parent is not puller or parent[1] is None:
                            series.until_sample -= steps - counted
                            cell, part = suspended.next_step(execution, parent, run)
                            series, parent = cell[0], cell[4]
                            puller, pulled = parent, part.open_s
                            sample_at, counted = steps + max(0, series.until_sample), steps
                        token = current.set(cell)
                        # the time first, since the token tells that it is in progress
                        began = cell[2] = now()
                        cell[1] = token
                        if parent[5] is None and cell[5] is None and not extras:
                            parent[5] = cell
                        else:
                            internals.nesting.enter(cell, began)
                        if steps >= sample_at:
                            series.until_sample -= steps - counted
                            internals.sampling.begin(cell, known=True)
                            sample_at, counted = steps + 1 + max(0, series.until_sample), steps + 1
                            parent, cell[2] = nothing, now()
                except Exception:  # an internal error must not stop the stage
                    cell, parent = suspended.failed(execution, "resuming"), nothing
                # --- the user's
                try:
                    if parent is nothing and cell[6] is not None:
                        step = internals.sampling.driven(cell, step)
                    value = await step
                except StopAsyncIteration:
                    break
                # --- it pauses
                try:
                    ended = now()
                    if (
                        parent[5] is cell
                        and cell[5] is None
                        and not extras
                        and (run is None or run.thread is not None)
                    ):
                        parent[5] = None
                        current.reset(token)
                        cell[1] = None
                        part.ended = ended
                        part.open_s = pulled = pulled + (ended - began)
                    else:
                        run, puller = suspended.pause(execution, ended), nothing
                        extras = every_extra if run is None else internals.others
                except Exception as error:
                    puller = nothing
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
            suspended.finish(execution, left, steps + 1 - counted)
        except BaseException as error:
            step = left = None  # avoids a cycle: the error's traceback holds this frame
            suspended.finish(execution, error, steps + 1 - counted)
            raise

    return wrapper

"""`workers`: a function that works on the items of a queue, several at a time."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, overload

from otel_pipeline_metrics._core.validation import check_count, check_name
from otel_pipeline_metrics._pools.pool import Plan
from otel_pipeline_metrics._pools.tasks import TaskPool
from otel_pipeline_metrics._pools.threads import ThreadPool
from otel_pipeline_metrics._probes.queues.instrumented import Instrumented
from otel_pipeline_metrics._stages import hints
from otel_pipeline_metrics._stages.stage import process
from otel_pipeline_metrics._stages.wrappers import called_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@overload
def workers(
    function: Callable[[Any], Awaitable[Any]] | Callable[[Any], AsyncIterator[Any]],
    source: object,
    sink: object = None,
    *,
    count: int | tuple[int, int] = 4,
    name: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
) -> TaskPool: ...


@overload
def workers(
    function: Callable[[Any], Any],
    source: object,
    sink: object = None,
    *,
    count: int | tuple[int, int] = 4,
    name: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
) -> ThreadPool: ...


def workers(
    function: Callable[[Any], Any],
    source: object,
    sink: object = None,
    *,
    count: int | tuple[int, int] = 4,
    name: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
) -> TaskPool | ThreadPool:
    """Work on the items of a queue with several tasks or threads.

    `async with workers(...)` for a coroutine function or an async generator function, as tasks on
    queues of asyncio; `with workers(...)` for a plain function or a generator function, as threads
    on queues of threads. Each item is one call; the result is put into the sink, None too, or each
    value that a generator yields. The order is not kept. `task_done()` of the source is called
    after an item's results are in the sink.

    The source ends with its sentinel, once for all workers, or with its shutdown. After the last
    result the end is passed on to the sink: its own sentinel, or a shutdown if it has none.
    Leaving the block waits for the end. Left by an exception, tasks are cancelled, and threads
    finish the item in hand.

    Args:
        function: takes an item. One that is no stage becomes a `process` stage.
        source: the queue that items come from, as `wrap_queue` returned it.
        sink: the queue that results go to; without one they are dropped.
        count: how many workers.
        name: of the workers, and of the stage if `function` is none yet; the stage's by default.
        on_error: "stop": the first error is raised, as itself, when the block is left; tasks and
            the body of the block are cancelled, and threads drop the items that are put from then
            on. "skip": go on with the next item. The sink's own errors always stop.

    Raises:
        TypeError: an argument is of the wrong kind, or function and queues do not fit.
        ValueError: `count` is below 1, or `on_error` is another word.
    """
    called = called_by(function) if callable(function) else None
    is_async = inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
    low, high = _range(count)
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
    for queue, argument in ((source, "source"), (sink, "sink")):
        if queue is not None or argument == "source":
            _check_queue(queue, argument, is_async=is_async)
    stage = hints.stage_of(function)
    if stage is None:
        function = process(name)(function)
        stage = hints.stage_of(function)
    assert stage is not None  # noqa: S101 - `process` marks it
    checked: Any = source
    checked_sink: Any = sink
    plan = Plan(
        function,
        inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called),
        checked,
        checked_sink,
        low,
        high,
        stage.name if name is None else check_name(name, "name"),
        stage,
        on_error,
    )
    return TaskPool(plan) if is_async else ThreadPool(plan)


def _range(count: Any) -> tuple[int, int]:
    if isinstance(count, tuple):
        if len(count) != 2:
            raise ValueError(f"count must be a number or (low, high), not {count!r}")
        low, high = (check_count(value, "count") for value in count)
    else:
        low = high = check_count(count, "count")
    if low < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    if high < low:
        raise ValueError(f"count must be (low, high) with low <= high, not {count!r}")
    return low, high


def _check_queue(queue: Any, argument: str, *, is_async: bool) -> None:
    if not issubclass(type(queue), Instrumented):
        raise TypeError(f"{argument} must be a queue that wrap_queue returned, not {queue!r:.80}")
    cls = type(queue._opm_queue)
    methods = [getattr(cls, name, None) for name in ("put", "get")]
    if not all(map(callable, methods)):
        raise TypeError(f"{argument} must be a queue with put and get, not {cls.__qualname__}")
    if all(map(inspect.iscoroutinefunction, methods)) is not is_async:
        raise TypeError(
            f"{argument} must be a queue of asyncio for a coroutine function or an async generator "
            f"function, and one of threads for other functions; it is a {cls.__module__}."
            f"{cls.__qualname__}"
        )

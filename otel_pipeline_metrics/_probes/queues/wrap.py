"""`wrap_queue`: instrument asyncio, thread and process queues, streams, and others alike."""

from __future__ import annotations

import asyncio
import multiprocessing.queues
import queue as thread_queue
from typing import Any, TypeVar

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.queues import hooked, other, process
from otel_pipeline_metrics._probes.queues.instrumented import (
    Instrumented,
    InstrumentedAsyncQueue,
    InstrumentedThreadQueue,
    watch,
    wrapped,
)
from otel_pipeline_metrics._probes.queues.probe import NOTHING

Q = TypeVar("Q")


def wrap_queue(queue: Q, *, name: str, sentinel: object = NOTHING) -> Q:
    """Return `queue` instrumented, with its whole interface and order.

    Takes the queues of asyncio, queue, multiprocessing and gevent, and any other object with
    `put` and `get`. Use the returned object on both sides. The queue itself holds nothing but
    your items; asyncio's and queue's may be used directly too, and what goes through is counted.
    A multiprocessing queue must be wrapped before the processes that use it start.

    Args:
        queue: to be instrumented.
        name: `pipeline.queue.name`, up to 128 characters. Queues of one name are reported
            together.
        sentinel: a value that is no item, such as the None that ends a consumer: it is neither
            counted nor timed. Compared by identity; between processes by type and `==`. Without
            it every value is an item, None included.

    Raises:
        TypeError: `queue` lacks `put` or `get`, or is instrumented already.
        ValueError: `name` is empty or too long.
    """
    distinct = cardinality.instrument_names.name("queue names", check_name(name, "name"))
    stand_in: Any = _instrumented(queue, distinct, sentinel)
    result: Q = stand_in
    return result


_PLAIN = ("put", "get", "put_nowait", "get_nowait", "join")


def _has_own_ways(queue: Any, stock: Any) -> bool:
    """Tell whether a subclass has a put or get other than the library's."""
    names = (*_PLAIN, "full", "empty")
    return any(getattr(type(queue), name) is not getattr(stock, name) for name in names) or any(
        name in vars(queue) for name in names
    )


def _instrumented(queue: Any, name: str, sentinel: object) -> Instrumented:
    if issubclass(type(queue), Instrumented) or id(queue) in wrapped:
        raise TypeError(f"queue is instrumented already: {queue!r}")
    if isinstance(queue, multiprocessing.queues.Queue):
        return process.instrument(queue, name, sentinel)
    if isinstance(queue, type) or other.missing(queue):
        raise _unknown(queue)
    probe = (hooked.attach if hooked.can_attach(queue) else other.around_probe)(
        queue, name, sentinel
    )
    stand_in = _class_for(queue)(queue, probe)
    watch(probe, queue, stand_in)
    return stand_in


def _class_for(queue: Any) -> type[Instrumented]:
    if type(queue) is thread_queue.SimpleQueue and not hasattr(queue, "putters"):
        return other.InstrumentedSimpleQueue
    if hooked.can_attach(queue):
        for stock, ours in (
            (asyncio.Queue, InstrumentedAsyncQueue),
            (thread_queue.Queue, InstrumentedThreadQueue),
        ):
            if isinstance(queue, stock) and not _has_own_ways(queue, stock):
                return ours
    return other.stand_in_class(queue)


def _unknown(queue: Any) -> TypeError:
    cls = type(queue)
    if isinstance(queue, type):
        return TypeError(f"queue must be a queue, not a class: {queue!r}")
    lacks = " and no ".join(other.missing(queue))
    return TypeError(
        "queue must have put and get, or be a pair of memory object streams; "
        f"{cls.__module__}.{cls.__qualname__} has no {lacks}"
    )

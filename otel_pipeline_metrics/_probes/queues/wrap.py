"""`wrap_queue`: instrument asyncio, thread and process queues, streams, and others alike."""

from __future__ import annotations

import asyncio
import multiprocessing.queues
import queue as thread_queue
from typing import Any, TypeVar, overload

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.queues import hooked, other, process, streams
from otel_pipeline_metrics._probes.queues.instrumented import (
    Instrumented,
    InstrumentedAsyncQueue,
    InstrumentedThreadQueue,
    watch,
    wrapped,
)
from otel_pipeline_metrics._probes.queues.probe import NOTHING

Q = TypeVar("Q")
S = TypeVar("S")
R = TypeVar("R")


@overload
def wrap_queue(
    queue: tuple[S, R], *, name: str, sentinel: object = NOTHING
) -> tuple[S, R]: ...  # anyio's pair is of a class of its own, and what comes back is none


@overload
def wrap_queue(queue: Q, *, name: str, sentinel: object = NOTHING) -> Q: ...


def wrap_queue(queue: Any, *, name: str, sentinel: object = NOTHING) -> Any:
    """Return `queue` instrumented, with its whole interface and order.

    Takes the queues of asyncio, queue, multiprocessing and gevent, any other object with `put`
    and `get`, and the pair that anyio's `create_memory_object_stream` returns. Use what is
    returned on both sides. The queue itself holds nothing but your items. What goes through
    asyncio's and queue's queues directly is counted too, but nobody's wait for it is seen.
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
    if isinstance(queue, tuple):
        return _instrumented_pair(queue, distinct, sentinel)
    return _instrumented(queue, distinct, sentinel)


_WAYS = ("put", "get", "put_nowait", "get_nowait", "full", "empty", "join")


def _has_own_ways(queue: Any, stock: Any, names: tuple[str, ...] = _WAYS) -> bool:
    """Tell whether a subclass or an instance has a put or get other than the library's."""
    own = getattr(queue, "__dict__", {})
    return any(
        name in own or getattr(type(queue), name) is not getattr(stock, name) for name in names
    )


def _instrumented_pair(
    pair: tuple[Any, ...], name: str, sentinel: object
) -> tuple[Instrumented, Instrumented]:
    if len(pair) != 2:
        raise TypeError(f"queue must be a pair of memory object streams, not {len(pair)} objects")
    for end in pair:
        _check_new(end)
    if lacks := streams.missing(pair):
        raise TypeError(
            f"queue must be a pair of memory object streams; it has no {', no '.join(lacks)}"
        )
    probe = streams.stream_probe((pair[0], pair[1]), name, sentinel)
    sender = streams.InstrumentedSendStream(pair[0], probe)
    receiver = streams.InstrumentedReceiveStream(pair[1], probe)
    watch(probe)
    wrapped[id(pair[0])], wrapped[id(pair[1])] = sender, receiver
    return sender, receiver


def _check_new(queue: Any) -> None:
    if issubclass(type(queue), Instrumented) or id(queue) in wrapped:
        raise TypeError(f"queue is instrumented already: {queue!r}")


def _instrumented(queue: Any, name: str, sentinel: object) -> Instrumented:
    _check_new(queue)
    if isinstance(queue, multiprocessing.queues.Queue):
        return process.instrument(queue, name, sentinel)
    if isinstance(queue, type) or other.missing(queue):
        raise _unknown(queue)
    probe = (hooked.attach if hooked.can_attach(queue) else other.around_probe)(
        queue, name, sentinel
    )
    stand_in = _class_for(queue)(queue, probe)
    watch(probe)
    wrapped[id(queue)] = stand_in
    return stand_in


def _class_for(queue: Any) -> type[Instrumented]:
    if other.is_simple(queue) and not _has_own_ways(
        queue, thread_queue.SimpleQueue, ("put", "get")
    ):
        return other.InstrumentedSimpleQueue
    if hooked.can_attach(queue):
        for stock, ours in (
            (asyncio.Queue, InstrumentedAsyncQueue),
            (thread_queue.Queue, InstrumentedThreadQueue),
        ):
            if isinstance(queue, stock) and not _has_own_ways(queue, stock):
                return other.stand_in_class(queue, ours)
    return other.stand_in_class(queue, None)


def _unknown(queue: Any) -> TypeError:
    cls = type(queue)
    if isinstance(queue, type):
        return TypeError(f"queue must be a queue, not a class: {queue!r}")
    lacks = " and no ".join(other.missing(queue))
    return TypeError(
        "queue must have put and get, or be a pair of memory object streams; "
        f"{cls.__module__}.{cls.__qualname__} has no {lacks}"
    )

"""Instrument queues, pairs of memory streams and similar objects with `wrap_queue`."""

from __future__ import annotations

import asyncio
import multiprocessing.queues
import queue as thread_queue
from typing import Any, TypeVar, cast, overload

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.queues import hooked, other, process, streams
from otel_pipeline_metrics._probes.queues.instrumented import (
    Instrumented,
    InstrumentedAsyncQueue,
    InstrumentedThreadQueue,
    Slotted,
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
) -> tuple[S, R]: ...  # anyio's pair has a class of its own; the result is a plain tuple


@overload
def wrap_queue(queue: Q, *, name: str, sentinel: object = NOTHING) -> Q: ...


def wrap_queue(queue: Q, *, name: str, sentinel: object = NOTHING) -> Q:
    """Return an instrumented queue with the interface and order of `queue`.

    Takes the queues of asyncio, queue, multiprocessing and gevent, any other object with `put`
    and `get`, and the pair that anyio's `create_memory_object_stream` returns. Use the returned
    object on both sides. The wrapped queue holds only your items. Items that are put into or got
    from asyncio's and queue's queues directly are counted too, but the wait for them is not.
    A multiprocessing queue must be wrapped before the processes that use it start.

    Args:
        queue: the queue to instrument.
        name: `pipeline.queue.name`, up to 128 characters. Queues of one name are reported
            together.
        sentinel: a value that is not an item, such as the None that ends a consumer; it is
            neither counted nor timed. It is compared by identity; between processes by type and
            `==`. Without it every value is an item, None included.

    Raises:
        TypeError: `queue` lacks `put` or `get`, or is instrumented already.
        ValueError: `name` is empty or too long.
    """
    distinct = cardinality.instrument_names.name("queue names", check_name(name, "name"))
    if isinstance(queue, tuple):
        return cast("Q", _instrumented_pair(queue, distinct, sentinel))
    return cast("Q", _instrumented(queue, distinct, sentinel))


_METHODS = ("put", "get", "put_nowait", "get_nowait", "full", "empty", "join")


def _overrides(queue: Any, stock: Any, names: tuple[str, ...] = _METHODS) -> bool:
    """Tell whether a subclass or an instance overrides a put or get."""
    return any(
        getattr(type(queue), name) is not getattr(stock, name)
        or (type(queue).__dictoffset__ and hooked.own_method(queue, name) is not None)
        for name in names
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
    if issubclass(type(queue), Slotted) or id(queue) in wrapped:
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
    if other.is_simple(queue) and not _overrides(queue, thread_queue.SimpleQueue, ("put", "get")):
        return other.InstrumentedSimpleQueue
    if hooked.can_attach(queue):
        for stock, ours in (
            (asyncio.Queue, InstrumentedAsyncQueue),
            (thread_queue.Queue, InstrumentedThreadQueue),
        ):
            if isinstance(queue, stock) and not _overrides(queue, stock):
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

"""Take stamps in a queue's own `_put` and `_get`, so that raw references are seen too.

asyncio's and queue's queues call the two methods when an item gets in or out, and offer them to
subclasses. They run under the queue's lock, or in the loop's thread: nothing in them may log,
flush or wait. The next wrapped put or get does that.
"""

from __future__ import annotations

import asyncio
import queue as thread_queue
import weakref
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.queues.probe import (
    FLUSH_MASK,
    Probe,
    capacity_of,
    getting,
    putting,
)
from otel_pipeline_metrics._probes.queues.stamps import IdentityStamps, OrderedStamps

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._probes.queues.stamps import Stamp, Stamps

# Subclasses may override the two methods, and use the attribute that these work on.

# gevent's monkey-patching replaces these classes of `queue` by its own, without such methods.
_ASYNCIO = (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue)
_THREADS = (thread_queue.Queue, thread_queue.LifoQueue, thread_queue.PriorityQueue)


def _methods(cls: Any) -> tuple[Any, Any]:
    return getattr(cls, "_put", None), getattr(cls, "_get", None)


_FIRST_OUT, _LAST_OUT, _BY_PRIORITY = (
    {_methods(cls) for cls in pair} for pair in zip(_ASYNCIO, _THREADS, strict=True)
)
_SIZES = {asyncio.Queue.qsize, *(getattr(cls, "_qsize", None) for cls in _THREADS)}


def can_attach(queue: Any) -> bool:
    """Tell whether `_put` and `_get` can be replaced on the instance."""
    bases = (asyncio.Queue, _THREADS[0])
    return (
        any(isinstance(queue, base) and isinstance(base.put, FunctionType) for base in bases)
        and bool(type(queue).__dictoffset__)
        and all(_methods(type(queue)))
    )


class _Parts(NamedTuple):
    """What the hooks of one queue share."""

    probe: Probe
    stamps: Stamps
    # returns the queue; the hooks have no other reference to it
    here: Callable[[], Any]
    size_of: Callable[[Any], int]


def attach(queue: Any, name: str, sentinel: object) -> Probe:
    """Replace a queue's own methods by counting ones; return their probe.

    They refer to the queue weakly, since a cycle would keep it and its items until the garbage
    collector runs.
    """
    for method in ("_put", "_get", "shutdown"):
        _restore(queue, method)
    here: Callable[[], Any] = weakref.ref(queue)
    probe = Probe(name, sentinel, lambda: here().qsize(), lambda: capacity_of(here()))
    size_of = type(queue).qsize if isinstance(queue, asyncio.Queue) else type(queue)._qsize
    stamps = probe.stamps = _stamps_for(queue, probe, here, size_of)
    parts, dropping = _Parts(probe, stamps, here, size_of), set[int]()
    _replace(queue, "_get", lambda take: _get_hook(parts, take, dropping))
    _replace(queue, "_put", lambda insert: _put_hook(parts, insert))
    if callable(getattr(queue, "shutdown", None)):
        _replace(queue, "shutdown", lambda stop: _shutdown_hook(parts, stop, dropping))
    return probe


def _replace(queue: Any, method: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    own = own_method(queue, method)
    original = getattr(type(queue), method) if own is None else _without_queue(own)
    hook = make(original)
    hook.replaced = own
    object.__setattr__(queue, method, hook)


def _restore(queue: Any, method: str) -> None:
    """Remove the hook of an earlier stand-in of this queue, and its stamps."""
    hook: Any = own_method(queue, method)
    if not hasattr(hook, "replaced"):
        return
    object.__delattr__(queue, method)
    if hook.replaced is not None:
        object.__setattr__(queue, method, hook.replaced)


def own_method(queue: Any, name: str) -> Any:
    """Return what an instance has in place of its class's method; None if it has nothing.

    `vars(queue)` would tell that too, but before Python 3.13 all of a queue's attributes are
    slower from then on.
    """
    found = getattr(queue, name, None)
    of_class = getattr(type(queue), name, None)
    return None if getattr(found, "__func__", None) is of_class else found


def _without_queue(method: Callable[..., Any]) -> Callable[..., Any]:
    """Give an instance's own method the parameters of the class's method."""
    return lambda _, *args, **kwargs: method(*args, **kwargs)


def _stamps_for(
    queue: Any, probe: Probe, here: Callable[[], Any], size_of: Callable[[Any], int]
) -> Stamps:
    methods, size = _methods(type(queue)), size_of(queue)
    if size_of not in _SIZES or own_method(queue, "_put") or own_method(queue, "_get"):
        return IdentityStamps(size, probe.chores, None)
    if methods in _FIRST_OUT or methods in _LAST_OUT:
        return OrderedStamps(size, probe.chores, fifo=methods in _FIRST_OUT)
    attribute = _content_in(queue)
    content = (lambda: getattr(here(), attribute)) if methods in _BY_PRIORITY else None
    return IdentityStamps(size, probe.chores, content)


def _content_in(queue: Any) -> str:
    return "_queue" if isinstance(queue, asyncio.Queue) else "queue"


def _does_only(method: Any, parts: _Parts, act: str) -> bool:
    """Tell whether a method of a queue with ordered stamps only calls another of its content."""
    code = getattr(method, "__code__", None)
    return isinstance(parts.stamps, OrderedStamps) and getattr(code, "co_names", ()) == (
        _content_in(parts.here()), act,
    )  # fmt: skip


def _put_hook(  # noqa: C901 - the hot path
    parts: _Parts, insert: Callable[..., Any]
) -> Callable[[Any], None]:
    probe, stamps, here, size_of = parts
    sentinel, name, current = probe.sentinel, probe.name, _series.active_cell.get
    held = stamps.held if isinstance(stamps, OrderedStamps) else None
    # it is written out then, as are `add` and `count_put` below: every item goes through here
    appends = _does_only(insert, parts, "append")
    is_asyncio = isinstance(here(), asyncio.Queue)

    def put(item: Any) -> None:
        queue = here()
        if appends:
            content = queue._queue if is_asyncio else queue.queue
            content.append(item)
        else:
            insert(queue, item)
        try:
            size = len(content) if appends else size_of(queue)
            now = probe.at = clock.now()
            if item is sentinel:
                stamps.add((item, None, None), size)
                return
            if probe.asks:
                stamps.add((item, now, _producer(probe, item)), size)
            elif held is not None and size == stamps.unknown + len(held) + 1:  # type: ignore[attr-defined]
                held.append((item, now, None))
            else:
                stamps.add((item, now, None), size)
            found = current()
            try:
                series = (_series.default_scope if found is None else found[0].scope).queues[name]
            except KeyError:
                series = probe.series()
            series.put += 1
            series.last_put = now
            if series.first_put is None:
                series.first_put = now
            if size > series.depth_peak:  # noqa: PLR1730 - a call of `max` costs as much as the other lines
                series.depth_peak = size
            if not series.put & FLUSH_MASK:
                probe.flush_later(series)
        except Exception as error:  # the item is in the queue all the same
            probe.failed(error)

    return put


def _producer(probe: Probe, item: Any) -> Any:
    """Return the producer that the wrapped put told, if it is putting this item."""
    call = putting.get()
    if call is None or call.item is not item or call.probe is not probe:
        return None
    call.seen = True
    return call.producer


def _get_hook(parts: _Parts, take: Callable[..., Any], dropping: set[int]) -> Callable[[], Any]:
    probe, stamps, here, size_of = parts
    name, current = probe.name, _series.active_cell.get
    held = stamps.held if isinstance(stamps, OrderedStamps) and stamps.first_out else None
    pops = _does_only(take, parts, "popleft")
    is_asyncio = isinstance(here(), asyncio.Queue)

    def get() -> Any:
        queue = here()
        if pops:
            content = queue._queue if is_asyncio else queue.queue
            item = content.popleft()
        else:
            item = take(queue)
        try:
            size = len(content) if pops else size_of(queue)
            if (
                held is not None
                and not stamps.unknown  # type: ignore[attr-defined]
                and size + 1 == len(held)
                and held[0][0] is item
            ):
                # `take` written out, as `count_got` is below
                stamp: Stamp | None = held.popleft()
            else:
                stamp = stamps.take(item, size)
            now = probe.at = clock.now()
            # a sentinel's stamp has no time
            if probe.asks or stamp is None or (since := stamp[1]) is None:
                _got_slowly(probe, item, stamp, dropping)
                return item
            found = current()
            try:
                series = (_series.default_scope if found is None else found[0].scope).queues[name]
            except KeyError:
                series = probe.series()
            series.got += 1
            waited = now - since
            if waited < 0.0:  # noqa: PLR1730 - a call of `max` costs more
                waited = 0.0
            series.waits.append(waited)
            if not series.got & FLUSH_MASK:
                probe.flush_later(series)
        except Exception as error:  # the user gets the item all the same
            probe.failed(error)
        return item

    return get


def _got_slowly(probe: Probe, item: Any, stamp: Stamp | None, dropping: set[int]) -> None:
    """Count an item that may be no item, may be dropped by a shutdown, or may have a link."""
    call = getting.get()
    mine = call is not None and call.probe is probe
    if mine:
        call.seen = True  # type: ignore[union-attr]
    if item is not probe.sentinel and not (dropping and get_ident() in dropping):
        link = probe.count_got(stamp)
        if link is not None and mine:
            call.link = link  # type: ignore[union-attr]


def _shutdown_hook(
    parts: _Parts, stop: Callable[..., Any], dropping: set[int]
) -> Callable[..., Any]:
    """Return a shutdown whose calls of `_get` count no item as got."""

    def shutdown(*args: Any, **kwargs: Any) -> Any:
        thread = get_ident()
        dropping.add(thread)
        parts.probe.asks = True
        try:
            return stop(parts.here(), *args, **kwargs)
        finally:
            dropping.discard(thread)

    return shutdown

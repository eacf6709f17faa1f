"""Stand in for queues of which only the interface is known, such as gevent's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import queue as thread_queue
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._probes.queues.around import AroundProbe
from otel_pipeline_metrics._probes.queues.blocking import get_or_wait
from otel_pipeline_metrics._probes.queues.instrumented import (
    Instrumented,
    InstrumentedAsyncQueue,
    InstrumentedThreadQueue,
    coroutine_function,
)
from otel_pipeline_metrics._probes.queues.probe import NOTHING, QueueWait, capacity_of, joined
from otel_pipeline_metrics._stages.workers.finding import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._stages.workers.worker import Worker


_ITERATION = ("__iter__", "__next__", "__aiter__", "__anext__")
# Special methods that a stand-in has itself, or that are about its class.
_OWN: Final = frozenset({
    "__class__", "__class_getitem__", "__copy__", "__deepcopy__", "__del__", "__delattr__",
    "__delete__", "__dir__", "__get__", "__getattr__", "__getattribute__", "__getnewargs__",
    "__getnewargs_ex__", "__getstate__", "__init__", "__init_subclass__", "__new__", "__reduce__",
    "__reduce_ex__", "__repr__", "__set__", "__set_name__", "__setattr__", "__setstate__",
    "__subclasshook__",
})  # fmt: skip

_NO_WAIT: AbstractContextManager[None] = contextlib.nullcontext()


class InstrumentedOther(Instrumented):
    """The stand-in of any object with `put` and `get`; each class has a subclass."""

    __slots__ = ()

    def _opm_wait(
        self, state: WaitState, method: str | None, worker: Worker | None = None
    ) -> AbstractContextManager[None]:
        """Return the wait of a put or get, or a block without effect if it cannot wait.

        Args:
            state: of the worker that waits.
            method: tells whether the queue is full or empty; None for a put or get that never
                waits. If the queue does not have it, the put or get may wait.
            worker: that waits; the current one if None.
        """
        if method is None:
            return _NO_WAIT
        ask = getattr(self._opm_queue, method, None)
        try:
            may_wait = not callable(ask) or inspect.iscoroutinefunction(ask) or bool(ask())
        except Exception:  # an error of the queue's own method must not reach a put or a get
            may_wait = True
        return QueueWait(self._opm_probe, state, worker) if may_wait else _NO_WAIT


class InstrumentedSimpleQueue(InstrumentedOther):
    """An instrumented `SimpleQueue` of C, whose put never waits."""

    __slots__ = ()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item as the wrapped queue does."""
        with self._opm_probe.put_around(item):
            self._opm_queue.put(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Put an item as the wrapped queue does."""
        self.put(item, False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Get an item as the wrapped queue does."""
        with self._opm_probe.get_around() as getting:
            return getting.got(get_or_wait(self._opm_queue, self._opm_probe, block, timeout))

    def get_nowait(self) -> Any:
        """Get an item as the wrapped queue does."""
        return self.get(False)


def _item_of(method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Return the item among the arguments of a put; `NOTHING` if it is missing."""
    if args:
        return args[0]
    try:
        return kwargs[next(iter(inspect.signature(method).parameters))]
    except (TypeError, ValueError, KeyError, StopIteration):
        return next(iter(kwargs.values())) if len(kwargs) == 1 else NOTHING


def _put(method: str, full: str | None) -> Callable[..., Any]:
    def put(self: InstrumentedOther, *args: Any, **kwargs: Any) -> Any:
        original = getattr(self._opm_queue, method)
        item = _item_of(original, args, kwargs)
        if item is NOTHING:
            return original(*args, **kwargs)
        with self._opm_probe.put_around(item), self._opm_wait("blocked", full):
            return original(*args, **kwargs)

    return put


def _get(method: str, empty: str | None) -> Callable[..., Any]:
    def get(self: InstrumentedOther, *args: Any, **kwargs: Any) -> Any:
        original = getattr(self._opm_queue, method)
        with self._opm_probe.get_around() as getting:
            with self._opm_wait("idle", empty):
                item = original(*args, **kwargs)
            return getting.got(item)

    return get


def _async_put(method: str, full: str) -> Callable[..., Any]:
    async def run(self: InstrumentedOther, worker: Worker | None, args: Any, kwargs: Any) -> Any:
        original = getattr(self._opm_queue, method)
        item = _item_of(original, args, kwargs)
        if item is NOTHING:
            return await original(*args, **kwargs)
        with self._opm_probe.put_around(item, worker), self._opm_wait("blocked", full, worker):
            return await original(*args, **kwargs)

    return _with_worker(run)


def _async_get(method: str, empty: str) -> Callable[..., Any]:
    async def run(self: InstrumentedOther, worker: Worker | None, args: Any, kwargs: Any) -> Any:
        original = getattr(self._opm_queue, method)
        with self._opm_probe.get_around(worker) as getting:
            with self._opm_wait("idle", empty, worker):
                item = await original(*args, **kwargs)
            return getting.got(item)

    return _with_worker(run)


def _join(self: InstrumentedOther, *args: Any, **kwargs: Any) -> Any:
    try:
        return self._opm_queue.join(*args, **kwargs)
    finally:
        joined(None)


async def _run_join(self: InstrumentedOther, worker: Worker | None, args: Any, kwargs: Any) -> Any:
    try:
        return await self._opm_queue.join(*args, **kwargs)
    finally:
        joined(worker)


def _with_worker(run: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Give a coroutine the worker that requested it, whichever task runs it."""

    @coroutine_function
    def call(self: InstrumentedOther, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return run(self, requesting_worker(), args, kwargs)

    return call


def is_simple(queue: Any) -> bool:
    """Tell whether this is C's `SimpleQueue`, and not gevent's replacement."""
    return _is_from(queue, "_queue")


def _is_from(queue: Any, module: str) -> bool:
    """Tell whether a class of an object is from a module, without importing that."""
    return any(cls.__module__ == module for cls in type(queue).__mro__)


def missing(queue: Any) -> list[str]:
    """Return which of put and get an object lacks."""
    return [name for name in ("put", "get") if not callable(getattr(queue, name, None))]


def stand_in_class(queue: Any, base: type[Instrumented] | None) -> type[Instrumented]:
    """Return the class of a queue's stand-in, with the queue's special methods.

    Args:
        queue: the queue that it stands in for.
        base: a class whose put and get replace the queue's; None if the queue's own put and get
            do something unknown, and are called.
    """
    cls = type(queue)
    made_before = _classes.setdefault(cls, {})
    found = made_before.get(base)
    if found is None:
        made = special_methods(cls, object if base is None else _stock[base])
        if base is None:
            found = type("InstrumentedOther", (InstrumentedOther,), {**_put_and_get(cls), **made})
        elif made:
            found = type(base.__name__, (base,), {"__slots__": (), **made})
        else:
            found = base
        made_before[base] = found
    return found


# Whose special methods each base has.
_stock: Final[dict[type[Instrumented], type]] = {
    InstrumentedAsyncQueue: asyncio.Queue,
    InstrumentedThreadQueue: thread_queue.Queue,
}

# By the class of the queue, and by `base`: one instance may have a put of its own, another not.
# Making a class takes longer than the rest of wrapping a queue.
_classes: weakref.WeakKeyDictionary[type, dict[type[Instrumented] | None, type[Instrumented]]]
_classes = weakref.WeakKeyDictionary()


def _put_and_get(cls: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"__slots__": ()}
    for method, plain, awaited, hint in (
        ("put", _put, _async_put, "full"),
        ("get", _get, _async_get, "empty"),
    ):
        is_async = inspect.iscoroutinefunction(getattr(cls, method, None))
        made[method] = (awaited if is_async else plain)(method, hint)
        now = f"{method}_nowait"
        if callable(getattr(cls, now, None)):
            made[now] = plain(now, None)
    if callable(getattr(cls, "join", None)):
        made["join"] = _with_worker(_run_join) if inspect.iscoroutinefunction(cls.join) else _join
    return made


def special_methods(cls: Any, stock: type = object) -> dict[str, Any]:
    """Return the methods that Python looks up on the class alone, past `__getattr__`.

    Args:
        cls: the class of what is wrapped.
        stock: a class whose special methods the stand-in has, or does not need.
    """
    made: dict[str, Any] = {}
    # `dir` would call the metaclass, which may hide some and add its own
    names = {name: found for one in reversed(cls.__mro__) for name, found in vars(one).items()}
    for name, found in names.items():
        if name in _OWN or not (name.startswith("__") and name.endswith("__")):
            continue
        # what the class has, and not a property that its metaclass has for the class itself
        try:
            method = found.__get__(None, cls) if hasattr(type(found), "__get__") else found
        except Exception:  # only objects have it
            method = None
        if (
            not callable(method)
            or isinstance(method, type)
            or method is getattr(stock, name, None)
            or method is getattr(object, name, None)
        ):
            continue
        if name in _ITERATION and isinstance(method, FunctionType):
            # the class's function on the stand-in, so that it calls the stand-in's `get`
            made[name] = method
        elif name == "__aenter__":
            made[name] = _forward_enter
        elif name in {"__eq__", "__ne__"}:
            made[name] = functools.partialmethod(_compare, name)
        else:
            made[name] = functools.partialmethod(_forward, name)
    if "__eq__" in made and "__hash__" not in made and cls.__hash__ is not None:
        # a class with `__eq__` alone has no hash, and this one has that of `object` or `stock`
        made["__hash__"] = functools.partialmethod(_forward, "__hash__")
    if cls.__module__.startswith("gevent.") and "__next__" in made:
        made["__iter__"], made["__next__"] = _itself, _until_stop_iteration
    return made


def _forward(self: Instrumented, name: str, /, *args: Any, **kwargs: Any) -> Any:
    result = getattr(self._opm_queue, name)(*args, **kwargs)
    return self if result is self._opm_queue else result


def _compare(self: Instrumented, name: str, other: object) -> Any:
    # one that goes by identity is equal to itself
    return getattr(self._opm_queue, name)(self._opm_queue if other is self else other)


async def _forward_enter(self: Instrumented) -> Any:
    result = await self._opm_queue.__aenter__()
    return self if result is self._opm_queue else result


def _itself(self: Any) -> Any:
    return self


def _until_stop_iteration(self: Any) -> Any:
    """Get the next item: gevent's queues end with the class `StopIteration`."""
    item = self.get()
    if item is StopIteration:
        raise item
    return item


def around_probe(queue: Any, name: str, sentinel: object) -> AroundProbe:
    """Return the probe of a queue whose inside is unknown.

    It may refer to the queue, since the queue does not refer to it.
    """
    return AroundProbe(
        name,
        sentinel,
        _size(queue),
        functools.partial(capacity_of, queue),
        never_waits=is_simple(queue),
        shared=_is_from(queue, "multiprocessing.managers"),
    )


def _size(queue: Any) -> Callable[[], int | None]:
    for ask in ("qsize", "__len__"):
        found: Any = getattr(queue, ask, None)
        if callable(found) and not inspect.iscoroutinefunction(found):
            size: Callable[[], int | None] = found
            return size
    return lambda: None

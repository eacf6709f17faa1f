"""Instrument locks, semaphores, conditions, pools and similar limits with `wrap_limit`."""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core.validation import check_name, check_positive
from otel_pipeline_metrics._probes.limits import coroutines, other, threads
from otel_pipeline_metrics._probes.limits.instrumented import with_attributes_of
from otel_pipeline_metrics._probes.limits.permits import Permits
from otel_pipeline_metrics._probes.limits.registry import watch
from otel_pipeline_metrics._probes.limits.single import SinglePermit
from otel_pipeline_metrics._probes.queues.instrumented import Slotted, wrapped
from otel_pipeline_metrics._probes.queues.other import special_methods

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._probes.limits.instrumented import Limited
    from otel_pipeline_metrics._probes.limits.probe import LimitProbe

L = TypeVar("L")

_LOCK: Final = type(threading.Lock())
_RLOCKS: Final = (type(threading.RLock()), threading._PyRLock)  # type: ignore[attr-defined]

# By the class of the library: the stand-in of an object whose class overrides none of the methods.
_STOCK: Final[tuple[tuple[type, str, type[Limited]], ...]] = (
    (_LOCK, "lock", threads.LimitedOpenLock),
    *((rlock, "rlock", threads.LimitedOpenRLock) for rlock in _RLOCKS),
    (threading.BoundedSemaphore, "semaphore", threads.LimitedSemaphore),
    (threading.Semaphore, "semaphore", threads.LimitedSemaphore),
    (threading.Condition, "condition", threads.LimitedCondition),
    (asyncio.Lock, "lock", coroutines.LimitedAsyncLock),
    (asyncio.BoundedSemaphore, "semaphore", coroutines.LimitedAsyncLock),
    (asyncio.Semaphore, "semaphore", coroutines.LimitedAsyncLock),
    (asyncio.Condition, "condition", coroutines.LimitedAsyncCondition),
)
_METHODS: Final = (
    "acquire", "release", "locked", "wait", "wait_for",
    "__enter__", "__exit__", "__aenter__", "__aexit__",
)  # fmt: skip

# The same of locks that are written in C, which have no other attributes.
_OF_C: Final[dict[type, type[Limited]]] = {
    kind: with_attributes_of(stand_in, kind)
    for kind, stand_in in ((_LOCK, threads.LimitedLock), (_RLOCKS[0], threads.LimitedRLock))
    if kind.__module__ == "_thread"
}

# By the class of the limit: making a class takes longer than the rest of wrapping.
_classes: weakref.WeakKeyDictionary[type, dict[type[Limited], type[Limited]]]
_classes = weakref.WeakKeyDictionary()

# Kinds of which one permit is all there is.
_SINGLE: Final = frozenset({"lock", "rlock", "condition"})


def wrap_limit(obj: L, *, name: str, limit: int | None = None) -> L:
    """Return an instrumented lock, semaphore, pool or rate limit that behaves like `obj`.

    Takes `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore` and `Condition` of threading, the same
    of asyncio, anyio and trio, their `CapacityLimiter`, any other object with `acquire`, and any
    context manager that may be entered repeatedly. Use the returned object instead of `obj`: what
    is acquired or released through `obj` itself is not seen.

    A worker that waits to acquire is `blocked`. One that waits in a condition is `idle`, and holds
    nothing meanwhile. How many permits are held is unknown if there is `acquire` but no `release`.

    Args:
        obj: the object to instrument.
        name: `pipeline.limit.name`, up to 128 characters. Limits of one name are reported
            together.
        limit: how many permits can be held at a time. By default it is 1 for a lock or a
            condition, the `total_tokens` of a capacity limiter, the value that a semaphore has
            now, and unknown otherwise.

    Raises:
        TypeError: `obj` has no `acquire` and is no context manager, or is instrumented already;
            or `limit` is no number.
        ValueError: `name` is empty or too long; or `limit` is below 1, or has a fraction.
    """
    distinct = cardinality.instrument_names.name("limit names", check_name(name, "name"))
    if issubclass(type(obj), Slotted) or id(obj) in wrapped:
        raise TypeError(f"obj is instrumented already: {obj!r}")
    if isinstance(obj, type) or not _is_limit(obj):
        raise _unknown(obj)
    found: L = instrument(obj, distinct, None if limit is None else _check_limit(limit))
    return found


def instrument(obj: Any, name: str, limit: int | None) -> Any:
    """Return the stand-in of a limit, without checks; pickled ones are made by this."""
    kind, stand_in = _stock(obj) or (_kind(obj), None)
    maximum = _maximum(obj, kind) if limit is None else limit
    probe: LimitProbe
    if kind in _SINGLE:
        reentrant = kind == "rlock" or (kind == "condition" and _is_reentrant(obj))
        probe = SinglePermit(name, kind, maximum, reentrant=reentrant)
    else:
        releases = hasattr(obj, "release") or not hasattr(obj, "acquire")
        probe = Permits(name, kind, maximum, releases=releases)
    probe.again = instrument, (name, limit)
    found = other.stand_in(obj, probe) if stand_in is None else stand_in(obj, probe)
    watch(probe)
    wrapped[id(obj)] = found
    return found


def _check_limit(limit: object) -> int:
    number = check_positive(limit, "limit")
    if number != int(number):
        raise ValueError(f"limit must be a whole number, not {number:g}")
    return int(number)


def _is_limit(obj: Any) -> bool:
    cls = type(obj)
    return (
        callable(getattr(obj, "acquire", None))
        or (hasattr(cls, "__enter__") and hasattr(cls, "__exit__"))
        or (hasattr(cls, "__aenter__") and hasattr(cls, "__aexit__"))
    )


def _unknown(obj: Any) -> TypeError:
    if isinstance(obj, type):
        return TypeError(f"obj must be a limit, not a class: {obj!r}")
    cls = type(obj)
    return TypeError(
        "obj must have acquire, or be a context manager; "
        f"{cls.__module__}.{cls.__qualname__} has no acquire, no __enter__ with __exit__ and no "
        "__aenter__ with __aexit__"
    )


def _stock(obj: Any) -> tuple[str, type[Limited]] | None:
    """Return kind and stand-in of an object that behaves as the library's do."""
    for stock, kind, stand_in in _STOCK:
        if isinstance(obj, stock):
            overridden = any(
                getattr(type(obj), name, None) is not getattr(stock, name, None)
                # a condition has the methods of its lock
                or (kind != "condition" and _is_own(obj, name))
                for name in _METHODS
            )
            return None if overridden else (kind, _class_for(type(obj), stock, stand_in))
    return None


def _class_for(cls: type, stock: type, stand_in: type[Limited]) -> type[Limited]:
    """Return the class of a stand-in, with the special methods that a subclass adds."""
    if (found := _OF_C.get(cls)) is not None:
        return found
    if cls is stock or not (added := special_methods(cls, stock)):
        return stand_in
    made = _classes.setdefault(cls, {})
    if stand_in not in made:
        made[stand_in] = type(stand_in.__name__, (stand_in,), {"__slots__": (), **added})
    return made[stand_in]


def _is_own(obj: Any, name: str) -> bool:
    """Tell whether an object has a method in place of its class's.

    Its `__dict__` would tell that too, but before Python 3.13 all attributes of an object whose
    `__dict__` was read are slower from then on.
    """
    of_class = getattr(type(obj), name, None)
    if isinstance(of_class, FunctionType):
        return getattr(getattr(obj, name, None), "__func__", None) is not of_class
    if of_class is None:
        return hasattr(obj, name)
    return name in getattr(obj, "__dict__", {})


def _kind(obj: Any) -> str:
    """Return what kind of limit an object of another library is."""
    for stock, kind, _ in _STOCK:
        if isinstance(obj, stock):
            return kind
    if hasattr(obj, "total_tokens"):
        return "capacity limiter"
    if not hasattr(obj, "acquire"):
        return "context manager"
    library = type(obj).__module__.partition(".")[0]
    if library in {"anyio", "trio", "multiprocessing", "gevent"}:
        for word in ("RLock", "Lock", "Semaphore", "Condition"):
            if word in type(obj).__name__:
                return word.lower()
    return "other"


def _maximum(obj: Any, kind: str) -> int | Callable[[], int | None] | None:
    if kind in _SINGLE:
        return 1
    if hasattr(obj, "total_tokens"):
        return lambda: _whole(obj.total_tokens)
    if kind == "semaphore":
        for attribute in ("value", "_value", "counter"):
            value = getattr(obj, attribute, None)
            if isinstance(value, (int, float)):
                return _whole(value)
        if callable(getattr(obj, "get_value", None)):
            return _whole(obj.get_value())
    return None


def _whole(number: Any) -> int | None:
    return None if math.isinf(number) else int(number)


def _is_reentrant(condition: Any) -> bool:
    lock = getattr(condition, "_lock", None)
    # those of multiprocessing and gevent have the name too
    return isinstance(lock, _RLOCKS) or "RLock" in type(lock).__name__

"""Stand in for limits of which only the interface is known: with `acquire`, or only `with`.

Such are the limits of anyio and trio, connection pools, and rate limits. Of an `acquire` that may
not suspend and cannot be asked, every call counts as a wait, however short.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from contextlib import AsyncContextDecorator, ContextDecorator, _GeneratorContextManager
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._probes.limits.coroutines import counted
from otel_pipeline_metrics._probes.limits.instrumented import LimitedOpen
from otel_pipeline_metrics._probes.limits.permits import Permits
from otel_pipeline_metrics._probes.limits.probe import PermitWait
from otel_pipeline_metrics._probes.queues.instrumented import coroutine_function
from otel_pipeline_metrics._probes.queues.other import special_methods
from otel_pipeline_metrics._stages.workers.finding import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otel_pipeline_metrics._probes.limits.probe import LimitProbe
    from otel_pipeline_metrics._stages.workers.worker import Worker


# by whether they may wait
_ACQUIRE: Final = {
    "acquire": True,
    "acquire_on_behalf_of": True,
    "acquire_nowait": False,
    "acquire_on_behalf_of_nowait": False,
}
# Libraries whose limits tell whether a permit is free, and whose `acquire(False)` does not wait.
_ASKED: Final = frozenset({"anyio", "trio", "gevent"})
_TRIED: Final = frozenset({"multiprocessing"})

_RELEASE: Final = ("release", "release_on_behalf_of")


class LimitedOther(LimitedOpen):
    """The stand-in of any other limit; each class has a subclass."""

    __slots__ = ()

    # whether the limit tells if a permit is free, and whether `acquire(False)` is known to try
    _opm_asked = False
    _opm_tried = False


def stand_in(limit: Any, probe: LimitProbe) -> LimitedOther:
    """Return the stand-in of a limit."""
    found = {
        name: inspect.iscoroutinefunction(method)
        for name in (*_ACQUIRE, *_RELEASE, "wait")
        if callable(method := getattr(limit, name, None))
    }
    if probe.kind != "condition":
        found.pop("wait", None)
    made_before = _classes.setdefault(type(limit), {})
    key = tuple(found.items())
    made = made_before.get(key)
    if made is None:
        made = made_before[key] = _class_of(type(limit), found)
    return made(limit, probe)


# By the class of the limit, and by which of its methods are counted, and whether they are coroutine
# functions: an instance may have some of its own. Making a class takes longer than all the rest.
_classes: weakref.WeakKeyDictionary[
    type, dict[tuple[tuple[str, bool], ...], type[LimitedOther]]
] = weakref.WeakKeyDictionary()


def _class_of(cls: Any, found: dict[str, bool]) -> type[LimitedOther]:
    library = cls.__module__.partition(".")[0]
    methods: dict[str, Any] = {
        "__slots__": (),
        "_opm_asked": library in _ASKED,
        "_opm_tried": library in _TRIED,
        **special_methods(cls),
    }
    for name, is_async in found.items():
        if name in _ACQUIRE:
            make: Any = _async_acquire if is_async else _acquire
        elif name in _RELEASE:
            make = _async_release if is_async else _release
        else:
            continue
        methods[name] = make(name)
    if "wait" in found:
        methods["wait"] = _async_wait if found["wait"] else _wait
        wait_for = getattr(cls, "wait_for", None)
        if isinstance(wait_for, FunctionType):
            # the class's function on the stand-in, so that it calls the stand-in's `wait`
            methods["wait_for"] = wait_for
    if issubclass(cls, (ContextDecorator, AsyncContextDecorator)) and "_recreate_cm" in dir(cls):
        # a decorated function enters what `_recreate_cm` returns
        methods |= {"__call__": cls.__call__, "_recreate_cm": _recreate}
    if hasattr(cls, "__enter__"):
        methods |= {"__enter__": _enter, "__exit__": _exit}
    if hasattr(cls, "__aenter__"):
        methods |= {"__aenter__": _aenter, "__aexit__": _aexit}
    return type("LimitedOther", (LimitedOther,), methods)


# --- without coroutines -----------------------------------------------------------------------


def _acquire(method: str) -> Callable[..., Any]:
    waits = _ACQUIRE[method]

    def acquire(self: LimitedOther, *args: Any, **kwargs: Any) -> Any:
        original, probe = getattr(self._opm_queue, method), self._opm_probe
        if (
            not waits
            or any(one is False for one in (kwargs.get("blocking"), kwargs.get("block"), *args[:1]))
            or (self._opm_asked and _is_free(self._opm_queue))
        ):
            result = original(*args, **kwargs)
            waited = None
        elif self._opm_tried and not args and not kwargs and original(False):
            result, waited = True, None
        else:
            with PermitWait(probe) as wait:
                result = original(*args, **kwargs)
                later = _is_awaited(result) or isinstance(result, _GeneratorContextManager)
                if later:
                    wait.drop()
            waited = wait.seconds
            if inspect.iscoroutine(result):
                return counted(probe, lambda: result, requesting_worker())
            if later:
                return Acquiring(result, probe)
        if result is self._opm_queue:
            result = self
        elif hasattr(type(result), "__enter__") and isinstance(probe, Permits):
            # the end of a block may release it too, which is not seen
            probe.releases = False
        if result is not False:
            probe.acquired(waited)
        return result

    return acquire


def _release(method: str) -> Callable[..., Any]:
    def release(self: LimitedOther, *args: Any, **kwargs: Any) -> Any:
        original, probe = getattr(self._opm_queue, method), self._opm_probe
        hold = None
        try:
            try:
                hold = probe.take()
            finally:
                result = original(*args, **kwargs)
        except BaseException:
            probe.give_back(hold)
            raise
        probe.end(hold)
        return result

    return release


def _enter(self: LimitedOther) -> Any:
    limit, probe = self._opm_queue, self._opm_probe
    if self._opm_tried and limit.acquire(False):
        probe.acquired()
        return True
    if self._opm_asked and _is_free(limit):
        result = limit.__enter__()
        probe.acquired()
    else:
        with PermitWait(probe) as wait:
            result = limit.__enter__()
        probe.acquired(wait.seconds)
    return self if result is limit else result


def _exit(self: LimitedOther, *error: Any) -> Any:
    self._opm_probe.released()
    return self._opm_queue.__exit__(*error)


def _wait(self: LimitedOther, *args: Any, **kwargs: Any) -> Any:
    held = self._opm_probe.suspend()
    try:
        with PermitWait(self._opm_probe, state="idle"):
            return self._opm_queue.wait(*args, **kwargs)
    finally:
        self._opm_probe.resume(held)


def _recreate(self: LimitedOther) -> Any:
    """Return what one call of a function enters that the limit decorates."""
    limit = self._opm_queue
    found = limit._recreate_cm()
    if found is limit:
        return self
    make, arguments = self._opm_probe.again
    return make(found, *arguments)


# --- with coroutines --------------------------------------------------------------------------


def _async_acquire(method: str) -> Callable[..., Any]:
    async def run(self: LimitedOther, worker: Worker | None, args: Any, kwargs: Any) -> Any:
        original = functools.partial(getattr(self._opm_queue, method), *args, **kwargs)
        return await _acquired(self, original, worker)

    @coroutine_function
    def acquire(self: LimitedOther, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return run(self, requesting_worker(), args, kwargs)

    return acquire


async def _acquired(
    stand_in: LimitedOther, acquire: Callable[[], Any], worker: Worker | None
) -> Any:
    probe = stand_in._opm_probe
    if stand_in._opm_asked and _is_free(stand_in._opm_queue):
        # it suspends all the same, to let other tasks run
        result = await acquire()
        if result is not False:
            probe.acquired()
        return result
    return await counted(probe, acquire, worker)


def _is_free(limit: Any) -> bool:
    """Tell whether a permit of anyio, trio or gevent is free; False if that is not known."""
    tokens = getattr(limit, "available_tokens", None)
    if tokens is None:
        tokens = getattr(limit, "value", None)
    if isinstance(tokens, (int, float)):
        return tokens >= 1
    locked = getattr(limit, "locked", None)
    return callable(locked) and not locked()


def _async_release(method: str) -> Callable[..., Any]:
    async def release(self: LimitedOther, *args: Any, **kwargs: Any) -> Any:
        original, probe = getattr(self._opm_queue, method), self._opm_probe
        hold = None
        try:
            try:
                hold = probe.take()
            finally:
                result = await original(*args, **kwargs)
        except Exception:
            probe.give_back(hold)
            raise
        except BaseException:  # cancelled on its way: it is not known, and not held by us
            probe.end(hold)
            raise
        probe.end(hold)
        return result

    return release


async def _aenter(self: LimitedOther) -> Any:
    limit = self._opm_queue
    result = await _acquired(self, lambda: _run(limit.__aenter__()), None)
    return self if result is limit else result


async def _aexit(self: LimitedOther, *error: Any) -> Any:
    self._opm_probe.released()
    return await self._opm_queue.__aexit__(*error)


@coroutine_function
def _async_wait(self: LimitedOther, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
    return _run_wait(self, requesting_worker(), args, kwargs)


async def _run_wait(self: LimitedOther, worker: Worker | None, args: Any, kwargs: Any) -> Any:
    held = self._opm_probe.suspend()
    try:
        with PermitWait(self._opm_probe, worker, "idle"):
            return await self._opm_queue.wait(*args, **kwargs)
    finally:
        self._opm_probe.resume(held)


# --- an acquire that returns something to await ---------------------------------------------------


def _is_awaited(result: Any) -> bool:
    cls = type(result)
    return hasattr(cls, "__await__") or hasattr(cls, "__aenter__")


class Acquiring:
    """What an `acquire` returned that is awaited, or entered as a block."""

    def __init__(self, wrapped: Any, probe: LimitProbe) -> None:
        self._wrapped = wrapped
        self._probe = probe
        self._worker = requesting_worker()

    def __getattr__(self, name: str) -> Any:
        if name == "_wrapped":
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return counted(self._probe, lambda: _run(self._wrapped), self._worker).__await__()

    def __enter__(self) -> Any:
        with PermitWait(self._probe) as wait:
            result = self._wrapped.__enter__()
        self._probe.acquired(wait.seconds)
        return result

    def __exit__(self, *error: Any) -> Any:
        self._probe.released()
        return self._wrapped.__exit__(*error)

    async def __aenter__(self) -> Any:
        return await counted(self._probe, lambda: _run(self._wrapped.__aenter__()), self._worker)

    async def __aexit__(self, *error: Any) -> Any:
        self._probe.released()
        return await self._wrapped.__aexit__(*error)


async def _run(awaitable: Any) -> Any:
    return await awaitable

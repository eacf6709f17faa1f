"""Cache the results of a function as `functools.lru_cache` does, counted and registered."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from otel_pipeline_metrics._core.validation import check_flag, check_name
from otel_pipeline_metrics._probes.caches.register import register_cache
from otel_pipeline_metrics._probes.caches.what_if import FunctionSketch

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


@overload
def counted_lru_cache(
    maxsize: Callable[..., T], typed: bool = ...
) -> functools._lru_cache_wrapper[T]: ...


@overload
def counted_lru_cache(
    maxsize: int | None = ...,
    typed: bool = ...,
    *,
    name: str | None = ...,
    what_if: bool = ...,
) -> Callable[[Callable[..., T]], functools._lru_cache_wrapper[T]]: ...


def counted_lru_cache(
    maxsize: int | Callable[..., T] | None = 128,
    typed: bool = False,
    *,
    name: str | None = None,
    what_if: bool = False,
) -> (
    functools._lru_cache_wrapper[T] | Callable[[Callable[..., T]], functools._lru_cache_wrapper[T]]
):
    """Cache a function's results as `functools.lru_cache` does, and report its look-ups.

    Works with and without parentheses. The result has `cache_info()`, `cache_clear()`,
    `cache_parameters()` and `__wrapped__`.

    Args:
        maxsize: entries to keep; None: all.
        typed: whether arguments of different types, as 1 and 1.0, have entries of their own.
        name: registers the cache under this name as `register_cache` does; the function's name
            unless given.
        what_if: also tell the hit ratios at half, twice and four times `maxsize`. A call that
            finds its result then takes several times as long, and the arguments of up to
            four times `maxsize` results are kept. Without a `maxsize` the ratios are unknown.

    Raises:
        TypeError: an argument is of the wrong kind, or what is decorated is not callable.
        ValueError: `name` is empty or too long.
    """
    check_flag(typed, "typed")
    check_flag(what_if, "what_if")
    if name is not None:
        check_name(name, "name")
    if callable(maxsize):
        return _cached(maxsize, 128, typed, name, what_if)
    size = maxsize
    if size is not None:
        try:
            size = max(0, operator.index(size))
        except TypeError:
            kind = type(size).__name__
            raise TypeError(f"maxsize must be an integer or None, not {kind}") from None
    return lambda function: _cached(function, size, typed, name, what_if)


def _cached(
    function: Callable[..., T], size: int | None, typed: bool, name: str | None, what_if: bool
) -> functools._lru_cache_wrapper[T]:
    if not callable(function):
        raise TypeError(f"counted_lru_cache decorates functions, not {type(function).__name__}")
    if what_if and size:
        cached = _with_what_if(function, size, typed)
    else:
        cached = functools.lru_cache(maxsize=size, typed=typed)(function)
    default: str = getattr(function, "__name__", type(function).__name__)
    register_cache(default if name is None else name, cached)
    return cached


def _with_what_if(
    function: Callable[..., T], size: int, typed: bool
) -> functools._lru_cache_wrapper[T]:
    sketch = FunctionSketch(function, size, typed=typed)
    cached, called = sketch.cached, sketch.called

    def wrapper(*args: Any, **kwds: Any) -> T:
        result: T = cached(*args, **kwds)
        called(args, kwds)
        return result

    found: Any = functools.update_wrapper(wrapper, function)
    found.cache_info = cached.cache_info
    found.cache_clear = sketch.clear
    found.cache_parameters = cached.cache_parameters
    found.cache_statistics = sketch.cache_statistics
    return found  # type: ignore[no-any-return]  # a function with the attributes of the other

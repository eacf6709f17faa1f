"""Follow a loop: a stage that yields what it is given, with a bar."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Any, TypeVar, overload

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.validation import check_count
from otel_pipeline_metrics._stages.stage import stage
from otel_pipeline_metrics.report import views
from otel_pipeline_metrics.report.live import Bar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@overload
def track(
    iterable: AsyncIterable[T], *, name: str, kind: str = ..., total: int | None = ...
) -> AsyncIterator[T]: ...


@overload
def track(
    iterable: Iterable[T], *, name: str, kind: str = ..., total: int | None = ...
) -> Iterator[T]: ...


def track(
    iterable: Iterable[Any] | AsyncIterable[Any],
    *,
    name: str,
    kind: str = "process",
    total: int | None = None,
) -> Iterator[Any] | AsyncIterator[Any]:
    """Yield the items of an iterable, as a stage with a bar in the terminal.

        for row in opm.track(rows, name="read rows"):
            ...

    It is one call of a generator stage, inside of a run or outside: its items are counted, and its
    time is that of the iterable, not that of the loop's body. The bar is on stderr; without a
    terminal, or without the extra `cli`, there is only the stage.

    Args:
        iterable: anything that `for`, or `async for`, takes.
        name: the stage's name.
        kind: the stage's kind.
        total: how many items there will be, for the time left; by default what `len()` tells.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the name or kind is empty or too long, or the total is negative.
    """
    if total is not None:
        check_count(total, "total")
    decorate: Callable[[Any], Any] = stage(name, kind=kind)
    if isinstance(iterable, AsyncIterable):

        async def each_async() -> AsyncIterator[Any]:
            with _bar(name, total) as bar:
                async for item in iterable:
                    bar.done += 1
                    yield item

        followed_async: AsyncIterator[Any] = decorate(each_async)()
        return followed_async
    if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
        raise TypeError(f"iterable must be iterable, not {type(iterable).__name__}")
    items = iter(iterable)
    known = (length_hint(iterable) or None) if total is None else total

    def each() -> Iterator[Any]:
        with _bar(name, known) as bar:
            for item in items:
                bar.done += 1
                yield item

    followed: Iterator[Any] = decorate(each)()
    return followed


@contextlib.contextmanager
def _bar(name: str, total: int | None) -> Iterator[Bar]:
    bar = Bar(name, total)
    shown = None
    with errors.suppress_errors("the bar"):
        shown = views.show(bar)
    try:
        yield bar
    finally:
        if shown is not None:
            with errors.suppress_errors("the bar"):
                views.hide(shown, bar)

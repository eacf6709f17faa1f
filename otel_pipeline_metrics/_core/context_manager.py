"""Support `async with` and `await` where nothing is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from types import TracebackType


T = TypeVar("T")


class AsyncContextMixin:
    """A base class that lets `async with` do what `with` does."""

    __slots__ = ()

    async def __aenter__(self: AbstractContextManager[T]) -> T:
        """Enter as `with` does; nothing is awaited."""
        return self.__enter__()

    async def __aexit__(
        self: AbstractContextManager[Any],
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Exit as `with` does; nothing is awaited."""
        self.__exit__(kind, error, traceback)


class Done:
    """The result of a call that may be awaited, although it is over."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

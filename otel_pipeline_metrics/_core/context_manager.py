"""`async with` for context managers in which nothing awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType


T_co = TypeVar("T_co", covariant=True)


class AsyncContextMixin(Generic[T_co]):
    """Lets `async with` do what `with` does."""

    __slots__ = ()

    if TYPE_CHECKING:  # the subclass has them

        def __enter__(self) -> T_co: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

    async def __aenter__(self) -> T_co:
        """As `__enter__`; nothing is awaited."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `__exit__`; nothing is awaited."""
        self.__exit__(kind, error, traceback)

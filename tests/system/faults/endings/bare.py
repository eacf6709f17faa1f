"""Stand in for the library in the bare program: the same names, which do nothing."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Nothing(AbstractContextManager[Any], AbstractAsyncContextManager[Any]):
    def __exit__(self, *_: object) -> None:
        """Let everything through."""

    async def __aexit__(self, *_: object) -> None:
        """Let everything through."""

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


def stage(*_: object, **__: object) -> _Nothing:
    return _Nothing()


def run(*_: object, **__: object) -> _Nothing:
    return _Nothing()


def shutdown() -> None:
    """Do nothing."""


def stats() -> dict[str, Any]:
    return {}

"""A fault of ours never reaches the user's call: it is logged once and counted.

Only `Exception` is caught: cancellation, `GeneratorExit` and `KeyboardInterrupt` are never
ours to keep. The library's own tests set `raise_faults`, so that a fault fails them.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("otel_pipeline_metrics")

raise_faults = False
"""Set by the library's own tests; elsewhere a fault is logged and swallowed."""

_said: set[str] = set()

_MOST_SAID: Final = 1000
"""Different warnings that are given in all; so many come of keys that are made from data."""


def fault(where: str) -> None:
    """Report the exception being handled as a fault of ours in `where`, once a process."""
    if raise_faults:
        raise  # noqa: PLE0704 - called from an except block only
    if where in _said:
        return
    _said.add(where)
    logger.warning(
        "internal fault in %s, said once; your pipeline is not affected, "
        "but some telemetry may be missing",
        where,
        exc_info=sys.exc_info(),
    )


def once(key: str, message: str, *args: object) -> None:
    """Log a warning once a process for each `key`."""
    if key in _said or len(_said) > _MOST_SAID:
        return
    _said.add(key)
    if len(_said) > _MOST_SAID:
        logger.warning("%d different warnings were given; no more follow", _MOST_SAID)
    else:
        logger.warning(message, *args)


def reset() -> None:
    """Forget what was said; for tests and for a new configuration."""
    _said.clear()


class guarded:  # noqa: N801 - reads as a word in `with guarded("...")`
    """`with guarded("place"):` around our own work, never around the user's."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Swallow and report an `Exception`; let everything else through."""
        if error is None or not isinstance(error, Exception) or raise_faults:
            return False
        fault(self._where)
        return True

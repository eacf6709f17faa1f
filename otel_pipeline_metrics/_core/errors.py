"""A fault of ours never reaches the user's call: it is logged once and counted.

Only `Exception` is caught: cancellation, `GeneratorExit` and `KeyboardInterrupt` are never
ours to keep. The library's own tests set `raise_faults`, so that a fault fails them.
"""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType


logger = logging.getLogger("otel_pipeline_metrics")

raise_faults = False
"""Set by the library's own tests; elsewhere a fault is logged and swallowed."""

_said: set[str] = set()

_MOST_SAID: Final = 1000
"""Different warnings that are given in all; so many come of keys that are made from data."""


def log_internal_error(where: str) -> None:
    """Report the exception being handled as a fault of ours in `where`, once a process.

    It is raised again if a signal handler of the program's raised it: then it is no fault of ours,
    and only happened to strike in our code.
    """
    if raise_faults or from_signal_handler(sys.exc_info()[1]):
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


def from_signal_handler(error: BaseException | None) -> bool:
    """Tell whether a signal handler raised this, as those do that turn an alarm into an error."""
    if error is None or threading.get_ident() != threading.main_thread().ident:
        return False
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    step = error.__traceback__
    while handlers and step is not None:
        if step.tb_frame.f_code in handlers:
            return True
        step = step.tb_next
    return False


def _code_of(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__") and callable(handler):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


def warn_once(key: str, message: str, *args: object) -> None:
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


class suppress_errors:  # noqa: N801 - reads as a word in `with guarded("...")`
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
        if not isinstance(error, Exception) or raise_faults or from_signal_handler(error):
            return False
        log_internal_error(self._where)
        return True

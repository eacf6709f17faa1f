"""Keep internal errors away from the user's calls: log each once and go on.

Only `Exception` is caught: cancellation, `GeneratorExit` and `KeyboardInterrupt` belong to the
program. The library's own tests set `raise_faults`, so that an internal error fails them.
"""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.logs import Logger

if TYPE_CHECKING:
    from types import FrameType, TracebackType


logger = Logger("otel_pipeline_metrics", lambda error: raised_into(error))  # noqa: PLW0108 - below

# Set by the library's own tests: internal errors are raised instead of logged.
raise_faults = False

# The keys of the warnings that were logged.
_logged: set[str] = set()

# Libraries that may run another greenlet while a function waits.
_SWITCHING: Final = {"greenlet", "gevent", "eventlet"}

# Only keys that are made from data lead to so many different warnings.
_MAX_LOGGED: Final = 1000


def log_internal_error(where: str) -> None:
    """Log the current exception as an internal error in `where`, once per process.

    An exception that was raised into our code from outside, as by a signal handler of the program,
    is raised further.
    """
    error = sys.exc_info()[1]
    if raise_faults or (error is not None and raised_into(error)):
        raise  # noqa: PLE0704 - called from except blocks only
    key = f"internal error in {where}"
    if key in _logged:
        return
    _logged.add(key)
    logger.warning(
        "internal error in %s, logged once; your pipeline is not affected, "
        "but some telemetry may be missing",
        where,
        exc_info=sys.exc_info(),
    )


def from_signal_handler(error: BaseException | None) -> bool:
    """Tell whether a signal handler of the program raised this exception."""
    if error is None or threading.get_ident() != threading.main_thread().ident:
        return False
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    step, interrupted = _traceback_of(error), None
    while step is not None:
        frame = step.tb_frame
        if frame.f_code in handlers or _was_given(frame, interrupted):
            return True
        step, interrupted = step.tb_next, frame
    return False


def _was_given(frame: FrameType, interrupted: FrameType | None) -> bool:
    """Tell whether a function has the frame around its own as an argument, as handlers do.

    The handler may be another one already: those of an alarm often restore the earlier one before
    they raise.
    """
    code, local = frame.f_code, frame.f_locals
    given = [local.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:
        given += local.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    return interrupted is not None and any(value is interrupted for value in given)


def raised_into(error: BaseException) -> bool:
    """Tell whether an exception was raised into a callback of the program, and not by it.

    So are Ctrl-C, what a signal handler raises, what a greenlet gets while another one runs
    (`gevent.Timeout`), and a `BaseException` that another thread has set.
    """
    kind = type(error)  # `isinstance` would ask the program's class for `__class__`
    if issubclass(kind, KeyboardInterrupt) or from_signal_handler(error):
        return True
    step = _traceback_of(error)
    if step is None:
        return False
    while step.tb_next is not None:
        step = step.tb_next
    module = str(step.tb_frame.f_globals.get("__name__"))
    if module.partition(".")[0] in _SWITCHING:
        return True
    # no synchronous code gets these three from outside
    if issubclass(kind, (Exception, SystemExit, GeneratorExit)) or (
        name_of(error) == "CancelledError"
    ):
        return False
    import dis

    instruction = step.tb_frame.f_code.co_code[step.tb_lasti]
    return dis.opname[instruction] not in {"RAISE_VARARGS", "RERAISE"}


def _traceback_of(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback without the code of a class of the program."""
    found: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    return found


def name_of(error: BaseException) -> str:
    """Return the name of an exception's class, without the code of a metaclass."""
    name: str = type.__getattribute__(type(error), "__name__")
    return name


class CallbackError(Exception):
    """What code of the program raised inside our work, if it is no `Exception`."""


def passes(error: BaseException) -> bool:
    """Tell whether a guard of ours handles it as it is, or the program does."""
    return issubclass(type(error), Exception) or raised_into(error)


def _code_of(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__") and callable(handler):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


class ignoring:  # noqa: N801 - reads as a word in `with ignoring(OSError):`
    """`contextlib.suppress` without what a signal handler raises, such as a `TimeoutError`."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Ignore an exception of these kinds, unless a signal handler raised it."""
        return isinstance(error, self._kinds) and not from_signal_handler(error)


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning once per process for each `key`."""
    if key in _logged or len(_logged) > _MAX_LOGGED:
        return
    _logged.add(key)
    if len(_logged) > _MAX_LOGGED:
        logger.warning("%d different warnings were logged; no more follow", _MAX_LOGGED)
    else:
        logger.warning(message, *args)


def reset() -> None:
    """Forget which warnings were logged; for tests and for a new configuration."""
    _logged.clear()


class suppress_errors:  # noqa: N801 - reads as a word in `with suppress_errors("..."):`
    """A block around our own work, never around the user's, that logs internal errors."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Log an `Exception`; let everything else through."""
        if not issubclass(type(error), Exception) or raise_faults or from_signal_handler(error):
            return False
        log_internal_error(self._where)
        return True

"""Log through handlers of the program that may do anything.

A handler or a filter that raises would change the program's result, and a record that quotes a
name or an exception may hold characters that steer a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import notebook
from otel_pipeline_metrics._core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable


# Logger.log is called by `_log`, that by `warning` and its siblings, and those by our code
_STACK_LEVEL: Final = 3


class Logger:
    """The package's logger; an exception of a handler is dropped, as logging has no other place.

    Args:
        name: of the standard logger, which programs configure.
        passes_on: tells which exceptions are not the handler's own, and are raised further.
    """

    def __init__(self, name: str, passes_on: Callable[[BaseException], bool]) -> None:
        self.standard = logging.getLogger(name)
        self._passes_on = passes_on
        # replaces the one of an earlier import of this module
        self.standard.filters = [
            one for one in self.standard.filters if type(one).__name__ != _Clean.__name__
        ]
        self.standard.addFilter(_Clean())

    def debug(self, message: str, *args: object, exc_info: Any = None) -> None:
        """Log what only helps to find an error of ours."""
        self._log(logging.DEBUG, message, args, exc_info)

    def info(self, message: str, *args: object) -> None:
        """Log what a user may want to read."""
        self._log(logging.INFO, message, args, None)

    def warning(self, message: str, *args: object, exc_info: Any = None) -> None:
        """Log what a user has to know."""
        self._log(logging.WARNING, message, args, exc_info)

    def exception(self, message: str, *args: object) -> None:
        """Log the current exception, which ended what was asked for."""
        self._log(logging.ERROR, message, args, sys.exc_info())

    def _log(self, level: int, message: str, args: tuple[object, ...], exc_info: Any) -> None:
        try:
            if notebook.holds(sys.stderr) and self._goes_to_stderr(level):
                notebook.hold(_written(self.standard, level, message, args, exc_info))
                return
            self.standard.log(level, message, *args, exc_info=exc_info, stacklevel=_STACK_LEVEL)
        except BaseException as error:
            if self._passes_on(error):
                raise

    def _goes_to_stderr(self, level: int) -> bool:
        """Tell whether the program has no handler, so that logging writes to stderr itself."""
        last = logging.lastResort
        enabled = last is not None and level >= last.level and self.standard.isEnabledFor(level)
        return enabled and not self.standard.hasHandlers()


def _written(
    logger: logging.Logger, level: int, message: str, args: tuple[object, ...], exc_info: Any
) -> str:
    record = logger.makeRecord(logger.name, level, "", 0, message, args, exc_info)
    logger.filter(record)
    return logging.Formatter().format(record)


class _Clean(logging.Filter):
    """Replace the control characters of what a message quotes; the message itself is ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record and keep it."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_cleaned, record.args))
        if record.exc_info and not record.exc_text:
            written = logging.Formatter().formatException(record.exc_info)
            # what formatters write instead of formatting the exception themselves
            record.exc_text = printable(written, "\n\t")
        return True


def _cleaned(value: object) -> object:
    if isinstance(value, (int, float)) or (isinstance(value, str) and value.isprintable()):
        return value
    return _Printable(value)


class _Printable:
    """An argument of a message that is shown without control characters."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return printable(self.value)

    def __repr__(self) -> str:
        return printable(repr(self.value))

"""The exporters' own log lines, replaced by one at the first failure and one at the end.

An OTLP exporter logs one to four lines for every batch that fails. The filter here drops what
is logged by the thread that is inside one of our exporters at that moment, and nothing else:
exporters that the user set up keep their voice.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT_VARIABLE: Final = "OTEL_PIPELINE_METRICS_EXPORTER_LOGS"
"""`true` keeps the exporters' own lines."""

_PREFIXES: Final = ("opentelemetry.exporter.", "opentelemetry.sdk.", "urllib3.", "grpc")
_HTTP_ERRORS: Final = range(300, 600)


class _Here(threading.local):
    """What this thread is doing."""

    depth = 0
    reason: str | None = None


_here = _Here()


class Heard:
    """Why an export failed, as far as the dropped lines told."""

    reason: str | None = None


@contextmanager
def exporting() -> Iterator[Heard]:
    """Mark this thread as being inside one of our exporters."""
    heard = Heard()
    _here.depth += 1
    _here.reason = None
    try:
        yield heard
    finally:
        _here.depth -= 1
        heard.reason = heard.reason or _here.reason
        _here.reason = None


class Filter(logging.Filter):
    """Drop what our own exporters log; `install` and `remove` as a pair."""

    def __init__(self) -> None:
        super().__init__()
        self._loggers: list[logging.Logger] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through that does not come from one of our exporters."""
        if not _here.depth or record.levelno >= logging.CRITICAL:
            return True
        _here.reason = _reason(record) or _here.reason
        return False

    def install(self) -> None:
        """Attach to the loggers that exist; call it once the exporters are imported.

        A filter on a parent logger does not see the records of its children.
        """
        self.remove()
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.startswith(_PREFIXES):
                logger.addFilter(self)
                self._loggers.append(logger)

    def remove(self) -> None:
        """Detach from every logger."""
        for logger in self._loggers:
            logger.removeFilter(self)
        self._loggers.clear()


def _reason(record: logging.LogRecord) -> str | None:
    """Return a status or an exception's class, and no text, which may quote a credential."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    for argument in arguments:
        if isinstance(argument, Exception):
            return type(argument).__name__
        if type(argument).__name__ == "StatusCode":
            return str(getattr(argument, "name", argument))
        if isinstance(argument, int) and argument in _HTTP_ERRORS:
            return f"HTTP {argument}"
    return None

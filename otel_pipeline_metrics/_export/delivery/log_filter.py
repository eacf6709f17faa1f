"""The exporters' own log lines, replaced by one at the first failure and one at the end.

An OTLP exporter logs one to four lines for every batch that fails. The filter here drops what
is logged by the thread that is inside one of our exporters at that moment, and nothing else:
exporters that the user set up keep their voice. Where the lines are wanted, what they quote of
the endpoint's credentials is taken out of them.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


ENVIRONMENT_VARIABLE: Final = "OTEL_PIPELINE_METRICS_EXPORTER_LOGS"
"""`true` keeps the exporters' own lines."""

_PREFIXES: Final = ("opentelemetry.exporter.", "opentelemetry.sdk.", "urllib3.", "grpc")
_HTTP_ERRORS: Final = range(300, 600)


class _Here(threading.local):
    """What this thread is doing."""

    visit = 0
    """The number of the visit to an exporter that is on; 0: none is."""
    reason: str | None = None


_here = _Here()
_numbers = itertools.count(1)
"""For everything below, in the order in which it happens."""
_inside: set[int] = set()
"""By its number, each visit of a thread to an exporter of ours that is not over; without a lock,
since a fork may come at any moment."""
_leaving: set[Filter] = set()
"""Filters that go when the last of their visits is over."""


class CapturedLogs:
    """Why an export failed, as far as the dropped lines told."""

    reason: str | None = None


@contextmanager
def exporting() -> Iterator[CapturedLogs]:
    """Mark this thread as being inside one of our exporters."""
    heard = CapturedLogs()
    before, _here.visit = _here.visit, _here.visit or next(_numbers)
    _inside.add(_here.visit)
    _here.reason = None
    try:
        yield heard
    finally:
        if not before:
            _inside.discard(_here.visit)
            _here.visit = 0
            _let_go()
        heard.reason = heard.reason or _here.reason
        _here.reason = None


class Filter(logging.Filter):
    """Drop what our own exporters log; `install` and `remove` as a pair.

    Args:
        secrets: let it through, but for these; None: drop it.
    """

    def __init__(self, secrets: Sequence[str] | None = None) -> None:
        super().__init__()
        self._secrets = secrets
        self._loggers: list[logging.Logger] = []
        self._came = 0
        self._left = sys.maxsize

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through that does not come from one of our exporters."""
        if not self._came < _here.visit < self._left or record.levelno >= logging.CRITICAL:
            return True
        _here.reason = _reason(record) or _here.reason
        if self._secrets is None:
            return False
        _take_out(self._secrets, record)
        return True

    def install(self) -> None:
        """Attach to the loggers that exist; call it once the exporters are imported.

        A filter on a parent logger does not see the records of its children.
        """
        _leaving.discard(self)
        self.detach()
        self._came, self._left = next(_numbers), sys.maxsize
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.startswith(_PREFIXES):
                logger.addFilter(self)
                self._loggers.append(logger)

    def remove(self) -> None:
        """Detach from every logger, once no thread is left that came to an exporter until now.

        One that was given up at a deadline is still inside, and has its say when it fails at last.
        """
        self._left = next(_numbers)
        _leaving.add(self)
        _let_go()

    @property
    def busy(self) -> bool:
        """Whether a visit is on that it keeps quiet."""
        return any(self._came < visit < self._left for visit in list(_inside))

    def detach(self) -> None:
        """Detach from every logger now."""
        loggers, self._loggers = self._loggers, []
        for logger in loggers:
            logger.removeFilter(self)


def _let_go() -> None:
    for log_filter in list(_leaving):
        if not log_filter.busy:
            _leaving.discard(log_filter)
            log_filter.detach()


def _take_out(secrets: Sequence[str], record: logging.LogRecord) -> None:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    for secret in secrets:
        text = text.replace(secret, "***")
    # a traceback's own text may quote them too, so it is part of the message now
    record.msg, record.args, record.exc_info, record.exc_text = text, (), None, None


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

"""Drop the exporters' own log lines, which our warnings replace.

An OTLP exporter logs one to four lines for every batch that fails. The filter drops only what a
thread logs while it is inside one of our exporters: exporters that the user set up log as
before. If the lines are wanted, the endpoint's credentials are removed from them.
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


_PREFIXES: Final = ("opentelemetry.exporter.", "opentelemetry.sdk.", "urllib3.", "grpc")
_HTTP_ERRORS: Final = range(300, 600)


class _Here(threading.local):
    """The state of this thread."""

    # the number of the visit to an exporter in progress; 0 outside an exporter
    visit = 0
    reason: str | None = None


_here = _Here()
# numbers visits and filters in the order in which they begin and end
_numbers = itertools.count(1)
# the numbers of all visits in progress; without a lock, since a fork may come at any moment
_visits: set[int] = set()
# filters that are detached when the last of their visits is over
_leaving: set[Filter] = set()


class CapturedLogs:
    """The reason of a failed export, from its dropped log lines."""

    reason: str | None = None


@contextmanager
def exporting() -> Iterator[CapturedLogs]:
    """Mark this thread as being inside one of our exporters."""
    logs = CapturedLogs()
    before = _here.visit
    try:
        _here.visit = before or next(_numbers)
        _visits.add(_here.visit)
        _here.reason = None
        yield logs
    finally:
        # restored first, without a call: an exception of a signal handler strikes later
        visit, _here.visit = _here.visit, before
        reason, _here.reason = _here.reason, None
        logs.reason = logs.reason or reason
        if not before:
            _visits.discard(visit)
            _detach_idle()


class Filter(logging.Filter):
    """Drop what our own exporters log between `install` and `remove`.

    Args:
        secrets: keep the lines, without these words; None: drop the lines.
    """

    def __init__(self, secrets: Sequence[str] | None = None) -> None:
        super().__init__()
        self._secrets = secrets
        self._loggers: list[logging.Logger] = []
        self._installed_at = 0
        self._removed_at = sys.maxsize

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record that does not come from one of our exporters."""
        if not self._covers(_here.visit) or record.levelno >= logging.CRITICAL:
            return True
        _here.reason = _reason(record) or _here.reason
        if self._secrets is None:
            return False
        _remove_secrets(self._secrets, record)
        return True

    def install(self) -> None:
        """Attach to the existing loggers; call it after the exporters are imported.

        A filter on a parent logger does not see the records of its children.
        """
        _leaving.discard(self)
        self.detach()
        self._installed_at, self._removed_at = next(_numbers), sys.maxsize
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.startswith(_PREFIXES):
                logger.addFilter(self)
                self._loggers.append(logger)

    def remove(self) -> None:
        """Detach from every logger, once all visits that began before now are over.

        An export that was given up at a deadline is still in progress, and logs when it fails.
        """
        self._removed_at = next(_numbers)
        _leaving.add(self)
        _detach_idle()

    def _covers(self, visit: int) -> bool:
        return self._installed_at < visit < self._removed_at

    @property
    def busy(self) -> bool:
        """Whether a visit that it covers is in progress."""
        return any(map(self._covers, list(_visits)))

    def detach(self) -> None:
        """Detach from every logger now."""
        loggers, self._loggers = self._loggers, []
        for logger in loggers:
            logger.removeFilter(self)


def _detach_idle() -> None:
    for log_filter in list(_leaving):
        if not log_filter.busy:
            _leaving.discard(log_filter)
            log_filter.detach()


def _remove_secrets(secrets: Sequence[str], record: logging.LogRecord) -> None:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    for secret in secrets:
        text = text.replace(secret, "***")
    # the traceback may quote them too, so it becomes part of the message
    record.msg, record.args, record.exc_info, record.exc_text = text, (), None, None


def _reason(record: logging.LogRecord) -> str | None:
    """Return a status or an exception's class; no text, which may quote a credential."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    for argument in arguments:
        if isinstance(argument, Exception):
            return type(argument).__name__
        if type(argument).__name__ == "StatusCode":
            return str(getattr(argument, "name", argument))
        if isinstance(argument, int) and argument in _HTTP_ERRORS:
            return f"HTTP {argument}"
    return None

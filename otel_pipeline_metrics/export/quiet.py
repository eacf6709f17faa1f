"""The exporters' own log lines, replaced by one at the first failure and one at the end.

An OTLP exporter logs one to four lines for every batch that fails. The filter here drops what
is logged by the thread that is inside one of our exporters at that moment, and nothing else:
exporters that the user set up keep their voice. Where the lines are wanted, what they quote of
the endpoint's credentials is taken out of them.
"""

from __future__ import annotations

import logging
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

    depth = 0
    reason: str | None = None


_here = _Here()
_inside: set[object] = set()
"""One for each time that a thread is inside an exporter of ours; without a lock, since a fork
may come at any moment."""
_leaving: set[Filter] = set()
"""Filters that go when nobody is inside any more."""


class Heard:
    """Why an export failed, as far as the dropped lines told."""

    reason: str | None = None


@contextmanager
def exporting() -> Iterator[Heard]:
    """Mark this thread as being inside one of our exporters."""
    heard = Heard()
    me = object()
    _inside.add(me)
    _here.depth += 1
    _here.reason = None
    try:
        yield heard
    finally:
        _here.depth -= 1
        _inside.discard(me)
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

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through that does not come from one of our exporters."""
        if not _here.depth or record.levelno >= logging.CRITICAL:
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
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.startswith(_PREFIXES):
                logger.addFilter(self)
                self._loggers.append(logger)

    def remove(self) -> None:
        """Detach from every logger, once no thread is inside an exporter of ours.

        One that was given up at a deadline still is, and has its say when it fails at last.
        """
        _leaving.add(self)
        _let_go()

    def detach(self) -> None:
        """Detach from every logger now."""
        while self._loggers:
            self._loggers.pop().removeFilter(self)


def _let_go() -> None:
    while _leaving and not _inside:
        try:
            _leaving.pop().detach()
        except KeyError:  # another thread was quicker
            return


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

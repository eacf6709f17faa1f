"""Take the program's log records on their way to OTLP, cleaned of what it cannot carry.

One record that the encoder refuses would take its batch with it, and an exception of a handler
would reach the call that logs: `logging` has no guard around handlers. So a handler gets a copy
of each record, in which text is valid Unicode and numbers have 64 bits, and raises nothing.
"""

from __future__ import annotations

import logging
import threading
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as context_api

from otel_pipeline_metrics._core import clock, errors, privacy
from otel_pipeline_metrics._core.cleaning import clean_any, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator


PACKAGE: Final = "opentelemetry.instrumentation.logging"
# what `logging` itself puts on a record, and formatters
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# what the instrumentation puts on a record, which in OTLP has fields for it
_IDS: Final = frozenset({"otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"})
# OTLP has a field for these, which takes text alone
_NAMES: Final = frozenset({"otel.event.name", "event.name"})
# OTLP counts nanoseconds in 64 bits
_LATEST_S: Final = 2**63 / 1e9

_SUPPRESSED: Final = context_api._SUPPRESS_INSTRUMENTATION_KEY


class _Here(threading.local):
    busy = False


_here = _Here()


def make(provider: Any) -> logging.Handler:
    """Return a handler that translates records to OTLP and gives them to `provider`'s loggers."""
    handler: logging.Handler = _handler_class()(logger_provider=provider)
    handler.addFilter(_is_of_the_program)
    return handler


def _handler_class() -> Any:
    if find_spec(f"{PACKAGE}.handler") is not None:
        base: Any = import_module(f"{PACKAGE}.handler").LoggingHandler
    else:  # in earlier versions
        base = import_module("opentelemetry.sdk._logs").LoggingHandler

    class Handler(base):  # type: ignore[misc]
        """OpenTelemetry's handler, for any record."""

        def handle(self, record: logging.LogRecord) -> Any:
            """Take a record; print it where `logging` would without this handler."""
            last = logging.lastResort
            if last is not None and record.levelno >= last.level and self._is_alone(record):
                last.handle(record)
            return super().handle(record)

        def _is_alone(self, record: logging.LogRecord) -> bool:
            logger: logging.Logger | None = logging.getLogger(record.name)
            while logger is not None:
                if any(handler is not self for handler in logger.handlers):
                    return False
                logger = logger.parent if logger.propagate else None
            return True

        def emit(self, record: logging.LogRecord) -> None:
            """Send a record; whatever is wrong with it is no error of the call that logs."""
            _here.busy = True
            try:
                super().emit(_cleaned(record))
            except BaseException as error:
                if errors.raised_into(error):
                    raise
                _warn("record", error)
            finally:
                _here.busy = False

    return Handler


def _is_of_the_program(record: logging.LogRecord) -> bool:
    """Leave out what exporting logs: each batch that fails would make another one."""
    of_opentelemetry = record.name == "opentelemetry" or record.name.startswith("opentelemetry.")
    return not (of_opentelemetry or _here.busy or context_api.get_value(_SUPPRESSED))


def _cleaned(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy of a record as OTLP can carry it; its message is text."""
    copy = logging.LogRecord(
        clean_text(record.name),
        record.levelno,
        clean_text(str(record.pathname)),
        record.lineno,
        _message(record),
        None,
        None,
        clean_text(str(record.funcName)),
    )
    copy.levelname = clean_text(str(record.levelname))
    # a clock before 1970 has no time in OTLP
    copy.created = record.created if 0 <= record.created < _LATEST_S else clock.unix()
    vars(copy).update(_attributes(record))
    return copy


def _message(record: logging.LogRecord) -> str:
    """Return the message; without its arguments if these do not fit, empty if it has no text."""
    for text_of in (record.getMessage, lambda: str(record.msg)):
        try:
            return clean_text(text_of())
        except BaseException as error:
            if errors.raised_into(error):
                raise
            _warn("message", error)
    return ""


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    """Return what goes out beside the message."""
    given = {
        key: value
        for key, value in (*vars(record).items(), *_exception(record))
        if isinstance(key, str) and key and key not in _OWN and key not in _IDS
    }
    found = {}
    for key, value in privacy.drop_forbidden(given, "a log record").items():
        try:
            cleaned = clean_any(value, key)
            found[clean_text(key)] = str(cleaned) if key in _NAMES else cleaned
        except BaseException as error:
            if errors.raised_into(error):
                raise
            _warn("attribute", error)
    return found


def _exception(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Yield the exception of a record, by the semantic conventions."""
    if not record.exc_info:
        return
    kind, error, step = record.exc_info
    if kind is not None:
        yield "exception.type", type.__getattribute__(kind, "__name__")
    if error is not None and error.args:
        yield "exception.message", error.args[0]
    if step is not None:
        yield "exception.stacktrace", "".join(traceback.format_exception(kind, error, step))


def _warn(part: str, error: BaseException) -> None:
    errors.warn_once(
        f"log {part}",
        "the %s of a log record is left out of what is sent: it raises %s",
        part,
        errors.name_of(error),
    )

"""Put the trace, the baggage and the time into a message's headers, and read them there."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_pipeline_metrics._core import clock, errors, privacy, series
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import Iterator

H = TypeVar("H")

PUT_TIME: Final = "opm-put-time"
# A longer wait, or a negative one, is a clock that is wrong.
MAX_WAIT_S: Final = 30 * 24 * 3600.0

_TRACE: Final = TraceContextTextMapPropagator()
_BAGGAGE: Final = W3CBaggagePropagator()
_FIELDS: Final = ("traceparent", "tracestate", "baggage", PUT_TIME)
_MAX_TEXT: Final = 8192


def inject(headers: H | None = None, *, queue: str) -> H:
    """Make the span of a message that is sent, and put what the receiver needs into its headers.

    The span `send {queue}` is one of a producer. The headers get `traceparent`, `tracestate`,
    `baggage` without forbidden keys, and `opm-put-time`; those of them that are there already are
    replaced.

    Args:
        headers: of the message, a dict or a list of pairs, which is changed; a new dict if None.
            Values are text, or bytes if the others are bytes or the list is empty, as Kafka's
            clients want them.
        queue: the name of the queue, topic or stream, up to 128 characters.

    Returns:
        The headers.

    Raises:
        TypeError: `headers` is neither a dict nor a list, or `queue` is not a string.
        ValueError: `queue` is empty or too long.
    """
    check_name(queue, "queue")
    found: Any = {} if headers is None else headers
    if not isinstance(found, (dict, list)):
        raise TypeError(f"headers must be a dict or a list of pairs, not {type(found).__name__}")
    with errors.suppress_errors("sending a message"):
        _count_put(queue)
        _put(found, _carried(queue))
    return cast("H", found)


def _carried(queue: str) -> dict[str, str]:
    carried = {PUT_TIME: f"{time.time_ns()};{boot_id()}"}
    context = get_current()
    tracer = sink.installed().spans.current_tracer()
    if tracer is not None:
        attributes = {
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
        }
        span = tracer.start_span(
            f"send {queue}", context, trace.SpanKind.PRODUCER, attributes=attributes
        )
        span.end()
        context = trace.set_span_in_context(span, context)
    _TRACE.inject(carried, context)
    rules = privacy.rules()
    for key in baggage.get_all(context):
        if rules.reason_against(key) is not None:
            context = baggage.remove_baggage(key, context)
    _BAGGAGE.inject(carried, context)
    return carried


def _count_put(queue: str) -> None:
    now = clock.now()
    found = series.current_scope().add_queue(queue)
    found.put += 1
    found.last_put = now
    if found.first_put is None:
        found.first_put = now


def _put(headers: Any, carried: dict[str, str]) -> None:
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    as_bytes = any(isinstance(pair[1], bytes) for pair in pairs) or headers == []
    keys_as_bytes = any(isinstance(pair[0], bytes) for pair in pairs)
    for key, value in carried.items():
        name: Any = key.encode() if keys_as_bytes else key
        given: Any = value.encode() if as_bytes else value
        if isinstance(headers, dict):
            headers[name] = given
        else:
            headers[:] = [pair for pair in headers if pair[0] != name]
            headers.append((name, given))


def extract(headers: object) -> Context:
    """Return the OpenTelemetry context that a message's headers carry: its span and its baggage.

    Never raises: what is broken, or not there, is left out.

    Args:
        headers: a dict or a list of pairs, of str or bytes, or None.
    """
    with errors.suppress_errors("reading a message's headers"):
        found = read(headers)
        return _BAGGAGE.extract(found, _TRACE.extract(found, Context()))
    return Context()


def read(headers: Any) -> dict[str, str]:
    """Return those of the headers that `inject` writes, as text."""
    found: dict[str, str] = {}
    for key, value in _pairs(headers):
        name = _text(key).lower()
        if name in _FIELDS:
            found[name] = _text(value)
    return found


def _pairs(headers: Any) -> Iterator[tuple[Any, Any]]:
    given = headers.items() if hasattr(headers, "items") else headers
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        return
    for pair in given:
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            yield pair[0], pair[1]


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:_MAX_TEXT]).decode("utf-8", "replace")
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


class Put(NamedTuple):
    """When a message was put, and on which machine."""

    unix_s: float
    boot_id: str


def put_of(found: dict[str, str]) -> Put | None:
    """Return when a message was put; None if its headers do not tell."""
    nanoseconds, _, boot = found.get(PUT_TIME, "").partition(";")
    # more digits are no time, and take long to convert
    if not nanoseconds.isdecimal() or len(nanoseconds) > 20:
        return None
    return Put(int(nanoseconds) / 1e9, boot)


@functools.cache
def boot_id() -> str:
    """Return what tells this boot of this machine from others; empty if that is unknown."""
    with errors.ignoring(OSError, ValueError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:64]
    return ""

"""Watch the loop around a broker's client: a span and a wait for each message, with `consume`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from opentelemetry import trace
from opentelemetry.context import attach, create_key, get_current, get_value, set_value

from otel_pipeline_metrics._core import clock, drain, errors, series
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.handoff.headers import MAX_WAIT_S, boot_id, extract, put_of, read
from otel_pipeline_metrics._probes.handoff.lag import Lag
from otel_pipeline_metrics._stages.waiting import waiting
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator

    from opentelemetry.context import Context

M = TypeVar("M")

_MESSAGE: Final = create_key("otel_pipeline_metrics message")

# OpenTelemetry's own limit on a span
_MAX_LINKS: Final = 128


@overload
def consume(
    iterable: Iterable[M], *, queue: str, headers: Callable[[Any], Any] | None = None
) -> Iterator[M]: ...
@overload
def consume(
    iterable: AsyncIterable[M], *, queue: str, headers: Callable[[Any], Any] | None = None
) -> AsyncIterator[M]: ...
def consume(
    iterable: Iterable[M] | AsyncIterable[M],
    *,
    queue: str,
    headers: Callable[[Any], Any] | None = None,
) -> Iterator[M] | AsyncIterator[M]:
    """Iterate over the messages of a client, each in a span of its own.

    From one message to the next, the span `process {queue}` of a consumer is current, with a link
    to the span that sent the message; without a span around, it is that one's child. The time in
    the queue, and the wait for the next message, are those of a queue. Where the client tells the
    consumer's lag, that is the queue's size.

    Args:
        iterable: the client, or any loop over messages, plain or async. A list of messages is a
            batch, with a link for each.
        queue: the name of the queue, topic or stream, up to 128 characters.
        headers: returns the headers of a message; by default its `.headers`, called or not.

    Raises:
        TypeError: `iterable` cannot be iterated, `queue` is not a string, or `headers` not a
            function.
        ValueError: `queue` is empty or too long.
    """
    check_name(queue, "queue")
    if headers is not None and not callable(headers):
        raise TypeError(f"headers must be a function or None, not {type(headers).__name__}")
    if hasattr(iterable, "__aiter__"):
        return _AsyncMessages(iterable, queue, headers or _headers_of)
    if not hasattr(iterable, "__iter__"):
        raise TypeError(f"iterable must be iterable, not {type(iterable).__name__}")
    return _Messages(iterable, queue, headers or _headers_of)


def _headers_of(message: Any) -> Any:
    found = getattr(message, "headers", None)
    return found() if callable(found) else found


class _Loop:
    """What both kinds of loops share: the span of the message that is being processed."""

    def __init__(self, client: Any, queue: str, headers: Callable[[Any], Any]) -> None:
        self._lag = Lag.of(client, queue)
        self._queue = queue
        self._headers = headers
        self._open_message: _OpenMessage | None = None

    def _begin(self, message: Any) -> None:
        with errors.suppress_errors("receiving a message"):
            batch = message if isinstance(message, list) else [message]
            found = []
            for one in batch:
                try:
                    given = self._headers(one)
                except Exception as error:  # the program's function, or its client's
                    errors.warn_once(f"headers of {self._queue}", "a message's headers: %r", error)
                    given = None
                found.append(read(given))
            self._count(batch, found)
            self._open(found, is_batch=isinstance(message, list))

    def _count(self, batch: list[Any], found: list[dict[str, str]]) -> None:
        scope = series.current_scope()
        queue = scope.add_queue(self._queue)
        queue.got += len(batch)
        for message, headers in zip(batch, found, strict=True):
            if self._lag is not None:
                self._lag.note(message)
            seconds = _waited(message, headers)
            if seconds is not None:
                queue.waits.append(seconds)
        if len(queue.waits) >= drain.PENDING_BOUND:
            drain.drain_queue(scope, queue)

    def _open(self, found: list[dict[str, str]], *, is_batch: bool) -> None:
        tracer = sink.installed().spans.current_tracer()
        if tracer is None:
            return
        contexts = [extract(headers) for headers in found]
        senders = [trace.get_current_span(context).get_span_context() for context in contexts]
        links = [trace.Link(sender) for sender in senders if sender.is_valid]
        around = parent = get_current()
        if not trace.get_current_span(around).get_span_context().is_valid and len(found) == 1:
            parent = contexts[0]
        attributes: dict[str, Any] = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._queue,
        }
        if is_batch:
            attributes["messaging.batch.message_count"] = len(found)
        span = tracer.start_span(
            f"process {self._queue}",
            parent,
            trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=links[:_MAX_LINKS],
        )
        self._open_message = _OpenMessage(span, around)
        context = trace.set_span_in_context(span, around)
        attach(set_value(_MESSAGE, self._open_message, context))

    def _end(self) -> None:
        message, self._open_message = self._open_message, None
        if message is None:
            return
        with errors.suppress_errors("the end of a message"):
            span, message.span = message.span, None
            if trace.get_current_span() is span:
                # loops that take turns end their messages in any order
                around = message.around
                while isinstance(outer := get_value(_MESSAGE, around), _OpenMessage):
                    if outer.span is not None:
                        break
                    around = outer.around
                attach(around)
            span.end()

    def __del__(self) -> None:
        """End the span of the message at which the loop was left."""
        self._end()


class _OpenMessage:
    """The span of a message, None once that has ended, and the context around it."""

    __slots__ = ("around", "span")

    def __init__(self, span: Any, around: Context) -> None:
        self.span = span
        self.around = around


class _Messages(_Loop):
    def __init__(self, iterable: Any, queue: str, headers: Callable[[Any], Any]) -> None:
        super().__init__(iterable, queue, headers)
        self._messages = iter(iterable)

    def __iter__(self) -> _Messages:
        return self

    def __next__(self) -> Any:
        self._end()
        with waiting("idle"):
            message = next(self._messages)
        self._begin(message)
        return message

    def close(self) -> None:
        """End the message, and close the iterable if it is a generator."""
        self._end()
        if inspect.isgenerator(self._messages):
            self._messages.close()


class _AsyncMessages(_Loop):
    def __init__(self, iterable: Any, queue: str, headers: Callable[[Any], Any]) -> None:
        super().__init__(iterable, queue, headers)
        self._messages = iterable.__aiter__()

    def __aiter__(self) -> _AsyncMessages:
        return self

    async def __anext__(self) -> Any:
        self._end()
        async with waiting("idle"):
            message = await self._messages.__anext__()
        self._begin(message)
        return message

    async def aclose(self) -> None:
        """End the message, and close the iterable if it is a generator."""
        self._end()
        if inspect.isasyncgen(self._messages):
            await self._messages.aclose()


def _waited(message: Any, headers: dict[str, str]) -> float | None:
    """Return the seconds that a message was in its queue; None if that is not known.

    The clocks of two machines differ, so of another one only the broker's stamp counts.
    """
    put = put_of(headers)
    since: float | None = None
    if put is not None and put.boot_id and put.boot_id == boot_id():
        since = put.unix_s
    elif put is not None:
        since = _stamp_of(message)
    seconds = None if since is None else clock.unix() - since
    return seconds if seconds is not None and 0 <= seconds <= MAX_WAIT_S else None


def _stamp_of(message: Any) -> float | None:
    """Return the Unix time of a Kafka message by its broker; aiokafka's and confluent's form."""
    found = getattr(message, "timestamp", None)
    if callable(found):
        kind, found = found()
        if not kind:  # TIMESTAMP_NOT_AVAILABLE
            return None
    return found / 1000 if isinstance(found, (int, float)) and found > 0 else None

"""Define cases of other libraries that measure a function, if they are installed.

`pip install --group bench` installs them. Each has its default settings, and no server.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import socket
from typing import TYPE_CHECKING, Any

from benchmarks._cases import Case, NoExporter, f, g

if TYPE_CHECKING:
    from collections.abc import Iterator


_open: list[socket.socket] = []


def peers() -> Iterator[Case]:
    """Return those that can run beside the others in one process."""
    for package, make in _PEERS.items():
        if importlib.util.find_spec(package):
            yield from make()


def alone() -> Iterator[Case]:
    """Return those that replace global providers, and so need their own process."""
    if not importlib.util.find_spec("traceloop"):
        return
    from traceloop.sdk import Traceloop
    from traceloop.sdk.decorators import task

    Traceloop.init("bench", exporter=NoExporter(), telemetry_enabled=False)
    yield Case("traceloop: a span", task("f")(f), False, calls=100)
    yield Case("traceloop: a span", task("g")(g), True, calls=100)


def _prometheus() -> Iterator[Case]:
    from prometheus_client import CollectorRegistry, Histogram

    seconds = Histogram("seconds", "Time.", ["stage"], registry=CollectorRegistry())

    @functools.wraps(f)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with seconds.labels("f").time():
            return f(*args, **kwargs)

    @functools.wraps(g)
    async def timed_async(*args: Any, **kwargs: Any) -> Any:
        with seconds.labels("g").time():
            return await g(*args, **kwargs)

    yield Case("prometheus_client", timed, False)
    yield Case("prometheus_client", timed_async, True)


def _statsd() -> Iterator[Case]:
    from statsd import StatsClient

    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # nobody reads it: it overflows
    sink.bind(("127.0.0.1", 0))
    _open.append(sink)
    client = StatsClient(*sink.getsockname())

    @functools.wraps(f)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with client.timer("f"):
            return f(*args, **kwargs)

    @functools.wraps(g)
    async def timed_async(*args: Any, **kwargs: Any) -> Any:
        with client.timer("g"):
            return await g(*args, **kwargs)

    yield Case("statsd", timed, False, calls=500)
    yield Case("statsd", timed_async, True, calls=500)


def _autometrics() -> Iterator[Case]:
    from autometrics import autometrics, init

    logging.getLogger("autometrics").setLevel(logging.ERROR)
    init(tracker="prometheus")
    yield Case("autometrics", autometrics(f), False, calls=500)
    yield Case("autometrics", autometrics(g), True, calls=500)


def _ddtrace() -> Iterator[Case]:
    from ddtrace.trace import TraceFilter, tracer

    class Nowhere(TraceFilter):
        def process_trace(self, _: Any) -> None:
            """Send nothing."""

    tracer.configure(trace_processors=[Nowhere()])
    yield Case("ddtrace: a span", tracer.wrap("f")(f), False, calls=300)
    yield Case("ddtrace: a span", tracer.wrap("g")(g), True, calls=300)


def _logfire() -> Iterator[Case]:
    import logfire

    instance = logfire.configure(
        local=True, send_to_logfire=False, console=False, inspect_arguments=False
    )
    for call in (f, g):
        instrumented = instance.instrument(call.__name__, extract_args=False)(call)
        yield Case("logfire: a span", instrumented, call is g, calls=100)


_PEERS = {
    "prometheus_client": _prometheus,
    "statsd": _statsd,
    "autometrics": _autometrics,
    "ddtrace": _ddtrace,
    "logfire": _logfire,
}

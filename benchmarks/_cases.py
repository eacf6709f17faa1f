"""Define the compared cases: one empty function, instrumented in every way."""

from __future__ import annotations

import asyncio
import functools
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import NoOpTracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import hooks, series
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ATTRIBUTES = {
    "pipeline.stage.name": "f",
    "pipeline.stage.kind": "process",
    "pipeline.name": "bench",
}
"""The three attributes that ours puts on, for those who do it by hand."""


@dataclass
class Case:
    """One way to call the function."""

    name: str
    call: Callable[[], Any]
    is_async: bool
    before: Callable[[], None] = lambda: None
    """Brings about the state that the calls need; not timed."""
    calls: int = 2000
    """In one go: about 2 to 20 ms."""


class NoExporter(SpanExporter):
    """An exporter that drops spans, so that only their making is measured."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""


def tracers(sampler: Sampler | None = None) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    return provider


def f() -> None:
    """Do nothing."""


async def g() -> None:
    """Do nothing, awaited."""


def cases() -> Iterator[Case]:
    """Return all cases but the peers, which are in `_peers`."""
    yield from measures()
    yield from _by_hand()
    yield from _ours()
    yield from _ours_otherwise()


def measures() -> Iterator[Case]:
    """Return the cases that others are compared with."""
    yield Case("bare function", f, False, calls=20_000)
    yield Case("bare function", g, True, calls=20_000)
    yield from _floor()


def _floor() -> Iterator[Case]:
    """Read the clock twice and update a dict: the least that plain Python needs."""
    totals: dict[str, tuple[int, float]] = {}
    now = time.perf_counter

    @functools.wraps(f)
    def floor(*args: Any, **kwargs: Any) -> Any:
        began = now()
        try:
            return f(*args, **kwargs)
        finally:
            took = now() - began
            count, total = totals.get("f", (0, 0.0))
            totals["f"] = (count + 1, total + took)

    @functools.wraps(g)
    async def floor_async(*args: Any, **kwargs: Any) -> Any:
        began = now()
        try:
            return await g(*args, **kwargs)
        finally:
            took = now() - began
            count, total = totals.get("g", (0, 0.0))
            totals["g"] = (count + 1, total + took)

    yield Case("floor", floor, False)
    yield Case("floor", floor_async, True)


def _by_hand() -> Iterator[Case]:
    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("hand")
    seconds, count = meter.create_histogram("seconds"), meter.create_counter("count")

    def metrics_only() -> None:
        began = time.perf_counter()
        f()
        seconds.record(time.perf_counter() - began, ATTRIBUTES)
        count.add(1, ATTRIBUTES)

    yield Case("OTel by hand: histogram + counter", metrics_only, False, calls=500)
    for label, sampler in (("", None), (", unsampled", ParentBased(ALWAYS_OFF))):
        tracer = tracers(sampler).get_tracer("hand")

        def span_only(tracer: Any = tracer) -> None:
            tracer.start_span("f", attributes=ATTRIBUTES).end()

        def everything(tracer: Any = tracer) -> None:
            began = time.perf_counter()
            with tracer.start_as_current_span("f", attributes=ATTRIBUTES):
                f()
            seconds.record(time.perf_counter() - began, ATTRIBUTES)
            count.add(1, ATTRIBUTES)

        yield Case(f"OTel by hand: start_span + end{label}", span_only, False, calls=300)
        yield Case(f"OTel by hand: span + histogram + counter{label}", everything, False, calls=200)


def installed(
    tracer_provider: Any, meter_provider: Any, spans_per_second: float | None = None
) -> Callable[[], None]:
    """Return what puts these providers in force, without a `configure()` for each round."""
    telemetry = sink.OtelSink(tracer_provider, meter_provider)

    def put_in_force() -> None:
        hooks.workers = None  # as in a program without queues
        sink.install(telemetry, retire=False)
        series.limit_spans(spans_per_second)

    return put_in_force


def _meters() -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def _ours() -> Iterator[Case]:
    ways = {
        "ours, unconfigured": installed(None, None),
        "ours, metrics only": installed(NoOpTracerProvider(), _meters()),
        "ours, traced": installed(tracers(), _meters()),
        "ours, unsampled": installed(tracers(ParentBased(ALWAYS_OFF)), _meters()),
        "ours, traced, past the span budget": installed(tracers(), _meters(), 0.0),
    }
    third = {"source": "bench"}  # as many attributes on a span as by hand
    for name, before in ways.items():
        calls = 300 if "traced" in name or "unsampled" in name else 2000
        yield Case(name, opm.stage(name, kind="process", attributes=third)(f), False, before, calls)
        yield Case(
            name, opm.stage(name + " ", kind="process", attributes=third)(g), True, before, calls
        )


def _ours_otherwise() -> Iterator[Case]:
    metrics_only = installed(NoOpTracerProvider(), _meters())
    batch = list(range(10))

    @opm.stage("counted", items=len)
    def counted() -> list[int]:
        return batch

    @opm.stage("counted ", items=len)
    async def counted_async() -> list[int]:
        return batch

    def block() -> None:
        with opm.stage("block"):
            pass

    async def block_async() -> None:
        async with opm.stage("block "):
            pass

    yield Case("ours, metrics only, items=len", counted, False, metrics_only, 500)
    yield Case("ours, metrics only, items=len", counted_async, True, metrics_only, 500)
    yield Case("ours, metrics only, with block", block, False, metrics_only, 500)
    yield Case("ours, metrics only, with block", block_async, True, metrics_only, 500)
    yield from _generators(metrics_only)
    yield from _queues(metrics_only)


def _generators(before: Callable[[], None]) -> Iterator[Case]:
    def bare() -> Any:
        yield from range(100)

    async def bare_async() -> Any:
        for number in range(100):
            yield number

    def consume(make: Callable[[], Any]) -> None:
        for _ in make():
            pass

    async def consume_async(make: Callable[[], Any]) -> None:
        async for _ in make():
            pass

    for name, make, make_async in (
        ("bare generator, 100 items", bare, bare_async),
        (
            "ours, generator, 100 items",
            opm.stage("generator")(bare),
            opm.stage("generator ")(bare_async),
        ),
    ):
        calls = 500 if name.startswith("bare") else 20
        yield Case(name, functools.partial(consume, make), False, before, calls)
        yield Case(name, functools.partial(consume_async, make_async), True, before, calls)


def _queues(before: Callable[[], None]) -> Iterator[Case]:
    """Put and get without waiting; switch the accounting of queues off afterwards."""
    from otel_pipeline_metrics._stages.workers import accounting

    async def through_async(waiting: asyncio.Queue[int]) -> None:
        await waiting.put(1)
        await waiting.get()

    def through(waiting: queue.Queue[int]) -> None:
        waiting.put(1)
        waiting.get()

    def watched() -> None:
        before()
        accounting.watch()

    bare, bare_async = queue.Queue[int](10), asyncio.Queue[int](10)
    ours = opm.wrap_queue(queue.Queue(10), name="bench")
    ours_async = opm.wrap_queue(asyncio.Queue(10), name="bench async")
    name = "bare queue hand-off"
    yield Case(name, functools.partial(through, bare), False, before)
    yield Case(name, functools.partial(through_async, bare_async), True, before)
    name = "ours, queue hand-off"
    yield Case(name, functools.partial(through, ours), False, watched, 500)
    yield Case(name, functools.partial(through_async, ours_async), True, watched, 500)

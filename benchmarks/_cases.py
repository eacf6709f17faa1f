"""Define the compared cases: one empty function, instrumented in every way."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import NoOpTracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import every_series
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
    after: Callable[[], Any] = lambda: None
    """Sends what the calls left behind: part of their mean cost."""
    units: int = 1
    """What one call is divided by: the items of a generator."""


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
        sink.install(telemetry, retire=False)
        every_series.limit_spans(spans_per_second)

    return put_in_force


readers: list[InMemoryMetricReader] = []
"""Those of all providers that ours reports to, to check that every call was recorded."""


def _meters() -> MeterProvider:
    readers.append(InMemoryMetricReader())
    return MeterProvider([readers[-1]], shutdown_on_exit=False)


def _ours() -> Iterator[Case]:
    ways: dict[str, tuple[Any, Any, float | None]] = {
        "ours, unconfigured": (None, None, None),
        "ours, metrics only": (NoOpTracerProvider(), _meters(), None),
        "ours, traced": (tracers(), _meters(), None),
        "ours, unsampled": (tracers(ParentBased(ALWAYS_OFF)), _meters(), None),
        "ours, traced, past the span budget": (tracers(), _meters(), 0.0),
    }
    for name, (traces, metrics, spans_per_second) in ways.items():
        before, after = installed(traces, metrics, spans_per_second), _flush(traces, metrics)
        calls = 300 if "traced" in name or "unsampled" in name else 2000
        for call, is_async in ((f, False), (g, True)):
            # with the function's name, a span has as many attributes as by hand
            stage = opm.stage(name + " " * is_async, kind="process")
            yield Case(name, stage(call), is_async, before, calls, after)


def _flush(*providers: Any) -> Callable[[], None]:
    """Return what collects the metrics and exports the spans that are pending."""

    def flush() -> None:
        for provider in providers:
            if hasattr(provider, "force_flush"):
                provider.force_flush()

    return flush


def _ours_otherwise() -> Iterator[Case]:
    meters = _meters()
    metrics_only, after = installed(NoOpTracerProvider(), meters), _flush(meters)
    batch = list(range(10))
    # a stage has the name of its case, so that the check finds its calls
    counts, blocks, nests = (
        f"ours, metrics only, {what}" for what in ("items=len", "with block", "one inside another")
    )

    @opm.stage(counts, items=len)
    def counted() -> list[int]:
        return batch

    @opm.stage(counts + " ", items=len)
    async def counted_async() -> list[int]:
        return batch

    def block() -> None:
        with opm.stage(blocks):
            pass

    async def block_async() -> None:
        async with opm.stage(blocks + " "):
            pass

    @opm.stage("inner")
    def inner() -> None:
        """Do nothing, inside of another stage."""

    @opm.stage(nests)
    def outer() -> None:
        inner()

    @opm.stage("inner ")
    async def inner_async() -> None:
        """Do nothing, awaited inside of another stage."""

    @opm.stage(nests + " ")
    async def outer_async() -> None:
        await inner_async()

    for name, call, call_async in (
        (counts, counted, counted_async),
        (blocks, block, block_async),
        (nests, outer, outer_async),
    ):
        yield Case(name, call, False, metrics_only, 500, after)
        yield Case(name, call_async, True, metrics_only, 500, after)
    yield from _generators(metrics_only, after)


ITEMS = 100
"""What each generator yields."""


def _generators(before: Callable[[], None], after: Callable[[], None]) -> Iterator[Case]:
    def bare() -> Any:
        for number in range(ITEMS):  # noqa: UP028 - `yield from` would pass the loop by
            yield number

    async def bare_async() -> Any:
        for number in range(ITEMS):
            yield number

    def consume(make: Callable[[], Any]) -> None:
        for _ in make():
            pass

    async def consume_async(make: Callable[[], Any]) -> None:
        async for _ in make():
            pass

    name = "bare generator, an item"
    yield Case(name, partial(consume, bare), False, before, 500, units=ITEMS)
    yield Case(name, partial(consume_async, bare_async), True, before, 500, units=ITEMS)
    name = "ours, metrics only, generator, an item"
    ours, ours_async = opm.stage(name)(bare), opm.stage(name + " ")(bare_async)
    yield Case(name, partial(consume, ours), False, before, 20, after, ITEMS)
    yield Case(name, partial(consume_async, ours_async), True, before, 20, after, ITEMS)

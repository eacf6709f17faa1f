"""Emit every metric there is, and print what a reader collects as JSON."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    HistogramDataPoint,
    InMemoryMetricReader,
    Sum,
)

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._lifecycle import live_verdict, telemetry_stats
from otel_pipeline_metrics.service import MetricsManager, get_event_metrics

reader = InMemoryMetricReader()
opm.configure(meter_provider=MeterProvider([reader]), exporter="none", console=False)

counts = {"hits": 1, "misses": 1, "evictions": 1, "expirations": 1, "entries": 1, "size_bytes": 1}
opm.register_cache("everything", lambda: counts)
opm.counted_lru_cache(1, name="what if", what_if=True)(str)(1)


@opm.fetch(items=len)
async def fetch() -> list[int]:
    stage = opm.current_stage()
    stage.add_bytes(1, "in")
    stage.retry(TimeoutError())
    await asyncio.sleep(0.001)
    return [1]


@opm.write
async def write() -> None:
    opm.current_stage().event_time(time.time())
    await asyncio.sleep(0.002)


@opm.process
def fail() -> None:
    opm.current_stage().add_items(1, "in")
    raise KeyError("on purpose")


async def main() -> None:
    queue = opm.wrap_queue(asyncio.Queue(1), name="q")
    limit = opm.wrap_limit(asyncio.Semaphore(1), name="limit")

    async def source() -> None:
        for _ in range(5):
            await queue.put(await fetch())
        await queue.put(None)

    async def sink() -> None:
        while await queue.get() is not None:
            await write()

    # without waiting for seconds
    live_verdict.INTERVAL_S = 0.01  # type: ignore[misc]
    async with opm.run("everything"), limit:
        ended = opm.wrap_queue(asyncio.Queue(), name="ended", sentinel=None)
        await ended.put(None)
        async with opm.workers(write, ended):
            pass
        await asyncio.gather(source(), sink())
        reader.get_metrics_data()  # active calls are visible in a run in progress
    try:
        async with opm.run("failing"):
            fail()
    except KeyError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        await serve(folder)
    assert queue.empty()  # keeps it alive, so its size is known


async def serve(folder: str) -> None:
    # with providers of its own, this program has no exporter
    telemetry_stats.ledgers = tuple(
        ExportLedger(signal, "otlp/grpc", "x") for signal in ("traces", "metrics")
    )
    for ledger in telemetry_stats.ledgers:
        ledger.kept_in = folder
        ledger.durations += [(0.1, True), (0.1, False)]
    events = get_event_metrics()
    events.record_event_processing(1, "s", "d", "e", False, 1, True, 1)
    events.record_error(KeyError(), "c")
    events.record_retry_attempt("o", 1, KeyError())
    events.record_circuit_breaker_state("b", "open")
    events.set_connection_state("c", "open")
    async with MetricsManager(folder) as manager:
        await manager.record_operation("t", "n", 1, success=False)
        reader.get_metrics_data()  # the durations of exports are in the next one
        async with opm.run("open", resources=0.02):
            inside = opm.wrap_queue(asyncio.Queue(), name="inside")
            await inside.put(await fetch())
            await finish()
            assert not inside.empty()


async def finish() -> None:
    async with opm.stage("finish"):  # so that it is what limits the run
        await asyncio.sleep(
            0.15
        )  # the CPU use of a shorter interval is mostly noise and not reported
    print(json.dumps(collected()))


def collected() -> dict[str, dict[str, object]]:
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, dict[str, object]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        points = metric.data.data_points
        if isinstance(points[0], HistogramDataPoint):
            kind = "histogram"
        elif isinstance(metric.data, Gauge):
            kind = "gauge"
        else:
            assert isinstance(metric.data, Sum)
            kind = "counter" if metric.data.is_monotonic else "up-down counter"
        keys = sorted({key for point in points for key in point.attributes or {}})
        found[metric.name] = {"kind": kind, "unit": metric.unit, "attributes": keys}
    return found


asyncio.run(main())
opm.shutdown()

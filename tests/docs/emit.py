"""Emit every metric there is, and print what a reader collects as JSON."""

from __future__ import annotations

import asyncio
import json
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    HistogramDataPoint,
    InMemoryMetricReader,
    Sum,
)

import otel_pipeline_metrics as opm

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

    async with opm.run("everything"), limit:
        await asyncio.gather(source(), sink())
        reader.get_metrics_data()  # active calls are visible in a run in progress
    try:
        async with opm.run("failing"):
            fail()
    except KeyError:
        pass
    await asyncio.sleep(0.15)  # the CPU use of a shorter interval is mostly noise and not reported
    print(json.dumps(collected()))
    assert queue.empty()  # keeps it alive, so its size is known


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

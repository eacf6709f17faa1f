"""Check the types of the public API of services; mypy reads this, nothing runs it."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._telemetry.own_metrics import Counter, Gauge, Histogram
from otel_pipeline_metrics.service import (
    EventMetrics,
    Health,
    MetricsManager,
    MetricsStats,
    Tracker,
    get_event_metrics,
    health,
    health_asgi,
    track_operation,
)

assert_type(opm.counter("orders", unit="{order}"), Counter)
assert_type(opm.gauge("carts"), Gauge)
assert_type(opm.histogram("waits", unit="s"), Histogram)
opm.counter("orders", "{order}")  # type: ignore[call-arg]
opm.counter("orders").add(1, {"shop": object()})  # type: ignore[dict-item]
opm.gauge("carts").set("many")  # type: ignore[arg-type]

manager = MetricsManager("folder", overflow="block")
MetricsManager("folder", overflow="wait")  # type: ignore[arg-type]
MetricsManager("folder", 5.0, 1000, 10000, "drop")  # type: ignore[call-arg]
assert_type(manager.track_operation("a", "b"), Tracker)
assert_type(track_operation(manager, "a", "b", {"rows": 1}), Tracker)


@manager.track_operation("a", "b")
def function(value: int) -> str:
    return str(value)


@track_operation(manager, "a", "b")
async def coroutine(value: int) -> str:
    return str(value)


assert_type(function(1), str)
function("1")  # type: ignore[arg-type]


async def use() -> None:
    async with MetricsManager("folder") as inner:
        assert_type(inner, MetricsManager)
        await inner.record_operation("a", "b", 1.5, success=False, error_message="no")
        assert_type(await inner.get_stats(), MetricsStats)
        assert_type(await inner.cleanup(days=7), int)
    assert_type(await coroutine(1), str)
    with manager.track_operation("a", "b") as tracked:
        assert_type(tracked, Tracker)


assert_type(get_event_metrics(), EventMetrics)
assert_type(get_event_metrics().get_comprehensive_metrics(), dict[str, Any])
get_event_metrics().record_error(3, "component")  # type: ignore[arg-type]
assert_type(health(), Health)
health_asgi(details=True)

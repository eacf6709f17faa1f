"""What each query of each panel must return: the truth that the programs know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from otel_pipeline_metrics._core.metric_definitions import DURATION_BUCKETS
from otel_pipeline_metrics._probes.resources import cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.system.backends.dashboards.log import Truth

# the dashboard, the title of the panel, and which of its queries
Key = tuple[str, str, str]
# by legend: a number, or `pytest.approx`
Values = dict[str, Any]
# while the program is busy, once it stands still, or when its alerts fire
Moment = Literal["busy", "still", "alerted"]

QUANTILES = {"A": (0.5, "p50"), "B": (0.95, "p95"), "C": (0.99, "p99")}


class Expected(NamedTuple):
    """What a query returns."""

    values: Values
    at: Moment = "busy"
    job: str = "shop"
    stage: str = ".*"
    # what other series may be, which the program cannot tell
    others: Any = None


class World(NamedTuple):
    """What is known of the programs."""

    shop: Truth
    lossy: Truth
    # of what came from `lossy`
    receiver: Truth
    # when each moment is, by job
    moments: Mapping[tuple[str, Moment], float]


def near(number: float, within: float = 0.1) -> Any:
    """Return what is equal to numbers that are at most a tenth away."""
    assert number != 0
    return pytest.approx(number, rel=within, abs=0)


def every(values: Values) -> Values:
    """Return them, each a tenth more or less."""
    return {name: near(number) for name, number in values.items()}


def expected(world: World) -> dict[Key, Expected]:
    """Return it for every query."""
    return {
        **_runs(world),
        **_stages(world.shop),
        **_durations(world.shop),
        **_queues(world.shop),
        **_caches(world.shop),
        **_operations(world.shop),
        **_events(world.shop),
        **_processes(world.shop),
        **_telemetry(world),
    }


def _runs(world: World) -> dict[Key, Expected]:
    still = world.moments["shop", "still"]
    since = still - world.shop.facts["success"]
    name = "pipeline"
    full = {"PipelineQueueFull": 1}
    return {
        (name, "Firing alerts", "A"): Expected(full, "alerted"),
        ("service", "Firing alerts", "A"): Expected(full, "alerted"),
        (name, "Runs in progress", "A"): Expected({"nightly": 1}, "still"),
        (name, "Runs ended", "A"): Expected({"success": 1, "failure": 1}, "still"),
        (name, "Since the last success", "A"): Expected({"nightly": near(since)}, "still"),
        ("pipeline", "Watermark lag", "A"): Expected(
            {"store": near(still - world.shop.facts["newest"])}, "still"
        ),
        (name, "What limits the pipeline", "A"): Expected({"nightly stage transform": 1}, others=0),
    }


def _stages(shop: Truth) -> dict[Key, Expected]:
    name = "pipeline"
    calls = {stage: shop.calls(stage) for stage in ("read", "transform", "store")}
    fails = shop.calls("transform fails")
    items = {
        "read out": 3 * shop.calls("read"),
        "store in": 3 * shop.calls("store"),
    }
    states = {
        "read awaiting": shop.rate("read"),
        "read blocked": shop.rate("read blocked"),
        "transform awaiting": shop.rate("transform"),
        "store running": shop.rate("store"),
        "store idle": shop.rate("store idle"),
        "store blocked": shop.rate("store blocked"),
    }
    return {
        (name, "Calls a second", "A"): Expected(every(calls)),
        (name, "Items a second", "A"): Expected(every(items)),
        (name, "Bytes a second", "A"): Expected({"read in": near(300 * calls["read"])}),
        # what is left is what the event loop itself takes
        (name, "Workers by state", "A"): Expected(every(states), others=pytest.approx(0, abs=0.1)),
        (name, "Calls in progress", "A"): Expected(
            {"hold": 1, "read": 0, "transform": 0, "store": 0}, "still"
        ),
        (name, "Failed calls a second", "A"): Expected({"transform ValueError": near(fails)}),
        (name, "Share of calls that fail", "A"): Expected(
            {"transform": near(fails / calls["transform"])}
        ),
        (name, "Retries a second", "A"): Expected(
            {"transform": near(shop.calls("transform retries"))}
        ),
    }


def _durations(shop: Truth) -> dict[Key, Expected]:
    stages = ("read", "transform", "store")
    durations = [seconds for stage in stages for seconds in shop.amounts(stage)]
    found: dict[Key, Expected] = {
        ("pipeline", "Durations", "A"): Expected(
            {
                "+Inf" if bound == math.inf else f"{bound:g}": pytest.approx(
                    sum(each <= bound for each in durations), rel=0.1, abs=3
                )
                for bound in (*DURATION_BUCKETS, math.inf)
            }
        )
    }
    for ref, (of_all, legend) in QUANTILES.items():
        found["pipeline", "Duration of calls", ref] = Expected(
            {f"transform {legend}": near(shop.quantile("transform", of_all))}, stage="transform"
        )
        found["pipeline", "Age of items", ref] = Expected(
            {f"store {legend}": near(shop.quantile("age", of_all))}
        )
        found["service", "Duration of operations", ref] = Expected(
            {f"database insert {legend}": near(shop.quantile("operations", of_all))}
        )
        found["service", "Duration of events", ref] = Expected(
            {f"kafka orders {legend}": near(shop.quantile("events", of_all))}
        )
    return found


def _queues(shop: Truth) -> dict[Key, Expected]:
    name = "pipeline"
    waits = {queue: near(shop.mean(f"in {queue}")) for queue in ("raw", "done")}
    return {
        (name, "Items in queues", "A"): Expected({"raw": 4, "done": 0}, "still"),
        (name, "How full queues are", "A"): Expected({"raw": 1, "done": 0}, "still"),
        (name, "Time in queues", "A"): Expected(waits),
        (name, "Limits in use", "A"): Expected({"database": 1}, "still"),
        (name, "Wait for limits", "A"): Expected({"database": near(shop.mean("wait for permit"))}),
    }


def _caches(shop: Truth) -> dict[Key, Expected]:
    name = "pipeline"
    hits, misses = shop.calls("hits"), shop.calls("misses")
    return {
        (name, "Hit ratio", "A"): Expected({"prices": near(hits / (hits + misses))}),
        (name, "Look-ups a second", "A"): Expected(
            every({"prices hit": hits, "prices miss": misses})
        ),
        (name, "Entries in caches", "A"): Expected({"prices": 8}, "still"),
        (name, "Evictions a second", "A"): Expected({"prices": near(shop.calls("evictions"))}),
    }


def _operations(shop: Truth) -> dict[Key, Expected]:
    name, operation = "service", "database insert"
    calls = shop.calls("operations")
    return {
        (name, "Operations a second", "A"): Expected({operation: near(calls)}),
        (name, "Share of operations that fail", "A"): Expected(
            {operation: near(shop.rate("operations fail") / calls)}
        ),
        (name, "Retries of operations a second", "A"): Expected(
            {"insert": near(shop.calls("retries"))}
        ),
        (name, "Errors a second", "A"): Expected({"parser warning": near(shop.calls("errors"))}),
        (name, "Stalled stages and queues", "A"): Expected(
            {"stuck": 1, "work": 0}, "still", job="lossy"
        ),
    }


def _events(shop: Truth) -> dict[Key, Expected]:
    name, source = "service", "kafka orders"
    calls = shop.calls("events")
    return {
        (name, title, "A"): Expected({source: near(number)})
        for title, number in {
            "Events a second": calls,
            "Share of events that fail": shop.rate("events fail") / calls,
            "Share of duplicates": shop.rate("duplicates") / calls,
            "Event bytes a second": 512 * calls,
            "Points written a second": 3 * calls,
        }.items()
    }


def _processes(shop: Truth) -> dict[Key, Expected]:
    name, memory, limits = "service", shop.facts["memory"], cgroup.limits()
    assert limits.memory_bytes is not None
    return {
        (name, "Breakers", "A"): Expected(
            {"payments open": 1, "payments closed": 0, "payments half_open": 0}, "still"
        ),
        (name, "Connections", "A"): Expected({"database": 5, "kafka connected": 1}, "still"),
        (name, "CPUs in use", "A"): Expected({"shop": near(shop.growth("cpu"))}),
        (name, "CPUs in use", "B"): Expected({"limit of one, shop": limits.cpus}),
        (name, "Memory", "A"): Expected({"shop": near(memory)}, "still"),
        (name, "Memory of the container's limit", "A"): Expected(
            {"shop": near(memory / limits.memory_bytes)}, "still"
        ),
    }


def _telemetry(world: World) -> dict[Key, Expected]:
    name, lossy, receiver = "telemetry", world.lossy, world.receiver
    spans, metrics = "otlp/http/0", "otlp/http/1"
    lost = {spans: receiver.ever("/v1/traces 400"), metrics: receiver.ever("/v1/metrics 400")}
    values: dict[str, Expected] = {
        "Firing alerts": Expected({"PipelineSpoolFills": 1, "PipelineTelemetryLost": 1}, "alerted"),
        "Spans sent": Expected({spans: receiver.ever("/v1/traces 200")}, "still"),
        "Spans lost": Expected({spans: lost[spans]}, "still"),
        "Metric points lost": Expected({metrics: lost[metrics]}, "still"),
        "Metric points a second": Expected({metrics: near(receiver.rate("/v1/metrics 200"))}),
        # an export is reported by a later one, on a busy machine by the fourth or fifth after it
        "Exports a second": Expected(
            {metrics: near(receiver.calls("/v1/metrics 200"), within=0.5)}, others=0
        ),
        "Time of an export": Expected({metrics: near(lossy.mean("metrics"))}),
        "Spool": Expected({"lossy": lossy.facts["spool"]}, "still"),
        "Operations that wait for their file": Expected({"lossy": 20}, "still"),
        "Operations dropped": Expected({"lossy": 5}, "still"),
    }
    return {
        (name, title, "A"): expected._replace(job="lossy") for title, expected in values.items()
    }

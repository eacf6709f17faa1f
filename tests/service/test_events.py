"""EventMetrics: what is recorded is in the metrics and in the dict, under the guards."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from click.testing import CliRunner

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics.cli.app import app
from otel_pipeline_metrics.service import (
    EventMetrics,
    MetricsManager,
    comprehensive_schema,
    get_event_metrics,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.service.conftest import Metrics


def test_events_in_metrics(metrics: Metrics) -> None:
    events = get_event_metrics()
    events.record_event_processing(0.25, "kafka", "orders", "shop-1", True, 100, False, 3)
    events.record_event_processing(0.5, "kafka", "orders", success=False, size_bytes=50)
    events.record_event_processing(1, "http", "users", duplicate=True, points=0)
    assert metrics.values("pipeline.event.duration") == {
        # domain, entity, source
        ("orders", "shop-1", "kafka"): (1, 0.25),
        # error type, domain, source
        ("_OTHER", "orders", "kafka"): (1, 0.5),
        ("users", "http"): (1, 1.0),
    }
    assert metrics.values("pipeline.event.io") == {("orders", "kafka"): 150}
    assert metrics.values("pipeline.event.points") == {("orders", "kafka"): 3, ("users", "http"): 0}
    assert metrics.values("pipeline.event.duplicates") == {
        ("orders", "kafka"): 0,
        ("users", "http"): 1,
    }


def test_events_in_the_dict(clock: Clock) -> None:
    events = EventMetrics()
    for number in range(1, 201):
        clock.advance(0.5)
        events.record_event_processing(
            number / 1000, "kafka", "orders", None, number % 10 != 0, 2, number % 4 == 0, 1
        )
    events.record_event_processing(1, "http", "users")
    found = events.to_dict()
    assert {name: found[name] for name in ("count", "errors", "duplicates")} == {
        "count": 201,
        "errors": 20,
        "duplicates": 50,
    }
    assert found["elapsed_s"] == 100
    users, orders = found["by_source"]
    assert (orders["source"], orders["domain"], orders["count"]) == ("kafka", "orders", 200)
    assert (orders["error_rate"], orders["dedup_rate"]) == (0.1, 0.25)
    assert (orders["size_bytes"], orders["points"]) == (400, 200)
    # the latest hundred took 101 to 200 ms, half a second apart
    duration = orders["duration_s"]
    assert (duration["samples"], duration["p50"], duration["p95"], duration["p99"]) == (
        100, 0.150, 0.195, 0.199,
    )  # fmt: skip
    assert (duration["count"], duration["max"]) == (200, 0.2)
    assert duration["avg"] == pytest.approx(0.1005)
    assert duration["overall"]["p50"] == pytest.approx(0.100, rel=0.01)
    assert orders["rate_per_s"] == 2.0
    clock.advance(49.5)  # nothing comes any more, so the rate falls
    assert events.to_dict()["by_source"][1]["rate_per_s"] == 1.0
    assert users["count"] == 1
    assert [users[name] for name in ("size_bytes", "points", "rate_per_s")] == [None, None, None]


def test_an_entity_is_under_the_guard(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cardinality, "max_values", 5)
    events = get_event_metrics()
    for number in range(100):
        events.record_event_processing(0.1, "s", "d", f"entity {number}")
    found = metrics.values("pipeline.event.duration")
    assert {entity: count for (_, entity, _), (count, _) in found.items()} == {
        **{f"entity {number}": 1 for number in range(5)},
        "_OTHER": 95,
    }


def test_sets_of_attributes_are_limited(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cardinality, "MAX_NAMES", 4)
    events = get_event_metrics()
    for number in range(9):
        events.record_event_processing(0.1, f"s{number % 3}", f"d{number // 3}")
    found = metrics.values("pipeline.event.duration")
    assert len(found) == 5
    assert found["_OTHER", "_OTHER"] == (5, 0.5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"duration_seconds": -1}, ValueError, "duration_seconds"),
        ({"duration_seconds": float("nan")}, ValueError, "duration_seconds"),
        ({"duration_seconds": "1"}, TypeError, "duration_seconds"),
        ({"source": ""}, ValueError, "source"),
        ({"domain": None}, TypeError, "domain"),
        ({"entity_id": 3}, TypeError, "entity_id"),
        ({"success": 1}, TypeError, "success"),
        ({"size_bytes": -1}, ValueError, "size_bytes"),
        ({"size_bytes": 1.5}, TypeError, "size_bytes"),
        ({"duplicate": None}, TypeError, "duplicate"),
        ({"points": -1}, ValueError, "points"),
    ],
)
def test_a_bad_event_is_refused_whole(
    metrics: Metrics, given: Any, error: Any, message: str
) -> None:
    events = EventMetrics()
    whole = {"duration_seconds": 1, "source": "s", "domain": "d", "size_bytes": 1, **given}
    with pytest.raises(error, match=message):
        events.record_event_processing(**whole)
    assert events.to_dict()["count"] == 0
    assert metrics.values("pipeline.event.io") == {}


def test_errors(metrics: Metrics) -> None:
    events = get_event_metrics()
    events.record_error(KeyError("secret"), "store", "warning")
    events.record_error(KeyError, "store", "warning")
    events.record_error("timeout", "http")
    events.record_error(json.JSONDecodeError("m", "d", 0), "http", "critical")
    # error type, component, severity
    assert metrics.values("pipeline.errors") == {
        ("KeyError", "store", "warning"): 2,
        ("timeout", "http", "error"): 1,
        ("json.decoder.JSONDecodeError", "http", "critical"): 1,
    }
    assert events.to_dict()["reported_errors"][0] == {
        "type": "KeyError",
        "component": "store",
        "severity": "warning",
        "count": 2,
    }
    assert "secret" not in json.dumps(events.to_dict())
    for bad, kind in (("", ValueError), (3, TypeError), (int, TypeError)):
        with pytest.raises(kind, match="error"):
            events.record_error(bad, "store")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="component"):
        events.record_error("x", "")


def test_retries(metrics: Metrics) -> None:
    events = get_event_metrics()
    events.record_retry_attempt("insert", 1, KeyError())
    events.record_retry_attempt("insert", 2, KeyError())
    events.record_retry_attempt("insert", 3)
    assert metrics.values("pipeline.operation.retries") == {
        ("KeyError", "insert"): 2,
        ("insert",): 1,
    }
    assert events.get_comprehensive_metrics()["operations"]["retries"] == {"insert": 3}
    for attempt, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="attempt"):
            events.record_retry_attempt("insert", attempt)  # type: ignore[arg-type]


def test_breakers(metrics: Metrics) -> None:
    events = get_event_metrics()
    for state in ("closed", "Open", "half-open"):
        events.record_circuit_breaker_state("database", state)
        found = metrics.values("pipeline.breaker.state")
        assert found == {
            ("database", each): int(each == state.lower().replace("-", "_"))
            for each in ("closed", "open", "half_open")
        }
    assert events.breakers == {"database": "half_open"}
    with pytest.raises(ValueError, match="one of closed, open, half_open"):
        events.record_circuit_breaker_state("database", "ajar")


def test_connections(metrics: Metrics) -> None:
    events = get_event_metrics()
    events.set_connections("pool", 3)
    events.set_connection_state("feed", "connecting")
    assert metrics.values("pipeline.connection.count") == {
        ("pool",): 3,
        ("feed", "connecting"): 1,
    }
    events.set_connections("pool", 5)
    events.set_connection_state("pool", "open")
    events.set_connection_state("feed", "open")
    # a connection is counted once, and a state that was left is 0
    assert metrics.values("pipeline.connection.count") == {
        ("pool",): 0,
        ("pool", "open"): 5,
        ("feed", "connecting"): 0,
        ("feed", "open"): 1,
    }
    assert events.to_dict()["connections"] == {
        "feed": {"count": None, "state": "open"},
        "pool": {"count": 5, "state": "open"},
    }
    with pytest.raises(ValueError, match="n must not be negative"):
        events.set_connections("pool", -1)


def test_queue_depths(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    import queue

    events = get_event_metrics()
    wrapped = opm.wrap_queue(queue.Queue(), name="wrapped")
    wrapped.put(1)
    events.set_queue_depth("by hand", 7)
    events.set_queue_depth("by hand", 4)
    for _ in range(2):
        events.set_queue_depth("wrapped", 99)
    assert metrics.values("pipeline.queue.size") == {("by hand",): 4, ("wrapped",): 1}
    assert events.to_dict()["queues"] == {"by hand": 4}
    (warning,) = caplog.records
    assert "the queue 'wrapped' is wrapped" in warning.message


async def test_monitor_operation(metrics: Metrics, clock: Clock) -> None:
    events = get_event_metrics()
    async with events.monitor_operation("refresh"):
        clock.advance(0.25)

    async def fail() -> None:
        async with events.monitor_operation("refresh"):
            clock.advance(0.5)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()

    @events.monitor_operation("function")
    async def function() -> int:
        return 3

    assert await function() == 3
    # error type, name, type
    assert metrics.values("pipeline.operation.duration") == {
        ("refresh", "monitored"): (1, 0.25),
        ("KeyError", "refresh", "monitored"): (1, 0.5),
        ("function", "monitored"): (1, 0.0),
    }
    with pytest.raises(ValueError, match="name"):
        events.monitor_operation("")


async def test_operations_of_a_manager_are_measured_once(
    metrics: Metrics, clock: Clock, tmp_path: Path
) -> None:
    async with MetricsManager(tmp_path, 3600.0, max_queue_size=3) as manager:
        await manager.record_operation("db", "insert", 250)
        await manager.record_operation("db", "insert", 500, success=False)

        @manager.track_operation("db", "insert")
        async def fail() -> None:
            clock.advance(0.125)
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await fail()
        # dropped from the files, and measured all the same
        await manager.record_operation("db", "insert", 1000)
    assert metrics.values("pipeline.operation.duration") == {
        ("insert", "db"): (2, 1.25),
        ("_OTHER", "insert", "db"): (1, 0.5),
        ("TimeoutError", "insert", "db"): (1, 0.125),
    }
    (found,) = get_event_metrics().get_comprehensive_metrics()["operations"]["by_name"]
    assert (found["count"], found["errors"], found["error_rate"]) == (4, 2, 0.5)


async def test_an_operation_that_is_refused_is_not_measured(
    metrics: Metrics, tmp_path: Path
) -> None:
    manager = MetricsManager(tmp_path, overflow="raise", max_queue_size=1)
    with pytest.raises(RuntimeError):
        await manager.record_operation("db", "insert", 1)
    assert metrics.values("pipeline.operation.duration") == {}


async def test_everything_follows_the_schema(metrics: Metrics, tmp_path: Path) -> None:
    events = get_event_metrics()
    schema = comprehensive_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(events.get_comprehensive_metrics(), schema)
    opm.register_cache("cache", lambda: {"hits": 3, "misses": 1})

    @opm.counted_lru_cache(maxsize=2, name="lru", what_if=True)
    def doubled(number: int) -> int:
        return 2 * number

    for number in (1, 2, 3, 1):
        doubled(number)
    try:
        with opm.stage("parse", kind="process") as stage:
            stage.add_items(3)
            stage.retry(KeyError())
        events.record_event_processing(1, "s", "d", "e", False, 1, True, 1)
        events.record_error("x", "c")
        events.record_circuit_breaker_state("b", "open")
        events.record_retry_attempt("o", 1)
        events.set_connections("c", 1)
        events.set_queue_depth("q", 1)
        async with MetricsManager(tmp_path) as manager, manager.track_operation("t", "n"):
            pass
        found = events.get_comprehensive_metrics()
    finally:
        opm.unregister_cache("cache")
        opm.unregister_cache("lru")
    jsonschema.validate(found, schema)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert sorted(found) == [
        "caches", "events", "health", "operations", "resources", "stages", "timestamp",
    ]  # fmt: skip
    (stage_found,) = found["stages"]
    assert (stage_found["name"], stage_found["kind"], stage_found["pipeline"]) == (
        "parse", "process", None,
    )  # fmt: skip
    assert (stage_found["count"], stage_found["retries"], stage_found["items"]["out"]) == (1, 1, 3)
    assert [each["hit_ratio"] for each in found["caches"] if each["name"] == "cache"] == [0.75]
    assert [each["what_if"] for each in found["caches"] if each["name"] == "lru"] == [
        {"half": 0.0, "twice": 0.25, "four_times": 0.25}
    ]
    assert found["health"]["status"] == "degraded"
    assert found["resources"]["rss_bytes"] > 0


def test_stages_of_runs_and_outside_are_summed_up(metrics: Metrics) -> None:
    events = get_event_metrics()

    @opm.process
    def work(*, fail: bool = False) -> None:
        if fail:
            raise KeyError

    for _ in range(3):
        work()
    with opm.run("nightly", resources=False):
        work()
        with pytest.raises(KeyError):
            work(fail=True)
    found = events.get_comprehensive_metrics()["stages"]
    assert [(each["pipeline"], each["count"], each["errors"]["total"]) for each in found] == [
        (None, 3, 0),
        ("nightly", 2, 1),
    ]


def test_the_command_prints_the_schema() -> None:
    done = CliRunner().invoke(app, ["schema", "service"])
    assert done.exit_code == 0
    assert json.loads(done.output) == comprehensive_schema()


@pytest.mark.processes
def test_a_forked_child_has_its_own(metrics: Metrics) -> None:
    events = get_event_metrics()
    events.record_event_processing(1, "s", "d")
    events.set_connections("pool", 3)
    assert get_event_metrics() is events
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = get_event_metrics()
            own.record_event_processing(2, "s", "d")
            found = metrics.values("pipeline.event.duration")
            fine = own is not events and own.to_dict()["count"] == 1
            fine = fine and found == {("d", "s"): (1, 2.0)}
            fine = fine and metrics.values("pipeline.connection.count") == {}
            code = 0 if fine else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert metrics.values("pipeline.event.duration") == {("d", "s"): (1, 1.0)}

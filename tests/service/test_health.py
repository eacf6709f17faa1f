"""health() and health_asgi: which part is in which state, and what is told to whom."""

from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import settings
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._lifecycle import configure as lifecycle
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics.service import (
    Health,
    MetricsManager,
    get_event_metrics,
    health,
    health_asgi,
)
from otel_pipeline_metrics.service.operation_files import OperationFiles

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock
    from tests.service.conftest import Metrics

PARTS = ["exporter", "spool", "queues", "event_loop", "manager", "breakers", "stalled_stages"]


def but(**others: tuple[str, str]) -> None:
    """Check that these parts have a status and a reason, and that all others are ok."""
    found = health()
    assert list(found.components) == PARTS
    for name, part in found.components.items():
        status, reason = others.get(name, ("ok", None))
        assert (part.status, part.reasons) == (status, () if reason is None else (reason,)), name
    order = ("ok", "degraded", "failing")
    worst = max((status for status, _ in others.values()), key=order.index, default="ok")
    assert found.status == worst


def test_nothing_in_use_is_ok() -> None:
    but()
    assert isinstance(health(), Health)


def test_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_stats, "exported", lambda: {"collector": "unreachable"})
    but(exporter=("degraded", "the collector does not accept telemetry"))


def test_a_spool_that_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledgers = tuple(ExportLedger(signal, "otlp/grpc", "x") for signal in ("traces", "metrics"))
    for ledger in ledgers:
        ledger.kept_in = str(tmp_path)
    monkeypatch.setattr(telemetry_stats, "ledgers", ledgers)
    monkeypatch.setattr(settings, "_current", settings.Config(spool_max_bytes=100))
    batch = tmp_path / "traces-0000000000001-1-0badcafe-000000-1.jsonl"
    (tmp_path / "other.txt").write_bytes(b"x" * 1000)
    batch.write_bytes(b"x" * 79)
    but()
    batch.write_bytes(b"x" * 80)
    but(spool=("degraded", "it is 80 % full; then the oldest telemetry is dropped"))


def test_a_full_queue() -> None:
    items: Any = opm.wrap_queue(queue.Queue(2), name="items")
    unbounded: Any = opm.wrap_queue(queue.Queue(), name="unbounded")
    unbounded.put(1)
    items.put(1)
    but()
    items.put(1)
    but(queues=("degraded", "the queue 'items' is full"))


def test_breakers() -> None:
    events = get_event_metrics()
    events.record_circuit_breaker_state("database", "closed")
    but()
    events.record_circuit_breaker_state("database", "open")
    but(breakers=("degraded", "the breaker 'database' is open"))
    events.record_circuit_breaker_state("database", "half_open")
    but(breakers=("degraded", "the breaker 'database' is half_open"))


async def test_a_manager_that_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OperationFiles, "write", full)
    async with MetricsManager(tmp_path, 3600.0, 1) as manager:
        but()
        await manager.record_operation("test", "one", 1)
        while manager.failure is None:
            pass
        but(manager=("degraded", "operations cannot be written to disk"))


async def test_a_manager_that_is_full(tmp_path: Path) -> None:
    async with MetricsManager(tmp_path, 3600.0, max_queue_size=1) as manager:
        await manager.record_operation("test", "one", 1)
        but(manager=("degraded", "its queue is full"))
    but()


async def test_an_event_loop_that_is_held_up(tmp_path: Path, clock: Clock) -> None:
    async with MetricsManager(tmp_path, 3600.0) as manager:
        clock.advance(1.0)
        but()
        # in progress
        clock.advance(0.06)
        but(event_loop=("degraded", "it was held up for 1.01 s within the last minute"))
        clock.advance(30)
        but(event_loop=("failing", "it was held up for 31.0 s within the last minute"))
        # over, and remembered for a minute
        manager.loop_delays._note(31.01)
        clock.advance(0.01)
        but(event_loop=("failing", "it was held up for 31.0 s within the last minute"))
        for _ in range(1200):
            clock.advance(0.05)
            manager.loop_delays._note(0.0)
        but()
    clock.advance(1000)
    but()


def test_a_part_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_pipeline_metrics._core import errors
    from otel_pipeline_metrics._probes.queues import registry

    def broken() -> Any:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(errors, "raise_faults", False)
    monkeypatch.setattr(registry, "capacities", broken)
    but(queues=("degraded", "it cannot be read"))


# --- over HTTP ------------------------------------------------------------------------------------


async def call(app: Any, path: str, method: str = "GET", **scope: Any) -> tuple[int, Any, Any]:
    """Return the status, the headers and the body of an answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": method, **scope}, receive, send)
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    headers = {key.decode(): value.decode() for key, value in start["headers"]}
    return start["status"], headers, body["body"]


async def get(app: Any, path: str) -> tuple[int, Any]:
    status, headers, body = await call(app, path)
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert headers["cache-control"] == "no-store"
    return status, json.loads(body)


@pytest.mark.parametrize("app", [health_asgi, health_asgi(), health_asgi(details=False)])
async def test_bodies_hold_names_and_states(app: Any) -> None:
    parts = dict.fromkeys(PARTS, "ok")
    assert await get(app, "/health") == (200, {"status": "ok", "components": parts})
    get_event_metrics().record_circuit_breaker_state("database", "open")
    status, body = await get(app, "/health")
    assert (status, body["status"]) == (200, "degraded")
    assert body["components"] == {**parts, "breakers": "degraded"}
    assert "database" not in json.dumps(body)


async def test_details_hold_reasons() -> None:
    get_event_metrics().record_circuit_breaker_state("database", "open")
    status, body = await get(health_asgi(details=True), "/health")
    assert status == 200
    assert body["components"]["breakers"] == {
        "status": "degraded",
        "reasons": ["the breaker 'database' is open"],
    }
    assert body["components"]["spool"] == {"status": "ok", "reasons": []}
    with pytest.raises(TypeError, match="details"):
        health_asgi(details="yes")  # type: ignore[arg-type]


async def test_a_failing_service_is_503(clock: Clock, metrics: Metrics) -> None:
    health()
    with opm.stage("hangs"):
        health()
        clock.advance(300)
        status, body = await get(health_asgi, "/health")
        assert (status, body["status"]) == (503, "failing")
    assert (await get(health_asgi, "/health"))[0] == 200


async def test_ready_follows_the_managers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_export", None)
    status, body = await get(health_asgi, "/ready")
    assert (status, body["ready"], body["status"]) == (503, False, "ok")
    monkeypatch.setattr(lifecycle, "_export", object())
    assert (await get(health_asgi, "/ready"))[0] == 200
    manager = MetricsManager(tmp_path)
    assert (await get(health_asgi, "/ready"))[0] == 503
    async with manager:
        status, body = await get(health_asgi, "/ready")
        assert (status, body["ready"]) == (200, True)
    status, body = await get(health_asgi, "/ready")
    assert (status, body["ready"]) == (503, False)
    # its life is another question
    assert (await get(health_asgi, "/health"))[0] == 200


async def test_a_failing_service_is_not_ready(
    tmp_path: Path, clock: Clock, metrics: Metrics
) -> None:
    async with MetricsManager(tmp_path) as manager:
        with opm.stage("hangs"):
            health()
            clock.advance(300)
            manager.loop_delays._note(0)
            status, body = await get(health_asgi, "/ready")
            assert (status, body["ready"], body["status"]) == (503, False, "failing")


async def test_paths_and_methods() -> None:
    for path in ("/health", "/health/"):
        assert (await call(health_asgi, path))[0] == 200
    # mounted, as Starlette and FastAPI do it, and as older ones do
    assert (await call(health_asgi, "/ops/health", root_path="/ops"))[0] == 200
    assert (await call(health_asgi, "/health", root_path="/ops"))[0] == 200
    for path in ("/", "/healthz", "/ops/health", "/health/x"):
        status, _, body = await call(health_asgi, path)
        assert (status, json.loads(body)) == (404, {"status": "not found"})
    status, headers, _ = await call(health_asgi, "/health", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = await call(health_asgi, "/health", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


async def test_other_protocols() -> None:
    sent: list[Any] = []
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await health_asgi({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    events = iter(["websocket.connect"])
    await health_asgi({"type": "websocket", "path": "/health"}, receive, send)
    assert sent[-1] == "websocket.close"


def test_servers_take_it_for_asgi_3() -> None:
    """Uvicorn and hypercorn ask asyncio and inspect whether `__call__` is a coroutine function."""
    import asyncio
    import inspect
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        either = asyncio.iscoroutinefunction(health_asgi.__call__)
    assert either or inspect.iscoroutinefunction(health_asgi.__call__)
    assert not inspect.isfunction(health_asgi)

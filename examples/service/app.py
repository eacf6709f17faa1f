"""The service: takes orders over HTTP, looks their customers up, and stores them.

    POST /orders -> queue -> enrich (4 threads) -> queue -> store (1 thread) -> SQLite

The look-up asks another service, over HTTP, through a cache, a circuit breaker and retries. While
that service is down, orders wait: the queues fill, and the endpoint answers 503. The server's stop
waits until all that was accepted is stored. The queues are in memory, so a kill would lose theirs.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sqlite3
import time
import urllib.request
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pybreaker
import tenacity
from fastapi import FastAPI, Response
from pydantic import BaseModel

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.asgi import lifespan
from otel_pipeline_metrics.integrations.tenacity import instrument_retrying
from otel_pipeline_metrics.service import MetricsManager, get_event_metrics, health_asgi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OUT = Path(os.environ.get("SERVICE_OUT", "demo-out/service"))
CUSTOMERS_URL = os.environ.get("CUSTOMERS_URL", "http://127.0.0.1:8081")
ENRICHERS = 4
TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer INTEGER, country TEXT)"

# the changes of the verdict are lines at INFO
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("otel_pipeline_metrics").setLevel(logging.INFO)

events = get_event_metrics()
manager = MetricsManager(OUT / "operations", flush_interval_seconds=1.0)


class Order(BaseModel):
    id: str
    customer: int


class Accepted(NamedTuple):
    order: Order
    # Unix seconds
    at: float


class Enriched(NamedTuple):
    order: Order
    at: float
    country: str


received = opm.wrap_queue(queue.Queue[Any](200), name="received", sentinel=None)
enriched = opm.wrap_queue(queue.Queue[Any](200), name="enriched", sentinel=None)


class ReportState(pybreaker.CircuitBreakerListener):
    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        """Report the state that the breaker is in now."""
        del old_state
        events.record_circuit_breaker_state(str(cb.name), new_state.name)


breaker = pybreaker.CircuitBreaker(
    fail_max=5, reset_timeout=2, name="customers", listeners=[ReportState()]
)
events.record_circuit_breaker_state("customers", breaker.current_state)


# It never gives up: an order that was accepted waits until the other service is back.
@tenacity.retry(wait=tenacity.wait_fixed(0.25))
@opm.fetch
def look_up(customer: int) -> str:
    """Ask the other service where a customer lives."""

    def ask() -> str:
        with urllib.request.urlopen(f"{CUSTOMERS_URL}/{customer}", timeout=2) as answer:  # noqa: S310 - loopback
            return str(json.load(answer)["country"])

    found: str = breaker.call(ask)
    return found


instrument_retrying(look_up)


@opm.counted_lru_cache(maxsize=400, name="customers")
def country_of(customer: int) -> str:
    return look_up(customer)


@opm.process
def enrich(accepted: Accepted) -> Enriched:
    return Enriched(*accepted, country_of(accepted.order.customer))


@opm.write
def store(item: Enriched) -> None:
    """Write an order, once: a client that heard no answer sends it again."""
    order, at, country = item
    with manager.track_operation("database", "insert"), database:
        new = database.execute(
            "INSERT OR IGNORE INTO orders VALUES (?, ?, ?)", (order.id, order.customer, country)
        ).rowcount
    opm.current_stage().event_time(at)
    events.record_event_processing(
        max(0.0, time.time() - at), source="http", domain="orders", duplicate=not new
    )


def open_database() -> sqlite3.Connection:
    OUT.mkdir(parents=True, exist_ok=True)
    # used by the one thread that stores
    found = sqlite3.connect(OUT / "orders.sqlite", check_same_thread=False)
    found.execute("PRAGMA journal_mode = WAL")
    found.execute("PRAGMA synchronous = NORMAL")
    found.execute(TABLE)
    return found


database = open_database()


@asynccontextmanager
async def working(_: FastAPI) -> AsyncIterator[None]:
    """Run the pools while the server runs; at its end they finish what was accepted.

    With "skip" an order that fails is an error of its stage, and the next one goes on.
    """
    with (
        closing(database),
        opm.run("orders", report=OUT / "report.json"),
        opm.workers(enrich, received, enriched, count=ENRICHERS, on_error="skip"),
        opm.workers(store, enriched, count=1, on_error="skip"),
    ):
        yield
        received.put(None)


app = FastAPI(
    lifespan=lifespan(working, manager=manager, service_name="orders", metrics_sync_interval=1.0)
)
app.mount("/ops", health_asgi)


@app.post("/orders", status_code=202)
async def ingest(order: Order) -> Response:
    async with manager.track_operation("http", "POST /orders"):
        try:
            # not `put`: where the queue is full the client waits, and not the event loop
            received.put_nowait(Accepted(order, time.time()))
        except queue.Full:
            return Response(status_code=503, headers={"Retry-After": "1"})
        return Response(status_code=202)

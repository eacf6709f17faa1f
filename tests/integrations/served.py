"""An application for `test_asgi.py`, run by servers: a stage, an operation, a state."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.asgi import lifespan
from otel_pipeline_metrics.service import MetricsManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

manager = MetricsManager(os.environ["OPERATIONS"])


@asynccontextmanager
async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The application's lifespan: the manager runs already, and telemetry goes out."""
    await manager.record_operation("app", "start", 1.0)
    yield {"greeting": "hello"}
    with opm.stage("closing"):
        pass


app = FastAPI(lifespan=lifespan(own, manager=manager, console=False))


@opm.fetch
def plain() -> int:
    """A stage in a thread of the server."""
    return os.getpid()


@app.get("/plain")
def in_thread() -> int:
    return plain()


@app.get("/coroutine")
@opm.process("coroutine")
async def in_loop(request: Request) -> int:
    await manager.record_operation("http", "coroutine", 1.0)
    assert request.state.greeting == "hello"
    return os.getpid()

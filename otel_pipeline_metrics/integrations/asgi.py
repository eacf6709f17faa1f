"""Start and stop telemetry with an ASGI application, such as one of Starlette or FastAPI."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics.service.manager import MetricsManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager


def lifespan(
    app_lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    *,
    manager: MetricsManager | None = None,
    **configure: Any,
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Return a lifespan that configures at the start, and flushes and shuts down at the stop.

    Servers with several workers set their own signal handlers, and end a worker without running
    what Python runs at the end of a program. Their lifespan is what they promise to run, in each
    worker: `FastAPI(lifespan=lifespan(service_name="shop"))`.

    Args:
        app_lifespan: the application's own lifespan, which runs inside; what it yields, the state
            of requests, is passed on.
        manager: is started before it, and stopped after it.
        configure: the arguments of `opm.configure()`.

    Raises:
        TypeError: an argument is of the wrong kind, or `configure()` does not know it.
    """
    _check(app_lifespan, manager)
    # an unknown argument is refused here, and not only when the server starts
    inspect.signature(opm.configure).bind(**configure)

    @asynccontextmanager
    async def live(app: Any) -> AsyncIterator[Any]:
        opm.configure(**configure)
        _heed_sigquit()
        try:
            async with AsyncExitStack() as stack:
                if manager is not None:
                    await manager.start()
                    stack.push_async_callback(_stop, manager)
                yield (
                    None
                    if app_lifespan is None
                    else await stack.enter_async_context(app_lifespan(app))
                )
        finally:
            opm.shutdown()

    return live


def _check(app_lifespan: object, manager: object) -> None:
    if app_lifespan is not None and not callable(app_lifespan):
        kind = type(app_lifespan).__name__
        raise TypeError(f"app_lifespan must be a function of the application, not {kind}")
    if manager is not None and not isinstance(manager, MetricsManager):
        raise TypeError(f"manager must be a MetricsManager, not {type(manager).__name__}")


def _heed_sigquit() -> None:
    """Let a worker of gunicorn end at SIGQUIT, which gunicorn sends when it gets a SIGINT.

    uvicorn's class of workers notes the signal and goes on, until gunicorn kills it 30 s later: no
    lifespan ends then. It ends by itself at a SIGTERM.
    """
    if "uvicorn_worker" in sys.modules or "uvicorn.workers" in sys.modules:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, signal.raise_signal, signal.SIGTERM)


async def _stop(manager: MetricsManager) -> None:
    """Stop; what is not written in time is counted by the manager."""
    with errors.suppress_errors("stopping the manager"):
        await manager.stop()

"""Serve `/health` and `/ready` as an ASGI application."""

from __future__ import annotations

import inspect
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.validation import check_flag
from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics.service.health import Health, health
from otel_pipeline_metrics.service.known_managers import managers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


class HealthApp:
    """An ASGI application; mount it, or call it with `details` to get another.

    `GET /health` answers 200 while the service is ok or degraded, and 503 if it fails. `GET /ready`
    also answers 503 before the service is started and after it is stopped: while a `MetricsManager`
    exists that is not running, or, without one, outside `configure()` and `shutdown()`. The body
    is JSON. It holds the names and states of parts; their reasons only with `details=True`.
    """

    def __init__(self, *, details: bool = False) -> None:
        self._details = check_flag(details, "details")

    def __call__(
        self,
        scope: MutableMapping[str, Any] | None = None,
        receive: Receive | None = None,
        send: Send | None = None,
        *,
        details: bool = False,
    ) -> Any:
        """Answer a request; without one, return an application with or without `details`.

        Raises:
            TypeError: `details` is not a bool, or a part of the request is missing.
        """
        if scope is None:
            return HealthApp(details=details)
        if receive is None or send is None:
            raise TypeError("an ASGI application is called with scope, receive and send")
        return self._serve(scope, receive, send)

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, send)
        elif scope["type"] == "lifespan":
            await live(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: MutableMapping[str, Any], send: Send) -> None:
        path = scope["path"]
        # an application that is mounted sees the whole path, or its part of it
        root = scope.get("root_path", "").rstrip("/")
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        find = {"/health": _health, "/ready": _ready}.get(path.rstrip("/"))
        head: list[tuple[bytes, bytes]] = []
        if find is None:
            code, body = 404, {"status": "not found"}
        elif scope["method"] not in {"GET", "HEAD"}:
            code, body = 405, {"status": "method not allowed"}
            head.append((b"allow", b"GET, HEAD"))
        else:
            code, body = find(self._details)
        content = json.dumps(body).encode()
        head += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": code, "headers": head})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content}
        )


def _health(details: bool) -> tuple[int, dict[str, Any]]:
    found = health()
    return _code(found), found.to_dict(details=details)


def _ready(details: bool) -> tuple[int, dict[str, Any]]:
    found = health()
    started = is_started()
    body = {"ready": started and found.status != "failing", **found.to_dict(details=details)}
    return (_code(found) if started else 503), body


def _code(found: Health) -> int:
    return 503 if found.status == "failing" else 200


def is_started() -> bool:
    """Tell whether the service is started: its managers run, or, without one, it is configured."""
    known = list(managers)
    return all(manager.is_running for manager in known) if known else configure.is_configured()


async def live(receive: Receive, send: Send) -> None:
    """Have nothing to do at the start and the end of a server that serves this alone."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


# Servers look whether `__call__` is a coroutine function, to tell ASGI 3 from ASGI 2. This one
# returns a coroutine, or an application.
if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(HealthApp.__call__)
else:
    import asyncio.coroutines

    # what asgiref does
    mark = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    HealthApp.__call__._is_coroutine = mark  # type: ignore[attr-defined]

health_asgi: Final = HealthApp()

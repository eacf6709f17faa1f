"""Give what Prometheus scrapes to a program that has a web server already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics.service.health_asgi import live

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from otel_pipeline_metrics._export.prometheus import Page

    Message = MutableMapping[str, Any]


_MISSING: Final = 'there are no metrics to scrape: call configure(exporter="prometheus") first'


def prometheus_text() -> str:
    """Return what a scrape would see now, in Prometheus' text format.

    Raises:
        RuntimeError: `configure()` was not asked for the exporter "prometheus".
    """
    from prometheus_client import generate_latest

    page = _page()
    if page is None:
        raise RuntimeError(_MISSING)
    return generate_latest(page).decode()


async def metrics_asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer a scrape as an ASGI application; 503 without the exporter "prometheus".

    All who can reach it can read every name and attribute value on a metric.
    """
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    if scope["type"] != "http":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    page = _page()
    if page is not None:
        from prometheus_client import make_asgi_app

        await make_asgi_app(page)(scope, receive, send)
        return
    head = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 503, "headers": head})
    await send({"type": "http.response.body", "body": f"{_MISSING}\n".encode()})


def metrics_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a scrape as a WSGI application; 503 without the exporter "prometheus".

    All who can reach it can read every name and attribute value on a metric.
    """
    page = _page()
    if page is not None:
        from prometheus_client import make_wsgi_app

        answer: Iterable[bytes] = make_wsgi_app(page)(environ, start_response)
        return answer
    start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{_MISSING}\n".encode()]


def _page() -> Page | None:
    pages = telemetry_stats.pages
    return pages[-1] if pages else None

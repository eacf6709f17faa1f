"""health_asgi under a real server, alone and mounted."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PROGRAM = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from otel_pipeline_metrics.service import get_event_metrics, health_asgi

apps = {
    "alone": health_asgi,
    "mounted": Starlette(routes=[Mount("/ops", health_asgi(details=True))]),
}
get_event_metrics().record_circuit_breaker_state("database", "open")
uvicorn.run(apps[sys.argv[1]], fd=int(sys.argv[2]), log_level="warning")
"""


@pytest.fixture(params=["alone", "mounted"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, request.param, str(number)],
            pass_fds=(number,),
            stderr=subprocess.PIPE,
            text=True,
        )
    yield f"http://127.0.0.1:{port}{'/ops' if request.param == 'mounted' else ''}"
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert "Traceback" not in said, said


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_real_server_serves_it(address: str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            status, body = get(f"{address}/health")
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert (status, body["status"]) == (200, "degraded")
    part = body["components"]["breakers"]
    if address.endswith("/ops"):
        assert part["reasons"] == ["the breaker 'database' is open"]
    else:
        assert part == "degraded"
    # neither configured nor with a manager
    assert get(f"{address}/ready")[0] == 503
    assert get(f"{address}/other")[0] == 404

"""Nothing is lost under any server, however it is stopped: the lifespan for ASGI, and WSGI."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics.integrations.asgi import lifespan
from otel_pipeline_metrics.service import MetricsManager
from tests.lifecycle.configure.support import clean_slate
from tests.support.process import ROOT, free_ports, poll
from tests.system.faults.collector.servers import collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

APP = "tests.integrations.served:app"
GUNICORN = ["gunicorn", APP, "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:PORT"]
UVICORN = ["uvicorn", APP, "--host", "127.0.0.1", "--port", "PORT", "--no-access-log"]
HYPERCORN = ["hypercorn", APP, "-b", "127.0.0.1:PORT"]
SERVERS = {
    "uvicorn": (UVICORN, 1),
    "uvicorn, 2 workers": ([*UVICORN, "--workers", "2"], 2),
    "hypercorn": (HYPERCORN, 1),
    "hypercorn, 2 workers": ([*HYPERCORN, "-w", "2"], 2),
    "gunicorn, 2 workers": ([*GUNICORN, "-w", "2"], 2),
    "gunicorn, 2 workers, preload": ([*GUNICORN, "-w", "2", "--preload"], 2),
}
WSGI = ["gunicorn", "tests.integrations.served_wsgi:app", "-b", "127.0.0.1:PORT", "-w", "2"]
REQUESTS = 20


@pytest.fixture(autouse=True)
def slate() -> Iterator[None]:
    """Leave no provider to the next test."""
    with clean_slate():
        yield


@contextlib.contextmanager
def served(command: list[str], folder: Path, endpoint: str) -> Iterator[tuple[str, Any]]:
    port = free_ports(1)[0]
    environment = {name: value for name, value in os.environ.items() if "OTEL" not in name}
    environment |= {
        "OPERATIONS": str(folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in command)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def get(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
            return int(answer.read())
    except OSError:
        return None


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_lost(server: str, stop: signal.Signals, tmp_path: Path) -> None:
    command, workers = SERVERS[server]
    with collector("none", "http/protobuf") as received:
        endpoint = f"http://127.0.0.1:{received.port}"
        with served(command, tmp_path, endpoint) as (url, process):
            poll(lambda: get(f"{url}/plain"), timeout=60, what=server)
            seen = [get(f"{url}/plain") for _ in range(REQUESTS - 1)]
            seen += [get(f"{url}/coroutine") for _ in range(REQUESTS)]
            assert None not in seen
            process.send_signal(stop)
            _, said = process.communicate(timeout=60)
        assert "Traceback" not in said, said
        assert received.calls("plain") == REQUESTS, said
        assert received.calls("coroutine") == REQUESTS
        assert received.spans["plain"] == received.spans["coroutine"] == REQUESTS
        closed = received.calls("closing")
    operations = [
        record["operation_name"]
        for path in tmp_path.glob("metrics_*.json")
        for record in json.loads(path.read_text())["records"]
    ]
    assert operations.count("coroutine") == REQUESTS
    # under load a worker may be told to stop before it has started
    assert 1 <= operations.count("start") == closed <= workers


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
@pytest.mark.parametrize("kind", [["-k", "sync"], ["-k", "gthread", "--preload"]], ids=" ".join)
def test_wsgi_needs_nothing(kind: list[str], stop: signal.Signals, tmp_path: Path) -> None:
    with collector("none", "http/protobuf") as received:
        endpoint = f"http://127.0.0.1:{received.port}"
        with served([*WSGI, *kind], tmp_path, endpoint) as (url, process):
            poll(lambda: get(url), timeout=60, what=kind[1])
            assert None not in [get(url) for _ in range(REQUESTS - 1)]
            process.send_signal(stop)
            _, said = process.communicate(timeout=60)
        assert received.calls("plain") == received.spans["plain"] == REQUESTS, said


async def test_the_order_is_that_of_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MetricsManager(tmp_path)
    order: list[tuple[str, bool, bool]] = []

    def note(what: str) -> None:
        order.append((what, configure.is_configured(), manager.is_running))

    @contextlib.asynccontextmanager
    async def own(app: object) -> AsyncIterator[dict[str, str]]:
        assert app == "the application"
        note("begin")
        yield {"a": "state"}
        note("end")

    live = lifespan(own, manager=manager, exporter="none")
    for _ in range(2):
        async with live("the application") as state:
            assert state == {"a": "state"}
        note("after")
    one = [("begin", True, True), ("end", True, True), ("after", False, False)]
    assert order == [*one, *one]


async def test_an_application_that_cannot_start_is_cleaned_up(tmp_path: Path) -> None:
    manager = MetricsManager(tmp_path)

    @contextlib.asynccontextmanager
    async def own(app: object) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    with pytest.raises(LookupError, match="no database"):
        async with lifespan(own, manager=manager, exporter="none")(None):
            pass
    assert not manager.is_running
    assert not configure.is_configured()


async def test_a_manager_that_cannot_stop_does_not_stop_the_server_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_pipeline_metrics._core import errors

    monkeypatch.setattr(errors, "raise_faults", False)
    manager = MetricsManager(tmp_path)

    async def fail() -> None:
        raise TimeoutError("the disk is slow")

    async with lifespan(manager=manager, exporter="none")(None):
        stop = manager.stop
        monkeypatch.setattr(manager, "stop", fail)
    await stop()
    assert not configure.is_configured()
    assert "stopping the manager" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"app_lifespan": 3}, "app_lifespan must be a function of the application, not int"),
        ({"manager": "folder"}, "manager must be a MetricsManager, not str"),
        ({"service_nam": "shop"}, "unexpected keyword argument 'service_nam'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lifespan(**arguments)

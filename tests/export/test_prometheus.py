"""The exporter "prometheus": its port, its page, and processes that share a machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY, Gauge

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export import environment
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics.service import health, metrics_asgi, metrics_wsgi, prometheus_text

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("nothing_configured")


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(telemetry_stats, "pages", ())
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(errors, "_warned", set(), raising=False)
    yield
    opm.shutdown()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found: int = one.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(found))
    return found


def scrape(port: int, query: str = "") -> str:
    url = f"http://127.0.0.1:{port}/metrics{query}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def work(times: int = 1) -> None:
    for _ in range(times):
        with opm.stage("scraped"):
            pass


def count_of(page: str, stage: str = "scraped") -> float:
    (line,) = [
        line
        for line in page.splitlines()
        if line.startswith("pipeline_stage_duration_seconds_count") and f'"{stage}"' in line
    ]
    return float(line.rpartition(" ")[2])


def test_a_scrape_sees_our_metrics_and_those_of_the_default_registry(port: int) -> None:
    gauge = Gauge("somebody_elses", "A metric of another library.")
    try:
        gauge.set(4)
        opm.configure(exporter="prometheus", service_name="shop")
        work(3)
        page = scrape(port)
    finally:
        REGISTRY.unregister(gauge)
    assert count_of(page) == 3
    assert "somebody_elses 4.0" in page
    ours = [line for line in page.splitlines() if line.startswith("pipeline_")]
    assert len(ours) > 10
    assert [line for line in ours if 'service_instance_id="' not in line] == []
    assert page.count("\ntarget_info{") == 1


def test_two_scrapes_count_on(port: int) -> None:
    opm.configure(exporter="prometheus")
    work(2)
    assert count_of(scrape(port)) == 2
    work(3)
    assert count_of(scrape(port)) == 5


def test_only_the_names_asked_for(port: int) -> None:
    opm.configure(exporter="prometheus")
    work()
    page = scrape(port, "?name[]=pipeline_stage_duration_seconds_sum")
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert [line.partition("{")[0] for line in lines] == ["pipeline_stage_duration_seconds_sum"]


def test_the_port_is_closed_at_the_end_and_free_for_the_next(port: int) -> None:
    for _ in range(2):
        opm.configure(exporter="prometheus")
        work()
        assert count_of(scrape(port)) == 1
        opm.shutdown()
        with pytest.raises(OSError, match="refused"):
            scrape(port)
    # nothing of ours is left where everybody registers
    assert [family.name for family in REGISTRY.collect() if family.name.startswith("pip")] == []


def test_a_busy_port_is_one_line_and_a_degraded_health(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        opm.configure(exporter="prometheus")
        work()
    (line,) = [each.getMessage() for each in caplog.records if "Prometheus" in each.getMessage()]
    assert f"port {port} cannot be opened (Address already in use)" in line
    found = health()
    assert found.status == "degraded"
    assert found.components["exporter"].reasons == ("the port for Prometheus cannot be opened",)
    # it is still there for the program's own server
    assert count_of(prometheus_text()) == 1


def test_no_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    opm.configure(exporter="prometheus")
    work()
    assert count_of(prometheus_text()) == 1
    assert health().components["exporter"].status == "ok"


@pytest.mark.parametrize("text", ["x", "-1", "65536", "9" * 5000, "1.5", "²", "\x1b[31m"])
def test_a_broken_port_is_one_line_and_the_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    from otel_pipeline_metrics._export import prometheus

    chosen: list[int] = []
    monkeypatch.setattr(
        prometheus, "start_http_server", lambda port, *_, **__: chosen.append(port) or [None]
    )
    page = prometheus.Page(None)
    page.listen({prometheus.PORT: text})
    assert chosen == [9464]
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("OTEL_EXPORTER_PROMETHEUS_PORT must be a port")
    assert "\x1b" not in line


def test_a_forked_child_does_not_listen(port: int) -> None:
    opm.configure(exporter="prometheus")
    work()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, str(health().components["exporter"].reasons).encode())
            # it goes on, and the parent closes its port meanwhile
            signal.pause()
        finally:
            os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as said:
            assert said.read1() == b"('Prometheus sees the process that forked this one',)"
            assert count_of(scrape(port)) == 1
            opm.shutdown()
            with pytest.raises(OSError, match="refused"):
                scrape(port)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_worker_says_once_that_a_scrape_sees_one(tmp_path: Any) -> None:
    program = tmp_path / "workers.py"
    program.write_text(
        "import logging, multiprocessing, os\n"
        "import otel_pipeline_metrics as opm\n"
        "def work():\n"
        "    logging.basicConfig(format='%(message)s')\n"
        "    opm.configure(exporter='prometheus', console=False)\n"
        "    opm.configure(exporter='prometheus', console=False)\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    worker.start(); worker.join()\n"
    )
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "OTEL_EXPORTER_PROMETHEUS_PORT": str(free)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr.count("a scrape of port") == 1, done.stderr
    assert "OTLP" in done.stderr


def test_spans_go_where_another_exporter_takes_them() -> None:
    alone = environment.plan({}, ["prometheus"])
    assert (alone.traces, alone.metrics) == ((), ("prometheus",))
    both = environment.plan({}, ["otlp", "prometheus"])
    assert (both.traces, both.metrics) == (("otlp",), ("otlp", "prometheus"))
    named = environment.plan({"OTEL_METRICS_EXPORTER": "prometheus"})
    assert (named.traces, named.metrics) == ((), ("prometheus",))


def test_without_the_package_the_argument_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "installed", lambda group, name: False)
    with pytest.raises(ValueError, match=r"exporter \"prometheus\" needs a package: pip install"):
        opm.configure(exporter="prometheus")


def test_a_page_needs_the_exporter() -> None:
    opm.configure(exporter="none")
    with pytest.raises(RuntimeError, match=r'configure\(exporter="prometheus"\)'):
        prometheus_text()


async def test_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        await metrics_asgi(scope, receive, send)
        return sent[0]["status"], b"".join(each["body"] for each in sent[1:])

    assert (await ask())[0] == 503
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    opm.configure(exporter="prometheus")
    work(2)
    status, body = await ask()
    assert status == 200
    assert count_of(body.decode()) == 2


def test_wsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> tuple[str, bytes]:
        statuses: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": ""}
        body = b"".join(metrics_wsgi(environ, lambda status, headers: statuses.append(status)))
        return statuses[0], body

    assert ask()[0] == "503 Service Unavailable"
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    opm.configure(exporter="prometheus")
    work(2)
    status, body = ask()
    assert status == "200 OK"
    assert count_of(body.decode()) == 2

"""Test whole drivers of Ray and Spark: what Prometheus has of them, and SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.integrations.engine_drivers import CALLS, TASKS
from tests.support.process import ROOT, poll
from tests.support.servers import missing_binaries, start_backends
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import points

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.faults.collector.servers import Collector

pytestmark = [pytest.mark.engines, pytest.mark.slow]


PROGRAM = [sys.executable, "-m", "tests.integrations.engine_drivers"]
ROUNDS = 5


def environment(endpoint: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    return inherited | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "RAY_AUTH_MODE": "disabled",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def calls(there: Collector) -> int:
    return sum(
        point.count
        for _, attributes, point in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == "parse"
    )


@pytest.mark.skipif(bool(missing_binaries()), reason="there is no Prometheus (make backends)")
def test_prometheus_has_every_call_once(tmp_path: Path) -> None:
    made = CALLS * TASKS * ROUNDS
    with start_backends() as backends:
        for engine in ("ray", "pyspark"):
            pytest.importorskip(engine)
            folder = tmp_path / engine
            folder.mkdir()
            more = {"OTEL_SERVICE_NAME": f"driver of {engine}"}
            subprocess.run(
                [*PROGRAM, engine, str(folder), str(ROUNDS)],
                cwd=ROOT, env=environment(backends.otlp_http_endpoint) | more,
                check=True, timeout=200, capture_output=True,
            )  # fmt: skip
            (stage,) = json.loads((folder / "report.json").read_text())["stages"]
            assert stage["count"] == made
            metric = "pipeline_stage_duration_seconds_count"
            query = f'sum(last_over_time({metric}{{service_name="driver of {engine}"}}[1h]))'
            found = poll(
                lambda query=query: backends.prometheus.query(query),
                accept=lambda found: found and float(found[0]["value"][1]) >= made,
                timeout=60,
                what="every call in Prometheus",
            )
            assert float(found[0]["value"][1]) == made


@pytest.mark.parametrize("engine", ["ray", "pyspark"])
def test_sigterm_to_the_driver(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    truth = tmp_path / "truth"

    def done() -> list[float]:
        return [float(line) for line in truth.read_text().split()] if truth.exists() else []

    with collector("none", "http/protobuf") as there, (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(
            [*PROGRAM, engine, str(tmp_path)],
            cwd=ROOT, env=environment(f"http://127.0.0.1:{there.port}"), stdout=said, stderr=said,
        )  # fmt: skip
        try:
            # for three seconds and more
            poll(
                lambda: len(done()) > 1 and done()[-1] - done()[0] > 3,
                timeout=120,
                what="tasks that are done",
            )
            at = time.time()
            driver.send_signal(signal.SIGTERM)
            driver.wait(60)
        finally:
            driver.kill()
        before = sum(when <= at - 2 for when in done())
        assert before > 0
        poll(lambda: calls(there) >= CALLS * before, timeout=20, what="what was done 2 s before")
        made = calls(there)
        # a task in progress has made calls that it did not note yet
        assert made <= CALLS * (len(done()) + 2)
        report = json.loads((tmp_path / "report.json").read_text())
    (stage,) = report["stages"]
    assert CALLS * before <= stage["count"] <= made
    if engine == "pyspark":
        assert stage["count"] == CALLS * report["run"]["parts"]

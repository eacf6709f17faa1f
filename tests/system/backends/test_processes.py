"""Test a program of several processes, through the real Collector, Prometheus and Jaeger."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.process import ROOT, poll
from tests.system.backends.test_pipeline import environment, series
from tests.system.processes.program import PARENT

if TYPE_CHECKING:
    from tests.support.servers import Backends

pytestmark = [
    pytest.mark.processes,
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),  # one worker starts the servers once
    pytest.mark.usefixtures("built_backends"),
]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("way", ["os.fork", "Pool fork", "ProcessPoolExecutor spawn"])
def test_sums_are_exact(backends: Backends, way: str, protocol: str) -> None:
    service = f"processes-{way}-{protocol}".replace(" ", "-")
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.processes.program", *way.split()],
        cwd=ROOT,
        env=environment(backends, service, protocol),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(json.loads(done.stdout)["ended"]) == {0}
    count = f'pipeline_stage_duration_seconds_count{{service_name="{service}"}}'
    by_instance = poll(
        lambda: series(backends, count, "instance"),
        accept=lambda found: sum(found.values()) >= PARENT + 2,
        timeout=20,
        what="every process's metrics",
    )
    assert sum(by_instance.values()) == PARENT + 2
    assert max(by_instance.values()) == PARENT
    traces = backends.jaeger.traces(
        service, wait_until=lambda found: sum(len(t["spans"]) for t in found) >= PARENT + 2
    )
    assert sum(len(trace["spans"]) for trace in traces) == PARENT + 2

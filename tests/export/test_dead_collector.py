"""Test in real processes that a dead collector costs the flush timeout at most."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.timing import own_time_at_end

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
SLACK_S = 0.5
FULL_QUEUE = 2_048
# a busy machine may end one process late; an exporter that blocks ends each of them late
ATTEMPTS = 3


@pytest.fixture
def refused() -> int:
    """Return a port without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("kind", "protocol", "timeout_s"),
    [
        ("refused", "grpc", 1),
        ("refused", "http/protobuf", 1),
        ("silent", "grpc", 1),
        ("silent", "http/protobuf", 1),
        ("silent", "grpc", 5),
        ("silent", "http/protobuf", 5),
    ],
)
def test_the_process_ends_in_time(
    request: pytest.FixtureRequest, kind: str, protocol: str, timeout_s: int
) -> None:
    port = request.getfixturevalue(kind)
    env = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-token=s3cret",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    for _ in range(ATTEMPTS):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.export.child", str(timeout_s), str(FULL_QUEUE)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ended = own_time_at_end(child, 40)
        stdout, stderr = child.communicate()
        assert child.returncode == 0, stderr
        took_s = ended - float(stdout.split()[1])
        if took_s <= timeout_s + SLACK_S:
            break

    assert took_s <= timeout_s + SLACK_S
    assert f"spans_exported=0, spans_failed={FULL_QUEUE}" in stdout
    assert "metric_points_exported=0, metric_points_failed=1" in stdout
    assert "collector='unreachable'" in stdout
    # at most one line at the first failure, and one at the end
    lines = stderr.splitlines()
    assert 1 <= len(lines) <= 2
    assert all(line.startswith("otel_pipeline_metrics WARNING ") for line in lines)
    assert "2,048 spans" in lines[-1]
    assert "1 metric batch could not be exported" in lines[-1]
    assert "s3cret" not in stderr

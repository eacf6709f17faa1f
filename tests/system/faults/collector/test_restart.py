"""Test that with a spool every span arrives when the real Collector is killed and restarted."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._export.replay import replay
from tests.support.servers import Collector, poll

from .running import Pipeline, check_ledger

if TYPE_CHECKING:
    from .servers import Protocol

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.backends,
    pytest.mark.usefixtures("built_backends"),
]

SPANS = 4_000
SECONDS = 6.0
DOWN_S = 1.5
NAME = re.compile(r"Name\s+: (work-\d{6})")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_every_span_arrives(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path(__file__).with_name("synchronous.yaml")
    with Collector(config) as server:
        endpoint = server.otlp_grpc_endpoint if protocol == "grpc" else server.otlp_http_endpoint
        pipeline = Pipeline(
            endpoint,
            protocol,
            spans=SPANS,
            seconds=SECONDS,
            timeout_s=5,
            env={"OTEL_PIPELINE_METRICS_SPOOL": str(tmp_path), "OTEL_BSP_SCHEDULE_DELAY": "200"},
        )
        poll(lambda: arrived(server), timeout=30, what="the first spans")
        server.kill()
        before = arrived(server)
        time.sleep(DOWN_S)
        server.start()
        ended = pipeline.wait()

        spans = ended.stats["spans"]
        assert (ended.result, ended.code) == (285, 0), ended.stderr
        check_ledger(ended.stats)
        assert 0 < before.total() < SPANS
        assert "telemetry cannot be exported" in ended.stderr
        assert spans["dropped"] == 0
        left = sum(p.items for p in Spool(tmp_path, 1, 1).batches("traces"))
        assert left == spans["spooled"]
        if left:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            replay(tmp_path)
        assert list(tmp_path.iterdir()) == []
        found = arrived(server)
        print(
            f"\n{protocol}: {before.total()} before the kill, {found.total()} in all, "
            f"{found.total() - len(found)} twice, {left} left to replay, "
            f"exit {ended.exit_s:.2f} s"
        )
        assert len(found) == SPANS
        assert ended.exit_s <= 5.5


def arrived(server: Collector) -> Counter[str]:
    """Return the names of the spans that the Collector printed: each has its own."""
    return Counter(NAME.findall(server.debug_output()))

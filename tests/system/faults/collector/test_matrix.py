"""Test each way in which a collector can fail, with real processes.

Only the telemetry may suffer. `docs/failures.md` has the same times and the same table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._export.delivery.spool import Spool

from .running import SLACK_S, Ended, Pipeline, check_ledger
from .servers import Collector, Fault, Protocol, collector

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# More than one batch.
SPANS = 600
# Spans of the pipeline's own stage.
OF_STAGE = 10
TIMEOUT_S = 1.5
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")
ATTEMPTS = 3


def run(
    fault: Fault,
    protocol: Protocol,
    spool: Path | None,
    *,
    spans: int = SPANS,
    timeout_s: float = TIMEOUT_S,
    outcome: str = "return",
) -> tuple[Ended, Collector]:
    """Run the pipeline; again if a busy machine made the exit late."""
    for attempt in range(ATTEMPTS):
        directory = None if spool is None else spool / str(attempt)
        env = {} if directory is None else {"OTEL_PIPELINE_METRICS_SPOOL": str(directory)}
        with collector(fault, protocol) as server:
            ended = Pipeline(
                f"http://127.0.0.1:{server.port}",
                protocol,
                spans=spans,
                outcome=outcome,
                timeout_s=timeout_s,
                env=env,
            ).wait()
        kept = 0 if directory is None else on_disk(directory, "traces")
        assert kept == ended.stats["spans"]["spooled"]
        if ended.exit_s <= timeout_s + SLACK_S:
            break
    print(f"\n{fault:8} {protocol:14} {'spool' if spool else '-':6} {ended.exit_s:.2f} s", end=" ")
    print({k: v for k, v in ended.stats["spans"].items() if v})
    assert ended.exit_s <= timeout_s + SLACK_S
    return ended, server


def on_disk(directory: Path, signal: str) -> int:
    """Return how many spans or points the spool has."""
    if not directory.is_dir():
        return 0
    return sum(p.items for p in Spool(directory, 1, 1).batches() if p.signal == signal)


def check(ended: Ended, server: Collector) -> dict[str, int]:
    """Check what holds for any fault; return the ledger of the spans."""
    assert (ended.result, ended.code) == (285, 0)
    check_ledger(ended.stats)
    spans: dict[str, int] = ended.stats["spans"]
    assert spans["created"] == SPANS + OF_STAGE
    assert len(ended.stderr.splitlines()) <= 4
    assert "Traceback" not in ended.stderr
    assert spans["exported"] <= server.spans.total()
    return spans


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestMatrix:
    def test_a_collector_without_a_fault(self, protocol: Protocol) -> None:
        ended, server = run("none", protocol, None)
        spans = check(ended, server)

        assert spans["exported"] == server.spans.total() == SPANS + OF_STAGE
        assert ended.stats["metric_points"]["exported"] == server.points > 0
        assert ended.stats["collector"] == "ok"
        assert ended.stderr == ""

    @pytest.mark.parametrize("fault", ["refused", "silent", "5xx"])
    def test_a_collector_that_takes_nothing(
        self, fault: Fault, protocol: Protocol, tmp_path: Path
    ) -> None:
        ended, server = run(fault, protocol, None)
        spans = check(ended, server)
        assert spans["dropped"] == SPANS + OF_STAGE
        assert ended.stats["collector"] == "unreachable"

        ended, server = run(fault, protocol, tmp_path)
        spans = check(ended, server)
        assert spans["spooled"] == SPANS + OF_STAGE
        assert ended.stats["metric_points"]["dropped"] == 0
        assert ended.stats["metric_points"]["spooled"] > 0

    def test_a_collector_that_refuses_for_good(self, protocol: Protocol, tmp_path: Path) -> None:
        """Keeping the batch would only repeat the refusal."""
        ended, server = run("4xx", protocol, tmp_path)
        spans = check(ended, server)

        assert spans["dropped"] == SPANS + OF_STAGE
        assert ended.stats["metric_points"]["spooled"] == 0
        assert "(HTTP 400)" in ended.stderr or "(INVALID_ARGUMENT)" in ended.stderr

    def test_a_collector_that_is_slow(self, protocol: Protocol, tmp_path: Path) -> None:
        """Two batches of 0.7 s each; a batch in progress at the deadline may still arrive."""
        ended, server = run("slow", protocol, None)
        spans = check(ended, server)
        assert spans["exported"] + spans["dropped"] == SPANS + OF_STAGE

        ended, server = run("slow", protocol, tmp_path)
        spans = check(ended, server)
        assert spans["dropped"] == 0
        assert spans["exported"] >= 1
        assert spans["exported"] + spans["spooled"] == SPANS + OF_STAGE

    def test_a_collector_that_takes_half(self, protocol: Protocol) -> None:
        ended, server = run("partial", protocol, None)
        spans = check(ended, server)

        assert spans["exported"] == server.spans.total()
        assert spans["dropped"] == server.rejected["traces"] > 0
        assert ended.stats["metric_points"]["exported"] == server.points
        assert ended.stats["metric_points"]["dropped"] == server.rejected["metrics"]
        assert "partial success" in ended.stderr

    def test_an_exception_of_the_pipeline(self, protocol: Protocol, tmp_path: Path) -> None:
        ended, _ = run("silent", protocol, tmp_path, outcome="raise")

        assert ended.code == 1
        assert ended.stderr.count("Traceback") == 1
        assert "ValueError: the pipeline's own" in ended.stderr
        check_ledger(ended.stats)
        assert ended.stats["spans"]["spooled"] == SPANS + OF_STAGE

    def test_a_full_queue_goes_to_the_spool(self, protocol: Protocol, tmp_path: Path) -> None:
        ended, _ = run("silent", protocol, tmp_path, spans=2_000, timeout_s=5)

        check_ledger(ended.stats)
        assert ended.stats["spans"]["spooled"] == 2_000 + OF_STAGE

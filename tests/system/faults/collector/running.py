"""Run the pipeline's process and read its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.timing import own_time_at_end

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[4]
SLACK_S = 0.5


class Ended(NamedTuple):
    """How a pipeline's process ended."""

    result: int
    stats: dict[str, Any]
    # From the end of the program's own work to the end of the process.
    exit_s: float
    code: int
    stderr: str


class Pipeline:
    """The running process."""

    def __init__(
        self,
        endpoint: str,
        protocol: str,
        *,
        spans: int,
        seconds: float = 0.0,
        outcome: str = "return",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        self._process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "tests.system.faults.collector.child"),
                *(str(spans), str(seconds), outcome),
            ],
            env={
                **clean,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT": str(timeout_s),
                **(env or {}),
            },
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, timeout_s: float = 60) -> Ended:
        """Wait for its end."""
        ended = own_time_at_end(self._process, timeout_s)
        stdout, stderr = self._process.communicate()
        lines = stdout.splitlines()
        assert len(lines) == 2, stderr
        own, stats = map(json.loads, lines)
        return Ended(own["result"], stats, ended - own["ending"], self._process.returncode, stderr)


def check_ledger(stats: dict[str, Any]) -> None:
    """Check that the ledger has everything that was created, once."""
    for name in ("spans", "metric_points"):
        ledger = dict(stats[name])
        created = ledger.pop("created")
        assert created == sum(ledger.values()), stats
        assert min(ledger.values()) >= 0, stats
        assert ledger["pending"] == 0, stats

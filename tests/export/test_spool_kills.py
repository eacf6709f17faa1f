"""Writers and senders of one spool are killed at random moments; an oracle outside counts.

Writers say which batches are kept, and the collector says what arrives: both are in this process.
A seed decides who is killed when. `SEEDS=5,6 pytest tests/export/test_spool_kills.py` tries others.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._export.replay import replay
from tests.support.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.conftest import Received

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1,2,3").split(",")]
KILLS = 25

WRITER = """
import itertools, sys
from pathlib import Path
from otel_pipeline_metrics._export.delivery.spool import Spool
from tests.export.test_spool_crashes import line
kept = Spool(Path(sys.argv[1]), 100_000_000, 3600.0)
for number in itertools.count():
    name = f"{sys.argv[2]}-{number}"
    print("asked", name, flush=True)
    if kept.put("traces", line(name), 1):
        print("kept", name, flush=True)
"""
SENDER = """
import sys
from otel_pipeline_metrics._export.replay import replay
print("begun", flush=True)
while True:
    replay(sys.argv[1])
"""


class Oracle:
    """Starts processes, kills them, and notes what they said before."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.asked: set[str] = set()
        self.kept: set[str] = set()
        self._directory = directory
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._begun = 0

    def run(self, program: str) -> None:
        """Let a program begin, work for a while, and be killed in the middle of anything."""
        self._begun += 1
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(self._directory), f"w{self._begun}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        wanted = self._random.randint(1, 40) if program is WRITER else 1
        lines = [process.stdout.readline() for _ in range(wanted)]
        time.sleep(self._random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        for line in lines:
            what, _, name = line.strip().partition(" ")
            if line.endswith("\n"):
                {"asked": self.asked, "kept": self.kept}.get(what, set()).add(name)

    def choose(self) -> str:
        return self._random.choice([WRITER, WRITER, SENDER])


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_kept_is_lost_or_torn(
    seed: int, http_collector: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    oracle = Oracle(tmp_path, seed)
    killed_senders = 0
    for _ in range(KILLS):
        program = oracle.choose()
        oracle.run(program)
        killed_senders += program is SENDER
    (done,) = replay(tmp_path)
    assert (done.batches_left, done.refused, done.reason) == (0, 0, None)

    arrived = http_collector.spans
    assert len(oracle.kept) > KILLS
    # each batch that was kept arrives, and none that nobody wrote
    assert oracle.kept <= set(arrived) <= oracle.asked
    # a killed sender may have sent one batch without having deleted it
    assert sum(count - 1 for count in arrived.values()) <= killed_senders
    # the spool takes writes again, and holds nothing but what a killed writer left half-written
    assert Spool(tmp_path, 100_000_000, 3600.0).put("traces", b"x", 1)
    (name,) = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".opm-")]
    assert name.endswith("-1.jsonl")

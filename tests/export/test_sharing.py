"""Several processes share one spool: each batch is sent once, except after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._export.replay import replay

if TYPE_CHECKING:
    from .conftest import Received

ROOT = Path(__file__).parents[2]
BATCHES = 60
LINE = (
    '{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"n%d","traceId":"'
    + "1" * 32
    + '","spanId":"'
    + "2" * 16
    + '"}]}]}]}\n'
)
REPLAY = (
    "import sys\n"
    "from otel_pipeline_metrics._export.replay import replay\n"
    "print(sum(each.sent for each in replay(sys.argv[1])))\n"
)


@pytest.fixture
def http(http_collector: Received, monkeypatch: pytest.MonkeyPatch) -> Received:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return http_collector


def fill(directory: Path, batches: int = BATCHES) -> Spool:
    kept = Spool(directory, 10_000_000, 1_000)
    for number in range(batches):
        assert kept.put("traces", (LINE % number).encode(), 1)
    return kept


def test_four_processes_send_each_batch_once(http: Received, tmp_path: Path) -> None:
    fill(tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REPLAY, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    sent = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert sum(sent) == BATCHES
    assert len(http.spans) == BATCHES
    assert set(http.spans.values()) == {1}
    assert list(tmp_path.iterdir()) == []


CRASH = """
import os, sys
from otel_pipeline_metrics._export import replay
from otel_pipeline_metrics._export.delivery import spool
spool.Spool.done = lambda *args, **kwargs: os._exit(9)
replay.replay(sys.argv[1])
"""


def test_a_crash_between_sending_and_deleting_sends_twice(http: Received, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path)], cwd=ROOT, check=False, timeout=60
    )
    assert (crashed.returncode, http.spans) == (9, {"n0": 1})

    (done,) = replay(tmp_path)

    assert done.sent == 1
    assert http.spans == {"n0": 2}
    assert list(tmp_path.iterdir()) == []


FORK = """
import json, os, sys
from pathlib import Path
from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export.providers import build
telemetry = build(Config(spool=Path(sys.argv[1])))
tracer = telemetry.tracer_provider.get_tracer("fork")
for _ in range(5):
    tracer.start_span("parent").end()
telemetry.flush(5)
pid = os.fork()
tracer.start_span("child" if pid == 0 else "parent").end()
telemetry.shutdown(5)
spans = telemetry.stats()["spans"]
if pid == 0:
    print(json.dumps(spans), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(spans))
"""


def test_a_forked_child_has_its_own_ledger(http: Received, tmp_path: Path) -> None:
    http.later = True
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)],
        cwd=ROOT,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    child, parent = map(json.loads, done.stdout.splitlines())

    assert (child["created"], child["spooled"]) == (1, 1)
    assert (parent["created"], parent["spooled"]) == (6, 6)
    batches = Spool(tmp_path, 1, 1).batches("traces")
    assert sum(batch.items for batch in batches) == 7
    assert len({batch.owner for batch in batches}) == 2

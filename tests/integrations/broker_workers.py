"""Start real workers of Celery and RQ."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.process import ROOT, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CELERY = [sys.executable, "-m", "celery", "-A"]
CELERY_OPTIONS = ["-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
_OPM_WORKER = "otel_pipeline_metrics.integrations.rq.OpmWorker"
# and the URL
RQ_WORKER = [sys.executable, "-m", "rq.cli", "worker", "--worker-class", _OPM_WORKER, "--url"]

POOLS = {
    "prefork": ["-P", "prefork", "-c", "2"],
    "prefork, children recycled": ["-P", "prefork", "-c", "2", "--max-tasks-per-child=20"],
    "threads": ["-P", "threads", "-c", "4"],
    "solo": ["-P", "solo"],
    "gevent": ["-P", "gevent", "-c", "8"],
}


def environment(broker: str, endpoint: str, **more: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    return inherited | {
        "BROKER": broker,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **more,
    }


@contextlib.contextmanager
def celery_worker(
    pool: list[str], env: dict[str, str], log: Path, app: str = "tests.integrations.celery_tasks"
) -> Iterator[subprocess.Popen[bytes]]:
    with running([*CELERY, app, "worker", *CELERY_OPTIONS, *pool], env, log, " ready.") as process:
        yield process


@contextlib.contextmanager
def rq_worker(env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running([*RQ_WORKER, env["BROKER"]], env, log, "Listening on") as process:
        yield process


@contextlib.contextmanager
def running(
    command: list[str], env: dict[str, str], log: Path, ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker from when it says that it is ready; end it by SIGTERM."""
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said)
    try:
        poll(lambda: ready in log.read_text(), timeout=60, what="the worker")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)

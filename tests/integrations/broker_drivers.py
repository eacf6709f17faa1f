"""Drivers of Celery and RQ, whose workers a test starts; tasks note in a file what they have done.

python -m tests.integrations.broker_drivers celery FOLDER
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from celery import Celery

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.celery import instrument_celery
from tests.integrations.engine_drivers import TASKS
from tests.integrations.engine_stages import slow
from tests.integrations.rq_jobs import slow_task

if TYPE_CHECKING:
    from collections.abc import Iterable

BROKER = os.environ.get("BROKER", "memory://")
app = instrument_celery(Celery("tests.integrations.broker_drivers", broker=BROKER, backend=BROKER))
app.conf.update(worker_hijack_root_logger=False)

work = app.task(slow_task, name="task")
first = app.task(slow, name="first")


def measured(folder: Path) -> opm.Run:
    report = str(folder / "report.json")
    return opm.run("driver", resources=False, parts_timeout=20, report=report)


def run_celery(folder: Path, rounds: Iterable[int]) -> None:
    # what it takes to connect is not the run's
    for sent in [first.delay(0) for _ in range(TASKS)]:
        sent.get(timeout=120)
    with measured(folder):
        for _ in rounds:
            for sent in [work.delay(str(folder / "truth")) for _ in range(TASKS)]:
                # that of a lost worker is an exception
                sent.get(timeout=120, propagate=False)


def run_rq(folder: Path, rounds: Iterable[int]) -> None:
    import redis

    from otel_pipeline_metrics.integrations.rq import OpmQueue

    with redis.Redis.from_url(BROKER) as client, measured(folder):
        queue = OpmQueue(connection=client)
        for _ in rounds:
            sent = [queue.enqueue(slow_task, str(folder / "truth")) for _ in range(TASKS)]
            while not all(job.get_status() in {"finished", "failed"} for job in sent):
                time.sleep(0.05)


if __name__ == "__main__":
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        opm.configure(console=False)
    folder = Path(sys.argv[2])
    # until there is a file that tells to stop
    given = itertools.takewhile(lambda _: not (folder / "stop").exists(), itertools.count())
    drive = {"celery": run_celery, "rq": run_rq}[sys.argv[1]]
    drive(folder, range(int(sys.argv[3])) if sys.argv[3:] else given)

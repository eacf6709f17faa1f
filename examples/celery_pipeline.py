"""Celery: what the workers do is in the report of the run that sends the tasks.

Needs `pip install "celery[redis]"` and a Redis. Start a worker, then this program, both with
BROKER, such as redis://127.0.0.1:6379/0:

    celery -A examples.celery_pipeline worker
    python -m examples.celery_pipeline
"""

from __future__ import annotations

import os

from celery import Celery

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.celery import instrument_celery

BROKER = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")
app = instrument_celery(Celery("examples.celery_pipeline", broker=BROKER, backend=BROKER))


@app.task
@opm.process("parse")
def parse(text: str) -> int:
    return int(text)


def main() -> None:
    with opm.run("parsing", resources=False) as run:
        results = [parse.delay(text) for text in "12345"]
        print(sum(result.get(timeout=60) for result in results))
    for stage in run.report.stages:
        print(stage["name"], stage["count"], run.parts_missing)


if __name__ == "__main__":
    main()

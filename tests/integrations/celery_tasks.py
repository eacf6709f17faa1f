"""An app of Celery whose tasks run stages, and a program that sends 1,000 of them."""

from __future__ import annotations

import json
import os
import sys
import time

from celery import Celery, signals

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.celery import instrument_celery

BROKER = os.environ.get("BROKER", "memory://")
app = instrument_celery(Celery("tests.integrations.celery_tasks", broker=BROKER, backend=BROKER))
app.conf.update(task_ignore_result=False, worker_hijack_root_logger=False)


@app.task(bind=True, max_retries=3)
@opm.process("parse")
def parse(self, number: int) -> int:
    opm.current_stage().add_items(2)
    if number % 10 == 3 and not self.request.retries:
        raise self.retry(countdown=0, exc=KeyError("again"))
    if number % 10 == 5:
        raise ValueError("bad", number)
    with opm.stage("slow"):
        time.sleep(0.002)
    return number


@app.task(bind=True, max_retries=3)
@opm.process("overtaken")
def overtaken(self) -> None:
    if not self.request.retries:
        raise self.retry(countdown=0, exc=KeyError("again"))


@signals.task_retry.connect(sender=overtaken)
def _linger(**_: object) -> None:
    # the next attempt, which is published by now, begins and ends while this one is still open
    time.sleep(0.3)


@app.task
def parent(number: int) -> None:
    nested.delay(number)


@app.task
@opm.process("nested")
def nested(number: int) -> None:
    pass


@app.task
def end() -> None:
    os.kill(os.getpid(), 9)


def main(count: int) -> None:
    with opm.run("driver", resources=False, parts_timeout=20) as run:
        sent = [parse.delay(number) for number in range(count)]
        results = [result.get(timeout=60, propagate=False) for result in sent]
    errors = [str(result) for result in results if isinstance(result, Exception)]
    print(json.dumps({"report": run.report.to_dict(), "errors": len(errors)}))


if __name__ == "__main__":
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        opm.configure(console=False)
    main(int(sys.argv[1]))

"""Prefect: what the tasks do, in threads or in processes, is in the report of the flow's run.

Needs `pip install prefect`. It starts a server on the loopback by itself, and so does each process:

    python -m examples.orchestrators.prefect_flow [processes]
"""

from __future__ import annotations

import sys
from typing import Any

from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

import otel_pipeline_metrics as opm
from examples.orchestrators.steps import STARTS, load, show


@task
def loaded(start: int, context: dict[str, Any]) -> dict[str, Any]:
    # a process of its own needs it; in the flow's own process it changes nothing
    opm.configure(console=False)
    with opm.part(context) as part:
        load(start)
    opm.flush(2.0)
    return part.data


@flow
def loading() -> None:
    opm.configure(console=False)
    with opm.run("loading", resources=False) as run:
        sent = [loaded.submit(start, run.context()) for start in STARTS]
        for future in sent:
            run.add_part(future.result())
    show(run.report)


if __name__ == "__main__":
    runner = ProcessPoolTaskRunner if "processes" in sys.argv else ThreadPoolTaskRunner
    loading.with_options(task_runner=runner(max_workers=2))()

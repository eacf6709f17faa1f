"""Dagster: two ops report, each in a process of its own, and a third one merges what they report.

Needs `pip install dagster`:

    python -m examples.orchestrators.dagster_job [in-process]
"""

from __future__ import annotations

import sys
from typing import Any

import dagster

import otel_pipeline_metrics as opm
from examples.orchestrators.steps import STARTS, reported, show


@dagster.op(out=dagster.DynamicOut(int))
def starts() -> Any:
    for start in STARTS:
        yield dagster.DynamicOutput(start, str(start))


@dagster.op
def load(start: int) -> dict[str, Any]:
    return reported(start)


@dagster.op
def merge(reports: list[dict[str, Any]]) -> None:
    show(opm.RunReport.merge(*map(opm.RunReport, reports)))


@dagster.job(executor_def=dagster.multiprocess_executor)
def loading() -> None:
    merge(starts().map(load).collect())


if __name__ == "__main__":
    quiet: Any = {"telemetry": {"enabled": False}}
    with dagster.DagsterInstance.local_temp(overrides=quiet) as instance:
        if "in-process" in sys.argv:
            loading.execute_in_process(instance=instance)
        else:
            # the processes of the ops import the job again
            job = dagster.reconstructable(loading)
            dagster.execute_job(job, instance=instance, raise_on_error=True)

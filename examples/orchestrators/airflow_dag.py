"""Airflow: two mapped tasks report, and a third one merges what they report.

Needs `pip install apache-airflow` and, once, `airflow db migrate` and `airflow dags reserialize`,
with AIRFLOW__CORE__DAGS_FOLDER=examples/orchestrators. It runs without a scheduler:

    python -m examples.orchestrators.airflow_dag
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

import otel_pipeline_metrics as opm
from examples.orchestrators.steps import STARTS, reported, show


@task(show_return_value_in_logs=False)
def load(start: int) -> dict[str, Any]:
    return reported(start)


@task
def merge(reports: Any) -> None:
    show(opm.RunReport.merge(*map(opm.RunReport, reports)))


@dag(schedule=None)
def loading() -> None:
    merge(load.expand(start=list(STARTS)))


loading_dag = loading()

if __name__ == "__main__":
    loading_dag.test()

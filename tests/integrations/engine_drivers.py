"""Drivers of Ray and Spark that go on until SIGTERM; tasks note in a file what they have done.

python -m tests.integrations.engine_drivers ray FOLDER
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Calls that a task makes before it notes that it is done, and tasks of a round.
CALLS = 10
TASKS = 20


@opm.process("parse")
def parse() -> None:
    time.sleep(0.002)


def task(truth: str) -> None:
    for _ in range(CALLS):
        parse()
    with open(truth, "a") as out:  # noqa: PTH123 - appends in one call, from several processes
        out.write(f"{time.time()}\n")


def run_ray(folder: Path, rounds: Iterable[int]) -> None:
    import ray

    from otel_pipeline_metrics.integrations.ray import setup_ray_worker

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80_000_000,
        runtime_env={"worker_process_setup_hook": setup_ray_worker},
    )
    remote = ray.remote(task)
    with opm.run("driver", resources=False, report=str(folder / "report.json")):
        for _ in rounds:
            ray.get([remote.remote(str(folder / "truth")) for _ in range(TASKS)])


def run_pyspark(folder: Path, rounds: Iterable[int]) -> None:
    from pyspark.sql import SparkSession

    from otel_pipeline_metrics.integrations.pyspark import instrument_partitions

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    truth = str(folder / "truth")

    def work(numbers: Iterable[int]) -> Iterator[int]:
        yield from numbers
        task(truth)

    numbers = spark.sparkContext.parallelize(range(TASKS), TASKS)
    with opm.run("driver", resources=False, report=str(folder / "report.json")):
        for _ in rounds:
            numbers.mapPartitions(instrument_partitions(work)).count()


if __name__ == "__main__":
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        opm.configure(console=False)
    rounds = range(int(sys.argv[3])) if sys.argv[3:] else itertools.count()
    {"ray": run_ray, "pyspark": run_pyspark}[sys.argv[1]](Path(sys.argv[2]), rounds)

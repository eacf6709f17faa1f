"""Drivers of all engines that go on until SIGTERM; tasks note in a file what they have done.

python -m tests.integrations.engine_drivers ray FOLDER
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import itertools
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otel_pipeline_metrics as opm
from tests.integrations.engine_stages import parse_or_not

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Calls of `parse` that a task makes before it notes that it is done, and tasks of a round.
CALLS = 10
TASKS = 20


def task(truth: str, _: int = 0) -> None:
    """Call `parse` ten times, and `store`, which takes most of the time."""
    for number in range(CALLS):
        parse_or_not(number)
    with opm.write("store"):
        time.sleep(0.05)
    with open(truth, "a") as out:  # noqa: PTH123 - appends in one call, from several processes
        out.write(f"{time.time()} {os.getpid()}\n")


def by_hand(truth: str, context: dict[str, Any]) -> dict[str, Any]:
    """Do the same as a part of a run, and return its data."""
    with opm.part(context) as part:
        task(truth)
    return part.data


def begun(_: int) -> None:
    """Take long enough for each worker to get one: their start is not the run's."""
    time.sleep(0.2)


def measured(folder: Path) -> opm.Run:
    return opm.run("driver", resources=False, report=str(folder / "report.json"))


def run_executor(method: str, folder: Path, rounds: Iterable[int]) -> None:
    work = functools.partial(task, str(folder / "truth"))
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(begun, range(2)))
        opm.wrap_executor(pool)
        with measured(folder):
            for _ in rounds:
                list(pool.map(work, range(TASKS)))


def run_pool(package: str, method: str, folder: Path, rounds: Iterable[int]) -> None:
    work = functools.partial(by_hand, str(folder / "truth"))
    context = importlib.import_module(package).get_context(method)
    with context.Pool(2, *(() if method == "fork" else (opm.configure,))) as pool:
        pool.map(begun, range(2), 1)
        with measured(folder) as run:
            for _ in rounds:
                for data in pool.imap_unordered(work, [run.context() for _ in range(TASKS)]):
                    run.add_part(data)
        pool.close()
        pool.join()


def run_joblib(backend: str, folder: Path, rounds: Iterable[int]) -> None:
    import joblib

    from otel_pipeline_metrics.integrations.joblib import instrument_parallel

    delayed = joblib.delayed(task)
    with instrument_parallel(n_jobs=2, backend=backend) as parallel:
        parallel(joblib.delayed(begun)(n) for n in range(2))
        with measured(folder):
            for _ in rounds:
                parallel(delayed(str(folder / "truth")) for _ in range(TASKS))


def run_dask(folder: Path, rounds: Iterable[int]) -> None:
    import dask.distributed

    from otel_pipeline_metrics.integrations.dask import instrument_dask

    work = functools.partial(task, str(folder / "truth"))
    with (
        dask.distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        dask.distributed.Client(cluster) as client,
    ):
        instrument_dask(client)
        with measured(folder):
            for _ in rounds:
                client.gather(client.map(work, range(TASKS), pure=False))


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
    remote, first = ray.remote(task), ray.remote(begun)
    ray.get([first.remote(number) for number in range(2)])
    with measured(folder):
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
    spark.sparkContext.parallelize(range(2), 2).foreach(begun)
    with measured(folder):
        for _ in rounds:
            numbers.mapPartitions(instrument_partitions(work)).count()


DRIVERS = {
    "dask": run_dask,
    "joblib": functools.partial(run_joblib, "loky"),
    "joblib multiprocessing": functools.partial(run_joblib, "multiprocessing"),
    **{
        f"executor {method}": functools.partial(run_executor, method)
        for method in ("fork", "forkserver", "spawn")
    },
    **{
        f"{package} {method}": functools.partial(run_pool, package, method)
        for package in ("multiprocessing", "multiprocess")
        for method in ("fork", "forkserver", "spawn")
    },
    "ray": run_ray,
    "pyspark": run_pyspark,
}

if __name__ == "__main__":
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        opm.configure(console=False)
    given = range(int(sys.argv[3])) if sys.argv[3:] else itertools.count()
    DRIVERS[sys.argv[1]](Path(sys.argv[2]), given)

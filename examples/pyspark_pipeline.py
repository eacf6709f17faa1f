"""PySpark: what the executors do is in the report of the driver's run.

Needs `pip install pyspark` and Java 17. It starts Spark on the loopback by itself; with
PYSPARK_PYTHON, the executors use the same Python:

    PYSPARK_PYTHON=$(which python) python -m examples.pyspark_pipeline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.pyspark import instrument_partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@opm.process
def parse(text: str) -> int:
    return int(text)


def parse_all(texts: Iterable[str]) -> Iterator[int]:
    return map(parse, texts)


def main() -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    texts = spark.sparkContext.parallelize("12345", 2)
    with opm.run("parsing", resources=False) as run:
        print(texts.mapPartitions(instrument_partitions(parse_all)).sum())
    for stage in run.report.stages:
        print(stage["name"], stage["count"], run.parts_missing)
    spark.stop()


if __name__ == "__main__":
    main()

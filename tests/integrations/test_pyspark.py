"""Test Spark's real executors: in the report, at the collector, in the trace."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.integrations.engine_stages import parse
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT, poll
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import points

pytest.importorskip("pyspark")

from pyspark.sql import SparkSession

from otel_pipeline_metrics.integrations.pyspark import instrument_partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.lifecycle.configure.support import Captured
    from tests.system.faults.collector.servers import Collector

pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.xdist_group("pyspark"),
    # of Spark's own
    pytest.mark.filterwarnings("ignore"),
]

CALLS = 1000


def parse_all(numbers: Iterable[int]) -> Iterator[int]:
    for number in numbers:
        with contextlib.suppress(ValueError):
            yield parse(number)


def slow(numbers: Iterable[int]) -> Iterator[int]:
    for number in numbers:
        with opm.stage("slow"):
            time.sleep(0.2)
        yield number


@pytest.fixture(scope="module")
def module_environment() -> Iterator[tuple[Collector, pytest.MonkeyPatch]]:
    with collector("none", "http/protobuf") as there, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{there.port}")
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield there, patch


@pytest.fixture(scope="module")
def spark(module_environment: Any) -> Iterator[SparkSession]:
    session = (
        # a task that fails once is tried again
        SparkSession.builder.master("local[2,2]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture
def there(module_environment: Any) -> Collector:
    found: Collector = module_environment[0]
    found.requests.clear()
    return found


def rows(run: opm.Run) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in run.report.stages}


def spans(there: Collector, name: str) -> list[Any]:
    return [
        span
        for request in there.requests
        for resource in getattr(request, "resource_spans", ())
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == name
    ]


def calls(there: Collector, stage: str) -> int:
    return sum(
        point.count
        for _, attributes, point in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == stage
    )


def test_a_thousand_calls_in_two_executors(
    spark: SparkSession, there: Collector, captured: Captured
) -> None:
    captured.configure()
    numbers = spark.sparkContext.parallelize(range(CALLS), 10)
    parsed = numbers.mapPartitions(instrument_partitions(parse_all))
    with opm.run("spark", resources=False) as run:
        assert parsed.count() == CALLS - CALLS // 10
    stage = rows(run)["parse"]
    assert (stage["count"], stage["errors"]["by_type"]) == (CALLS, {"ValueError": CALLS // 10})
    assert (stage["items"]["out"], stage["retries"]) == (2 * CALLS, CALLS // 10)
    assert (stage["workers"], run.parts_missing, run.report.run["parts"]) == (2, 0, 10)
    assert calls(there, "parse") == CALLS
    assert {span.trace_id.hex() for span in spans(there, "parse")} == {run.report.run["trace_id"]}
    # the same function in another run, which has it pickled already
    with opm.run("second", resources=False) as second:
        assert parsed.count() == CALLS - CALLS // 10
    assert rows(second)["parse"]["count"] == CALLS
    few = spark.sparkContext.parallelize(range(24), 2)
    with opm.run("third", resources=False) as third:
        few.mapPartitions(instrument_partitions(slow)).count()
    assert third.report.bottleneck["stage"] == "slow"
    assert rows(run)["parse"]["count"] == CALLS


def test_functions_inside_of_each_other_and_one_that_is_left_early(
    spark: SparkSession, there: Collector
) -> None:
    numbers = spark.sparkContext.parallelize(range(100), 2)
    once = numbers.mapPartitions(instrument_partitions(parse_all))
    with opm.run("spark", resources=False) as run:
        assert once.mapPartitions(instrument_partitions(parse_all)).collect()[-1] == 99
    assert rows(run)["parse"]["count"] == 100 + 90
    assert run.report.run["parts"] == 2
    with opm.run("spark", resources=False) as left:
        assert once.take(3) == [0, 1, 2]
    assert rows(left)["parse"]["count"] == 3


def test_other_forms(spark: SparkSession, there: Collector) -> None:
    numbers = spark.sparkContext.parallelize(range(0, 100, 10), 2)

    def nothing(found: Iterable[int]) -> None:
        for number in found:
            parse(number)

    def with_index(_: int, found: Iterable[int]) -> list[int]:
        return [parse(number) for number in found]

    def frames(found: Any) -> Any:
        for frame in found:
            frame["id"].map(parse)
            yield frame

    with opm.run("spark", resources=False) as run:
        numbers.foreachPartition(instrument_partitions(nothing))
        numbers.mapPartitionsWithIndex(instrument_partitions(with_index)).count()
        spark.range(0, 100, 10).mapInPandas(instrument_partitions(frames), "id long").count()
    assert rows(run)["parse"]["count"] == 30


def test_an_attempt_that_fails_is_at_the_collector_alone(
    spark: SparkSession, there: Collector, tmp_path: Path
) -> None:
    flag = tmp_path / "tried"

    def fails_once(numbers: Iterable[int]) -> Iterator[int]:
        yield from parse_all(numbers)
        if not flag.exists():
            flag.touch()
            raise RuntimeError("the first attempt")

    with opm.run("spark", resources=False) as run:
        numbers = spark.sparkContext.parallelize(range(10), 1)
        assert numbers.mapPartitions(instrument_partitions(fails_once)).count() == 9
    assert rows(run)["parse"]["count"] == 10
    assert len(spans(there, "parse")) == 20


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_is_ended_is_tried_again(
    signum: int, spark: SparkSession, there: Collector, tmp_path: Path
) -> None:
    flag = tmp_path / "tried"

    def ends_once(numbers: Iterable[int]) -> Iterator[int]:
        for number in itertools.islice(numbers, 5):
            yield parse(0 * number)
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signum)

    with opm.run("spark", resources=False) as run:
        numbers = spark.sparkContext.parallelize(range(10), 1)
        assert numbers.mapPartitions(instrument_partitions(ends_once)).count() == 5
    assert rows(run)["parse"]["count"] == 5
    # what the first attempt did is flushed at SIGTERM, while the next one may be over already
    sent = 10 if signum == signal.SIGTERM else 5
    found = poll(
        lambda: len(spans(there, "parse")),
        accept=lambda count: count >= sent,
        timeout=10,
        what="the spans of both attempts",
    )
    assert found == sent


def test_it_listens_on_the_loopback_alone(spark: SparkSession) -> None:
    addresses = addresses_of(family(os.getpid()))
    assert addresses
    assert all(map(is_loopback, addresses)), addresses


def test_outside_of_spark_it_is_the_function_itself() -> None:
    with opm.run("spark", resources=False) as run:
        assert list(instrument_partitions(parse_all)(range(10))) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert rows(run)["parse"]["count"] == 10
    with pytest.raises(TypeError, match="function"):
        instrument_partitions(1)  # type: ignore[arg-type]


def test_the_example(module_environment: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.pyspark_pipeline"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("15\nparse 5 0\n", 0), done.stderr

"""Test Dask's real workers: in the report, at the collector, in the trace."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.integrations.engine_stages import parse_or_not, slow
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import poll
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import points

distributed = pytest.importorskip("distributed")

from otel_pipeline_metrics.integrations.dask import instrument_dask  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured
    from tests.system.faults.collector.servers import Collector

pytestmark = pytest.mark.slow

CALLS = 1000


def end() -> None:
    os._exit(3)


@pytest.fixture
def there() -> Iterator[Collector]:
    with collector("none", "http/protobuf") as found:
        yield found


@pytest.fixture
def client(there: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{there.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield instrument_dask(made)


def rows(run: opm.Run) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in run.report.stages}


def calls(there: Collector, stage: str) -> int:
    return sum(
        point.count
        for _, attributes, point in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == stage
    )


def test_a_thousand_calls_in_two_workers(client: Any, there: Collector, captured: Captured) -> None:
    captured.configure()
    with opm.run("dask", resources=False) as run:
        found = client.gather(client.map(parse_or_not, range(CALLS), pure=False))
    assert found == [None if n % 10 == 5 else n for n in range(CALLS)]
    stage = rows(run)["parse"]
    assert (stage["count"], stage["errors"]["by_type"]) == (CALLS, {"ValueError": CALLS // 10})
    assert (stage["items"]["out"], stage["retries"]) == (2 * CALLS, CALLS // 10)
    assert (stage["workers"], run.parts_missing, run.report.run["parts"]) == (2, 0, 2)
    with opm.run("second", resources=False) as second:
        client.submit(parse_or_not, 1, pure=False).result()
        client.gather(client.map(slow, range(12), pure=False))
    assert rows(second)["parse"]["count"] == 1
    assert second.report.bottleneck["stage"] == "slow"
    client.cluster.close()
    assert calls(there, "parse") == CALLS + 1
    traces = {
        span.trace_id.hex()
        for request in there.requests
        for resource in getattr(request, "resource_spans", ())
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert traces == {run.report.run["trace_id"], second.report.run["trace_id"]}


def test_a_restart_and_a_task_that_goes_on(client: Any) -> None:
    with opm.run("dask", resources=False) as run:
        client.restart()
        going_on = client.map(slow, range(12), pure=False)
        poll(lambda: rows(run).get("slow"), timeout=30, what="a part while tasks go on")
        client.gather(going_on)
    assert rows(run)["slow"]["count"] == 12


def test_a_worker_that_dies_leaves_a_part_missing(client: Any) -> None:
    with opm.run("dask", resources=False) as run:
        client.gather(client.map(parse_or_not, range(10), pure=False))
        poll(lambda: rows(run).get("parse"), timeout=30, what="the first parts")
        time.sleep(2.5)
        with pytest.raises(distributed.KilledWorker):
            client.submit(end, pure=False, retries=0).result()
    assert rows(run)["parse"]["count"] == 10
    assert run.parts_missing >= 1


def test_a_cluster_in_this_process() -> None:
    with distributed.Client(processes=False, dashboard_address="127.0.0.1:0") as client:
        instrument_dask(client)
        instrument_dask(client)
        with opm.run("dask", resources=False) as run:
            client.gather(client.map(parse_or_not, range(10), pure=False))
    assert rows(run)["parse"]["count"] == 10


def test_it_listens_on_the_loopback_alone(client: Any) -> None:
    client.gather(client.map(parse_or_not, range(10), pure=False))
    addresses = addresses_of(family(os.getpid()))
    # the scheduler, its dashboard, the workers and their nannies
    assert addresses
    assert all(map(is_loopback, addresses)), addresses


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="client"):
        instrument_dask("tcp://127.0.0.1")

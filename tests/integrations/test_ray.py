"""Test Ray's real workers: in the report, at the collector, in the trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.integrations.engine_stages import parse_or_not, slow
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT, poll
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import points

ray = pytest.importorskip("ray")

from otel_pipeline_metrics.integrations.ray import setup_ray_worker  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured
    from tests.system.faults.collector.servers import Collector

pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    # of Ray's own
    pytest.mark.filterwarnings("ignore"),
]

CALLS = 1000


@opm.process(items=lambda batch: len(batch["id"]))
def copied(batch: dict[str, Any]) -> dict[str, Any]:
    return dict(batch)


class Counter:
    def add(self, number: int) -> int | None:
        return parse_or_not(number)


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pid() -> int:
    return os.getpid()


def begin(**more: Any) -> None:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80_000_000,
        runtime_env={"worker_process_setup_hook": setup_ray_worker, **more},
    )


@pytest.fixture
def there() -> Iterator[Collector]:
    with collector("none", "http/protobuf") as found:
        yield found


@pytest.fixture
def environment(there: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{there.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    ray.shutdown()


def rows(run: opm.Run) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in run.report.stages}


def calls(there: Collector, stage: str) -> int:
    return sum(
        point.count
        for _, attributes, point in points(there, "pipeline.stage.duration")
        if attributes["pipeline.stage.name"] == stage
    )


def traces(there: Collector) -> set[str]:
    return {
        span.trace_id.hex()
        for request in there.requests
        for resource in getattr(request, "resource_spans", ())
        for scope in resource.scope_spans
        for span in scope.spans
    }


def check_thousand(run: opm.Run) -> None:
    stage = rows(run)["parse"]
    assert (stage["count"], stage["errors"]["by_type"]) == (CALLS, {"ValueError": CALLS // 10})
    assert (stage["items"]["out"], stage["retries"]) == (2 * CALLS, CALLS // 10)
    assert stage["workers"] >= 2
    assert run.parts_missing == 0


def test_a_thousand_calls_in_two_workers(
    environment: None, there: Collector, captured: Captured
) -> None:
    captured.configure()
    begin()
    remote = ray.remote(parse_or_not)
    with opm.run("ray", resources=False) as run:
        ray.get([remote.remote(number) for number in range(CALLS)])
    check_thousand(run)
    # another run in the same workers, and one that has nothing to do with Ray
    with opm.run("second", resources=False) as second:
        ray.get([remote.remote(1), *(ray.remote(slow).remote(n) for n in range(12))])
    assert rows(second)["parse"]["count"] == 1
    assert second.report.bottleneck["stage"] == "slow"
    with opm.run("third", resources=False) as third, opm.stage("alone"):
        pass
    assert set(rows(third)) == {"alone"}
    ray.shutdown()
    assert calls(there, "parse") == CALLS + 1
    assert traces(there) == {run.report.run["trace_id"], second.report.run["trace_id"]}


def test_actors_and_data_of_a_cluster_that_begins_in_the_run(
    environment: None, there: Collector
) -> None:
    import ray.data

    with opm.run("ray", resources=False) as run:
        begin()
        actors = [ray.remote(Counter).options(num_cpus=0).remote() for _ in range(2)]
        ray.get([actors[n % 2].add.remote(n) for n in range(CALLS)])
        numbers = ray.data.range(100, override_num_blocks=4)
        batches = numbers.map_batches(copied, batch_size=10)
        assert sum(len(batch["id"]) for batch in batches.iter_batches(batch_size=None)) == 100
    check_thousand(run)
    assert rows(run)["copied"]["items"]["out"] == 100
    ray.shutdown()
    assert calls(there, "parse") == CALLS


def test_a_worker_that_is_killed_loses_at_most_its_last_second(
    environment: None, there: Collector
) -> None:
    begin()
    with opm.run("ray", resources=False) as run:
        ray.get([ray.remote(parse_or_not).remote(number) for number in range(20)])
        poll(lambda: rows(run).get("parse", {}).get("count") == 20, timeout=60, what="its parts")
        poll(lambda: calls(there, "parse") == 20, timeout=60, what="its telemetry")
        with pytest.raises(ray.exceptions.RayError):
            ray.get([ray.remote(end).options(max_retries=0).remote() for _ in range(2)])
    assert rows(run)["parse"]["count"] == 20
    assert run.parts_missing >= 1


def test_sigterm_to_a_worker(environment: None, there: Collector) -> None:
    begin()
    with opm.run("ray", resources=False) as run:
        ray.get([ray.remote(parse_or_not).remote(number) for number in range(20)])
        workers = set(ray.get([ray.remote(pid).remote() for _ in range(20)]))
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        poll(lambda: calls(there, "parse") == 20, timeout=60, what="its telemetry")
        ray.get([ray.remote(parse_or_not).remote(number) for number in range(20)])
    # what it did since its latest part is at the collector alone
    assert 20 <= rows(run)["parse"]["count"] <= 40
    assert run.parts_missing >= 1
    ray.shutdown()
    assert calls(there, "parse") == 40


def test_it_listens_on_the_loopback_alone(environment: None) -> None:
    begin()
    ray.get([ray.remote(pid).remote() for _ in range(4)])
    addresses = addresses_of(family(os.getpid()))
    assert addresses
    assert all(map(is_loopback, addresses)), addresses


def test_work_outside_of_runs_is_at_the_collector(environment: None, there: Collector) -> None:
    begin()
    ray.get([ray.remote(parse_or_not).remote(number) for number in range(20)])
    poll(lambda: calls(there, "parse") == 20, timeout=60, what="its telemetry")


def test_by_its_name_the_hook_reports_to_the_collector_alone(
    environment: None, there: Collector
) -> None:
    begin(worker_process_setup_hook="otel_pipeline_metrics.integrations.ray.setup_ray_worker")
    with opm.run("ray", resources=False) as run:
        ray.get([ray.remote(parse_or_not).remote(number) for number in range(20)])
        poll(lambda: calls(there, "parse") == 20, timeout=60, what="its telemetry")
    assert rows(run) == {}


def test_the_example(environment: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.ray_pipeline"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("15\nparse 5 0\n", 0), done.stderr

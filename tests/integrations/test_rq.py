"""Test RQ's real workers, which fork a process for each job, on a real Redis."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.integrations.broker_workers import RQ_WORKER, environment
from tests.support.process import ROOT
from tests.support.redis import needs_redis, redis_server
from tests.system.faults.collector.servers import collector

rq = pytest.importorskip("rq")
redis = pytest.importorskip("redis")

from otel_pipeline_metrics.integrations.rq import OpmQueue  # noqa: E402
from tests.integrations import rq_jobs as jobs  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.faults.collector.servers import Collector

pytestmark = [pytest.mark.slow, needs_redis]

JOBS = 100


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as found:
        yield found


def work(port: int, there: Collector, workers: int = 2) -> str:
    """Run workers until the queue is empty; return what they say."""
    broker = f"redis://127.0.0.1:{port}"
    env = environment(broker, f"http://127.0.0.1:{there.port}")
    started = [
        subprocess.Popen(
            [*RQ_WORKER, broker, "--burst"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(workers)
    ]
    lines = []
    for each in started:
        _, said = each.communicate(timeout=120)
        assert each.returncode == 0, said
        lines.append(said)
    return "".join(lines)


def rows(run: opm.Run) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in run.report.stages}


def test_a_thousand_calls_in_two_workers(port: int) -> None:
    with collector("none", "http/protobuf") as there, redis.Redis(port=port) as client:
        queue = OpmQueue(connection=client)
        with opm.run("rq", resources=False, parts_timeout=20) as run:
            for number in range(JOBS):
                queue.enqueue(jobs.job, 10 * number)
            work(port, there)
        found = rows(run)
        assert found["parse"]["count"] == 10 * JOBS
        assert found["parse"]["errors"]["by_type"] == {"ValueError": JOBS}
        assert found["parse"]["items"]["out"] == 20 * JOBS
        assert found["slow"]["count"] == JOBS
        assert (run.parts_missing, run.report.run["parts"]) == (0, JOBS)
        assert (there.calls("parse"), there.calls("slow")) == (10 * JOBS, JOBS)


def test_failing_and_killed_jobs(port: int) -> None:
    with collector("none", "http/protobuf") as there, redis.Redis(port=port) as client:
        queue = OpmQueue(connection=client)
        with opm.run("rq", resources=False, parts_timeout=2) as run:
            failed = queue.enqueue(jobs.failing)
            queue.enqueue(jobs.end)
            gone = queue.enqueue(jobs.job, 0, result_ttl=0)
            work(port, there, 1)
        assert failed.get_status() == "failed"
        assert not client.exists(gone.key)
    found = rows(run)
    assert found["parse"]["errors"]["by_type"] == {"ValueError": 1}
    # the one that was killed, and the one whose result is not kept
    assert run.parts_missing == 2


def test_every_attempt_counts(port: int) -> None:
    with collector("none", "http/protobuf") as there, redis.Redis(port=port) as client:
        queue = OpmQueue(connection=client)
        with opm.run("rq", resources=False, parts_timeout=20) as run:
            for number in range(10, 15):
                queue.enqueue(jobs.unsteady, number, retry=rq.Retry(max=2))
                queue.enqueue(jobs.again, number)
            work(port, there)
        # three attempts and two, of which one fails each time
        assert rows(run)["parse"]["count"] == there.calls("parse") == 5 * (3 + 2)
        assert (run.parts_missing, run.report.run["parts"]) == (0, 5 * (3 + 2))


def test_an_attempt_that_is_killed_is_missing(port: int) -> None:
    with collector("none", "http/protobuf") as there, redis.Redis(port=port) as client:
        queue = OpmQueue(connection=client)
        with opm.run("rq", resources=False, parts_timeout=2) as run:
            job = queue.enqueue(jobs.killed_once, retry=rq.Retry(max=1))
            work(port, there, 1)
        assert job.get_status() == "finished"
    assert rows(run)["parse"]["count"] == 1
    assert run.parts_missing == 1


def test_telemetry_that_is_not_sent_in_time_is_said(port: int) -> None:
    with (
        collector("silent", "http/protobuf") as there,
        redis.Redis(port=port) as client,
        opm.run("rq", resources=False, parts_timeout=20) as run,
    ):
        OpmQueue(connection=client).enqueue(jobs.job, 0)
        said = work(port, there, 1)
    assert "the telemetry of a job was not sent within 1 s" in said
    # the report needs no telemetry
    assert (rows(run)["parse"]["count"], run.parts_missing) == (10, 0)


def test_outside_a_run_nothing_is_added(port: int) -> None:
    with redis.Redis(port=port) as client:
        job = OpmQueue("other", connection=client).enqueue(jobs.job, 0)
        assert job.get_meta() == {}

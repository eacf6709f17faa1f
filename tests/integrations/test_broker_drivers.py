"""Test whole drivers of Celery and RQ: what Prometheus has of them, SIGTERM, and addresses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.broker_workers import POOLS, celery_worker, environment, rq_worker
from tests.integrations.engine_drivers import CALLS, TASKS
from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT, poll
from tests.support.redis import needs_redis, redis_server
from tests.support.servers import Backends, missing_binaries, start_backends

pytest.importorskip("celery")
pytest.importorskip("rq")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    needs_redis,
    pytest.mark.skipif(bool(missing_binaries()), reason="there is no Prometheus (make backends)"),
]

ENGINES = [*POOLS, "rq"]
# recycled children end as others do
SIGTERM = [name for name in ENGINES if "recycled" not in name]
PROGRAM = [sys.executable, "-m", "tests.integrations.broker_drivers"]
# 1,000 calls
ROUNDS = 5


@pytest.fixture(scope="module")
def backends() -> Iterator[Backends]:
    with start_backends() as found:
        yield found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as found:
        yield found


@dataclass
class Case:
    """One engine with two workers, the folder of its files, and where its telemetry goes."""

    engine: str
    folder: Path
    env: dict[str, str]
    backends: Backends

    @property
    def service(self) -> str:
        return self.env["OTEL_SERVICE_NAME"]

    @contextlib.contextmanager
    def workers(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        with contextlib.ExitStack() as stack:
            found = []
            for name in ("one", "other"):
                log = self.folder / name
                if self.engine == "rq":
                    made = rq_worker(self.env, log)
                else:
                    pool = [*POOLS[self.engine], "-c2", "-n", f"{name}@%h"]
                    app = "tests.integrations.broker_drivers"
                    made = celery_worker(pool, self.env, log, app)
                found.append(stack.enter_context(made))
            yield found

    @contextlib.contextmanager
    def driver(self, *rounds: str) -> Iterator[subprocess.Popen[bytes]]:
        kind = "rq" if self.engine == "rq" else "celery"
        with (self.folder / "driver").open("w") as said:
            process = subprocess.Popen(
                [*PROGRAM, kind, str(self.folder), *rounds],
                cwd=ROOT, env=self.env, stdout=said, stderr=said,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)

    def done(self) -> list[float]:
        """Return when tasks were done, by their own file."""
        truth = self.folder / "truth"
        lines = truth.read_text().splitlines() if truth.exists() else []
        return [float(line) for line in lines]

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found

    def series(self, metric: str = "pipeline_stage_duration_seconds_count", **labels: str) -> str:
        """Return what selects those of `parse`, of all processes, in Prometheus."""
        wanted = {"service_name": self.service, "pipeline_stage_name": "parse"} | labels
        matchers = ", ".join(f'{key}="{value}"' for key, value in wanted.items())
        return f"{metric}{{{matchers}}}"

    def wait_for(self, expected: int, *metric: str, **labels: str) -> None:
        said = (self.folder / "one").read_text() + (self.folder / "other").read_text()
        if "was not sent within" in said:
            pytest.skip("this machine is too busy for RQ's jobs to send everything within a second")
        self.backends.prometheus.wait_for_sum(self.series(*metric, **labels), expected)

    def wait_for_earlier(self, at: float) -> int:
        """Wait for the calls of tasks that were done two seconds before; return how many."""
        before = CALLS * sum(when <= at - 2 for when in self.done())
        assert before > 0
        query = f"sum(last_over_time({self.series()}[1h]))"
        poll(
            lambda: self.backends.prometheus.query(query, wait=False),
            accept=lambda found: found and int(found[0]["value"][1]) >= before,
            timeout=30,
            what="what was done 2 s before",
        )
        return before

    def wait_until_busy(self) -> float:
        """Wait until tasks were done for three seconds, and return the time."""
        poll(
            lambda: len(self.done()) > 1 and self.done()[-1] - self.done()[0] > 3,
            timeout=120,
            what="tasks that are done",
        )
        return time.time()


@pytest.fixture(params=ENGINES)
def case(
    request: pytest.FixtureRequest, backends: Backends, port: int, tmp_path: Path
) -> Iterator[Case]:
    database = f"redis://127.0.0.1:{port}/{ENGINES.index(request.param)}"
    service = f"{request.node.originalname} {request.param}"
    env = environment(database, backends.otlp_http_endpoint, OTEL_SERVICE_NAME=service)
    yield Case(request.param, tmp_path, env, backends)
    import redis

    with redis.Redis.from_url(database) as client:
        client.flushdb()


def rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in report["stages"]}


def of_parse(traces: list[dict[str, Any]]) -> set[str]:
    return {
        trace["traceID"]
        for trace in traces
        if any(span["operationName"] == "parse" for span in trace["spans"])
    }


def test_a_thousand_calls_are_everywhere_once(case: Case) -> None:
    made = CALLS * TASKS * ROUNDS
    with case.workers(), case.driver(str(ROUNDS)) as driver:
        assert driver.wait(200) == 0, (case.folder / "driver").read_text()
    report = case.report()
    found = rows(report)["parse"]
    assert (found["count"], found["retries"]) == (made, made // 10)
    assert found["errors"]["by_type"] == {"ValueError": made // 10}
    assert rows(report)["slow"]["count"] == TASKS * ROUNDS
    # half of these workers' time are forks and imports, which no stage explains
    if case.engine not in {"rq", "prefork, children recycled"}:
        assert report["bottleneck"]["stage"] == "slow", report["bottleneck"]
    assert report["run"]["parts_missing"] == 0
    case.wait_for(made)
    # before 3.12 a call that begins while a collection is suspended by a switch of greenlets is
    # not current, so what it counts is lost
    if case.engine != "gevent" or sys.version_info >= (3, 12):
        assert found["items"]["out"] == 2 * made
        case.wait_for(2 * made, "pipeline_stage_items_total")
    case.wait_for(made // 10, error_type="ValueError")
    case.wait_for(made // 10, "pipeline_stage_retries_total")
    # with those that were sent before the run, except for RQ
    case.wait_for(TASKS * (ROUNDS + (case.engine != "rq")), pipeline_stage_name="slow")
    traces = case.backends.jaeger.traces(case.service, wait_until=of_parse)
    assert of_parse(traces) == {report["run"]["trace_id"]}


@pytest.mark.parametrize("case", SIGTERM, indirect=True)
def test_sigterm_to_the_driver(case: Case) -> None:
    with case.workers():
        with case.driver() as driver:
            at = case.wait_until_busy()
            driver.send_signal(signal.SIGTERM)
            driver.wait(60)
        before = case.wait_for_earlier(at)
    # workers end with the tasks that they have
    report, done = case.report(), CALLS * len(case.done())
    count = rows(report)["parse"]["count"]
    assert before <= count <= done
    case.wait_for(done)
    # one of Celery's covers many tasks, and calls of a task in progress
    if case.engine == "rq":
        assert count == CALLS * report["run"]["parts"]


@pytest.mark.parametrize("case", SIGTERM, indirect=True)
def test_sigterm_to_one_worker(case: Case) -> None:
    with case.workers() as workers, case.driver() as driver:
        at = case.wait_until_busy()
        workers[0].send_signal(signal.SIGTERM)
        case.wait_for_earlier(at)
        assert workers[0].wait(60) is not None
        (case.folder / "stop").touch()
        assert driver.wait(200) == 0, (case.folder / "driver").read_text()
    report, done = case.report(), CALLS * len(case.done())
    # it ended what it had begun
    assert rows(report)["parse"]["count"] == done
    assert report["run"]["parts_missing"] == 0
    case.wait_for(done)


@pytest.mark.parametrize("case", ["prefork", "rq"], indirect=True)
def test_everything_listens_on_the_loopback_alone(case: Case) -> None:
    with case.workers(), case.driver() as driver:
        case.wait_until_busy()
        # with Redis, the Collector, Jaeger and Prometheus
        addresses = addresses_of(family(os.getpid()))
        assert addresses
        assert all(map(is_loopback, addresses)), addresses
        driver.send_signal(signal.SIGTERM)
        driver.wait(60)

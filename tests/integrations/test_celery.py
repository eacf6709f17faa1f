"""Test Celery's real workers on a real Redis: in the report, at the collector, in the trace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.broker_workers import POOLS, celery_worker, environment
from tests.support.process import ROOT
from tests.support.redis import needs_redis, redis_server
from tests.system.faults.collector.servers import collector

pytest.importorskip("celery")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.faults.collector.servers import Collector

pytestmark = [pytest.mark.slow, needs_redis]

# the other pools differ in how they begin and end
TASKS = dict.fromkeys(POOLS, 100) | {"prefork": 1000}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with redis_server() as port:
        yield f"redis://127.0.0.1:{port}"


def drive(env: dict[str, str], tasks: int = 20) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.celery_tasks", str(tasks)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def endpoint(there: Collector) -> str:
    return f"http://127.0.0.1:{there.port}"


@pytest.mark.parametrize("pool", POOLS)
def test_every_call_is_counted_once_everywhere(pool: str, broker: str, tmp_path: Path) -> None:
    database = f"{broker}/{list(POOLS).index(pool)}"
    tasks = TASKS[pool]
    # one in ten is retried once, one in ten fails
    attempts = tasks + tasks // 10
    with collector("none", "http/protobuf") as there:
        env = environment(database, endpoint(there))
        with celery_worker(POOLS[pool], env, tmp_path / "log") as process:
            found = drive(env, tasks)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        said = (tmp_path / "log").read_text()
        report = found["report"]
        rows = {stage["name"]: stage for stage in report["stages"]}
        assert rows["parse"]["count"] == attempts
        assert rows["parse"]["errors"]["by_type"] == {"ValueError": tasks // 10}
        assert rows["parse"]["retries"] == tasks // 10
        # before 3.12 a stage that begins while a collection is suspended by a switch of greenlets
        # is not current, so what it counts is lost
        if pool != "gevent" or sys.version_info >= (3, 12):
            assert rows["parse"]["items"]["out"] == 2 * attempts
        assert rows["slow"]["count"] == tasks - tasks // 10
        assert report["run"]["parts_missing"] == 0
        assert found["errors"] == tasks // 10
        assert there.calls("parse") == attempts, said
        assert there.calls("slow") == tasks - tasks // 10
        traces = {
            (span.name, span.trace_id.hex())
            for request in there.requests
            for resource in getattr(request, "resource_spans", ())
            for scope in resource.scope_spans
            for span in scope.spans
        }
        assert ("parse", report["run"]["trace_id"]) in traces
        assert len({trace for _, trace in traces}) == 1


def test_the_example(broker: str, tmp_path: Path) -> None:
    with collector("none", "http/protobuf") as there:
        env = environment(f"{broker}/12", endpoint(there))
        with celery_worker(["-P", "solo"], env, tmp_path / "log", app="examples.celery_pipeline"):
            done = subprocess.run(
                [sys.executable, "-m", "examples.celery_pipeline"],
                cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
    assert (done.stdout, done.returncode) == ("15\nparse 5 0\n", 0), done.stderr


def test_attempts_in_several_workers_count(broker: str, tmp_path: Path) -> None:
    program = """
import json
import otel_pipeline_metrics as opm
from tests.integrations import celery_tasks as tasks
found = []
for _ in range(6):
    with opm.run("driver", resources=False, parts_timeout=20) as run:
        for result in [tasks.parse.delay(3) for _ in range(3)]:
            result.get(timeout=60)
    (stage,) = [stage for stage in run.report.stages if stage["name"] == "parse"]
    found.append([stage["count"], stage["retries"], run.parts_missing])
print(json.dumps(found))
"""
    with collector("none", "http/protobuf") as there:
        env = environment(f"{broker}/9", endpoint(there))
        with (
            celery_worker(["-P", "solo", "-n", "one@%h"], env, tmp_path / "one"),
            celery_worker(["-P", "solo", "-n", "other@%h"], env, tmp_path / "other"),
        ):
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # a part of another worker may come a second later
    assert json.loads(done.stdout.splitlines()[-1]) == [[6, 3, 0]] * 6


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_an_attempt_that_the_next_one_overtakes_counts(
    pool: str, broker: str, tmp_path: Path
) -> None:
    program = """
import json
import otel_pipeline_metrics as opm
from tests.integrations import celery_tasks as tasks
with opm.run("driver", resources=False, parts_timeout=5) as run:
    for result in [tasks.overtaken.delay() for _ in range(3)]:
        result.get(timeout=60)
(stage,) = [stage for stage in run.report.stages if stage["name"] == "overtaken"]
print(json.dumps([stage["count"], stage["retries"], run.parts_missing]))
"""
    with collector("none", "http/protobuf") as there:
        env = environment(f"{broker}/13", endpoint(there))
        with celery_worker(POOLS[pool], env, tmp_path / "log"):
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [6, 3, 0]


def test_a_worker_that_is_killed_leaves_the_rest_missing(broker: str, tmp_path: Path) -> None:
    program = """
import json, time
import otel_pipeline_metrics as opm
from tests.integrations import celery_tasks as tasks
with opm.run("driver", resources=False, parts_timeout=1) as run:
    [tasks.nested.delay(n) for n in range(10)][-1].get(timeout=60)
    tasks.parent.delay(1).get(timeout=60)
    deadline = time.monotonic() + 30
    while run.parts_missing and time.monotonic() < deadline:
        time.sleep(0.05)
    tasks.end.delay()
    time.sleep(1)
print(json.dumps(run.report.to_dict()))
"""
    with collector("none", "http/protobuf") as there:
        env = environment(f"{broker}/10", endpoint(there))
        with celery_worker(["-P", "prefork", "-c", "1"], env, tmp_path / "log"):
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    (stage,) = report["stages"]
    # with the one that a task sent
    assert (stage["name"], stage["count"]) == ("nested", 11)
    assert report["run"]["parts_missing"] == 1


def test_off_forbids_a_worker_to_configure_itself(broker: str, tmp_path: Path) -> None:
    with collector("none", "http/protobuf") as there:
        env = environment(f"{broker}/11", endpoint(there))
        off = env | {"OTEL_PIPELINE_METRICS_WORKERS": "off"}
        with celery_worker(POOLS["solo"], off, tmp_path / "log"):
            found = drive(env)
        assert {stage["name"] for stage in found["report"]["stages"]} == {"parse", "slow"}
        assert there.calls("parse") == 0
        assert "configured itself" not in (tmp_path / "log").read_text()

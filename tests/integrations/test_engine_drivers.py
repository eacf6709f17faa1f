"""Test whole drivers of all engines: what Prometheus and Jaeger have of them, and SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integrations.engine_drivers import CALLS, DRIVERS, TASKS
from tests.support.process import ROOT, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import Backends

pytestmark = [
    pytest.mark.slow,
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),  # one worker starts the servers once
    pytest.mark.usefixtures("built_backends"),
]

PROGRAM = [sys.executable, "-m", "tests.integrations.engine_drivers"]
ROUNDS = 5
MADE = CALLS * TASKS * ROUNDS

# CI does without them
CLUSTERS = ("ray", "pyspark")
# their tasks bring a part each, and as many are sent at a time as a round has
ONE_PART_A_TASK = ("executor", "multiprocessing", "multiprocess")
# of the ends of workers, those that the engine survives or tells of: a `Pool` waits for ever
TELLS_OF_A_WORKER = ("dask", "joblib", "executor fork", "executor forkserver", "executor spawn")


def engines(*names: str) -> list[Any]:
    return [
        pytest.param(name, marks=[pytest.mark.engines] if name in CLUSTERS else [])
        for name in names
    ]


class Done(NamedTuple):
    """A task that wrote that it was done."""

    at: float
    pid: int


class Driver:
    """A driver in a process of its own, and what there is of it."""

    def __init__(self, engine: str, folder: Path, backends: Backends) -> None:
        self.engine = engine.partition(" ")[0]
        if self.engine != "executor":
            pytest.importorskip(self.engine)
        self.service = f"{engine} {folder.name}"
        self._folder = folder
        self._backends = backends
        self._command = [*PROGRAM, engine, str(folder)]
        self.process: subprocess.Popen[bytes]

    @contextmanager
    def begun(self, *rounds: str) -> Iterator[None]:
        """Run it; at the end, no process of it is left."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
        environment = inherited | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._backends.otlp_http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": self.service,
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
            "RAY_AUTH_MODE": "disabled",
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        with (self._folder / "said").open("w") as said:
            self.process = subprocess.Popen(
                [*self._command, *rounds],
                cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            # the workers of most pools do not notice that their parent was ended
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def said(self) -> str:
        return (self._folder / "said").read_text()

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / "report.json").read_text())
        return found

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {stage["name"]: stage for stage in self.report["stages"]}

    def done(self) -> list[Done]:
        truth = self._folder / "truth"
        lines = truth.read_text().splitlines() if truth.exists() else []
        return [Done(float(at), int(pid)) for at, pid in map(str.split, lines)]

    def work_for(self, seconds: float) -> None:
        """Let tasks be done for some seconds."""
        poll(
            lambda: self.process.poll() is not None or self._worked_s() > seconds,
            timeout=180,
            what="tasks that are done",
        )
        assert self.process.poll() is None, self.said

    def _worked_s(self) -> float:
        done = self.done()
        return done[-1].at - done[0].at if done else 0.0

    def sum_of(self, metric: str, stage: str = "parse", **labels: str) -> float:
        """Return the sum of a metric over all processes, as Prometheus has it."""
        given = {"service_name": self.service, "pipeline_stage_name": stage, **labels}
        chosen = ",".join(f'{name}="{value}"' for name, value in given.items())
        query = f"sum(last_over_time({metric}{{{chosen}}}[1h]))"
        found = self._backends.prometheus.query(query, wait=False)
        return float(found[0]["value"][1]) if found else 0.0

    def calls(self) -> float:
        return self.sum_of("pipeline_stage_duration_seconds_count")


@pytest.mark.parametrize("engine", engines(*DRIVERS))
def test_every_call_counts_once(engine: str, backends: Backends, tmp_path: Path) -> None:
    driver = Driver(engine, tmp_path, backends)
    with driver.begun(str(ROUNDS)):
        driver.process.wait(200)
    assert driver.process.returncode == 0, driver.said
    assert "internal error" not in driver.said
    parse = driver.rows["parse"]
    assert len(driver.done()) * CALLS == parse["count"] == MADE
    assert driver.rows["store"]["count"] == len(driver.done())
    assert (parse["errors"]["by_type"], parse["items"]["out"], parse["retries"]) == (
        {"ValueError": MADE // 10},
        2 * MADE,
        MADE // 10,
    )
    assert parse["workers"] >= 2
    assert driver.report["run"]["parts_missing"] == 0
    # on a loaded machine the driver gives tasks out too slowly, and no stage limits the run
    assert driver.report["bottleneck"]["stage"] in ("store", None)
    poll(driver.calls, accept=lambda found: found >= MADE, timeout=60, what="calls in Prometheus")
    assert driver.calls() == MADE
    assert driver.sum_of("pipeline_stage_duration_seconds_count", "store") == MADE / CALLS
    failed = {"error_type": "ValueError"}
    assert driver.sum_of("pipeline_stage_duration_seconds_count", **failed) == MADE / 10
    assert driver.sum_of("pipeline_stage_items_total", pipeline_io_direction="out") == 2 * MADE
    assert driver.sum_of("pipeline_stage_retries_total") == MADE / 10
    traces = backends.jaeger.traces(
        driver.service,
        wait_until=lambda found: sum(len(trace["spans"]) for trace in found) > MADE + MADE // CALLS,
    )
    assert [trace["traceID"] for trace in traces] == [driver.report["run"]["trace_id"]]
    assert len(traces[0]["spans"]) == MADE + MADE // CALLS + 1


@pytest.mark.parametrize("engine", engines(*DRIVERS))
def test_sigterm_to_the_driver(engine: str, backends: Backends, tmp_path: Path) -> None:
    driver = Driver(engine, tmp_path, backends)
    with driver.begun():
        driver.work_for(3)
        at = time.time()
        driver.process.send_signal(signal.SIGTERM)
        driver.process.wait(60)
        before = sum(done.at <= at - 2 for done in driver.done())
        assert before > 0
        made = poll(
            driver.calls,
            accept=lambda found: found >= CALLS * before,
            timeout=30,
            what="what was done 2 s before",
        )
        # a task in progress has made calls that it did not note yet
        assert made <= CALLS * (len(driver.done()) + 2)
    # Ray 2.60 exits with the signal's number, or aborts, as it does where nothing measures
    ended = (15, -signal.SIGABRT) if engine == "ray" else (-signal.SIGTERM,)
    assert driver.process.returncode in ended
    run, count = driver.report["run"], driver.rows["parse"]["count"]
    assert CALLS * before <= count <= CALLS * len(driver.done()) + 2 * CALLS
    if driver.engine in ONE_PART_A_TASK:
        assert count == CALLS * run["parts"]
        assert (run["parts"] + run["parts_missing"]) % TASKS == 0
    elif engine in ("dask", "ray"):
        assert run["parts_missing"] == 2
    else:
        assert count == CALLS * run["parts"]


@pytest.mark.parametrize("engine", engines(*TELLS_OF_A_WORKER))
def test_sigterm_to_a_worker(engine: str, backends: Backends, tmp_path: Path) -> None:
    driver = Driver(engine, tmp_path, backends)
    # it ends at the error, except for Dask, which begins another worker
    with driver.begun(*(["15"] if engine == "dask" else [])):
        driver.work_for(3)
        at = time.time()
        os.kill(driver.done()[-1].pid, signal.SIGTERM)
        driver.process.wait(120)
        before = sum(done.at <= at - 2 for done in driver.done())
        ended = (driver.process.returncode == 0) is (engine == "dask")
        assert ended, driver.said
        # what Dask's worker did since its latest part may be lost, and is done again
        least = CALLS * (before if engine != "dask" else 15 * TASKS)
        made = poll(
            driver.calls, accept=lambda found: found >= least, timeout=30, what="what was done"
        )
        assert made <= CALLS * (len(driver.done()) + 2)
    run, count = driver.report["run"], driver.rows["parse"]["count"]
    assert run["parts_missing"] >= 1
    assert CALLS * before <= count <= CALLS * (len(driver.done()) + 2)
    if engine != "dask":
        assert count == CALLS * run["parts"]

"""Test Airflow, Prefect and Dagster, which need no adapter, by the programs of the examples."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.listening import addresses_of, family, is_loopback
from tests.support.process import ROOT
from tests.system.faults.collector.servers import collector
from tests.system.processes.support import invocations, points, spans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.faults.collector.servers import Collector

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.xdist_group("orchestrators")]

SHOWN = ["download 1000 0", "parse 1000 100", "the limit is parse"]
# A machine that is busy with other tests needs minutes for each program.
LIMIT_S = 900


@pytest.fixture
def there() -> Iterator[Collector]:
    with collector("none", "http/protobuf") as found:
        yield found


def run(there: Collector, folder: Path, *command: str, **env: str) -> list[str]:
    """Run a program that listens on the loopback at most; return what `show` printed at its end."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    env |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{there.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "PYTHONPATH": str(ROOT),
        # where the engines keep their files
        "HOME": str(folder),
    }
    addresses = set()
    with (folder / "printed").open("w") as printed, (folder / "said").open("w") as said:
        program = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT, env=inherited | env, stdin=subprocess.DEVNULL, stdout=printed, stderr=said,
        )  # fmt: skip
        until = time.monotonic() + LIMIT_S
        try:
            while program.poll() is None and time.monotonic() < until:
                with contextlib.suppress(psutil.NoSuchProcess):
                    addresses |= addresses_of(family(program.pid))
                time.sleep(0.2)
        finally:
            program.kill()
            program.wait(20)
    lines = (folder / "printed").read_text().splitlines()
    assert program.returncode == 0, ["\n".join(lines[-50:]), (folder / "said").read_text()[-5000:]]
    assert all(map(is_loopback, addresses)), addresses
    # Airflow prints the summary of each task's run too
    shown = [line for line in lines if line.startswith(("download ", "parse ", "the limit is "))]
    return shown[-3:]


def check_collector(there: Collector, run: str, times: int) -> None:
    found = {stage: invocations(there, stage) for stage in ("download", "parse")}
    assert {stage: sum(by.values()) for stage, by in found.items()} == {
        "download": 1000,
        "parse": 1000,
    }
    # also the run's own, in which the same `configure()` was called again
    assert sum(map(len, spans(there, f"run {run}").values())) == times
    assert sum(point.count for _, _, point in points(there, "pipeline.run.duration")) == times


def test_airflow_by_dag_test(there: Collector, tmp_path: Path) -> None:
    pytest.importorskip("airflow")
    env = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "examples" / "orchestrators"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        run(there, tmp_path, "airflow", *command, **env)
    assert not there.requests
    assert run(there, tmp_path, "examples.orchestrators.airflow_dag", **env) == SHOWN
    check_collector(there, "load", 2)


@pytest.mark.parametrize("executor", ["multiprocess", "in-process"])
def test_dagster(executor: str, there: Collector, tmp_path: Path) -> None:
    pytest.importorskip("dagster")
    assert run(there, tmp_path, "examples.orchestrators.dagster_job", executor) == SHOWN
    assert len(invocations(there, "parse")) == (2 if executor == "multiprocess" else 1)
    check_collector(there, "load", 2)


def test_prefect(there: Collector, tmp_path: Path) -> None:
    pytest.importorskip("prefect")
    env = {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(LIMIT_S),
        "DO_NOT_TRACK": "1",
    }
    assert run(there, tmp_path, "examples.orchestrators.prefect_flow", **env) == SHOWN
    check_collector(there, "loading", 1)

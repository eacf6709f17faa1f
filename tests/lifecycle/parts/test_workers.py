"""Test what a worker of an engine does: configure itself, send its parts, flush, end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import configure, worker_parts
from tests.support.process import ROOT
from tests.system.faults.collector.servers import collector

if TYPE_CHECKING:
    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_parts, "_looked", False)
    monkeypatch.setattr(configure, "_asked", None)


@pytest.mark.parametrize(
    ("environment", "configured"),
    [
        (ENDPOINT, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_PIPELINE_METRICS_WORKERS": "off"}, False),
        (ENDPOINT | {"OTEL_PIPELINE_METRICS_WORKERS": "OFF "}, False),
    ],
)
def test_a_worker_configures_itself_where_its_environment_names_an_exporter(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    environment: dict[str, str],
    configured: bool,
) -> None:
    calls = []
    monkeypatch.setattr(configure, "configure", lambda: calls.append(1))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        worker_parts.configure_worker()
    assert calls == [1] * configured
    assert caplog.text.count("configured itself") == configured


def test_a_provider_of_the_program_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, captured: Captured
) -> None:
    captured.install()
    monkeypatch.setenv(*next(iter(ENDPOINT.items())))
    worker_parts.configure_worker()
    assert not configure.is_configured()


def test_after_shutdown_a_worker_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    opm.configure(exporter="none", console=False)
    opm.shutdown()
    monkeypatch.setenv(*next(iter(ENDPOINT.items())))
    worker_parts.configure_worker()
    assert not configure.is_configured()


def test_tasks_of_two_runs_and_of_none(clock: Clock) -> None:
    sent: list[dict[str, Any]] = []
    runs = [opm.run(name, resources=False, parts_timeout=0) for name in ("one", "other")]
    contexts = [run._parts.expect_task() for run in runs for _ in range(2)]
    parts = worker_parts.WorkerParts(sent.append)
    for context in (*contexts, None, {"schema": "broken"}):
        begun = parts.begin(context)
        with opm.stage("work"):
            clock.advance(1.0)
        parts.end(begun)
    parts.deliver()
    parts.deliver()  # nothing is new
    assert len(sent) == 2
    for run in runs:
        with run:
            for data in sent:
                run.add_part(data)
            assert run.report.stages[0]["count"] == 2
            assert run.parts_missing == 0


def test_a_task_of_no_run_counts_for_none() -> None:
    sent: list[dict[str, Any]] = []
    parts = worker_parts.WorkerParts(sent.append)
    with opm.run("one", resources=False, parts_timeout=0) as run:
        context = run._parts.expect_task()
    for given in (context, None, None):
        begun = parts.begin(given)
        with opm.stage("work"):
            pass
        parts.end(begun)
    parts.deliver()
    assert [row["count"] for data in sent for row in data["stages"]] == [1]


def test_a_task_that_is_called_again_is_not_covered() -> None:
    sent: list[dict[str, Any]] = []
    parts = worker_parts.WorkerParts(sent.append)
    with opm.run("one", resources=False, parts_timeout=0) as run:
        context = run._parts.expect_task()
        parts.end(parts.begin(context), is_over=False)
        parts.deliver()
        assert (run.add_part(sent[-1]), run.parts_missing) == (True, 1)
        parts.end(parts.begin(context))
        parts.deliver()
        assert (run.add_part(sent[-1]), run.parts_missing) == (True, 0)


def test_an_attempt_in_a_worker_whose_part_is_not_here_is_missing() -> None:
    sent: dict[str, dict[str, Any]] = {}
    workers = {name: worker_parts.WorkerParts(lambda _: None) for name in ("first", "second")}
    with opm.run("one", resources=False, parts_timeout=0) as run:
        contexts = [run._parts.expect_task() for _ in range(2)]
        # both tasks are tried once in each worker
        for context in contexts:
            for earlier, (name, parts) in enumerate(workers.items()):
                begun = parts.begin(context)
                with opm.stage("attempt"):
                    pass
                parts.end(begun, is_over=name == "second", earlier=earlier)
                sent[name] = begun.part.data if begun.part else {}
        run.add_part(sent["second"])
        assert (run.report.stages[0]["count"], run.parts_missing) == (2, 2)
        run.add_part(sent["first"])
        assert (run.report.stages[0]["count"], run.parts_missing) == (4, 0)


def test_a_broker_that_fails_gets_the_part_later(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, Any]] = []
    down = [True]

    def send(data: dict[str, Any]) -> None:
        if down[0]:
            raise ConnectionError("no broker")
        sent.append(data)

    parts = worker_parts.WorkerParts(send)
    with opm.run("one", resources=False, parts_timeout=0) as run:
        parts.end(parts.begin(run._parts.expect_task()))
        parts.deliver()
        parts.deliver()
        down[0] = False
        parts.deliver()
    assert len(sent) == 1
    assert caplog.text.count("no broker") == 1


def test_after_a_failed_flush_there_is_none_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[float] = []
    now = [0.0]

    class Report:
        ok = False

    def flush(timeout: float) -> Report:
        flushed.append(now[0])
        return Report()

    monkeypatch.setattr(configure, "is_configured", lambda: True)
    monkeypatch.setattr(configure, "flush", flush)
    monkeypatch.setattr(worker_parts.clock, "monotonic", lambda: now[0])
    parts = worker_parts.WorkerParts(lambda _: None)
    for second in range(65):
        now[0] = float(second)
        parts.flush()
    assert flushed == [0.0, 30.0, 60.0]


def test_a_run_that_the_worker_is_told_of_is_the_default(clock: Clock) -> None:
    parts = worker_parts.WorkerParts(lambda _: None)
    with opm.run("one", resources=False, parts_timeout=0) as run:
        context = run._parts.share()
    parts.open_run(context, ["thread 0", "thread 1"])
    parts.open_run(context, ["thread 0"])  # it is open already
    with opm.stage("work"):
        clock.advance(1.0)
    data = parts.close_run(run.id)
    assert parts.close_run(run.id) is None
    with opm.stage("work"):
        clock.advance(1.0)
    assert data is not None
    assert [(row["name"], row["count"]) for row in data["stages"]] == [("work", 1)]
    assert data["stages"][0]["worker_ids"] == ["thread 0", "thread 1"]
    assert data["final"]


PATHOS = """
import PACKAGE as multiprocess
import otel_pipeline_metrics as opm
opm.configure(console=False)

@opm.process
def work():
    return 1

def main():
    for _ in range(100):
        work()

if __name__ == "__main__":
    context = multiprocess.get_context("fork")
    process = context.Process(target=main)
    process.start()
    process.join()
    if multiprocess.__name__ == "billiard":
        # its workers pause for a second before they leave, which is short on a busy machine
        from billiard.pool import Worker
        code = Worker._do_exit.__code__
        constants = tuple(10 if type(one) is int and one == 1 else one for one in code.co_consts)
        assert constants != code.co_consts
        Worker._do_exit.__code__ = code.replace(co_consts=constants)
    pool = context.Pool(2)
    for _ in range(2):
        pool.apply(main)
    pool.close()
    pool.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", ["multiprocess", "billiard"])
def test_children_lose_nothing(package: str) -> None:
    pytest.importorskip(package)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "GRPC_"))}
    with collector("none", "http/protobuf") as there:
        env = inherited | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{there.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        done = subprocess.run(
            [sys.executable, "-c", PATHOS.replace("PACKAGE", package)],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert there.calls("work") == 300

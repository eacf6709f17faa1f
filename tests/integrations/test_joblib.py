"""Test joblib's real workers: what they do is in the driver's report, exactly once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_pipeline_metrics as opm
from tests.integrations.engine_stages import parse, parse_or_not

joblib = pytest.importorskip("joblib")

from otel_pipeline_metrics.integrations.joblib import instrument_parallel  # noqa: E402

if TYPE_CHECKING:
    from tests.lifecycle.configure.support import Captured


def slow(_: int) -> None:
    with opm.stage("fast"):
        pass
    with opm.stage("slow"):
        time.sleep(0.25)


def rows(run: opm.Run) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in run.report.stages}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_a_thousand_calls_in_two_processes(backend: str) -> None:
    with opm.run("joblib", resources=False) as run:
        parallel = instrument_parallel(n_jobs=2, backend=backend)
        found = parallel(joblib.delayed(parse_or_not)(n) for n in range(1000))
    assert found == [None if n % 10 == 5 else n for n in range(1000)]
    stage = rows(run)["parse"]
    assert (stage["count"], stage["errors"]["by_type"]) == (1000, {"ValueError": 100})
    assert (stage["items"]["out"], stage["retries"]) == (2000, 100)
    assert run.report.run["parts"] == 1000
    assert run.parts_missing == 0


@pytest.mark.slow
def test_the_verdict_names_the_slow_stage() -> None:
    with joblib.parallel_config(n_jobs=2):
        instrument_parallel()(joblib.delayed(slow)(n) for n in range(2))
        with opm.run("joblib", resources=False) as run:
            instrument_parallel()(joblib.delayed(slow)(n) for n in range(8))
    assert run.report.bottleneck["stage"] == "slow"
    assert (rows(run)["slow"]["count"], rows(run)["slow"]["workers"]) == (8, 2)


@pytest.mark.slow
def test_a_failing_call_brings_its_part_and_those_before_it() -> None:
    run = opm.run("joblib", resources=False, parts_timeout=3600)
    with run, pytest.raises(ValueError, match="bad") as failed:
        instrument_parallel(n_jobs=2, batch_size=6, pre_dispatch=1)(
            joblib.delayed(parse)(n) for n in range(6)
        )
    assert failed.value.args == ("bad", 5)
    stage = rows(run)["parse"]
    assert (stage["count"], stage["errors"]["total"]) == (6, 1)
    assert run.parts_missing == 0


@pytest.mark.parametrize(("jobs", "backend"), [(1, "loky"), (2, "threading"), (1, "sequential")])
def test_calls_in_this_process(captured: Captured, jobs: int, backend: str) -> None:
    captured.configure()
    with opm.run("joblib", resources=False, parts_timeout=3600) as run, opm.stage("around"):
        found = instrument_parallel(n_jobs=jobs, backend=backend)(
            # more than joblib takes at first: the others it takes in a thread of its own
            joblib.delayed(parse_or_not)(n)
            for n in range(40)
        )
    assert found == [None if n % 10 == 5 else n for n in range(40)]
    assert rows(run)["parse"]["count"] == 40
    assert run.parts_missing == 0
    around = [span.context.span_id for span in captured.spans() if span.name == "around"]
    parents = [span.parent for span in captured.spans() if span.name == "parse"]
    assert [parent and parent.span_id for parent in parents] == around * 40


def trace_of_call(_: int) -> str:
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier["traceparent"].split("-")[1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_all_calls_are_in_the_runs_trace(captured: Captured, backend: str) -> None:
    captured.configure()
    with opm.run("joblib", resources=False) as run:
        found = instrument_parallel(n_jobs=2, backend=backend, batch_size=1)(
            joblib.delayed(trace_of_call)(n) for n in range(20)
        )
    assert found == [run.report.run["trace_id"]] * 20


@pytest.mark.slow
def test_outside_a_run_results_are_plain() -> None:
    assert instrument_parallel(n_jobs=2)(joblib.delayed(parse)(n) for n in range(4)) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_generator_of_results() -> None:
    with opm.run("joblib", resources=False) as run:
        found = instrument_parallel(n_jobs=2, return_as="generator")(
            joblib.delayed(parse)(n) for n in range(4)
        )
        assert list(found) == [0, 1, 2, 3]
    assert rows(run)["parse"]["count"] == 4

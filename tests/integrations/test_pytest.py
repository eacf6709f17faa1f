"""Test the pytest plugin, by pytest itself in a process of its own."""

from __future__ import annotations

import contextlib
import math
import random
from typing import TYPE_CHECKING

import pytest

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle.standing_in import standing_in
from otel_pipeline_metrics.integrations.pytest import assert_no_slower
from otel_pipeline_metrics.report import RunReport
from tests.lifecycle.configure.support import Captured, clean_slate
from tests.report import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Clock

pytest_plugins = ["pytester"]


@pytest.fixture
def slate() -> Iterator[None]:
    with clean_slate():
        yield


@pytest.fixture
def captured() -> Iterator[Captured]:
    providers = Captured()
    yield providers
    providers.close()


CONFTEST = 'pytest_plugins = ["otel_pipeline_metrics.integrations.pytest"]'

SUITE = '''
import asyncio, threading
import pytest
from opentelemetry import trace
import otel_pipeline_metrics as opm

tracer = trace.get_tracer("of the program")

@opm.process
def parse(n):
    return n

def counts(run):
    return {stage["name"]: stage["count"] for stage in run.report.stages}

def test_three(opm_run):
    for n in range(3):
        parse(n)
    assert counts(opm_run) == {"parse": 3}
    assert opm_run.report.run["pipeline"] == "test_suite.py::test_three"

def test_one(opm_run):
    """Nothing of the test before it."""
    threading.Thread(target=parse, args=(1,)).start()
    parse(1)
    while counts(opm_run) != {"parse": 2}:
        pass

@pytest.mark.asyncio
async def test_a_coroutine(opm_run):
    await asyncio.gather(*(asyncio.to_thread(parse, n) for n in range(4)))
    assert counts(opm_run) == {"parse": 4}

def test_fails(opm_run):
    parse(1)
    raise KeyError("gone")

def test_skips(opm_run):
    pytest.skip("today")

@pytest.mark.parametrize("value", ["a b", "a_b", "x" * 200])
def test_value(opm_run, value):
    parse(value)

@pytest.mark.parametrize("turn", [1, 2])
def test_telemetry(opm_telemetry, turn):
    """Spans of the program too; nothing of the turn before."""
    with tracer.start_as_current_span("mine", attributes={"a": ["x"]}):
        parse(1)
    inner, outer = opm_telemetry.spans
    assert (inner["name"], outer["name"]) == ("parse", "mine")
    assert inner["parent_id"] == outer["span_id"] and inner["trace_id"] == outer["trace_id"]
    assert outer["attributes"] == {"a": ["x"]} and outer["parent_id"] is None
    assert inner["status"] == "unset" and inner["duration_s"] > 0 and inner["kind"] == "internal"
    (point,) = [p for p in opm_telemetry.points if p["name"] == "pipeline.stage.duration"]
    assert (point["count"], point["unit"], point["kind"]) == (1, "s", "histogram")
    assert point["attributes"]["pipeline.stage.name"] == "parse"
    assert sum(point["buckets"]) == 1 and len(point["buckets"]) == len(point["bounds"]) + 1
    assert point["min"] == point["max"] == point["sum"] > 0

def test_a_failure_is_in_its_span(opm_telemetry):
    @opm.write("store")
    def store():
        raise OSError
    with pytest.raises(OSError):
        store()
    (span,) = opm_telemetry.spans
    assert (span["status"], span["attributes"]["error.type"]) == ("error", "OSError")

def test_both(opm_run, opm_telemetry):
    parse(1)
    assert counts(opm_run) == {"parse": 1}
    assert [span["name"] for span in opm_telemetry.spans] == ["parse"]

def test_what_the_program_configures_ends_here(opm_telemetry):
    opm.configure(exporter="otlp", console=False)
    parse(1)
    assert [span["name"] for span in opm_telemetry.spans] == ["parse"]
    opm.shutdown()

def test_nothing_stays_configured():
    assert opm.stats()["spans"]["created"] in (0, None)
    parse(1)
'''


@pytest.mark.slow
def test_a_suite_with_runs_and_telemetry(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=SUITE)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_mode = strict\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    result = pytester.runpytest_subprocess("--opm-reports", "out", "-p", "no:randomly")
    result.assert_outcomes(passed=12, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*= otel_pipeline_metrics =*", "reports: out"])
    reports = [RunReport.load(path) for path in (pytester.path / "out").iterdir()]
    results = {report.run["pipeline"]: report.run for report in reports}
    assert len(results) == len(reports) == 9
    failed = results["test_suite.py::test_fails"]
    assert (failed["result"], failed["error_type"]) == ("failure", "KeyError")
    others = {run["result"] for run in results.values() if run is not failed}
    assert others == {"success"}
    assert (pytester.path / "out" / "test_suite.py.test_three.json").exists()


SLOWER = """
import pytest
import otel_pipeline_metrics as opm
from otel_pipeline_metrics.integrations.pytest import assert_no_slower

def test_as_noisy_as_before():
    report = opm.RunReport.load("noisy.json")
    assert_no_slower(report, "old.json", limit="2%")

def test_slower():
    assert_no_slower(opm.RunReport.load("slow.json"), "old.json")
"""


def report_of(seconds: list[float]) -> RunReport:
    stage = samples.stage("parse", seconds, wall_s=sum(seconds))
    return RunReport(samples.data([stage], wall_s=sum(seconds)))


def scattered(seed: int, by: float = 1.0) -> RunReport:
    chance = random.Random(seed)  # noqa: S311 - durations, no secrets
    return report_of([by * chance.lognormvariate(math.log(0.01), 0.8) for _ in range(40)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_noise_is_said_and_a_regression_fails(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    """Also from a worker of pytest-xdist."""
    scattered(1).save(pytester.path / "old.json")
    scattered(1, by=1.05).save(pytester.path / "noisy.json")
    scattered(1, by=2).save(pytester.path / "slow.json")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_slower=SLOWER)
    result = pytester.runpytest_subprocess(*workers)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: *",
            "*REGRESSION: parse is slower by *",
            "*slower than old.json*",
            "*= otel_pipeline_metrics =*",
            "test_slower.py::test_as_noisy_as_before: noise: parse is slower by *",
        ]
    )


@pytest.mark.parametrize("limit", ["10%", 0.1, "0.1"])
def test_the_limit_counts(limit: str | float) -> None:
    old = report_of([0.01] * 200)
    assert_no_slower(report_of([0.0108] * 200), old, limit)
    with pytest.raises(AssertionError, match="parse is slower by"):
        assert_no_slower(report_of([0.0115] * 200), old, limit)
    assert_no_slower(report_of([0.0115] * 200), old, "20%")


def test_what_passes_as_noise_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert_no_slower(scattered(1, by=1.05), scattered(1), "2%")
    assert capsys.readouterr().out.startswith("noise: parse is slower by ")


def test_no_change_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert_no_slower(report_of([0.01] * 200), report_of([0.01] * 200))
    assert capsys.readouterr().out == ""


def test_a_run_in_progress_counts_as_it_is(tmp_path: Path, clock: Clock) -> None:
    @opm.process
    def parse(seconds: float) -> None:
        clock.advance(seconds)

    def measured(seconds: float) -> opm.Run:
        run = opm.run("r", resources=False)
        with run:
            for _ in range(50):
                parse(seconds)
            assert_no_slower(run, run.report)
            if seconds > 1:
                with pytest.raises(AssertionError, match=r"slower than .*base\.json"):
                    assert_no_slower(run, tmp_path / "base.json")
        return run

    measured(1).report.save(tmp_path / "base.json")
    assert_no_slower(measured(2).report, tmp_path / "base.json", "150%")


def test_a_run_that_failed_is_no_success(clock: Clock) -> None:
    good, bad = opm.run("r", resources=False), opm.run("r", resources=False)
    with good, opm.stage("s"):
        clock.advance(1)
    with contextlib.suppress(KeyError), bad, opm.stage("s"):
        clock.advance(1)
        raise KeyError
    with pytest.raises(AssertionError, match="ended in failure"):
        assert_no_slower(bad, good.report)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    report = report_of([0.01])
    with pytest.raises(ValueError, match="limit: 'ten' is not a ratio"):
        assert_no_slower(report, report, "ten")
    with pytest.raises(ValueError, match=r"limit: .*write 10% or 0\.1"):
        assert_no_slower(report, report, 10)
    with pytest.raises(TypeError, match="report must be a RunReport or a Run, not str"):
        assert_no_slower("report.json", report)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="baseline must be a RunReport or a path, not int"):
        assert_no_slower(report, 3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no baseline"):
        assert_no_slower(report, tmp_path / "absent.json")


@pytest.mark.usefixtures("slate")
def test_what_was_configured_before_is_configured_again(captured: Captured) -> None:
    captured.configure(console=False, metric_attributes=("shard",), allowed_keys=["user.id"])
    with standing_in() as kept, opm.stage("inside", attributes={"user.id": 1}):
        pass
    assert kept.spans() == []  # closed
    with opm.stage("after", attributes={"user.id": 1, "shard": 2}):
        pass
    (span,) = captured.spans()
    assert span.name == "after"
    assert (span.attributes or {})["user.id"] == 1
    assert captured.values("pipeline.stage.duration", "shard") == {2: 1}


@pytest.mark.usefixtures("slate")
def test_settings_that_are_not_of_the_export_hold_inside(captured: Captured) -> None:
    captured.configure(console=False, metric_attributes=("shard",), allowed_keys=["user.id"])
    with standing_in() as kept:
        with opm.stage("inside", attributes={"user.id": 1, "shard": 2}):
            pass
        (span,) = kept.spans()
        (point,) = [p for p in kept.points() if p["name"] == "pipeline.stage.duration"]
    assert span["attributes"]["user.id"] == 1
    assert point["attributes"]["shard"] == 2
    assert captured.spans() == []


@pytest.mark.usefixtures("slate")
def test_unconfigured_before_is_unconfigured_after(captured: Captured) -> None:
    with standing_in():
        pass
    with opm.stage("early"):
        pass
    captured.install()
    with opm.stage("later"):
        pass
    assert captured.span_names() == ["later"]
    assert captured.values("pipeline.stage.duration", "pipeline.stage.name") == {
        "early": 1, "later": 1
    }  # fmt: skip

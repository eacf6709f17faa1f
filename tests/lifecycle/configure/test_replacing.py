"""Test repeated `configure()`, `shutdown()` and late providers: no value twice."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider

import otel_pipeline_metrics as opm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.configure.support import Captured

STAGE = "pipeline.stage.name"
DIRECTION = "pipeline.io.direction"


@opm.fetch(items=len)
def work() -> list[int]:
    return [1, 2, 3]


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Iterator[str]:
    """Register a cache with one hit and one miss, under a new name."""

    @functools.lru_cache
    def look_up(key: int) -> int:
        return key

    name = request.node.name
    opm.register_cache(name, look_up)
    look_up(1)
    look_up(1)
    yield name
    opm.unregister_cache(name)


@pytest.fixture
def no_log_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test that logs a warning, also OpenTelemetry's "already created"."""
    caplog.set_level(logging.WARNING)
    yield
    warnings = [f"{record.name}: {record.getMessage()}" for record in caplog.records]
    assert warnings == []


pytestmark = pytest.mark.usefixtures("no_log_noise")


def test_given_providers_get_everything(captured: Captured) -> None:
    captured.configure()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert captured.values("pipeline.stage.items", STAGE, DIRECTION) == {("work", "out"): 3}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0
    assert captured.values("process.memory.usage")[()] > 1e6


def test_installed_providers_get_everything_and_stay_installed(
    captured: Captured, cache: str
) -> None:
    captured.install()
    opm.configure()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0
    assert captured.values("pipeline.cache.hit.ratio", "cache.name")[cache] == 0.5
    assert trace.get_tracer_provider() is captured.tracer_provider
    assert metrics.get_meter_provider() is captured.meter_provider
    opm.shutdown()
    assert trace.get_tracer_provider() is captured.tracer_provider
    assert metrics.get_meter_provider() is captured.meter_provider
    # still open, since shutdown() only flushed them
    captured.tracer_provider.get_tracer("theirs").start_span("theirs").end()
    assert captured.span_names() == ["work", "theirs"]


def test_a_collection_has_the_calls_finished_before_it(captured: Captured) -> None:
    captured.configure()
    for calls in (1, 2, 3):
        work()
        assert captured.values("pipeline.stage.duration", STAGE) == {"work": calls}
        assert captured.values("pipeline.stage.items", STAGE) == {"work": 3 * calls}


@pytest.mark.parametrize("times", [2, 3])
def test_the_same_providers_again_double_nothing(
    captured: Captured, cache: str, times: int
) -> None:
    for _ in range(times):
        captured.configure()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert captured.values("pipeline.stage.items", STAGE) == {"work": 3}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0
    requests = captured.points()["pipeline.cache.requests"]
    assert [point.value for point in requests] == [1, 1]
    assert captured.values("pipeline.cache.hit.ratio", "cache.name") == {cache: 0.5}
    assert len(captured.points()["process.memory.usage"]) == 1


def test_the_same_providers_again_go_on_counting(captured: Captured) -> None:
    """Totals continue over a second `configure()`."""
    captured.configure()
    work()
    captured.configure()
    work()
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 2}
    assert captured.values("pipeline.stage.items", STAGE) == {"work": 6}


def test_new_providers_get_calls_from_then_on(
    captured: Captured, other: Captured, cache: str
) -> None:
    """The first providers keep the calls from before, and get no more."""
    captured.configure()
    work()
    other.configure()
    work()
    work()
    assert captured.span_names() == ["work"]
    assert other.span_names() == ["work", "work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert other.values("pipeline.stage.duration", STAGE) == {"work": 2}
    points = captured.points()
    assert "pipeline.stage.active" not in points
    assert "pipeline.cache.requests" not in points
    assert "process.memory.usage" not in points
    assert other.values("pipeline.cache.hit.ratio", "cache.name") == {cache: 0.5}


def test_back_and_forth_between_two_pairs(captured: Captured, other: Captured) -> None:
    for providers in (captured, other, captured):
        providers.configure()
        work()
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 2}
    assert other.values("pipeline.stage.duration", STAGE) == {"work": 1}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0
    assert "pipeline.stage.active" not in other.points()


def test_after_shutdown_stages_work_and_report_nothing(captured: Captured) -> None:
    captured.configure()
    work()
    opm.shutdown()
    assert work() == [1, 2, 3]
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 1}


def test_after_shutdown_runs_write_reports(captured: Captured) -> None:
    captured.configure()
    opm.shutdown()
    with opm.run("after", resources=False) as run:
        work()
    (stage,) = run.report.stages
    assert (stage["name"], stage["count"]) == ("work", 1)
    assert run.report.run["trace_id"] is None
    assert captured.spans() == []


def test_shutdown_and_configure_again(captured: Captured) -> None:
    captured.configure()
    work()
    opm.shutdown()
    work()
    captured.configure()
    work()
    assert captured.span_names() == ["work", "work"]
    assert captured.values("pipeline.stage.duration", STAGE) == {"work": 2}
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0


def test_shutdown_is_safe_at_any_time(captured: Captured) -> None:
    opm.shutdown()
    opm.shutdown()
    captured.configure()
    opm.shutdown()
    opm.shutdown()
    assert work() == [1, 2, 3]


def test_shutdown_flushes_pending_results(captured: Captured) -> None:
    captured.configure()
    work()
    opm.shutdown()
    assert captured.values("pipeline.stage.items", STAGE) == {"work": 3}


def test_global_providers_set_late_are_picked_up_without_configure(
    captured: Captured, cache: str
) -> None:
    assert work() == [1, 2, 3]  # before any provider
    captured.install()
    work()
    assert captured.span_names() == ["work"]
    assert captured.values("pipeline.stage.duration", STAGE)["work"] >= 1
    assert captured.values("pipeline.stage.active", STAGE)["work"] == 0
    assert captured.values("pipeline.cache.hit.ratio", "cache.name") == {cache: 0.5}


def test_a_run_has_a_span_on_late_providers(captured: Captured) -> None:
    captured.install()
    with opm.run("late", resources=False) as run:
        work()
    assert captured.span_names() == ["work", "run late"]
    (span,) = (span for span in captured.spans() if span.name == "run late")
    assert run.report.run["trace_id"] == f"{span.context.trace_id:032x}"
    assert captured.values("pipeline.run.duration", "pipeline.run.result") == {"success": 1}


def test_configure_inside_a_run_sends_later_calls_to_the_new_providers(captured: Captured) -> None:
    with opm.run("early", resources=False) as run:
        work()
        captured.configure()
        work()
    assert captured.span_names() == ["work"]
    assert [(stage["name"], stage["count"]) for stage in run.report.stages] == [("work", 2)]


def test_built_providers_replace_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the second console writes, and its provider is the global one."""
    opm.configure(exporter="console", console=False)
    first = trace.get_tracer_provider()
    assert isinstance(first, TracerProvider)
    work()
    opm.configure(exporter="console", console=False)
    second = trace.get_tracer_provider()
    assert isinstance(second, TracerProvider)
    assert second is not first
    lines = [line for line in capsys.readouterr().err.splitlines() if "  work " in line]
    assert len(lines) == 1
    work()
    work()
    opm.shutdown()
    lines = capsys.readouterr().err.splitlines()
    spans = [line for line in lines if "  work " in line and "trace " in line]
    assert len(spans) == 2
    (duration,) = (line for line in lines if line.startswith("pipeline.stage.duration"))
    assert "count 2 " in duration


def test_built_providers_follow_given_ones(
    captured: Captured, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given providers are not global, so a later `configure()` builds its own."""
    captured.configure()
    work()
    opm.configure(exporter="console", console=False)
    work()
    opm.shutdown()
    assert captured.span_names() == ["work"]
    assert "count 1 " in next(
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("pipeline.stage.duration")
    )


def test_exporter_none_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    opm.configure(exporter="none")
    with opm.run("silent", resources=False) as run:
        work()
    opm.shutdown()
    assert (run.report.stages[0]["count"], capsys.readouterr().err) == (1, "")

"""Test repeated `configure()`, `shutdown()` and late providers: no value twice."""

from __future__ import annotations

import functools
import gc
import io
import logging
import weakref
from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import configure as _configure

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
    opm.configure(exporter="console")
    first = trace.get_tracer_provider()
    assert isinstance(first, TracerProvider)
    work()
    opm.configure(exporter="console", service_name="second")
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
    opm.configure(exporter="console")
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


# --- the same call again, and another one inside a run --------------------------------------------


def test_the_same_call_again_does_nothing() -> None:
    opm.configure(exporter="none", service_name="same", resource_attributes={"a": 1})
    before = _configure._export
    opm.configure(exporter="none", service_name="same", resource_attributes={"a": 1})
    assert _configure._export is before


@pytest.mark.parametrize(
    "change",
    [
        {"service_name": "other"},
        {"spans_per_second": None},
        {"console": io.StringIO()},
        {"resource_attributes": {"a": 2}},
    ],
)
def test_any_other_argument_replaces(change: dict[str, object]) -> None:
    same: dict[str, object] = {"exporter": "none", "service_name": "same", "console": io.StringIO()}
    opm.configure(**same)  # type: ignore[arg-type]
    before = _configure._export
    opm.configure(**same | change)  # type: ignore[arg-type]
    assert _configure._export is not before


def test_another_variable_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    opm.configure(exporter="none")
    before = _configure._export
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b")
    opm.configure(exporter="none")
    assert _configure._export is not before


def test_a_global_provider_of_the_program_replaces(captured: Captured) -> None:
    opm.configure(exporter="none")
    captured.install()
    opm.configure(exporter="none")
    work()
    assert captured.span_names() == ["work"]


def test_after_shutdown_the_same_call_configures(captured: Captured) -> None:
    captured.configure()
    opm.shutdown()
    captured.configure()
    work()
    assert captured.span_names() == ["work"]


def test_a_provider_that_refuses_to_be_compared() -> None:
    class Odd(TracerProvider):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise TypeError("not comparable")

    odd = Odd(shutdown_on_exit=False)
    opm.configure(tracer_provider=odd, exporter="none")
    before = _configure._export
    opm.configure(tracer_provider=odd, exporter="none")
    assert _configure._export is before
    opm.configure(tracer_provider=Odd(shutdown_on_exit=False), exporter="none")
    assert _configure._export is not before


def test_a_run_outlives_another_configuration(captured: Captured, other: Captured) -> None:
    """Open spans end on the provider of the program that began them, the rest on the second."""
    other.configure()
    with opm.run("long", resources=False):
        with opm.stage("open"):
            work()
            captured.configure()
            assert captured.values("pipeline.run.active", "pipeline.name") == {"long": 1}
        work()
    assert captured.values("pipeline.run.duration", "pipeline.run.result") == {"success": 1}
    assert captured.values("pipeline.run.active", "pipeline.name") == {"long": 0}
    assert "pipeline.run.duration" not in other.points()
    assert (other.span_names(), captured.span_names()) == (["work", "open", "run long"], ["work"])


def test_open_spans_of_built_providers_go_to_the_next_ones(
    captured: Captured, capsys: pytest.CaptureFixture[str]
) -> None:
    opm.configure(exporter="console")
    tracer = trace.get_tracer("of a library that keeps it")
    with opm.run("long", resources=False), opm.stage("open"):
        captured.configure()
        tracer.start_span("theirs").end()
    assert captured.span_names() == ["theirs", "open", "run long"]
    assert "run long" not in capsys.readouterr().err
    opm.configure(exporter="console")
    with opm.run("twice", resources=False):
        opm.configure(exporter="console", service_name="second")
        opm.configure(exporter="console", service_name="third")
    opm.shutdown()
    assert capsys.readouterr().err.count("  run twice ") == 1


# --- flush ----------------------------------------------------------------------------------------


def test_flush_sends_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    opm.configure(exporter="console")
    for calls in (1, 2):
        work()
        report = opm.flush()
        assert (report.ok, report.spans_exported, report.spans_failed) == (True, calls, 0)
        assert f"count {calls} " in capsys.readouterr().err


def test_flush_of_given_and_of_global_providers(captured: Captured) -> None:
    flushed = []
    captured.tracer_provider.force_flush = lambda ms: flushed.append(ms) or True  # type: ignore[method-assign, func-returns-value]
    captured.install()
    report = opm.flush(0.5)  # without configure()
    assert report.ok
    assert report.spans_exported is None
    captured.configure()
    assert opm.flush(2).ok
    assert [0 < ms <= limit for ms, limit in zip(flushed, (500, 2000), strict=True)] == [True] * 2


def test_flush_without_any_provider_and_after_shutdown() -> None:
    assert opm.flush().ok
    opm.configure(exporter="none")
    opm.shutdown()
    report = opm.flush()
    assert (report.ok, report.collector, report.spans_exported) == (True, "off", 0)


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan"), float("inf")])
def test_flush_refuses_what_is_no_timeout(timeout: object) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        opm.flush(timeout)  # type: ignore[arg-type]


def test_what_was_replaced_is_freed() -> None:
    """Also where nothing collects any more from the providers before it."""
    replaced = []
    for name in ("first", "second", "third", "fourth"):
        opm.configure(service_name=name, exporter="console", console=io.StringIO())
        with opm.run("r", resources=False):
            work()
        export = _configure._export
        assert export is not None
        replaced.append(weakref.ref(export.meter_provider))
        opm.shutdown()
        del export
    gc.collect()
    # the first one is the global provider of the process, and the last one may still be in force
    assert [found() for found in replaced[1:-1]] == [None, None]

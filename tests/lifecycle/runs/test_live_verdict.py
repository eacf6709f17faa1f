"""The verdict while a run goes on: a metric, attributes of the run's span, and log lines."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._lifecycle import live_verdict
from otel_pipeline_metrics._telemetry import bottlenecks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Clock
    from tests.lifecycle.configure.support import Captured

LABELS = "pipeline.bottleneck.kind", "pipeline.bottleneck.name"


@pytest.fixture
def run() -> Iterator[opm.Run]:
    """A run whose sampling thread never comes to its first tick: tests call it."""
    with opm.run("r", resources=3600.0) as found:
        yield found


def work(clock: Clock, **seconds: float) -> None:
    """Run stages one after the other."""
    for name, took in seconds.items():
        with opm.stage(name):
            clock.advance(took)


def tick(run: Any) -> None:
    run._collector._tick(run._scope)


def test_what_limits_a_run_is_1_and_what_did_is_0(
    captured: Captured, clock: Clock, run: opm.Run
) -> None:
    captured.configure()
    work(clock, read=1.0)
    tick(run)
    assert captured.values("pipeline.bottleneck", *LABELS) == {}

    work(clock, read=8.0, write=2.0)
    tick(run)
    assert captured.values("pipeline.bottleneck", *LABELS) == {("serial", "read"): 1}

    work(clock, write=90.0)
    tick(run)
    assert captured.values("pipeline.bottleneck", *LABELS) == {
        ("serial", "read"): 0,
        ("serial", "write"): 1,
    }
    assert captured.values("pipeline.bottleneck", "pipeline.name") == {"r": 1}


def test_at_a_runs_end_all_are_0_once_and_then_gone(captured: Captured, clock: Clock) -> None:
    captured.configure()
    with opm.run("r", resources=3600.0) as run:
        work(clock, read=8.0, write=2.0)
        tick(run)
    assert captured.values("pipeline.bottleneck", *LABELS) == {("serial", "read"): 0}
    assert captured.values("pipeline.bottleneck", *LABELS) == {}
    # a tick that was late begins nothing anew
    run._note_bottleneck(("serial", "read"))
    assert captured.values("pipeline.bottleneck", *LABELS) == {}


def test_with_two_readers_each_gets_the_zeros(clock: Clock) -> None:
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    opm.configure(
        meter_provider=MeterProvider(readers, shutdown_on_exit=False),
        exporter="none",
        console=False,
    )
    with opm.run("r", resources=3600.0) as run:
        work(clock, read=8.0)
        tick(run)

    def values(reader: InMemoryMetricReader) -> list[int]:
        data = reader.get_metrics_data()
        return [
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "pipeline.bottleneck"
            for point in metric.data.data_points
        ]

    assert [values(readers[0]), values(readers[0]), values(readers[1])] == [[0], [0], [0]]
    clock.advance(bottlenecks.STAY_S)
    values(readers[0])
    assert [values(readers[0]), values(readers[1])] == [[], []]


def test_a_second_configuration_goes_on_with_the_run(captured: Captured, clock: Clock) -> None:
    opm.configure(exporter="none", console=False)
    with opm.run("r", resources=3600.0) as run:
        work(clock, read=8.0)
        tick(run)
        captured.configure()
        assert captured.values("pipeline.bottleneck", *LABELS) == {("serial", "read"): 1}
    assert captured.values("pipeline.bottleneck", *LABELS) == {("serial", "read"): 0}


def test_the_number_of_series_of_a_run_is_bounded(
    captured: Captured, clock: Clock, run: opm.Run
) -> None:
    captured.configure()
    for number in range(bottlenecks.MOST + 10):
        work(clock, **{f"s{number}": 1000.0})
        tick(run)
    found = captured.values("pipeline.bottleneck", *LABELS)
    assert len(found) == bottlenecks.MOST
    assert sum(found.values()) == 1


def test_the_runs_span_has_the_verdict(captured: Captured, clock: Clock) -> None:
    captured.configure()
    with opm.run("r", resources=False) as run:
        work(clock, read=8.0, write=2.0)
    (span,) = (span for span in captured.spans() if span.name == "run r")
    attributes = dict(span.attributes or {})
    low, high = run.report.bottleneck["what_if"][0]["gain"]
    assert 0 < low < 2 / 3 < high
    assert {
        "pipeline.bottleneck.kind": "serial",
        "pipeline.bottleneck.name": "read",
        "pipeline.bottleneck.confidence": "high",
        "pipeline.bottleneck.gain.low": low,
        "pipeline.bottleneck.gain.high": high,
    }.items() <= attributes.items()


def test_a_span_of_a_run_without_a_verdict_has_none(captured: Captured) -> None:
    captured.configure()
    with opm.run("r", resources=False):
        pass
    (span,) = captured.spans()
    assert not [key for key in span.attributes or {} if key.startswith("pipeline.bottleneck")]


def test_a_change_that_stays_is_one_line_in_the_log(
    clock: Clock, run: opm.Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otel_pipeline_metrics")

    def lines(**seconds: float) -> list[str]:
        caplog.clear()
        work(clock, **seconds)
        tick(run)
        return [record.getMessage() for record in caplog.records]

    assert lines(read=40.0) == []
    assert lines(read=40.0) == []
    # once is not enough
    assert lines(write=40.0) == []
    assert lines(read=40.0) == []
    assert lines(write=40.0) == []
    (line,) = lines(write=40.0)
    assert line.startswith("run r: write takes the largest part of a run")
    assert lines(write=40.0) == []


def test_a_verdict_is_about_the_latest_part_of_the_run(
    captured: Captured, clock: Clock, run: opm.Run
) -> None:
    """After an hour of reading, half a minute of writing is what limits the run now."""
    captured.configure()
    for _ in range(60):
        work(clock, read=60.0)
        tick(run)
    work(clock, write=live_verdict.LOOK_BACK_S)
    tick(run)
    assert captured.values("pipeline.bottleneck", *LABELS)["serial", "write"] == 1


def test_an_internal_error_is_not_the_runs(
    clock: Clock, run: opm.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(live_verdict, "analyze", broken)
    work(clock, read=8.0)
    with contextlib.suppress(RuntimeError):
        # the ticker logs what a call of it raises
        tick(run)
    assert run.report.run["wall_s"] == 8.0

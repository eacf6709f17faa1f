"""Spans of a stage have a budget per second; failed and slow calls have their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import every_series, span_budget

if TYPE_CHECKING:
    from tests.conftest import Clock
    from tests.stages.conftest import Otel

RATE = 100.0
CALLS_A_SECOND = 10_000


def call(otel: Otel, clock: Clock, calls: int, *, slow_every: int = 0) -> tuple[int, int]:
    """Call a stage; return the number of all spans, and of those for slow calls."""
    otel.exporter.clear()
    took = 1 / CALLS_A_SECOND

    @stage("budget")
    def work(seconds: float) -> None:
        clock.advance(seconds)

    for n in range(1, calls + 1):
        work(took * 20 if slow_every and n % slow_every == 0 else took)
    spans = otel.spans()
    late = [s for s in spans if s.end_time and s.start_time and s.end_time - s.start_time > 1e6]
    return len(spans), len(late)


@pytest.fixture(autouse=True)
def budget(otel: Otel) -> None:
    every_series.limit_spans(RATE)


def test_after_the_burst_spans_are_limited_by_rate(otel: Otel, clock: Clock) -> None:
    """They are spread over each second, at any rate of calls."""
    made, _ = call(otel, clock, 5 * CALLS_A_SECOND)
    assert made == pytest.approx(span_budget.SPAN_BURST + 5 * RATE, rel=0.1)


def test_slow_calls_have_spans_all_the_time(otel: Otel, clock: Clock) -> None:
    """At any rate of calls, though the other budget grows a little between two batches."""
    call(otel, clock, 3 * CALLS_A_SECOND)
    _, late = call(otel, clock, 3 * CALLS_A_SECOND, slow_every=1000)
    assert late >= 25


def test_calls_without_a_span_are_counted(otel: Otel, clock: Clock) -> None:
    call(otel, clock, CALLS_A_SECOND)
    (point,) = otel.points("pipeline.stage.duration")
    assert point.count == CALLS_A_SECOND

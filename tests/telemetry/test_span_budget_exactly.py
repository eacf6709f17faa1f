"""The span budget, exactly: its end, its growth, and which calls are slow.

Every time here is a multiple of 1/128 s, so none is rounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics import stage, waiting
from otel_pipeline_metrics._core import drain, every_series
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

RATE = 128.0
TICK = 1 / 128
BURST = 1000
# a spent budget is checked again after this many calls
EVERY = 16


def function(clock: Clock) -> Callable[[int], object]:
    @stage("budget")
    def work(ticks: int) -> None:
        clock.advance(ticks * TICK)

    return work


def function_with_items(clock: Clock) -> Callable[[int], object]:
    @stage("budget", items=lambda _: 3)
    def work(ticks: int) -> None:
        clock.advance(ticks * TICK)

    return work


def coroutine(clock: Clock) -> Callable[[int], object]:
    @stage("budget")
    async def work(ticks: int) -> None:
        clock.advance(ticks * TICK)

    return lambda ticks: asyncio.run(work(ticks))


def block(clock: Clock) -> Callable[[int], object]:
    def work(ticks: int) -> None:
        with stage("budget"):
            clock.advance(ticks * TICK)

    return work


def block_with_items(clock: Clock) -> Callable[[int], object]:
    def work(ticks: int) -> None:
        with stage("budget") as s:
            clock.advance(ticks * TICK)
            s.add_items(3)

    return work


def generator(clock: Clock) -> Callable[[int], object]:
    @stage("budget")
    def work(ticks: int) -> Generator[int, None, None]:
        clock.advance(ticks * TICK)
        yield 1

    return lambda ticks: list(work(ticks))


def failing(clock: Clock) -> Callable[[int], object]:
    @stage("budget")
    def work(ticks: int) -> None:
        clock.advance(ticks * TICK)
        raise KeyError

    def call(ticks: int) -> None:
        with pytest.raises(KeyError):
            work(ticks)

    return call


def take(otel: Otel, call: Callable[[int], object], calls: int, ticks: int = 0) -> int:
    """Make `calls` calls; return the number of their spans."""
    otel.exporter.clear()
    for _ in range(calls):
        call(ticks)
    return len(otel.spans())


def spend(otel: Otel, clock: Clock, rate: float = RATE) -> Callable[[int], object]:
    """Spend the whole budget of a stage; return the stage."""
    every_series.limit_spans(rate)
    call = function(clock)
    assert take(otel, call, BURST) == BURST
    return call


def test_exactly_the_first_thousand_calls_have_spans(otel: Otel, clock: Clock) -> None:
    call = spend(otel, clock)
    assert take(otel, call, 5 * BURST) == 0


def test_one_tick_adds_one_span(otel: Otel, clock: Clock) -> None:
    call = spend(otel, clock)
    clock.advance(TICK)
    assert take(otel, call, EVERY - 1) == 0
    assert take(otel, call, 1) == 1
    assert take(otel, call, 10 * EVERY) == 0


def test_parts_of_a_span_add_up(otel: Otel, clock: Clock) -> None:
    call = spend(otel, clock)
    clock.advance(TICK / 2)
    assert take(otel, call, 2 * EVERY) == 0
    clock.advance(TICK / 2)
    assert take(otel, call, 2 * EVERY) == 1


def test_at_most_a_thousand_spans_are_saved_up(otel: Otel, clock: Clock) -> None:
    """After a pause of any length."""
    call = spend(otel, clock)
    clock.advance(999 * TICK)
    assert take(otel, call, 5 * BURST) == 999
    clock.advance(1_000_000)
    assert take(otel, call, 5 * BURST) == BURST


def test_an_unspent_budget_does_not_exceed_a_thousand(otel: Otel, clock: Clock) -> None:
    """A drain in between is another moment at which it grows."""
    every_series.limit_spans(RATE)
    call = function(clock)
    assert take(otel, call, 10) == 10
    clock.advance(1_000_000)
    drain.drain()
    assert take(otel, call, 5 * BURST) == BURST


def test_errors_have_their_own_thousand(otel: Otel, clock: Clock) -> None:
    """At first, and again after a pause of any length."""
    every_series.limit_spans(RATE)
    call = failing(clock)
    assert take(otel, call, 5 * BURST) == 2 * BURST
    clock.advance(1_000_000)
    assert take(otel, call, 5 * BURST) == 2 * BURST
    clock.advance(TICK)
    assert take(otel, call, 5 * BURST) == 2


def test_a_rate_of_zero_gives_no_spans(otel: Otel, clock: Clock) -> None:
    every_series.limit_spans(0)
    assert take(otel, function(clock), 10, ticks=128) == 0
    assert take(otel, failing(clock), 10, ticks=128) == 0


def test_without_a_limit_each_call_has_a_span(otel: Otel, clock: Clock) -> None:
    every_series.limit_spans(None)
    assert take(otel, function(clock), 2 * BURST) == 2 * BURST


def learn_durations(otel: Otel, clock: Clock, durations: int) -> None:
    """Spend a budget that hardly grows; then flush calls of 1, 2, 3, ... ticks."""
    call = spend(otel, clock, rate=2**-30)
    drain.drain()
    for ticks in range(durations, 0, -1):
        call(ticks)
    drain.drain()


KINDS = (function, function_with_items, coroutine, block, block_with_items, generator, failing)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "slow"), [(100, 100), (101, 100), (200, 199), (1000, 991)])
def test_a_call_slower_than_99_in_100_has_a_span(
    batch: int, slow: int, kind: Callable[[Clock], Callable[[int], object]],
    otel: Otel, clock: Clock,
) -> None:  # fmt: skip
    """The batch before sets the threshold, and it holds for every kind of stage."""
    learn_durations(otel, clock, batch)
    call = kind(clock)
    fast = take(otel, call, 3, slow) + take(otel, call, 1, 1)
    assert fast == (4 if kind is failing else 0)
    assert take(otel, call, 1, slow + 1) == 1
    (span,) = otel.spans()
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == int((slow + 1) * TICK * 1e9)
    counted = {function_with_items: 3, block_with_items: 3, generator: 1}.get(kind)
    assert (span.attributes or {}).get("pipeline.stage.items.out") == counted


def test_fewer_than_a_hundred_calls_set_no_threshold(otel: Otel, clock: Clock) -> None:
    learn_durations(otel, clock, 99)
    assert take(otel, function(clock), 10, 100_000) == 0


def test_while_each_call_has_a_span_none_is_slow(otel: Otel, clock: Clock) -> None:
    """The budget for late spans is only for calls without one."""
    every_series.limit_spans(RATE)
    call = function(clock)
    for ticks in range(1, 201):
        call(ticks)
    drain.drain()
    (series,) = [s for s in _series.all_series() if s.key.stage == "budget"]
    assert (series.budget.spans_made, series.budget.slow_s) == (200, float("inf"))


def test_with_the_late_budget_spent_no_call_is_slow(otel: Otel, clock: Clock) -> None:
    learn_durations(otel, clock, 200)
    (series,) = [s for s in _series.all_series() if s.key.stage == "budget"]
    series.budget.late_left = 1.0
    call = function(clock)
    assert take(otel, call, 3, 1000) == 1
    for ticks in range(200):
        call(ticks)
    drain.drain()
    assert series.budget.slow_s == float("inf")


def test_a_late_span_is_as_long_as_its_call_with_waits(otel: Otel, clock: Clock) -> None:
    spend(otel, clock)
    otel.exporter.clear()
    accounting.watch()

    @stage("budget")
    def fails() -> None:
        clock.advance(TICK)
        with waiting():
            clock.advance(2 * TICK)
        with waiting("idle"):
            clock.advance(4 * TICK)
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    (span,) = otel.spans()
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == int(7 * TICK * 1e9)

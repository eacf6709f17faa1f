"""Test the limits of pending results and of a stage's details: the last one and one more."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics import current_stage, stage
from otel_pipeline_metrics._core import cardinality, drain, every_series, remote_runs, stage_id
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.drain import PENDING_BOUND
from otel_pipeline_metrics._core.records import (
    Batch,
    Counts,
    EventTime,
    QueueBatch,
    StageKey,
    StageResult,
    TimeInStates,
)
from otel_pipeline_metrics._core.stage_time import ALL_SAMPLED
from otel_pipeline_metrics._stages.execution import NOOP_EXECUTION
from otel_pipeline_metrics._stages.workers.worker import current_call
from otel_pipeline_metrics._telemetry.backlog import BOUND as EARLY_BOUND
from otel_pipeline_metrics._telemetry.backlog import PreConfigureBacklog
from otel_pipeline_metrics._telemetry.pending import WAITING_BOUND
from tests.stages.support import in_flight, sample_no_more

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.conftest import Clock, Results
    from tests.stages.conftest import Otel


def plain() -> Callable[[], object]:
    return stage("bound")(lambda: None)


def with_items() -> Callable[[], object]:
    return stage("bound", items=lambda _: 1)(lambda: None)


def coroutine() -> Callable[[], object]:
    @stage("bound")
    async def work() -> None:
        """Nothing."""

    def call() -> None:
        with pytest.raises(StopIteration):
            work().send(None)

    return call


def block() -> Callable[[], object]:
    def call() -> None:
        with stage("bound"):
            """Nothing."""

    return call


def block_that_says_more() -> Callable[[], object]:
    def call() -> None:
        with stage("bound") as s:
            s.add_items(1)

    return call


def generator() -> Callable[[], object]:
    @stage("bound")
    def work() -> Generator[int, None, None]:
        yield 1

    return lambda: list(work())


def by_hand() -> Callable[[], object]:
    identity = stage_id.stage_id("bound", None)
    return lambda: drain.submit(identity, StageResult(1.0))


@pytest.mark.parametrize(
    "kind", [plain, with_items, coroutine, block, block_that_says_more, generator, by_hand]
)
def test_a_stage_keeps_1023_calls_and_flushes_1024(
    kind: Callable[[], Callable[[], object]], results: Results
) -> None:
    call = kind()
    for _ in range(ALL_SAMPLED + 1):
        call()
    drain.drain()
    results.batches.clear()
    sample_no_more()
    for _ in range(1023):
        call()
    assert results.batches == []
    call()
    (batch,) = results.batches
    assert len(batch.durations) + len(batch.results) == 1024
    assert len(batch.sizes) == (1024 if kind is with_items else 0)


@pytest.mark.parametrize(
    "kind", [plain, with_items, coroutine, block, block_that_says_more, generator]
)
def test_pending_calls_are_not_in_flight(
    kind: Callable[[], Callable[[], object]], results: Results
) -> None:
    call = kind()
    call()
    assert in_flight("bound") == 0
    with stage("bound"):
        assert in_flight("bound") == 1
        call()
        assert in_flight("bound") == 1
    assert in_flight("bound") == 0
    assert len(results.durations("bound")) == 3


def test_one_call_flushes_no_more_than_the_bound(results: Results) -> None:
    """Even if many results have accumulated while another thread drained."""
    work = plain()
    work()
    (series,) = [s for s in _series.all_series() if s.key.stage == "bound"]
    series.durations.extend([0.0] * (PENDING_BOUND + 10))
    work()
    assert [len(batch.durations) for batch in results.batches] == [PENDING_BOUND]
    assert (len(series.durations), series.active) == (12, 0)
    drain.drain()
    assert [len(batch.durations) for batch in results.batches] == [PENDING_BOUND, 12]


def test_a_histogram_keeps_1023_values_and_records_1024(otel: Otel) -> None:
    """Until the next collection; what it keeps costs memory only."""
    sink, key = otel.telemetry.stages, StageKey(None, "bound", None)
    recorded: list[int] = []

    def kept() -> list[int]:
        (totals,) = sink._totals.values()
        return [len(values._pending) for values in totals.values.values()]

    assert WAITING_BOUND == 1024
    for count in (1, 1022, 1):
        sink.accept(Batch(key, {}, [0.5] * count, []))
        recorded += kept()
    assert recorded == [1, 1023, 0]


def test_the_backlog_before_there_is_a_provider() -> None:
    """16,384 calls and items; a batch that does not fit is counted, a smaller one kept."""
    key = StageKey(None, "bound", None)
    early = PreConfigureBacklog()
    assert EARLY_BOUND == 16_384
    early.keep(Batch(key, {}, [0.0] * 16_000, [StageResult(0.0)] * 300))
    early.keep(QueueBatch("q", [0.0] * 85))
    assert (early._kept, early._missed) == (16_300, 85)
    early.keep(QueueBatch("q", [0.0] * 84))
    early.keep(Batch(key, {}, [0.0], []))
    early.keep(Batch(key, {}, [], [StageResult(0.0)] * 2))
    assert (early._kept, early._missed) == (16_384, 88)
    assert len(list(early.taking())) == 2
    assert not list(early.taking())
    assert (early._kept, early._missed) == (0, 0)


def test_a_17th_run_of_another_process_displaces_the_first(results: Results) -> None:
    """The first one is forgotten, but its calls in progress are still flushed."""
    scopes = [remote_runs.remote_run_scope("p", f"run-{n}") for n in range(16)]
    assert [remote_runs.remote_run_scope("p", f"run-{n}") for n in range(16)] == scopes
    remote_runs.remote_run_scope("p", "run-16")
    assert [remote_runs.remote_run_scope("p", f"run-{n}") for n in range(1, 16)] == scopes[1:]
    scopes[0].add(stage_id.stage_id("late", None)).durations.append(2.0)
    assert results.durations("late") == [2.0]
    assert remote_runs.remote_run_scope("p", "run-0") is not scopes[0]
    remote_runs._remote_scopes.clear()


@pytest.mark.parametrize("busy", [TimeInStates(1.0), TimeInStates(0, 1.0), TimeInStates(0, 0, 1.0)])
def test_time_in_one_state_makes_it_true(busy: TimeInStates) -> None:
    assert busy
    assert not TimeInStates()


@pytest.mark.parametrize(("n", "counted"), [(0, 0), (1, 1), (True, None), (-1, None), (1.0, None)])
def test_values_that_are_counts(n: Any, counted: int | None, results: Results) -> None:
    with stage("counts") as s:
        if counted is None:
            with pytest.raises((TypeError, ValueError)):
                s.add_items(n)
        else:
            s.add_items(n)
            s.add_items(n, "out")
    assert results.sizes("counts") == ([] if counted is None else [2 * counted])


@pytest.mark.parametrize("timestamp", [math.inf, -math.inf, math.nan, True, "0"])
def test_values_that_are_no_event_times(timestamp: Any, results: Results) -> None:
    with stage("times") as s, pytest.raises((TypeError, ValueError)):
        s.event_time(timestamp)
    assert results.of("times") == []


def test_a_retrys_name_has_128_characters_at_most(results: Results) -> None:
    with stage("retries") as s:
        s.retry("x" * 127 + "yz")
        s.retry("x" * 127 + "y")
    (result,) = results.of("retries")
    assert result.retries == (("x" * 127 + "y", 2),)


def test_details_after_the_end_change_nothing(results: Results, clock: Clock) -> None:
    with stage("over") as s:
        s.add_items(1)
    s.add_items(1)
    s.add_bytes(1)
    s.retry("late")
    s.event_time(1.0)
    s.set_attribute("late", 1)
    (result,) = results.of("over")
    assert result == StageResult(0.0, items_out=1)
    details = s.ensure_details()
    assert details.totals() == Counts(items_out=1)
    assert (details.attributes, details.retries) == ({}, {})
    assert not any(batch.event_times for batch in results.batches)


def contexts_in(kind: str) -> list[contextvars.Context]:
    """Return contexts copied inside a call that is over, as a task's context is."""
    found: list[contextvars.Context] = []

    def note(*_: object) -> int:
        found.append(contextvars.copy_context())
        return 1

    async def note_later() -> None:
        note()

    def once() -> Generator[int, None, None]:
        yield note()

    if kind == "function":
        stage("over")(note)()
    elif kind == "function with items":
        stage("over", items=lambda n: n)(note)()
    elif kind == "function that says more":
        stage("over")(lambda: note(current_stage().add_items(1)))()
    elif kind == "coroutine":
        asyncio.run(stage("over")(note_later)())
    elif kind == "block":
        with stage("over"):
            note()
    elif kind == "block that is asked for":
        with stage("over"):
            current_stage()
            note()
    else:
        list(stage("over")(once)())
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "function", "function with items", "function that says more", "coroutine", "block",
        "block that is asked for", "generator",
    ],
)  # fmt: skip
def test_a_task_that_outlives_its_stage_is_outside_it(kind: str, results: Results) -> None:
    """Its copy of the context still has the call, which is over."""
    (context,) = contexts_in(kind)
    assert context.run(current_stage) is NOOP_EXECUTION
    assert context.run(current_call) is None


def test_a_task_of_a_suspended_generator_is_outside_it(results: Results) -> None:
    found: list[contextvars.Context] = []

    @stage("paused")
    def work() -> Generator[int, None, None]:
        found.append(contextvars.copy_context())
        yield 1
        current_stage().add_items(1)
        yield 2

    source = work()
    next(source)
    assert found[0].run(current_call) is None
    assert found[0].run(current_stage) is NOOP_EXECUTION
    next(source)
    source.close()
    assert results.sizes("paused") == [3]


def test_a_withdrawn_attribute_is_on_no_later_span(otel: Otel) -> None:
    work = stage("withdrawn", attributes={"colour": "red", "size": 1})(lambda: None)
    work()
    every_series.withdraw(stage_id.with_attribute(lambda key: key == "colour"))
    work()
    first, second = (dict(span.attributes or {}) for span in otel.spans())
    assert first == {**second, "colour": "red"}
    assert second["size"] == 1


def test_a_naive_event_time_is_utc_in_any_time_zone(
    results: Results, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT+5")
    time.tzset()
    try:
        with stage("naive") as s:
            s.event_time(datetime(1970, 1, 2))
    finally:
        monkeypatch.undo()
        time.tzset()
    drain.drain()
    assert [e.originated for b in results.batches for e in b.event_times] == [86400.0]


def test_a_function_says_more_in_its_own_stage(results: Results) -> None:
    @stage("says")
    def plain() -> None:
        current_stage().add_items(3)

    @stage("says")
    async def coroutine() -> None:
        current_stage().add_items(4)

    plain()
    asyncio.run(coroutine())
    assert results.sizes("says") == [3, 4]


def test_a_partial_of_a_partial_is_what_the_innermost_function_is(results: Results) -> None:
    async def innermost(a: int, b: int) -> int:
        return a - b

    inner = functools.partial(innermost, 3)
    inner.mark = "kept apart"  # type: ignore[attr-defined]  # else the outer one takes its place
    outer = functools.partial(inner, b=1)
    assert outer.func is inner
    assert asyncio.run(stage(outer)()) == 2
    assert len(results.durations("innermost")) == 1


def test_a_long_object_is_quoted_in_80_characters() -> None:
    with pytest.raises(TypeError) as caught:
        stage("x")("y" * 200)  # type: ignore[type-var]
    assert str(caught.value) == (
        f"a stage decorates a function or a method, not '{'y' * 79}; a name is given as a string"
    )


def test_a_call_without_end_keeps_a_bounded_number_of_event_times(results: Results) -> None:
    """They are flushed while it goes on."""
    with stage("stream") as s:
        for n in range(3 * PENDING_BOUND + 1):
            s.event_time(float(n))
        (series,) = [x for x in _series.all_series() if x.key.stage == "stream"]
        assert len(series.event_times) == 1
        assert sum(len(batch.event_times) for batch in results.batches) == 3 * PENDING_BOUND
        assert results.of("stream") == []
    drain.drain()
    found = [event.originated for batch in results.batches for event in batch.event_times]
    assert found == [float(n) for n in range(3 * PENDING_BOUND + 1)]


def test_a_call_has_a_bounded_number_of_names_for_retries(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All further ones are counted together."""
    monkeypatch.setattr(cardinality, "max_values", 3)
    with stage("retries") as s:
        for n in range(10):
            s.retry(f"error {n}")
        s.retry("error 1")
    (result,) = results.of("retries")
    assert dict(result.retries) == {"error 0": 1, "error 1": 2, "error 2": 1, "_OTHER": 7}


def test_early_event_times_are_bounded() -> None:
    backlog = PreConfigureBacklog()
    event = EventTime(1.0, 2.0, {})
    for _ in range(EARLY_BOUND + 10):
        backlog.keep(Batch(StageKey(None, "s", None), {}, [], [], event_times=[event]))
    assert len(list(backlog.taking())) == EARLY_BOUND

"""Test that every call is flushed exactly once, in any order and by any thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import drain as _drain
from otel_pipeline_metrics._core.drain import PENDING_BOUND
from otel_pipeline_metrics._core.stage_time import pop_front
from otel_pipeline_metrics._stages import execution, invocation
from otel_pipeline_metrics._telemetry.pending import WAITING_BOUND
from otel_pipeline_metrics._telemetry.sdk_private import bulk_record
from tests import strategies
from tests.conftest import Results
from tests.stages.support import in_flight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.metrics import Observation

    from tests.conftest import Clock
    from tests.stages.conftest import Otel
    from tests.strategies import Call

RAISED: dict[str, type[BaseException]] = {"error": KeyError, "cancelled": asyncio.CancelledError}


def make(call: Call, clock: Clock) -> None:
    if call.outcome == "drain":
        _drain.drain()
        return
    with contextlib.suppress(KeyError, asyncio.CancelledError), stage("counted") as s:
        clock.advance(call.seconds)
        if call.items is not None:
            s.add_items(call.items)
        if call.outcome != "ok":
            raise RAISED[call.outcome]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=strategies.calls)
def test_every_call_is_reported_once(calls: list[Call], clock: Clock, results: Results) -> None:
    results.batches.clear()
    for call in calls:
        make(call, clock)

    made = [c for c in calls if c.outcome != "drain"]
    durations = results.durations("counted")
    said = results.of("counted")
    assert len(made) == len(durations)
    assert sum(c.seconds for c in made) == sum(durations)
    assert Counter(c.outcome for c in made if c.outcome != "ok") == Counter(
        r.outcome for r in said if r.outcome != "ok"
    )
    assert [c.items for c in made if c.items is not None] == [
        r.items_out for r in said if r.items_out is not None
    ]
    assert in_flight("counted") == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(calls=strategies.calls)
def test_metrics_show_the_same(calls: list[Call], clock: Clock, make_otel: Any) -> None:
    otel = make_otel()
    for call in calls:
        if call.outcome == "drain":
            otel.collect()
        else:
            make(call, clock)

    made = [c for c in calls if c.outcome != "drain"]
    metrics = otel.collect()
    durations = metrics["pipeline.stage.duration"].data.data_points if made else []
    assert len(made) == sum(p.count for p in durations)
    assert sum(c.seconds for c in made) == sum(p.sum for p in durations)
    assert sum(c.outcome == "error" for c in made) == sum(
        p.count for p in durations if p.attributes.get("error.type") == "KeyError"
    )
    assert sum(c.seconds for c in made) == sum(
        otel.values("pipeline.stage.time", "counted").values()
    )
    assert sum(c.items or 0 for c in made) == sum(
        otel.values("pipeline.stage.items", "counted").values()
    )


def test_a_full_series_is_flushed_without_a_collection(results: Results) -> None:
    for _ in range(PENDING_BOUND - 1):
        with stage("waiting"):
            pass
    assert results.batches == []
    with stage("waiting"):
        pass
    assert [len(b.durations) for b in results.batches] == [PENDING_BOUND]


class Racy(list[int]):
    """A list to which another thread always appends just after it was read."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.append(99)
        return found


def test_results_added_while_others_are_taken_stay() -> None:
    waiting = Racy([1, 2])
    assert pop_front(waiting) == [1, 2]
    assert list(waiting) == [99]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_threads")
def test_8_threads_while_another_drains(results: Results) -> None:
    @stage("threads")
    def function(n: int) -> int:
        if n % 100 == 0:
            raise KeyError(n)
        return n

    def worker(_: int) -> int:
        raised = 0
        for n in range(10_000):
            try:
                assert n == function(n)
            except KeyError:
                raised += 1
        return raised

    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            _drain.drain()

    drainer = threading.Thread(target=drain)
    drainer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(worker, range(8))) == [100] * 8
    finally:
        done.set()
        drainer.join()
    assert len(results.durations("threads")) == 80_000
    assert Counter(r.outcome for r in results.of("threads")) == {"error": 800}
    assert in_flight("threads") == 0


def test_8_threads_while_two_readers_collect(make_otel: Any) -> None:
    otel: Otel = make_otel(
        readers=(InMemoryMetricReader(), InMemoryMetricReader()),
        tracer_provider=NoOpTracerProvider(),
    )

    @stage("threads", items=lambda n: n)
    def function(n: int) -> int:
        return n

    def worker(_: int) -> None:
        for _n in range(10_000):
            function(1)

    done = threading.Event()

    def collect(reader: int) -> None:
        while not done.wait(0.01):
            otel.collect(reader)

    collectors = [threading.Thread(target=collect, args=[n]) for n in range(2)]
    for thread in collectors:
        thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(worker, range(8)))
    finally:
        done.set()
        for thread in collectors:
            thread.join()
    for reader in range(2):
        (point,) = otel.points("pipeline.stage.duration", reader)
        assert 80_000 == point.count == sum(point.bucket_counts)
        assert otel.values("pipeline.stage.items", "threads", reader) == {("out",): 80_000}


def test_a_call_does_not_wait_for_a_collection(
    make_otel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for one that hangs in a callback of the user."""
    monkeypatch.setattr(bulk_record, "_LOCK_WAIT_S", 60.0, raising=False)
    otel: Otel = make_otel(tracer_provider=NoOpTracerProvider())
    hanging, go_on = threading.Event(), threading.Event()

    def hang(_: Any) -> list[Observation]:
        hanging.set()
        go_on.wait(30)
        return []

    otel.meter_provider.get_meter("the user's").create_observable_gauge("hangs", [hang])

    def work() -> None:
        for _ in range(4 * WAITING_BOUND):
            with stage("hot") as s:
                s.add_items(1)

    collector = threading.Thread(target=otel.collect)
    worker = threading.Thread(target=work)
    collector.start()
    assert hanging.wait(5)
    worker.start()
    worker.join(10)
    waited = worker.is_alive()
    go_on.set()
    worker.join()
    collector.join()
    assert not waited
    (point,) = otel.points("pipeline.stage.duration")
    assert point.count == 4 * WAITING_BOUND


def test_a_new_thread_has_a_context_of_its_own(results: Results) -> None:
    seen = []

    def worker() -> None:
        seen.append(invocation.current_execution())

    with stage("outer"):
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    assert seen == [execution.NOOP_EXECUTION]


class Node:
    """Part of a cycle that the garbage collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_stages_entered_by_the_garbage_collector(otel: Otel) -> None:
    """It may run anywhere, also while a lock of ours or of the SDK is held."""
    found = 0

    def finalize() -> None:
        nonlocal found
        found += 1
        with stage("finalizer"):
            pass

    thresholds = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for _ in range(200):
            weakref.finalize(Node(), finalize)
            with stage("worker") as s:
                s.add_items(1)
            if _ % 20 == 0:
                otel.collect()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert found == 200
    assert len(otel.results.durations("worker")) == 200
    assert len(otel.results.durations("finalizer")) == 200


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_stages_entered_by_a_signal_handler(results: Results) -> None:
    handled = 0

    def handler(*_: Any) -> None:
        nonlocal handled
        handled += 1
        with stage("handler"):
            pass

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        made = 0
        while handled < 50:
            for _ in range(100):
                with stage("worker"):
                    pass
            made += 100
            _drain.drain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert made == len(results.durations("worker"))
    assert handled == len(results.durations("handler"))


def test_calls_that_ended_before_a_change_of_telemetry_are_reported(make_otel: Any) -> None:
    first: Otel = make_otel()
    with stage("moved"):
        pass
    second: Otel = make_otel()
    with stage("moved"):
        pass
    (point,) = second.points("pipeline.stage.duration")
    assert point.count == 1
    (point,) = first.points("pipeline.stage.duration")
    assert point.count == 1


def test_an_open_execution_is_reported_to_the_telemetry_at_its_end(make_otel: Any) -> None:
    make_otel()
    with stage("across"):
        second: Otel = make_otel()
    (point,) = second.points("pipeline.stage.duration")
    assert point.count == 1


def test_two_sinks_get_the_same_results(results: Results) -> None:
    other = Results()
    _drain.set_sinks((results, other))
    with stage("both"):
        pass
    assert results.durations("both") == other.durations("both")
    assert len(results.batches) == 1

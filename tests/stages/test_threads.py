"""Test many threads at once: every call is counted exactly once."""

from __future__ import annotations

import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.trace import NoOpTracerProvider

from otel_pipeline_metrics import current_stage, stage
from otel_pipeline_metrics._core import drain, stage_id
from otel_pipeline_metrics._core import series as _series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Results
    from tests.stages.conftest import Otel

THREADS = 8
CALLS = 4000
DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


class PatientReader(InMemoryMetricReader):
    """One that a busy machine makes wait: the SDK gives up after ten seconds."""

    def collect(self, timeout_millis: float = 600_000) -> None:
        super().collect(timeout_millis)


@pytest.fixture
def switching_all_the_time() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_all_the_time")
@pytest.mark.parametrize("fold", ["true", "false"])
def test_no_call_is_lost(
    fold: str, make_otel: Callable[..., Otel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads call and flush, while two readers collect."""
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_FOLD", fold)
    readers = (PatientReader(), PatientReader(preferred_temporality=DELTA))
    otel = make_otel(readers=readers, tracer_provider=NoOpTracerProvider())
    deltas: list[Any] = []
    called = threading.Event()
    begin = threading.Barrier(THREADS + len(readers))

    @stage("plain")
    def plain() -> None:
        pass

    @stage("counted")
    def counted() -> None:
        current_stage().add_items(2)

    def call() -> None:
        begin.wait()
        for _ in range(CALLS):
            plain()
            counted()

    def collect(reader: int) -> None:
        begin.wait()
        while not called.is_set():
            points = otel.points("pipeline.stage.duration", reader)
            if reader == 1:
                deltas.extend(points)

    with ThreadPoolExecutor(THREADS + len(readers)) as pool:
        collecting = [pool.submit(collect, reader) for reader in range(len(readers))]
        calling = [pool.submit(call) for _ in range(THREADS)]
        try:
            for thread in calling:
                thread.result()
        finally:
            called.set()
        for thread in collecting:
            thread.result()
    deltas.extend(otel.points("pipeline.stage.duration", 1))
    made = THREADS * CALLS
    assert sum(point.count for point in deltas) == 2 * made
    counts = {
        point.attributes["pipeline.stage.name"]: point.count
        for point in otel.points("pipeline.stage.duration")
    }
    assert counts == {"plain": made, "counted": made}
    assert otel.values("pipeline.stage.items", "counted") == {("out",): 2 * made}


class Overtaken(list[float]):
    """Pending durations: while one thread takes them, another one takes them too."""

    def __init__(self, overtake: Callable[[], None]) -> None:
        super().__init__()
        self.overtake = overtake

    def __getitem__(self, index: Any) -> Any:
        taken = super().__getitem__(index)
        overtake, self.overtake = self.overtake, lambda: None
        other = threading.Thread(target=overtake)
        other.start()
        other.join()
        return taken


@pytest.mark.parametrize("locked", [True, False], ids=["with the lock", "without it"])
def test_the_lock_keeps_two_draining_threads_apart(
    locked: bool, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, both threads flush the same calls, and the later ones are lost."""
    if not locked:
        nobody = contextlib.nullcontext()
        monkeypatch.setattr(nobody, "locked", lambda: False, raising=False)
        monkeypatch.setattr(drain, "_drain_lock", nobody)
    series = _series.process_scope.add(stage_id.stage_id("taken", None))

    def end(numbers: range) -> None:
        for number in numbers:
            series.durations.append(float(number))

    def overtake() -> None:
        drain.drain_series(series)
        end(range(100, 150))

    monkeypatch.setattr(series, "durations", Overtaken(overtake))
    end(range(100))
    drain.drain_series(series)
    expected = [*range(150)] if locked else sorted([*range(100)] * 2)
    assert sorted(results.durations("taken")) == expected

"""Fixtures for every test: strict errors, a clock that tests move, a sink that keeps results."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry.metrics import _internal as metrics_internal

from otel_pipeline_metrics._core import clock as _clock
from otel_pipeline_metrics._core import drain, errors, every_series, hooks, privacy
from otel_pipeline_metrics._telemetry import sink as _sink
from otel_pipeline_metrics._telemetry import spans as _spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch, StageResult


# How long a test takes depends on the machine's load; its result does not.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell that starts pytest in the background has it, and what tests start, ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the other path of a call."""
    parser.addoption(
        "--traced",
        action="store_true",
        help="call stages as where a provider of spans is set, also in tests that set none",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have calls look for a tracer: the hot path leaves all of them to others then."""
    if config.getoption("--traced"):
        vars(_spans)["_global_provider"] = lambda given: given
        _sink.installed().spans.put_in_force()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end no worker is to wait for another's long test."""

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("slow") is not None:
            return 0
        return 1 if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) else 2

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def loud_faults() -> Iterator[None]:
    """Let an internal error fail the test."""
    errors.reset()
    errors.raise_faults = True
    # Property tests call one stage thousands of times; other tests cover the limit of spans.
    every_series.limit_spans(None)
    # As in a program without queues, until the test has one.
    hooks.set_workers(None)
    yield
    errors.raise_faults = False
    privacy.dropped_before()  # or the next strict configure() would refuse them
    # The API's proxy keeps every meter it made, and with it the providers of every test: a heap of
    # millions of objects, which each collection and each fork of a later test walks through.
    current = _sink.installed().instruments._meter
    meters = metrics_internal._PROXY_METER_PROVIDER._meters
    meters[:] = [meter for meter in meters if meter is current]


@pytest.fixture(autouse=True)
def no_service_left() -> Iterator[None]:
    """Let a test that uses a part of `service` leave no thread and no probe to the next one."""
    yield
    _sink._probes.pop("workers", None)  # of pools
    if (stalled := sys.modules.get("otel_pipeline_metrics.service.stalled")) is None:
        return
    stalled._ticker.remove(stalled.detector)
    sys.modules["otel_pipeline_metrics.service.readings"].readings.stop()
    for name in ("stalled", "own health", "service readings", "breakers", "connections"):
        _sink._probes.pop(name, None)
    if (events := sys.modules.get("otel_pipeline_metrics.service.events")) is not None:
        events._of_process.clear()


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = 1000.0
        # of every thread
        self.cpu_time = 0.0

    def now(self) -> float:
        return self.time

    def unix(self) -> float:
        return 1_700_000_000.0 + self.time

    def cpu(self) -> float:
        return self.cpu_time

    def advance(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The library's clock, moved by hand."""
    fake = Clock()
    monkeypatch.setattr(_clock, "now", fake.now)
    monkeypatch.setattr(_clock, "unix", fake.unix)
    monkeypatch.setattr(_clock, "cpu", fake.cpu)
    return fake


class Results:
    """A sink that keeps every batch."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.queue_batches: list[QueueBatch] = []
        self.limit_batches: list[LimitBatch] = []

    def accept(self, batch: Batch) -> None:
        self.batches.append(batch)

    def accept_queue(self, batch: QueueBatch) -> None:
        self.queue_batches.append(batch)

    def accept_limit(self, batch: LimitBatch) -> None:
        self.limit_batches.append(batch)

    def durations(self, stage: str) -> list[float]:
        """Return the busy seconds of every call of `stage`."""
        drain.drain()
        found = [b for b in self.batches if b.key.stage == stage]
        return [d for b in found for d in [*b.durations, *(r.busy_s for r in b.results)]]

    def sizes(self, stage: str) -> list[int]:
        """Return the items that came out of each call of `stage` that counts them."""
        drain.drain()
        found = [b for b in self.batches if b.key.stage == stage]
        told = [r.items_out for b in found for r in b.results if r.items_out is not None]
        return [*told, *(size for b in found for size in b.sizes)]

    def of(self, stage: str) -> list[StageResult]:
        """Return the results of `stage` that report more than a duration."""
        drain.drain()
        return [r for b in self.batches if b.key.stage == stage for r in b.results]


@pytest.fixture
def results() -> Iterator[Results]:
    """Collect what finishes in this test; no telemetry is installed meanwhile."""
    before, sinks = _sink.installed(), drain._sinks
    drain.drain()
    sink = Results()
    hooks.set_tracing(None)
    drain.set_sinks((sink,))
    yield sink
    drain.drain()
    before.spans.put_in_force()
    drain.set_sinks(sinks)

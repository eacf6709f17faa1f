"""Raise at every place of a flush, as a signal handler may: each value is recorded once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)

from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.records import Batch, StageKey
from otel_pipeline_metrics._telemetry import pending, sink
from otel_pipeline_metrics._telemetry.sdk_private import bulk_add, bulk_record, self_check
from tests.support.interrupting import StrikeError, strike_at_every_line, striking
from tests.telemetry.test_bulk_record import DELTA, points_in, sampled

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = StageKey(None, "struck", None)
DURATIONS = [0.001, 0.02, 0.02, 0.3, 4.0]
CUMULATIVE: dict[str, Callable[[], MeterProvider]] = {
    "one reader": lambda: provider_of(InMemoryMetricReader()),
    "two readers": lambda: provider_of(InMemoryMetricReader(), InMemoryMetricReader()),
    "exponential": lambda: provider_of(
        InMemoryMetricReader(),
        views=[view(defs.STAGE_DURATION.name, ExponentialBucketHistogramAggregation())],
    ),
    "counters as histograms": lambda: provider_of(
        InMemoryMetricReader(),
        views=[view(defs.STAGE_TIME.name, ExplicitBucketHistogramAggregation())],
    ),
}


def view(name: str, aggregation: Any) -> View:
    return View(instrument_name=name, aggregation=aggregation)


def provider_of(*readers: InMemoryMetricReader, views: list[View] | None = None) -> MeterProvider:
    return MeterProvider(readers, views=views or [], shutdown_on_exit=False)


class Flushed:
    """A sink on a provider, and what its readers have collected."""

    def __init__(self, provider: MeterProvider, *, bulk: bool = True) -> None:
        self.bulk = bulk
        self.readers: list[Any] = list(provider._measurement_consumer._reader_storages)
        self.stages = sink.OtelSink(trace.NoOpTracerProvider(), provider).stages
        self.accepted = 0

    def accept(self, exemplars: tuple[tuple[float, Any], ...] = ()) -> None:
        batch = Batch(KEY, {}, sorted(DURATIONS), [])
        batch.time, batch.cpu_s, batch.exemplars = (8.0, 0.0, 0.0, 0.0, 0.0), 2.0, exemplars
        self.stages.accept(batch)
        self.accepted += len(DURATIONS)

    def flush(self) -> None:
        with mock.patch.dict(os.environ, OTEL_PIPELINE_METRICS_FOLD=str(self.bulk).lower()):
            for instrument in self.stages._instruments.values():
                instrument.flush()

    def points(self, reader: InMemoryMetricReader) -> dict[str, dict[str, Any]]:
        return {point["metric"]: point for point in points_in(reader)}


@pytest.mark.parametrize("kind", CUMULATIVE)
def test_an_interrupted_flush_records_each_value_once(kind: str) -> None:
    """All readers get each call's duration and time, now or at the next flush."""
    flushed = Flushed(CUMULATIVE[kind]())
    flushed.accept()
    flushed.flush()
    flushed.accept()

    def after(strikes: int) -> None:
        flushed.flush()
        for reader in flushed.readers:
            points = flushed.points(reader)
            found = points[defs.STAGE_DURATION.name]
            assert found["count"] == flushed.accepted, strikes
            batches = flushed.accepted / len(DURATIONS)
            assert found["sum"] == pytest.approx(sum(DURATIONS) * batches)
            time = points[defs.STAGE_TIME.name]
            assert time.get("value", time.get("sum")) == 8 * batches, strikes
            assert points[defs.STAGE_CPU_TIME.name]["value"] == 2 * batches, strikes
        flushed.accept()

    assert strike_at_every_line(flushed.flush, after, bulk_record, bulk_add, pending) > 40


@pytest.mark.parametrize("kind", ["one by one", "delta", "exemplars"])
def test_an_interrupted_record_of_the_sdk_costs_one_value_at_most(kind: str) -> None:
    """No value counts twice."""
    temporality: Any = DELTA if kind == "delta" else None
    reader = InMemoryMetricReader(preferred_temporality=temporality)
    flushed = Flushed(provider_of(reader), bulk=kind != "one by one")
    exemplars = ((0.02, sampled(1)), (0.3, sampled(2))) if kind == "exemplars" else ()
    flushed.accept(exemplars)
    found = lost = 0

    def after(strikes: int) -> None:
        nonlocal found, lost
        flushed.flush()
        count = flushed.points(reader)[defs.STAGE_DURATION.name]["count"]
        found = found + count if kind == "delta" else count
        assert lost <= flushed.accepted - found <= lost + 1, strikes
        lost = flushed.accepted - found
        flushed.accept(exemplars)

    assert strike_at_every_line(flushed.flush, after, bulk_record, bulk_add, pending) > 40
    # only between the removal of a value and its record; an SDK that keeps its aggregations
    # from one delta to the next, as 1.30 does, gets all values in bulk, which loses none
    assert (0 if kind == "delta" else 1) <= lost < 40


def test_a_value_that_the_sdk_fails_to_record_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does it wait for ever."""
    monkeypatch.setattr("otel_pipeline_metrics._core.errors.raise_faults", False)
    reader = InMemoryMetricReader()
    flushed = Flushed(provider_of(reader), bulk=False)
    flushed.accept()
    (totals,) = flushed.stages._totals.values()
    (values,) = totals.values.values()
    record = values._record

    def failing(value: float, *others: Any) -> None:
        if value == 0.3:
            raise ValueError
        record(value, *others)

    values._record = failing
    flushed.flush()
    assert flushed.points(reader)[defs.STAGE_DURATION.name]["count"] == len(DURATIONS) - 1
    assert values._pending == []


def test_what_fails_in_bulk_is_recorded_one_by_one() -> None:
    """Nothing is lost, and nothing waits for ever."""
    reader = InMemoryMetricReader()
    flushed = Flushed(provider_of(reader))
    flushed.accept()
    flushed.flush()
    (totals,) = flushed.stages._totals.values()
    (values,) = totals.values.values()

    def failing(*_: object) -> None:
        raise AttributeError

    values._found = ((failing, None),)
    for _ in range(2):
        flushed.accept()
        flushed.flush()
    assert flushed.points(reader)[defs.STAGE_DURATION.name]["count"] == flushed.accepted
    assert values._pending == []


@pytest.mark.parametrize("kind", [StrikeError, KeyboardInterrupt])
def test_an_interrupted_check_is_made_again(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bulk recording is not switched off for good."""
    counter = provider_of(InMemoryMetricReader()).get_meter("m").create_counter("c")
    instrument = bulk_record.Instrument(counter, bulk=self_check.is_supported)
    monkeypatch.setattr(self_check, "_works", None)

    def handler(*_: object) -> None:
        raise kind

    with striking(), monkeypatch.context() as patch:
        signal.signal(signal.SIGUSR1, handler)
        patch.setattr(self_check, "_points", lambda _: signal.raise_signal(signal.SIGUSR1))
        with pytest.raises(kind):
            instrument.sdk_targets()
    assert instrument.sdk_targets()

"""Bulk recording gives exactly the points that `record` gives."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Counter,
    Histogram,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
    View,
)
from prometheus_client import REGISTRY, generate_latest

from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.records import Batch, StageKey
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.sdk_private import bulk_record, self_check
from tests.strategies import EDGES, Read, Recorded, durations, recordings
from tests.support.operations import steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DURATION = "pipeline.stage.duration"
DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
EXPONENTIAL = {Histogram: ExponentialBucketHistogramAggregation()}
VIEWS: dict[str, list[View]] = {
    "no view": [],
    "other boundaries": [
        View(instrument_name=DURATION, aggregation=ExplicitBucketHistogramAggregation(EDGES))
    ],
    "no boundaries": [
        View(instrument_name=DURATION, aggregation=ExplicitBucketHistogramAggregation([]))
    ],
    "neither minimum nor maximum": [
        View(
            instrument_name=DURATION,
            aggregation=ExplicitBucketHistogramAggregation(EDGES, record_min_max=False),
        )
    ],
    "few exponential buckets": [
        View(
            instrument_name=DURATION,
            aggregation=ExponentialBucketHistogramAggregation(max_size=4, max_scale=10),
        )
    ],
    "coarse exponential buckets": [
        View(
            instrument_name=DURATION,
            aggregation=ExponentialBucketHistogramAggregation(max_size=160, max_scale=-2),
        )
    ],
    "dropped": [View(instrument_name=DURATION, aggregation=DropAggregation())],
    "a sum": [View(instrument_name=DURATION, aggregation=SumAggregation())],
    "the last value": [View(instrument_name=DURATION, aggregation=LastValueAggregation())],
    "fewer attributes": [View(instrument_name="pipeline.*", attribute_keys={"pipeline.name"})],
    "two streams": [
        View(instrument_name=DURATION, attribute_keys=set()),
        View(
            instrument_name=DURATION,
            name="coarse",
            aggregation=ExponentialBucketHistogramAggregation(max_size=8),
        ),
    ],
}
FILTERS = {
    "traced": TraceBasedExemplarFilter,
    "none": AlwaysOffExemplarFilter,
    "always": AlwaysOnExemplarFilter,
}


def sampled(number: int) -> Any:
    """Return a context whose span is sampled."""
    context = trace.SpanContext(1, number, is_remote=False, trace_flags=trace.TraceFlags(1))
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


@pytest.fixture(autouse=True)
def a_sampled_span_is_current() -> Iterator[None]:
    """Make another span current during collections; it must not become an exemplar."""
    # what a run of an earlier test ended with is among the points of the next collection
    for scope in list(_series.scopes):
        scope.forget()
    context = trace.SpanContext(9, 9, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def points_of(
    recordings: list[Recorded | Read], *, bulk: bool, **options: Any
) -> list[list[dict[str, Any]]]:
    """Return everything that three readers collect, at the end all of it."""
    readers = [
        InMemoryMetricReader(),
        InMemoryMetricReader(preferred_temporality=DELTA),
        InMemoryMetricReader(preferred_temporality=DELTA, preferred_aggregation=EXPONENTIAL),
    ]
    with mock.patch.dict(os.environ, OTEL_PIPELINE_METRICS_FOLD=str(bulk).lower()):
        provider = MeterProvider(readers, shutdown_on_exit=False, **options)
        telemetry = sink.OtelSink(trace.NoOpTracerProvider(), provider)
        spans = itertools.count(10)
        collected = []
        for recording in [*recordings, Read(0), Read(1), Read(2)]:
            if isinstance(recording, Read):
                collected.append(points_in(readers[recording.reader]))
                continue
            shown = [(value, sampled(next(spans))) for value in recording.durations]
            key = StageKey("bulk", recording.stage, "process")
            plain = sorted(recording.durations)
            batch = Batch(key, {}, plain, [], exemplars=shown[: recording.shown])
            telemetry.stages.accept(batch)
        provider.shutdown()
    return collected


def points_in(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    data = reader.get_metrics_data()
    return [
        {"metric": metric.name, "data": type(metric.data).__name__, **as_dict(point)}
        for resource in (data.resource_metrics if data is not None else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in sorted(metric.data.data_points, key=lambda p: sorted(p.attributes.items()))
    ]


def as_dict(point: Any) -> dict[str, Any]:
    """Return a point without its times."""
    fields = ("attributes", "count", "bucket_counts", "explicit_bounds")
    found = {name: getattr(point, name) for name in fields if hasattr(point, name)}
    # the last digits of a sum depend on the order of its values
    for name, differing in {"min": 0.0, "max": 0.0, "sum": 1e-12, "value": 1e-12}.items():
        if hasattr(point, name):
            number = getattr(point, name)
            found[name] = pytest.approx(number, rel=differing, abs=0.0, nan_ok=True)
    if hasattr(point, "scale"):
        found |= {"scale": point.scale, "zero_count": point.zero_count}
        for name in ("positive", "negative"):
            buckets = getattr(point, name)
            counts = list(buckets.bucket_counts)
            # how many empty buckets follow the last one depends on the order of the values
            while counts and not counts[-1]:
                counts.pop()
            found[name] = (buckets.offset, counts)
    elif hasattr(point, "bucket_counts"):
        # only a histogram has one for each bucket; elsewhere the SDK keeps some at random
        found["exemplars"] = sorted((e.value, e.span_id) for e in point.exemplars)
    return found


@pytest.mark.parametrize("views", VIEWS)
@settings(max_examples=40)
@given(recordings=recordings)
def test_bulk_recording_gives_the_same_points(
    views: str, recordings: list[Recorded | Read]
) -> None:
    options = {"views": VIEWS[views]}
    bulk_recorded = points_of(recordings, bulk=True, **options)
    assert bulk_recorded == points_of(recordings, bulk=False, **options)


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=40)
@given(recordings=recordings)
def test_bulk_recording_gives_the_same_exemplars(
    name: str, recordings: list[Recorded | Read]
) -> None:
    options = {"exemplar_filter": FILTERS[name](), "views": VIEWS["other boundaries"]}
    bulk_recorded = points_of(recordings, bulk=True, **options)
    assert bulk_recorded == points_of(recordings, bulk=False, **options)


@pytest.mark.parametrize("views", VIEWS)
def test_bulk_recording_is_in_use(views: str) -> None:
    """Otherwise these tests would compare `record` with itself."""
    assert self_check.is_supported()
    recorded: list[float] = []
    real = Histogram.record

    def record_seen(self: Any, amount: float, *arguments: Any, **more: Any) -> None:
        recorded.append(amount)
        real(self, amount, *arguments, **more)

    with mock.patch.object(Histogram, "record", record_seen):
        points_of([Recorded("a", [n / 8 for n in range(1000)])] * 3, bulk=True, views=VIEWS[views])
    assert recorded == [0.0]


strange = st.sampled_from([math.nan, math.inf, 1e308, -1.0, -0.0])


@given(batches=st.lists(st.lists(durations | strange, min_size=1), min_size=1, max_size=4))
def test_unusual_values_give_the_same_points(batches: list[list[float]]) -> None:
    """The SDK refuses negative values, and treats infinite ones in its own way."""

    def collected(*, bulk: bool) -> list[dict[str, Any]]:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        histogram = provider.get_meter("test").create_histogram("values")
        series = bulk_record.HistogramSeries(
            bulk_record.Instrument(histogram, bulk=bulk), {"some": "one"}
        )
        for values in batches:
            assert series.record(sorted(values))
        found = points_in(reader)
        provider.shutdown()
        return found

    logging.disable()
    try:
        bulk_recorded, recorded = collected(bulk=True), collected(bulk=False)
    finally:
        logging.disable(logging.NOTSET)
    assert bulk_recorded == recorded


@settings(max_examples=40)
@given(recordings=recordings)
def test_prometheus_gets_the_same_values(recordings: list[Recorded | Read]) -> None:
    def shown(*, bulk: bool) -> list[str]:
        reader = PrometheusMetricReader()
        try:
            with mock.patch.dict(os.environ, OTEL_PIPELINE_METRICS_FOLD=str(bulk).lower()):
                provider = MeterProvider([reader], shutdown_on_exit=False)
                telemetry = sink.OtelSink(trace.NoOpTracerProvider(), provider)
                for recording in recordings:
                    if isinstance(recording, Recorded):
                        key = StageKey("bulk", recording.stage, "process")
                        # sums of eighths are the same in any order
                        plain = sorted(int(d * 8) / 8 for d in recording.durations if d < 1e6)
                        telemetry.stages.accept(Batch(key, {}, plain, []))
                    else:
                        generate_latest(REGISTRY)
                page = generate_latest(REGISTRY).decode()
        finally:
            provider.shutdown()
        # which family comes first is the exporter's own choice
        return sorted(line for line in page.splitlines() if line.startswith("pipeline"))

    assert shown(bulk=True) == shown(bulk=False)


# --- during a collection -------------------------------------------------------------------------


def test_recording_does_not_wait_for_a_hanging_collection() -> None:
    """Callbacks run under the consumer's lock; values are still recorded, so few are pending."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = sink.OtelSink(trace.NoOpTracerProvider(), provider)
    hanging, enough = threading.Event(), threading.Event()

    def hang(_: object) -> list[Any]:
        hanging.set()
        assert enough.wait(60)
        return []

    provider.get_meter("another").create_observable_gauge("slow", [hang])
    collector = threading.Thread(target=reader.collect)
    collector.start()
    try:
        assert hanging.wait(60)
        key = StageKey(None, "busy", None)
        for _ in range(50):
            telemetry.stages.accept(Batch(key, {}, [0.5] * 1024, []))
        (totals,) = telemetry.stages._totals.values()
        (values,) = totals.values.values()
        assert values._pending == []
    finally:
        enough.set()
        collector.join()
    (point,) = [p for p in points_in(reader) if p["metric"] == DURATION]
    assert point["count"] == 50 * 1024
    provider.shutdown()


def test_during_its_collection_a_series_records_nothing() -> None:
    """A signal handler may interrupt a collection in its thread, and would wait for ever."""
    reader = InMemoryMetricReader(preferred_temporality=DELTA)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument = bulk_record.Instrument(
        provider.get_meter("test").create_histogram("values"), bulk=self_check.is_supported
    )
    series = bulk_record.HistogramSeries(instrument, {})
    assert series.record([1.0])
    (match,) = instrument.sdk_targets()
    with match._lock:
        assert not series.record([2.0])
        assert not series.record([], {0: (3.0, sampled(1))})
    assert series.record([2.0])
    (point,) = points_in(reader)
    assert point["count"] == 2
    provider.shutdown()


def test_values_past_the_cardinality_limit_give_the_same_points() -> None:
    """They go to the overflow series of the SDK."""

    def collected(*, bulk: bool) -> list[dict[str, Any]]:
        reader = InMemoryMetricReader()
        view = View(instrument_name="values", aggregation_cardinality_limit=2)
        provider = MeterProvider([reader], views=[view], shutdown_on_exit=False)
        histogram = provider.get_meter("test").create_histogram("values")
        instrument = bulk_record.Instrument(histogram, bulk=bulk)
        for _ in range(2):
            for name in "abcd":
                assert bulk_record.HistogramSeries(instrument, {"name": name}).record(
                    [1.0, 2.0, 3.0]
                )
        found = points_in(reader)
        provider.shutdown()
        return found

    try:
        View(instrument_name="values", aggregation_cardinality_limit=2)
    except TypeError:
        pytest.skip("this SDK has no cardinality limit")
    found = collected(bulk=True)
    assert found == collected(bulk=False)
    assert sorted(point["count"] for point in found) == [6, 6, 12]


def test_what_a_collection_keeps_away_is_recorded_by_the_next_flush() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    stages = sink.OtelSink(trace.NoOpTracerProvider(), provider).stages
    key = StageKey(None, "busy", None)
    stages.accept(Batch(key, {}, [0.5], []))
    assert stages.flush()
    stages.accept(Batch(key, {}, [0.25, 0.5], []))
    (match,) = stages._instruments[DURATION].sdk_targets()
    with match._lock:
        assert stages.flush()
    assert len(stages._instruments[DURATION].changed) == 1
    (point,) = [p for p in points_in(reader) if p["metric"] == DURATION]
    assert (point["count"], point["sum"]) == (3, 1.25)
    # and only once
    assert stages._instruments[DURATION].changed == {}
    (point,) = [p for p in points_in(reader) if p["metric"] == DURATION]
    assert point["count"] == 3
    provider.shutdown()


def test_a_flush_records_only_the_stages_that_have_something_new() -> None:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    stages = sink.OtelSink(trace.NoOpTracerProvider(), provider).stages

    def one_of(count: int) -> int:
        for number in range(count):
            stages.accept(Batch(StageKey(None, f"stage {number}", None), {}, [0.5], []))
        for _ in range(2):  # the first one looks its aggregation up among all
            stages.flush()
            stages.accept(Batch(StageKey(None, "stage 0", None), {}, [0.5], []))
        return steps_of(stages.flush)

    assert one_of(10) == one_of(100)
    provider.shutdown()

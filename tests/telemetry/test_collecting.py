"""Stage metrics as several kinds of readers and views collect them; exemplars."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    Gauge,
    InMemoryMetricReader,
)
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)

from otel_pipeline_metrics import fetch, stage

from .test_metrics import TABLE, report_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


def run_stage(times: int, clock: Clock, seconds: float = 1) -> None:
    for _ in range(times):
        with stage("again") as s:
            clock.advance(seconds)
            s.add_items(1)


def test_cumulative_points_grow_over_collections(clock: Clock, otel: Otel) -> None:
    expected = 0
    for times in (3, 0, 2000, 1):
        run_stage(times, clock)
        expected += times
        metrics = otel.collect()
        (point,) = metrics["pipeline.stage.duration"].data.data_points
        assert (expected, expected, expected) == (
            point.count,
            point.sum,
            sum(point.bucket_counts),
        )
        (point,) = metrics["pipeline.stage.items"].data.data_points
        assert expected == point.value


def test_delta_points_start_at_zero_at_each_collection(
    clock: Clock, make_otel: Callable[..., Otel]
) -> None:
    otel = make_otel(readers=(InMemoryMetricReader(preferred_temporality=DELTA),))
    for times in (3, 2000, 1):
        run_stage(times, clock)
        metrics = otel.collect()
        (point,) = metrics["pipeline.stage.duration"].data.data_points
        assert (times, times) == (point.count, point.sum)
        (point,) = metrics["pipeline.stage.items"].data.data_points
        assert times == point.value
    run_stage(0, clock)
    assert "pipeline.stage.duration" not in otel.collect()


def test_several_readers_get_the_same_values(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(
        readers=(
            InMemoryMetricReader(),
            InMemoryMetricReader(preferred_temporality=DELTA),
            InMemoryMetricReader(),
        )
    )
    run_stage(5, clock)
    assert [otel.points("pipeline.stage.duration", n)[0].count for n in (0, 1)] == [5, 5]
    run_stage(7, clock)
    assert [otel.points("pipeline.stage.duration", n)[0].count for n in range(3)] == [12, 7, 12]
    for reader, expected in enumerate((12, 12)):
        if reader == 1:
            continue
        assert {("out",): expected} == otel.values("pipeline.stage.items", "again", reader)


def test_the_final_collection_has_the_last_calls(clock: Clock, otel: Otel) -> None:
    otel.collect()
    run_stage(3, clock)
    seen = []
    receive = otel.readers[0]._receive_metrics
    otel.readers[0]._receive_metrics = lambda data, *a, **k: (seen.append(data), receive(data))  # type: ignore[method-assign]
    otel.meter_provider.force_flush()
    counts = [
        p.count
        for data in seen
        for r in data.resource_metrics
        for s in r.scope_metrics
        for m in s.metrics
        if m.name == "pipeline.stage.duration"
        for p in m.data.data_points
    ]
    assert counts == [3]


def test_a_view_can_set_other_boundaries(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    view = View(
        instrument_name="pipeline.stage.duration",
        aggregation=ExplicitBucketHistogramAggregation([1, 10]),
    )
    otel = make_otel(views=[view])
    run_stage(3, clock, 5)
    (point,) = otel.points("pipeline.stage.duration")
    assert (tuple(point.explicit_bounds), tuple(point.bucket_counts)) == ((1, 10), (0, 3, 0))


def test_a_view_can_keep_fewer_attributes(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    view = View(instrument_name="pipeline.stage.*", attribute_keys={"pipeline.stage.kind"})
    otel = make_otel(views=[view])
    for decorated in (fetch("a"), fetch("b"), fetch("a")):
        with decorated as s:
            clock.advance(1)
            s.add_items(2)
    (point,) = otel.points("pipeline.stage.duration")
    assert point.attributes == {"pipeline.stage.kind": "fetch"}
    assert (point.count, point.sum) == (3, 3)
    (point,) = otel.points("pipeline.stage.items")
    assert point.value == 6


def test_views_can_make_two_streams(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(
        views=[
            View(instrument_name="pipeline.stage.duration"),
            View(
                instrument_name="pipeline.stage.duration",
                name="pipeline.stage.duration.coarse",
                aggregation=ExplicitBucketHistogramAggregation([60]),
            ),
        ]
    )
    run_stage(2000, clock)
    for name in ("pipeline.stage.duration", "pipeline.stage.duration.coarse"):
        (point,) = otel.points(name)
        assert (point.count, point.sum) == (2000, 2000)


@pytest.mark.parametrize("dropped", [name for name, _, _ in TABLE])
def test_a_view_can_drop_one_metric(
    dropped: str, clock: Clock, make_otel: Callable[..., Otel]
) -> None:
    otel = make_otel(views=[View(instrument_name=dropped, aggregation=DropAggregation())])
    report_everything()
    with stage("all", kind="process"):
        clock.advance(1)
        clock.cpu_time += 1
    metrics = otel.collect()
    assert {name for name, _, _ in TABLE} - {dropped} == set(metrics)
    if dropped != "pipeline.stage.duration":
        (point,) = metrics["pipeline.stage.duration"].data.data_points
        assert point.count == 2


def test_histograms_can_be_exponential(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    reader = InMemoryMetricReader(
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}
    )
    otel = make_otel(readers=(reader,))
    run_stage(1000, clock, 0.5)
    metric = otel.collect()["pipeline.stage.duration"]
    assert isinstance(metric.data, ExponentialHistogram)
    (point,) = metric.data.data_points
    assert (point.count, point.sum, point.min, point.max) == (1000, 500, 0.5, 0.5)
    assert sum(point.positive.bucket_counts) == 1000


def test_active_is_a_level_for_delta_readers_too(make_otel: Callable[..., Otel]) -> None:
    reader = InMemoryMetricReader(
        preferred_temporality={
            **DELTA,
            ObservableUpDownCounter: AggregationTemporality.CUMULATIVE,
        }
    )
    otel = make_otel(readers=(reader,))
    with stage("level"):
        for _ in range(2):
            metric = otel.collect()["pipeline.stage.active"]
            assert not isinstance(metric.data, Gauge)
            (point,) = [
                p for p in metric.data.data_points if p.attributes["pipeline.stage.name"] == "level"
            ]
            assert point.value == 1


def test_a_retired_sink_reports_nothing_more(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    first = make_otel()
    run_stage(2, clock)
    second = make_otel()
    run_stage(3, clock)
    assert first.points("pipeline.stage.duration")[0].count == 2
    assert first.points("pipeline.stage.active") == []
    assert second.points("pipeline.stage.duration")[0].count == 3


# --- exemplars ----------------------------------------------------------------------------------


def test_an_exemplar_points_at_its_span(clock: Clock, otel: Otel) -> None:
    with stage("shown"):
        clock.advance(0.3)
    span = otel.span("shown")
    (point,) = otel.points("pipeline.stage.duration")
    (exemplar,) = point.exemplars
    assert (span.context.trace_id, span.context.span_id) == (exemplar.trace_id, exemplar.span_id)
    assert pytest.approx(0.3) == exemplar.value


def test_each_bucket_has_an_exemplar(clock: Clock, otel: Otel) -> None:
    """Each points at a span whose duration is in the bucket."""
    for seconds in (0.0002, 0.03, 0.03, 20.0):
        with stage("shown") as s:
            clock.advance(seconds)
            s.set_attribute("took", seconds)
    took = {s.context.span_id: s.attributes["took"] for s in otel.spans()}
    (point,) = otel.points("pipeline.stage.duration")
    assert point.count == 4
    assert {0.0002, 0.03, 20.0} == {round(e.value, 6) for e in point.exemplars}
    assert all(pytest.approx(took[e.span_id]) == e.value for e in point.exemplars)


def test_batch_sizes_and_errors_have_exemplars(otel: Otel) -> None:
    with contextlib.suppress(KeyError), stage("failed") as s:
        s.add_items(3)
        raise KeyError
    span = otel.span("failed")
    metrics = otel.collect()
    for name in ("pipeline.stage.duration", "pipeline.stage.batch.size"):
        (point,) = metrics[name].data.data_points
        assert [span.context.span_id] == [e.span_id for e in point.exemplars]


def test_the_span_that_is_current_at_a_collection_is_not_an_exemplar(
    clock: Clock, otel: Otel
) -> None:
    with stage("measured"):
        clock.advance(1)
    with otel.tracer_provider.get_tracer("another").start_as_current_span("another"):
        (point,) = [
            p
            for p in otel.points("pipeline.stage.duration")
            if p.attributes["pipeline.stage.name"] == "measured"
        ]
    assert {otel.span("measured").context.span_id} == {e.span_id for e in point.exemplars}

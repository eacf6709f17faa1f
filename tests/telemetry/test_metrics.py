"""Metrics of stages: names, units, boundaries and attributes as the table of semantics has them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    Gauge,
    InMemoryMetricReader,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)

from otel_pipeline_metrics import current_stage, fetch, stage
from otel_pipeline_metrics._core import drain, stage_id
from otel_pipeline_metrics._core.records import StageResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

# As in semantics.md, not as in `metric_definitions`: what is compared must not be its own measure.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
TABLE = [
    ("pipeline.stage.duration", "s", HistogramData),
    ("pipeline.stage.time", "s", Sum),
    ("pipeline.stage.active", "{invocation}", Sum),
    ("pipeline.stage.items", "{item}", Sum),
    ("pipeline.stage.io", "By", Sum),
    ("pipeline.stage.batch.size", "{item}", HistogramData),
    ("pipeline.stage.retries", "{retry}", Sum),
]

DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


def say_everything() -> None:
    with stage("all", kind="process") as s:
        s.add_items(3, "in")
        s.add_items(2)
        s.add_bytes(10)
        s.retry(KeyError)


@pytest.mark.parametrize(("name", "unit", "data"), TABLE, ids=[t[0] for t in TABLE])
def test_the_table(name: str, unit: str, data: type[Any], otel: Otel) -> None:
    say_everything()
    metric = otel.collect()[name]
    assert (unit, data) == (metric.unit, type(metric.data))
    assert metric.description.endswith(".")
    for point in metric.data.data_points:
        if point.attributes["pipeline.stage.name"] == "all":
            assert point.attributes["pipeline.stage.kind"] == "process"
    if data is Sum:
        assert (name != "pipeline.stage.active") is metric.data.is_monotonic
        assert AggregationTemporality.CUMULATIVE is metric.data.aggregation_temporality


def test_there_are_no_others(otel: Otel) -> None:
    say_everything()
    assert {name for name, _, _ in TABLE} == set(otel.collect())


def test_duration(clock: Clock, otel: Otel) -> None:
    for seconds in (0.003, 0.003, 7, 700):
        with stage("timed"):
            clock.advance(seconds)
    (point,) = otel.points("pipeline.stage.duration")
    assert point.attributes == {"pipeline.stage.name": "timed"}
    assert tuple(point.explicit_bounds) == SECONDS
    assert point.count == 4
    assert pytest.approx(707.006) == point.sum
    assert pytest.approx((0.003, 700)) == (point.min, point.max)
    buckets = {
        bound: count
        for bound, count in zip((*SECONDS, None), point.bucket_counts, strict=True)
        if count
    }
    assert buckets == {0.005: 2, 10: 1, None: 1}


def test_durations_of_errors_are_apart(clock: Clock, otel: Otel) -> None:
    for error in (KeyError(), KeyError(), OSError(), asyncio.CancelledError()):
        with contextlib.suppress(type(error)), fetch("mixed"):
            clock.advance(1)
            raise error
    with fetch("mixed"):
        clock.advance(1)
    points = otel.points("pipeline.stage.duration")
    assert {p.attributes.get("error.type"): p.count for p in points} == {
        "KeyError": 2,
        "OSError": 1,
        None: 2,
    }
    for point in points:
        assert set(point.attributes) - {"error.type"} == {
            "pipeline.stage.name",
            "pipeline.stage.kind",
        }


def test_time_by_state(otel: Otel) -> None:
    identity = stage_id.stage_id("states", None)
    for _ in range(2):
        drain.submit(identity, StageResult(busy_s=4.0, idle_s=2.0, blocked_s=1.0))
    assert otel.values("pipeline.stage.time", "states") == {
        ("busy",): 8,
        ("idle",): 4,
        ("blocked",): 2,
    }
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum) == (2, 8)


def test_busy_time(clock: Clock, otel: Otel) -> None:
    for _ in range(3):
        with stage("busy"):
            clock.advance(2)
    (point,) = otel.points("pipeline.stage.time")
    assert point.attributes == {"pipeline.stage.name": "busy", "pipeline.stage.state": "busy"}
    assert point.value == 6


def test_active(otel: Otel) -> None:
    def active() -> Any:
        return otel.values("pipeline.stage.active", "open").get(())

    assert active() in (None, 0)
    with stage("open") as _:
        assert active() == 1
        with stage("open"):
            assert active() == 2
        assert active() == 1
    assert active() == 0


def test_items(otel: Otel) -> None:
    with stage("counts") as s:
        s.add_items(5, "in")
        s.add_items(3)
    with contextlib.suppress(KeyError), stage("counts") as s:
        s.add_items(2, "in")
        raise KeyError
    attributes = {
        (p.attributes["pipeline.io.direction"], p.attributes.get("error.type")): p.value
        for p in otel.points("pipeline.stage.items")
    }
    assert attributes == {("in", None): 5, ("out", None): 3, ("in", "KeyError"): 2}


def test_bytes(otel: Otel) -> None:
    for _ in range(2):
        with stage("counts") as s:
            s.add_bytes(5, "in")
            s.add_bytes(3)
    assert otel.values("pipeline.stage.io", "counts") == {("in",): 10, ("out",): 6}


def test_batch_size(otel: Otel) -> None:
    for n in (1, 7, 200_000):
        with stage("sized") as s:
            s.add_items(n, "in")
            s.add_items(1)
    (point,) = otel.points("pipeline.stage.batch.size")
    assert point.attributes == {"pipeline.stage.name": "sized"}
    assert (point.count, point.sum) == (3, 200_008)
    assert point.bucket_counts[0] == 1
    assert point.bucket_counts[-1] == 1


def test_retries(otel: Otel) -> None:
    with stage("tried") as s:
        s.retry()
        s.retry(KeyError)
        s.retry(KeyError())
    assert {
        p.attributes.get("error.type"): p.value for p in otel.points("pipeline.stage.retries")
    } == {None: 1, "KeyError": 2}


def test_what_nobody_said_is_not_there(otel: Otel) -> None:
    with stage("silent"):
        pass
    assert {"pipeline.stage.duration", "pipeline.stage.time", "pipeline.stage.active"} == set(
        otel.collect()
    )


def test_zero_is_there(otel: Otel) -> None:
    with stage("zero") as s:
        s.add_items(0)
    assert otel.values("pipeline.stage.items", "zero") == {("out",): 0}


# --- attributes ---------------------------------------------------------------------------------


def test_no_attribute_of_the_users_on_metrics_unless_named(otel: Otel) -> None:
    @stage("plain", attributes={"tenant": "a"})
    def function() -> None:
        current_stage().set_attribute("shard", 1)

    function()
    for name in ("pipeline.stage.duration", "pipeline.stage.time"):
        (point,) = otel.points(name)
        assert not {"tenant", "shard"} & set(point.attributes)


def test_only_those_named(make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(metric_attributes=("tenant", "shard"))

    @stage("sharded", items=lambda n: n, attributes={"tenant": "a", "secret": "s"})
    def function(shard: int) -> int:
        current_stage().set_attribute("shard", shard)
        current_stage().set_attribute("other", "o")
        return 5

    for shard in (1, 2, 2):
        function(shard)
    for name in ("pipeline.stage.duration", "pipeline.stage.batch.size"):
        assert {p.attributes["shard"]: p.count for p in otel.points(name)} == {1: 1, 2: 2}
    assert {p.attributes["shard"]: p.value for p in otel.points("pipeline.stage.items")} == {
        1: 5,
        2: 10,
    }
    for metric in otel.collect().values():
        if metric.name == "pipeline.stage.active":
            continue  # a level over all of them
        for point in metric.data.data_points:
            assert point.attributes["tenant"] == "a"
            assert not {"secret", "other"} & set(point.attributes)


@pytest.mark.parametrize("value", [["a", "b"], ("a",), True, 1, 1.0, "s", []])
def test_a_named_attribute_of_any_kind(value: Any, make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(metric_attributes=("code",))
    with stage("any", attributes={"code": value}):
        pass
    (point,) = otel.points("pipeline.stage.duration")
    expected = tuple(value) if isinstance(value, list) else value
    assert expected == point.attributes["code"]
    assert type(expected) is type(point.attributes["code"])


def test_a_named_attribute_cannot_take_the_place_of_our_own(
    make_otel: Callable[..., Otel],
) -> None:
    otel = make_otel(metric_attributes=("pipeline.stage.name",))
    with stage("honest", attributes={"pipeline.stage.name": "other"}):
        pass
    (point,) = otel.points("pipeline.stage.duration")
    assert point.attributes["pipeline.stage.name"] == "honest"


# --- collecting ---------------------------------------------------------------------------------


def run_stage(times: int, clock: Clock, seconds: float = 1) -> None:
    for _ in range(times):
        with stage("again") as s:
            clock.advance(seconds)
            s.add_items(1)


def test_cumulative_over_collections(clock: Clock, otel: Otel) -> None:
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


def test_delta(clock: Clock, make_otel: Callable[..., Otel]) -> None:
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


def test_two_readers_get_the_same(clock: Clock, make_otel: Callable[..., Otel]) -> None:
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


def test_the_final_collection_has_what_ended_last(clock: Clock, otel: Otel) -> None:
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


def test_a_view_chooses_other_boundaries(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    view = View(
        instrument_name="pipeline.stage.duration",
        aggregation=ExplicitBucketHistogramAggregation([1, 10]),
    )
    otel = make_otel(views=[view])
    run_stage(3, clock, 5)
    (point,) = otel.points("pipeline.stage.duration")
    assert (tuple(point.explicit_bounds), tuple(point.bucket_counts)) == ((1, 10), (0, 3, 0))


def test_a_view_keeps_fewer_attributes(clock: Clock, make_otel: Callable[..., Otel]) -> None:
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


def test_a_view_makes_two_streams_of_one(clock: Clock, make_otel: Callable[..., Otel]) -> None:
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
def test_a_view_drops_one_and_the_others_stay(
    dropped: str, clock: Clock, make_otel: Callable[..., Otel]
) -> None:
    otel = make_otel(views=[View(instrument_name=dropped, aggregation=DropAggregation())])
    say_everything()
    say_everything()
    metrics = otel.collect()
    assert {name for name, _, _ in TABLE} - {dropped} == set(metrics)
    if dropped != "pipeline.stage.duration":
        (point,) = metrics["pipeline.stage.duration"].data.data_points
        assert point.count == 2


def test_exponential_histograms(clock: Clock, make_otel: Callable[..., Otel]) -> None:
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


def test_retired_telemetry_reports_no_more(clock: Clock, make_otel: Callable[..., Otel]) -> None:
    first = make_otel()
    run_stage(2, clock)
    second = make_otel()
    run_stage(3, clock)
    assert first.points("pipeline.stage.duration")[0].count == 2
    assert first.points("pipeline.stage.active") == []
    assert second.points("pipeline.stage.duration")[0].count == 3


# --- exemplars ----------------------------------------------------------------------------------


def test_exemplars_point_at_the_span(clock: Clock, otel: Otel) -> None:
    with stage("shown"):
        clock.advance(0.3)
    span = otel.span("shown")
    (point,) = otel.points("pipeline.stage.duration")
    (exemplar,) = point.exemplars
    assert (span.context.trace_id, span.context.span_id) == (exemplar.trace_id, exemplar.span_id)
    assert pytest.approx(0.3) == exemplar.value


def test_an_exemplar_for_each_bucket(clock: Clock, otel: Otel) -> None:
    """Each shows a span that did take as long as the bucket says."""
    for seconds in (0.0002, 0.03, 0.03, 20.0):
        with stage("shown") as s:
            clock.advance(seconds)
            s.set_attribute("took", seconds)
    took = {s.context.span_id: s.attributes["took"] for s in otel.spans()}
    (point,) = otel.points("pipeline.stage.duration")
    assert point.count == 4
    assert {0.0002, 0.03, 20.0} == {round(e.value, 6) for e in point.exemplars}
    assert all(pytest.approx(took[e.span_id]) == e.value for e in point.exemplars)


def test_exemplars_of_batch_sizes_and_errors(otel: Otel) -> None:
    with contextlib.suppress(KeyError), stage("failed") as s:
        s.add_items(3)
        raise KeyError
    span = otel.span("failed")
    metrics = otel.collect()
    for name in ("pipeline.stage.duration", "pipeline.stage.batch.size"):
        (point,) = metrics[name].data.data_points
        assert [span.context.span_id] == [e.span_id for e in point.exemplars]


def test_the_span_current_at_the_collection_is_no_exemplar(clock: Clock, otel: Otel) -> None:
    with stage("measured"):
        clock.advance(1)
    with otel.tracer_provider.get_tracer("another").start_as_current_span("another"):
        (point,) = [
            p
            for p in otel.points("pipeline.stage.duration")
            if p.attributes["pipeline.stage.name"] == "measured"
        ]
    assert {otel.span("measured").context.span_id} == {e.span_id for e in point.exemplars}

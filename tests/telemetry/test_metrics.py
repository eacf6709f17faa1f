"""Metrics of stages: the names, units, boundaries and attributes of docs/semantics.md."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from otel_pipeline_metrics import current_stage, fetch, stage
from otel_pipeline_metrics._core import drain, stage_id
from otel_pipeline_metrics._core.records import StageResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from tests.stages.conftest import Otel

# copied from semantics.md, not from `metric_definitions`, which is under test
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
TABLE = [
    ("pipeline.stage.duration", "s", HistogramData),
    ("pipeline.stage.time", "s", Sum),
    ("pipeline.stage.cpu.time", "s", Sum),
    ("pipeline.stage.active", "{invocation}", Sum),
    ("pipeline.stage.items", "{item}", Sum),
    ("pipeline.stage.io", "By", Sum),
    ("pipeline.stage.batch.size", "{item}", HistogramData),
    ("pipeline.stage.retries", "{retry}", Sum),
]


def report_everything() -> None:
    with stage("all", kind="process") as s:
        s.add_items(3, "in")
        s.add_items(2)
        s.add_bytes(10)
        s.retry(KeyError)


@pytest.mark.parametrize(("name", "unit", "data"), TABLE, ids=[t[0] for t in TABLE])
def test_each_metric_has_its_unit_and_kind(
    name: str, unit: str, data: type[Any], otel: Otel
) -> None:
    report_everything()
    metric = otel.collect()[name]
    assert (unit, data) == (metric.unit, type(metric.data))
    assert metric.description.endswith(".")
    for point in metric.data.data_points:
        if point.attributes["pipeline.stage.name"] == "all":
            assert point.attributes["pipeline.stage.kind"] == "process"
    if data is Sum:
        assert (name != "pipeline.stage.active") is metric.data.is_monotonic
        assert AggregationTemporality.CUMULATIVE is metric.data.aggregation_temporality


def test_there_are_no_other_metrics(otel: Otel) -> None:
    report_everything()
    assert {name for name, _, _ in TABLE} == set(otel.collect())


def test_durations_fall_into_their_buckets(clock: Clock, otel: Otel) -> None:
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


def test_durations_of_errors_have_their_own_series(clock: Clock, otel: Otel) -> None:
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


def test_time_is_counted_by_state(otel: Otel) -> None:
    identity = stage_id.stage_id("states", None, form="by hand")
    for _ in range(2):
        drain.submit(identity, StageResult(busy_s=4.0, idle_s=2.0, blocked_s=1.0))
    assert otel.values("pipeline.stage.time", "states") == {
        ("running",): 0,
        ("busy",): 8,
        ("idle",): 4,
        ("blocked",): 2,
    }
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum) == (2, 8)


def test_time_of_a_block_in_a_thread_is_running(clock: Clock, otel: Otel) -> None:
    for _ in range(3):
        with stage("busy"):
            clock.advance(2)
    (point,) = otel.points("pipeline.stage.time")
    assert point.attributes == {"pipeline.stage.name": "busy", "pipeline.stage.state": "running"}
    assert point.value == 6


def test_active_counts_open_calls(otel: Otel) -> None:
    def active() -> Any:
        return otel.values("pipeline.stage.active", "open").get(())

    assert active() in (None, 0)
    with stage("open") as _:
        assert active() == 1
        with stage("open"):
            assert active() == 2
        assert active() == 1
    assert active() == 0


def test_items_are_counted_by_direction_and_error(otel: Otel) -> None:
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


def test_bytes_are_counted_by_direction(otel: Otel) -> None:
    for _ in range(2):
        with stage("counts") as s:
            s.add_bytes(5, "in")
            s.add_bytes(3)
    assert otel.values("pipeline.stage.io", "counts") == {("in",): 10, ("out",): 6}


def test_the_batch_size_is_the_input(otel: Otel) -> None:
    for n in (1, 7, 200_000):
        with stage("sized") as s:
            s.add_items(n, "in")
            s.add_items(1)
    (point,) = otel.points("pipeline.stage.batch.size")
    assert point.attributes == {"pipeline.stage.name": "sized"}
    assert (point.count, point.sum) == (3, 200_008)
    assert point.bucket_counts[0] == 1
    assert point.bucket_counts[-1] == 1


def test_retries_are_counted_by_error(otel: Otel) -> None:
    with stage("tried") as s:
        s.retry()
        s.retry(KeyError)
        s.retry(KeyError())
    assert {
        p.attributes.get("error.type"): p.value for p in otel.points("pipeline.stage.retries")
    } == {None: 1, "KeyError": 2}


def test_unknown_values_have_no_series(otel: Otel) -> None:
    with stage("silent"):
        pass
    known = {f"pipeline.stage.{name}" for name in ("duration", "time", "active", "cpu.time")}
    assert known == set(otel.collect())


def test_zero_has_a_series(otel: Otel) -> None:
    with stage("zero") as s:
        s.add_items(0)
    assert otel.values("pipeline.stage.items", "zero") == {("out",): 0}


# --- attributes ---------------------------------------------------------------------------------


def test_attributes_of_the_user_are_not_on_metrics(otel: Otel) -> None:
    @stage("unnamed", attributes={"tenant": "a"})
    def function() -> None:
        current_stage().set_attribute("shard", 1)

    function()
    for name in ("pipeline.stage.duration", "pipeline.stage.time"):
        (point,) = otel.points(name)
        assert not {"tenant", "shard"} & set(point.attributes)


def test_named_attributes_are_on_metrics(make_otel: Callable[..., Otel]) -> None:
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
            continue  # a level over all attributes
        for point in metric.data.data_points:
            assert point.attributes["tenant"] == "a"
            assert not {"secret", "other"} & set(point.attributes)


@pytest.mark.parametrize("value", [["a", "b"], ("a",), True, 1, 1.0, "s", []])
def test_a_named_attribute_can_have_any_type(value: Any, make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(metric_attributes=("code",))
    with stage("any", attributes={"code": value}):
        pass
    (point,) = otel.points("pipeline.stage.duration")
    expected = tuple(value) if isinstance(value, list) else value
    assert expected == point.attributes["code"]
    assert type(expected) is type(point.attributes["code"])


def test_a_named_attribute_cannot_replace_ours(
    make_otel: Callable[..., Otel],
) -> None:
    otel = make_otel(metric_attributes=("pipeline.stage.name",))
    with stage("honest", attributes={"pipeline.stage.name": "other"}):
        pass
    (point,) = otel.points("pipeline.stage.duration")
    assert point.attributes["pipeline.stage.name"] == "honest"

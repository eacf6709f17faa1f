"""Bounds of metrics: exemplars of another batch, unsorted batches, sizes of zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from otel_pipeline_metrics import stage
from otel_pipeline_metrics._core import every_series
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.records import Batch, StageKey, StageTime

if TYPE_CHECKING:
    from tests.stages.conftest import Otel

KEY = StageKey(None, "edges", None)


def sampled(number: int) -> Any:
    """Return a context whose span is sampled."""
    context = trace.SpanContext(1, number, is_remote=False, trace_flags=trace.TraceFlags(1))
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


def accept(otel: Otel, values: list[float], *shown: tuple[float, Any]) -> None:
    otel.telemetry.stages.accept(
        Batch(KEY, {}, values, [], StageTime(sum(values)), exemplars=shown)
    )


def test_an_exemplar_without_its_value_is_left_out(otel: Otel) -> None:
    accept(otel, [0.5], (2.0, sampled(1)), (0.25, sampled(2)))
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum, point.exemplars) == (1, 0.5, [])


def test_an_exemplar_belongs_to_a_value_of_its_batch(otel: Otel) -> None:
    accept(otel, [5.0, 5.0, 5.0])
    accept(otel, [1.0], (1.0, sampled(7)))
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum) == (4, 16.0)
    assert [(e.value, e.span_id) for e in point.exemplars] == [(1.0, 7)]


def test_batches_can_come_in_any_order(otel: Otel) -> None:
    accept(otel, [1.0])
    otel.collect()
    accept(otel, [5.0])
    accept(otel, [0.25])
    accept(otel, [2.0])
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.min, point.max, point.sum) == (4, 0.25, 5.0, 8.25)


def test_an_input_of_zero_is_a_batch_size(otel: Otel) -> None:
    """The output does not replace it."""
    with stage("edges") as s:
        s.add_items(0, "in")
        s.add_items(5)
    (point,) = otel.points("pipeline.batch.size") or otel.points("pipeline.stage.batch.size")
    assert (point.count, point.sum) == (1, 0)
    assert (otel.span("edges").attributes or {})["pipeline.batch.size"] == 0


def test_every_span_is_counted_in_its_series(otel: Otel) -> None:
    """Late ones too: the ratio of spans to calls comes from `SpanBudget.spans_made`."""
    every_series.limit_spans(2**-30)
    fails = stage("edges")(lambda: 1 / 0)
    for _ in range(1001):
        try:
            fails()
        except ZeroDivisionError:
            continue
    (series,) = [s for s in _series.all_series() if s.key.stage == "edges"]
    assert (series.budget.spans_made, len(otel.spans())) == (1001, 1001)


def test_a_stage_without_series_is_reported_as_zero(otel: Otel) -> None:
    """A backend would keep the last level if the points stopped."""
    with stage("edges"):
        assert otel.values("pipeline.stage.active", "edges") == {(): 1}
    _series.process_scope.forget()
    assert otel.values("pipeline.stage.active", "edges") == {(): 0}
    assert otel.values("pipeline.stage.active", "edges") == {(): 0}


def test_values_during_a_collection_are_recorded_later(otel: Otel) -> None:
    """Recording does not wait for another reader, and loses nothing."""
    accept(otel, [1.0])
    otel.collect()
    stages = otel.telemetry.stages
    instruments = (
        stages._instruments["pipeline.stage.duration"],
        stages._instruments["pipeline.stage.time"],
    )
    locks = [target._lock for instrument in instruments for target in instrument.sdk_targets()]
    assert len(locks) == 2
    for lock in locks:
        lock.acquire()
    accept(otel, [0.5] * 1024)
    stages.flush()
    for lock in locks:
        lock.release()
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, point.sum) == (1025, 513.0)
    assert otel.values("pipeline.stage.time", "edges") == {("running",): 513.0}

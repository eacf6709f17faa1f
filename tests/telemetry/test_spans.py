"""Spans: their names, attributes, status, parents and events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from otel_pipeline_metrics import current_stage, fetch, stage
from otel_pipeline_metrics._core.version import __version__
from tests.stages.support import nothing_current, run_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.stages.conftest import Otel


def test_a_span_has_its_stages_name_and_attributes(otel: Otel) -> None:
    with stage("parse", kind="process"):
        pass
    span = otel.span("parse")
    assert SpanKind.INTERNAL is span.kind
    assert StatusCode.UNSET is span.status.status_code
    assert span.attributes == {"pipeline.stage.name": "parse", "pipeline.stage.kind": "process"}
    assert (span.events, span.links) == ((), ())
    assert span.parent is None
    scope = span.instrumentation_scope
    assert ("otel_pipeline_metrics", __version__) == (scope.name, scope.version)


def test_counts_and_attributes_are_on_the_span(otel: Otel) -> None:
    with stage("load", attributes={"table": "t", "keys": ["a", "b"]}) as s:
        s.add_items(3, "in")
        s.add_items(2)
        s.add_bytes(30, "in")
        s.add_bytes(20)
        s.set_attribute("table", "u")
        s.set_attribute("own", 1.5)
    assert otel.span("load").attributes == {
        "pipeline.stage.name": "load",
        "table": "u",
        "keys": ("a", "b"),
        "own": 1.5,
        "pipeline.stage.items.in": 3,
        "pipeline.stage.items.out": 2,
        "pipeline.stage.io.in": 30,
        "pipeline.stage.io.out": 20,
        "pipeline.batch.size": 3,
    }


async def test_the_items_of_a_decorated_function_are_on_its_span(otel: Otel) -> None:
    @stage("function", items=len)
    def function() -> list[int]:
        return [1, 2, 3]

    @stage("coroutine", items=len)
    async def coroutine() -> list[int]:
        return [1, 2]

    function()
    await coroutine()
    assert nothing_current()
    found = {s.name: (s.attributes or {}).get("pipeline.stage.items.out") for s in otel.spans()}
    assert found == {"function": 3, "coroutine": 2}


def test_the_attributes_of_a_decorated_function_are_on_each_span(otel: Otel) -> None:
    @stage(attributes={"source": "web"})
    def get() -> None:
        """Do nothing."""

    get()
    get()
    assert [s.attributes["source"] for s in otel.spans()] == ["web"] * 2


def test_a_given_attribute_cannot_replace_ours(otel: Otel) -> None:
    @stage("honest", attributes={"pipeline.stage.name": "other"})
    def function() -> None:
        """Do nothing."""

    function()
    assert otel.span("honest").attributes["pipeline.stage.name"] == "honest"


def test_an_attribute_set_inside_cannot_replace_ours(otel: Otel) -> None:
    with stage("honest", attributes={"pipeline.stage.name": "other"}) as s:
        s.set_attribute("pipeline.stage.name", "another")
    assert otel.span("honest").attributes["pipeline.stage.name"] == "honest"


def test_without_input_the_batch_size_is_the_output(otel: Otel) -> None:
    with stage("out") as s:
        s.add_items(2)
    assert otel.span("out").attributes["pipeline.batch.size"] == 2


def test_an_error_sets_the_status_without_its_message(otel: Otel) -> None:
    with pytest.raises(KeyError), stage("fails"):
        raise KeyError("secret")
    span = otel.span("fails")
    assert StatusCode.ERROR is span.status.status_code
    assert span.status.description is None
    assert span.attributes == {
        "pipeline.stage.name": "fails",
        "error.type": "KeyError",
        "pipeline.stage.outcome": "error",
    }
    assert span.events == ()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError, "cancelled"),
        (KeyboardInterrupt, "cancelled"),
        (GeneratorExit, "abandoned"),
    ],
)
def test_cancelling_is_not_an_error(error: type[BaseException], outcome: str, otel: Otel) -> None:
    with pytest.raises(error), stage("leaves"):
        raise error
    span = otel.span("leaves")
    assert StatusCode.UNSET is span.status.status_code
    assert {
        "pipeline.stage.name": "leaves",
        "pipeline.stage.outcome": outcome,
    } == span.attributes
    assert span.events == ()


def test_retries_are_events(otel: Otel) -> None:
    with stage("tries") as s:
        s.retry()
        s.retry(KeyError("k"))
        s.retry("http.503")
    span = otel.span("tries")
    assert [(e.name, e.attributes) for e in span.events] == [
        ("retry", {"pipeline.retry.attempt": 2}),
        ("retry", {"pipeline.retry.attempt": 3, "error.type": "KeyError"}),
        ("retry", {"pipeline.retry.attempt": 4, "error.type": "http.503"}),
    ]
    assert StatusCode.UNSET is span.status.status_code


def test_spans_of_nested_stages_have_parents(otel: Otel) -> None:
    @stage
    def child() -> None:
        """Do nothing."""

    @stage
    async def async_child() -> None:
        await asyncio.sleep(0)
        child()

    async def main() -> None:
        async with stage("parent"):
            await asyncio.gather(async_child(), async_child())

    asyncio.run(main())
    spans = {s.context.span_id: s for s in otel.spans()}
    parent = otel.span("parent")
    assert parent.parent is None
    assert [parent, parent] == [
        spans[s.parent.span_id] for s in spans.values() if s.name == "async_child"
    ]
    assert [spans[s.parent.span_id].name for s in spans.values() if s.name == "child"] == [
        "async_child"
    ] * 2
    assert len({s.context.trace_id for s in spans.values()}) == 1


def test_a_stage_nests_with_spans_of_the_user(otel: Otel) -> None:
    tracer = otel.tracer_provider.get_tracer("the user's")
    with tracer.start_as_current_span("outer") as outer:
        with stage("stage"):
            inside = trace.get_current_span()
            with tracer.start_as_current_span("inner"):
                pass
        assert trace.get_current_span() is outer
    assert inside.get_span_context() == otel.span("stage").context
    assert otel.span("stage").parent == otel.span("outer").context
    assert otel.span("inner").parent == otel.span("stage").context


def test_attributes_and_events_of_the_user_stay_on_the_span(otel: Otel) -> None:
    @fetch
    def page() -> None:
        trace.get_current_span().set_attribute("http.url", "u")
        trace.get_current_span().add_event("seen")

    page()
    span = otel.span("page")
    assert span.attributes["http.url"] == "u"
    assert [e.name for e in span.events] == ["seen"]


def test_a_noop_provider_gives_metrics_without_spans(make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(tracer_provider=trace.NoOpTracerProvider())
    with stage("quiet"):
        assert trace.get_current_span() is trace.INVALID_SPAN
    (point,) = otel.points("pipeline.stage.duration")
    assert point.count == 1
    assert otel.spans() == []


def test_spans_that_are_not_sampled_count_without_exemplars(make_otel: Callable[..., Otel]) -> None:
    otel = make_otel(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    with stage("dark") as s:
        s.retry()
        assert not trace.get_current_span().is_recording()
    assert nothing_current()
    assert otel.spans() == []
    (point,) = otel.points("pipeline.stage.duration")
    assert (point.count, list(point.exemplars)) == (1, [])


def test_a_child_of_an_unsampled_parent_is_not_sampled(make_otel: Callable[..., Otel]) -> None:
    from opentelemetry.sdk.trace.sampling import ParentBased

    otel = make_otel(
        tracer_provider=TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(0)), shutdown_on_exit=False
        )
    )
    with stage("outer"), stage("inner"):
        pass
    assert otel.spans() == []


def test_the_span_of_a_generator_lasts_from_its_first_to_its_last_item(otel: Otel) -> None:
    @stage
    def numbers() -> Any:
        yield 1
        current_stage().retry()
        yield 2

    list(numbers())
    span = otel.span("numbers")
    assert [e.name for e in span.events] == ["retry"]
    own = ("pipeline.stage.name", "code.function.name")
    assert {k: v for k, v in span.attributes.items() if k not in own} == {
        "pipeline.stage.items.out": 2,
        "pipeline.batch.size": 2,
    }


def test_the_span_of_an_abandoned_generator_ends(otel: Otel) -> None:
    @stage
    def numbers() -> Any:
        yield 1

    generator = numbers()
    next(generator)
    assert otel.spans() == []
    generator.close()
    span = otel.span("numbers")
    assert span.attributes["pipeline.stage.outcome"] == "abandoned"
    assert StatusCode.UNSET is span.status.status_code


LATE = """
from opentelemetry import metrics, trace
import otel_pipeline_metrics as opm

@opm.stage
def early():
    pass

early()  # there is no provider yet

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
early()
print([s.name for s in exporter.get_finished_spans()])
found = reader.get_metrics_data().resource_metrics[0].scope_metrics
print(sorted(m.name for s in found for m in s.metrics if "stage" in m.name))
print(max(p.count for s in found for m in s.metrics if m.name == "pipeline.stage.duration"
          for p in m.data.data_points) >= 1)
"""


def test_providers_that_are_set_later_get_everything(tmp_path: Path) -> None:
    done = run_script(LATE, tmp_path / "late.py")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['early']",
        str([f"pipeline.stage.{name}" for name in ("active", "cpu.time", "duration", "time")]),
        "True",
    ]

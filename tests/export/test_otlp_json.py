"""Batches are encoded as OTLP/JSON lines and decoded as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link

from otel_pipeline_metrics._export.delivery import otlp_json

ATTRIBUTES: dict[str, Any] = {
    "text": "ä\n",
    "true": True,
    "whole": 2**60,
    "part": 0.25,
    "several": ["a", "b"],
    "spanId": "zz",
}


def test_spans_are_decoded_as_they_were() -> None:
    spans: list[Any] = []
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t", "1", attributes={"a": 1})
    with tracer.start_as_current_span("outer") as outer:
        link = Link(outer.get_span_context(), {"traceId": "not an id"})
        inner = tracer.start_span("inner", links=[link], attributes=ATTRIBUTES)
        inner.add_event("e", {"n": 1})
        inner.end()
    spans = [outer, inner]

    line = otlp_json.line("traces", spans)

    request = otlp_json.request("traces", line)
    assert request == otlp_json.encode_spans(spans)
    assert otlp_json.count(request) == 2
    assert line.count(b"\n") == 1


def test_ids_are_hexadecimal_and_enums_are_numbers() -> None:
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s")
    span.end()

    data = json.loads(otlp_json.line("traces", [span]))

    (found,) = data["resourceSpans"][0]["scopeSpans"][0]["spans"]
    context = span.get_span_context()
    assert found["traceId"] == f"{context.trace_id:032x}"
    assert found["spanId"] == f"{context.span_id:016x}"
    assert found["kind"] == 1
    assert found["startTimeUnixNano"] == str(span.start_time)


def test_metrics_are_decoded_as_they_were() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    meter.create_counter("c").add(2, {"k": "v"})
    meter.create_histogram("h", "s").record(0.5)
    meter.create_gauge("g").set(-1.5)
    data = reader.get_metrics_data()
    assert data is not None

    request = otlp_json.request("metrics", otlp_json.line("metrics", data))

    assert request == otlp_json.encode_metrics(data)
    assert otlp_json.count(request) == 3


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"resourceSpans":1}', b'{"traceId":"zz"}']
)
def test_an_invalid_line_is_an_error_that_does_not_quote_it(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*resourceSpans)"):
        otlp_json.request("traces", line)

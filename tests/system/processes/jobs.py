"""Define the jobs of process pools, where spawned processes can import them."""

from __future__ import annotations

import os

from opentelemetry import baggage, trace

import otel_pipeline_metrics as opm


def configure() -> None:
    opm.configure(service_name="pool")


@opm.stage("parse")
def parse(number: int) -> tuple[int, str, object, int]:
    """Return the number, the trace, the baggage and the process."""
    span = trace.get_current_span().get_span_context()
    return number, trace.format_trace_id(span.trace_id), baggage.get_baggage("who"), os.getpid()


def fails() -> None:
    raise KeyError("the job's own")

"""Batches as lines of OTLP/JSON, the format of the Collector's file exporter and receiver.

The official encoders make the protobuf. The mapping to JSON is protobuf's own but for trace
and span ids, which OTLP writes in hexadecimal.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_pipeline_metrics._export.environment import Signal


_IDS: Final = ("traceId", "spanId", "parentSpanId")
_DATA: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def spans_line(spans: Sequence[ReadableSpan]) -> bytes:
    """Return one line that holds `spans`."""
    return _line(encode_spans(spans))


def metrics_line(data: MetricsData) -> bytes:
    """Return one line that holds `data`."""
    return _line(encode_metrics(data))


def request(signal: Signal, line: bytes) -> Any:
    """Return the protobuf request that a line holds.

    Raises:
        ValueError: it holds none.
    """
    empty = ExportTraceServiceRequest if signal == "traces" else ExportMetricsServiceRequest
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise TypeError  # noqa: TRY301 - told below, like the others
        _each_id(data, lambda text: base64.b64encode(bytes.fromhex(text)).decode())
        return json_format.ParseDict(data, empty(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        # the message would quote the data
        raise ValueError(f"no OTLP/JSON of {signal} ({type(error).__name__})") from None


def count(message: Any) -> int:
    """Return how many spans or metric points a request holds."""
    if hasattr(message, "resource_spans"):
        return sum(
            len(scope.spans)
            for resource in message.resource_spans
            for scope in resource.scope_spans
        )
    return sum(
        len(getattr(metric, kind).data_points)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for kind in _DATA
        if metric.HasField(kind)
    )


def _line(message: Any) -> bytes:
    data = json_format.MessageToDict(message, use_integers_for_enums=True)
    _each_id(data, lambda text: base64.b64decode(text).hex())
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _each_id(data: Any, change: Callable[[str], str]) -> None:
    """Rewrite every id in place. Attributes cannot be mistaken: their keys are values here."""
    if isinstance(data, list):
        for each in data:
            _each_id(each, change)
    elif isinstance(data, dict):
        for key in _IDS:
            if key in data:
                data[key] = change(data[key])
        for each in data.values():
            if isinstance(each, (dict, list)):
                _each_id(each, change)

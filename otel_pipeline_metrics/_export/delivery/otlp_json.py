"""Encode batches as OTLP/JSON lines, the format of the Collector's file exporter.

The official encoders make the protobuf. The mapping to JSON is protobuf's own, except for trace
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
    from collections.abc import Callable

    from otel_pipeline_metrics._export.environment import Signal


_IDS: Final = ("traceId", "spanId", "parentSpanId")
_DATA: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def message(signal: Signal, batch: Any) -> Any:
    """Encode the spans or the metrics data of one batch as a protobuf request."""
    return encode_spans(batch) if signal == "traces" else encode_metrics(batch)


def line(signal: Signal, batch: Any) -> bytes:
    """Encode the spans or the metrics data of one batch as one line."""
    data = json_format.MessageToDict(message(signal, batch), use_integers_for_enums=True)
    _convert_ids(data, lambda text: base64.b64decode(text).hex())
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def request(signal: Signal, line: bytes) -> Any:
    """Decode the protobuf request that a line holds."""
    empty = ExportTraceServiceRequest if signal == "traces" else ExportMetricsServiceRequest
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise TypeError  # noqa: TRY301 - becomes a ValueError like the others
        _convert_ids(data, lambda text: base64.b64encode(bytes.fromhex(text)).decode())
        return json_format.ParseDict(data, empty(), ignore_unknown_fields=True)
    except Exception as error:  # any program may have written the line
        # the message would quote the data
        raise ValueError(f"not OTLP/JSON of {signal} ({type(error).__name__})") from None


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


def _convert_ids(data: Any, convert: Callable[[str], str]) -> None:
    """Rewrite every id in place; an attribute is safe, since its key is a value here."""
    if isinstance(data, list):
        for each in data:
            _convert_ids(each, convert)
    elif isinstance(data, dict):
        for key in _IDS:
            if key in data:
                data[key] = convert(data[key])
        for each in data.values():
            if isinstance(each, (dict, list)):
                _convert_ids(each, convert)

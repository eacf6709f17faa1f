"""Stand in for a collector, behind the exporters that `configure()` builds.

It replaces the two OTLP exporters only: batching, counting, spool and shutdown are real.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.delivery import responses
from tests.system.faults.collector.servers import Collector

if TYPE_CHECKING:
    from collections.abc import Sequence

Fault = Literal["none", "refuses", "refuses for good", "raises", "hangs", "partial"]
FAULTS: tuple[Fault, ...] = ("none", "refuses", "refuses for good", "raises", "hangs", "partial")

HANGS_S = 60.0


class Backend:
    """Takes what is exported, or fails in one way."""

    def __init__(self) -> None:
        self.collector = Collector("none")
        self._fault: Fault = "none"
        self._let_go = threading.Event()

    def install(self) -> None:
        """Replace every OTLP exporter from the next `configure()` on."""
        exporters.load = self._load  # type: ignore[assignment]

    def _load(self, plan: Any, signal: str, name: str) -> tuple[Any, bool]:
        return (_Spans(self) if signal == "traces" else _Metrics(self)), True

    def fail(self, fault: Fault) -> None:
        """Fail in this way from now on; exports that hang are released, and have failed."""
        self._fault = fault
        self._let_go.set()
        self._let_go = threading.Event()
        self.collector.fault = "partial" if fault == "partial" else "none"

    def send(self, own: Any) -> bool:
        """Take a request of an exporter, or fail."""
        exchange = responses._here.exchange
        assert exchange is not None
        if self._fault == "raises":
            raise RuntimeError("an exporter's bug")
        if self._fault == "hangs":
            self._let_go.wait(HANGS_S)
            return False
        if self._fault.startswith("refuses"):
            status = "HTTP 400" if self._fault == "refuses for good" else "HTTP 503"
            exchange.answer = responses.Answer(ok=False, reason=status)
            return False
        answer = self.collector.take(own if exchange.replacement is None else exchange.replacement)
        part = answer.partial_success
        rejected = getattr(part, "rejected_spans", 0) or getattr(part, "rejected_data_points", 0)
        exchange.answer = responses.Answer(ok=True, rejected=rejected)
        return True


class _Spans(SpanExporter):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        ok = self._backend.send(encode_spans(spans))
        return SpanExportResult.SUCCESS if ok else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _Metrics(MetricExporter):
    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        ok = self._backend.send(encode_metrics(metrics_data))
        return MetricExportResult.SUCCESS if ok else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

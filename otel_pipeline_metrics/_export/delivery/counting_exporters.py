"""Success counted at the exporter: the only place that knows it.

`force_flush` of the SDK returns True on failure, so each exporter is wrapped, by its public
interface, in one that counts what it took and what it refused.
"""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.delivery import log_filter
from otel_pipeline_metrics._export.delivery.counting_processor import (
    CountingBatchProcessor,
    CountingSampler,
)
from otel_pipeline_metrics._export.delivery.delivery import PATIENCE_S, Carrier
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_pipeline_metrics._export.delivery.spool import Spool


__all__ = [
    "CountingBatchProcessor",
    "CountingMetricExporter",
    "CountingSampler",
    "CountingSpanExporter",
    "ExportLedger",
    "Stoppable",
]


class Stoppable:
    """An exporter's shutdown: once, and without waiting where the deadline has passed."""

    def __init__(self, inner: PerProcess, carrier: Carrier) -> None:
        self._inner = inner
        self._carrier = carrier
        self._over = False
        self.is_parents = False
        """Whether it had ended before this process was forked: the SDK starts its reader's thread
        all the same, and would export what the parent has exported."""
        forking.watch(self)

    def after_fork(self) -> None:
        """Stay ended."""
        self.is_parents = self._over

    def shutdown(self, timeout_millis: float | None = None) -> None:
        """Shut the exporter down; a second call does nothing."""
        if not self._over:
            self._carrier.drain()
        if self._over:
            return
        self._over = True
        exporter = self._inner.made
        if exporter is None:
            return
        if self._carrier.account.stopped:
            timeout_millis = 0
        takes_timeout = "timeout_millis" in inspect.signature(exporter.shutdown).parameters
        arguments = (
            {}
            if timeout_millis is None or not takes_timeout
            else {"timeout_millis": timeout_millis}
        )
        with log_filter.exporting():
            exporter.shutdown(**arguments)

    def abort(self) -> None:
        """Make the exporter give up what it is trying; may block, so call it from a lane."""
        self._carrier.stop()
        self.shutdown()


class CountingSpanExporter(SpanExporter):
    """A span exporter that counts, and never raises.

    Args:
        inner: exports.
        account: counts.
        spool: keeps what is not taken.
        watched: whether what `inner` sends can be seen and replaced (`export.wire`).
        patience_s: how long one attempt may take where there is a spool.
        again: makes another one like `inner`, for a forked child.
    """

    def __init__(
        self,
        inner: SpanExporter,
        account: ExportLedger,
        spool: Spool | None = None,
        *,
        watched: bool = False,
        patience_s: float = PATIENCE_S,
        again: Callable[[], Any] | None = None,
    ) -> None:
        self.account = account
        send_nothing = self._send_nothing if watched else None
        self.carrier = Carrier(account, spool, send_nothing, patience_s)
        self._inner = PerProcess(inner, again)
        self.stoppable = Stoppable(self._inner, self.carrier)

    def _send_nothing(self) -> bool:
        return self._inner.get().export(()) is SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans` and count how it went."""
        if self.stoppable.is_parents:
            return SpanExportResult.FAILURE
        # a copy: SDK 1.30 empties its list, and this batch may be given up meanwhile
        batch = tuple(spans)
        ok = self.carrier.carry(
            len(batch),
            lambda: self._inner.get().export(batch) is SpanExportResult.SUCCESS,
            lambda: _spans_line(batch),
        )
        return SpanExportResult.SUCCESS if ok else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the wrapped exporter."""
        exporter: SpanExporter | None = self._inner.made
        return exporter is None or exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Shut the wrapped exporter down."""
        self.stoppable.shutdown()


class CountingMetricExporter(MetricExporter):
    """A metric exporter that counts, and never raises; for its arguments see the one for spans."""

    def __init__(
        self,
        inner: MetricExporter,
        account: ExportLedger,
        spool: Spool | None = None,
        *,
        watched: bool = False,
        patience_s: float = PATIENCE_S,
        again: Callable[[], Any] | None = None,
    ) -> None:
        # The reader takes both from the exporter it is given.
        super().__init__(
            preferred_temporality=getattr(inner, "_preferred_temporality", None),
            preferred_aggregation=getattr(inner, "_preferred_aggregation", None),
        )
        self.account = account
        send_nothing = self._send_nothing if watched else None
        self.carrier = Carrier(account, spool, send_nothing, patience_s)
        self._inner = PerProcess(inner, again)
        self.stoppable = Stoppable(self._inner, self.carrier)

    def _send_nothing(self) -> bool:
        nothing = MetricsData(resource_metrics=())
        return self._inner.get().export(nothing) is MetricExportResult.SUCCESS

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export `metrics_data` and count how it went."""
        if self.stoppable.is_parents:
            return MetricExportResult.FAILURE
        ok = self.carrier.carry(
            _points(metrics_data),
            lambda: (
                self._inner.get().export(metrics_data, timeout_millis, **kwargs)
                is MetricExportResult.SUCCESS
            ),
            lambda: _metrics_line(metrics_data),
        )
        return MetricExportResult.SUCCESS if ok else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the wrapped exporter."""
        exporter: MetricExporter | None = self._inner.made
        return exporter is None or exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002
        """Shut the wrapped exporter down; the reader's `timeout` argument means nothing here."""
        self.stoppable.shutdown(timeout_millis)


def _spans_line(spans: Sequence[ReadableSpan]) -> bytes:
    from otel_pipeline_metrics._export.delivery import otlp_json

    return otlp_json.spans_line(spans)


def _metrics_line(data: MetricsData) -> bytes:
    from otel_pipeline_metrics._export.delivery import otlp_json

    return otlp_json.metrics_line(data)


def _points(metrics_data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in metrics_data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


class PerProcess:
    """Holds an exporter, and makes another one in a forked child that has something to export.

    Not before, so a child that exports nothing opens no connection. The parent's is kept and never
    touched: to end a gRPC channel or a connection that the parent still uses would be its end there
    too.

    Args:
        exporter: that of the process that configures.
        again: makes one like it; None: it has no connection, and a child may use it too.
    """

    def __init__(self, exporter: Any, again: Callable[[], Any] | None) -> None:
        self._exporter = exporter
        self._again = again
        self._inherited: list[Any] = []
        self._lock = threading.Lock()
        forking.watch(self)

    def after_fork(self) -> None:
        """Leave the exporter to the parent."""
        self._lock = threading.Lock()
        if self._again is not None:
            self._inherited.append(self._exporter)
            self._exporter = None

    @property
    def made(self) -> Any:
        """The exporter of this process; None where it has exported nothing yet."""
        return self._exporter

    def get(self) -> Any:
        """Return the exporter of this process."""
        with self._lock:
            if self._exporter is None and self._again is not None:
                self._exporter = self._again()
            return self._exporter

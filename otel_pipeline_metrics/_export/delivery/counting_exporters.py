"""Exporters that count: the exporter is the only place that knows what arrived.

`force_flush` of the SDK returns True on failure, so each exporter is wrapped, by its public
interface, in one that counts what was accepted and what was refused.
"""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.delivery import log_filter
from otel_pipeline_metrics._export.delivery.batch import Batch
from otel_pipeline_metrics._export.delivery.delivery import PATIENCE_S, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.delivery.spool import Spool
    from otel_pipeline_metrics._export.environment import Signal


class CountingExporter:
    """What the counting exporters of both signals share; it never raises.

    A forked child that exports something makes its own exporter then, so that a child without
    telemetry opens no connection. The parent's exporter is kept and never used: closing its
    connection in the child would close it in the parent too.

    Args:
        inner: the exporter that sends.
        ledger: counts.
        spool: keeps what the collector does not accept.
        watched: whether the answers to `inner` can be observed (`responses`).
        patience_s: how long one attempt may take if there is a spool.
        factory: makes the exporter of a forked child; None: the child shares `inner`.
    """

    _results: ClassVar[Any]
    _empty_batch: ClassVar[Any]

    def __init__(
        self,
        inner: Any,
        ledger: ExportLedger,
        spool: Spool | None = None,
        *,
        watched: bool = False,
        patience_s: float = PATIENCE_S,
        factory: Callable[[], Any] | None = None,
    ) -> None:
        self.ledger = ledger
        send_empty = (lambda: self._send(self._empty_batch)) if watched else None
        self.delivery = Delivery(ledger, spool, send_empty, patience_s)
        self.inner: Any = inner  # None in a forked child that has exported nothing yet
        self._factory = factory
        self._inherited: list[Any] = []
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._was_shut_down_by_parent = False
        forking.watch(self)

    def after_fork(self) -> None:
        """Leave the exporter to the parent, and stay shut down if it was."""
        self._lock = threading.Lock()
        # the SDK starts its reader's thread even then, and would export what the parent exported
        self._was_shut_down_by_parent = self._is_shut_down
        if self._factory is not None:
            self._inherited.append(self.inner)
            self.inner = None

    def own_exporter(self) -> Any:
        """Return the exporter of this process, and make it if necessary."""
        with self._lock:
            if self.inner is None and self._factory is not None:
                self.inner = self._factory()
            return self.inner

    def _send(self, data: Any, *arguments: Any, **options: Any) -> bool:
        result = self.own_exporter().export(data, *arguments, **options)
        return result is self._results.SUCCESS

    def _export(self, data: Any, *arguments: Any, **options: Any) -> Any:
        batch = Batch(self.ledger.signal, data)
        ok = not self._was_shut_down_by_parent and self.delivery.deliver(
            batch, lambda: self._send(batch.data, *arguments, **options)
        )
        return self._results.SUCCESS if ok else self._results.FAILURE

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        exporter = self.inner
        return exporter is None or bool(exporter.force_flush(timeout_millis))

    def shutdown(self, timeout_millis: float | None = None, **_: Any) -> None:
        """Shut the wrapped exporter down, without waiting after the deadline.

        A second call does nothing. The argument `timeout` of a metric reader has no meaning here.
        """
        if not self._is_shut_down:
            self.delivery.drain()
        if self._is_shut_down:  # by another thread meanwhile
            return
        self._is_shut_down = True
        exporter = self.inner
        if exporter is None:
            return
        if self.ledger.stopped:
            timeout_millis = 0
        takes_timeout = "timeout_millis" in inspect.signature(exporter.shutdown).parameters
        with log_filter.exporting():
            if timeout_millis is None or not takes_timeout:
                exporter.shutdown()
            else:
                exporter.shutdown(timeout_millis=timeout_millis)

    def abort(self) -> None:
        """Make the exporter give up its attempt; this may block the thread."""
        self.delivery.stop()
        self.shutdown()


class CountingSpanExporter(CountingExporter, SpanExporter):
    """A span exporter that counts, and never raises."""

    _results = SpanExportResult
    _empty_batch = ()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # a copy: SDK 1.30 empties its list, and this batch may be given up meanwhile
        result: SpanExportResult = self._export(tuple(spans))
        return result


class CountingMetricExporter(CountingExporter, MetricExporter):
    """A metric exporter that counts, and never raises."""

    _results = MetricExportResult
    _empty_batch = MetricsData(resource_metrics=())

    def __init__(self, inner: Any, *arguments: Any, **options: Any) -> None:
        # the reader takes both from the exporter that it is given
        MetricExporter.__init__(
            self,
            preferred_temporality=getattr(inner, "_preferred_temporality", None),
            preferred_aggregation=getattr(inner, "_preferred_aggregation", None),
        )
        super().__init__(inner, *arguments, **options)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result: MetricExportResult = self._export(metrics_data, timeout_millis, **kwargs)
        return result


COUNTING_EXPORTERS: Final[
    dict[Signal, type[CountingSpanExporter] | type[CountingMetricExporter]]
] = {"traces": CountingSpanExporter, "metrics": CountingMetricExporter}

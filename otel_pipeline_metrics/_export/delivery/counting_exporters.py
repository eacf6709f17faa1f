"""Success counted at the exporter: the only place that knows it.

`force_flush` of the SDK returns True on failure, so each exporter is wrapped, by its public
interface, in one that counts what it took and what it refused.
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler

from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.delivery import log_filter
from otel_pipeline_metrics._export.delivery.delivery import PATIENCE_S, Carrier
from otel_pipeline_metrics._export.delivery.ledger import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Sized

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import SamplingResult

    from otel_pipeline_metrics._export.delivery.spool import Spool


__all__ = [
    "Account",
    "CountingBatchProcessor",
    "CountingMetricExporter",
    "CountingSampler",
    "CountingSpanExporter",
    "Stoppable",
]


_SAMPLED: Final = Decision.RECORD_AND_SAMPLE


_QUEUE: Final = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048)


_NEARLY: Final = 64
"""A queue with less room than this may have overflowed between two looks."""


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
        account: Account,
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
        account: Account,
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


class CountingBatchProcessor(BatchSpanProcessor):
    """The SDK's batch processor, counting what goes in.

    What it has lost at the end is what went in and did not come out: that holds too for spans
    that a full queue dropped and for those that the deadline left behind. Until the end the
    length of the queue tells what it dropped; it is read from a private attribute, and where
    that is missing those spans count as pending until the end.

    In a forked child only spans that began there count, and are exported: both processes end
    those that were open at the fork, and they are the parent's.
    """

    def __init__(self, exporter: CountingSpanExporter) -> None:
        self._begun_here: set[int] | None = None
        """In a forked child: the ids of its open spans."""
        super().__init__(exporter)
        forking.watch(self)
        account = self._account = exporter.account
        self._waiting: Sized | None = _queue_of(self)
        account.capacity = getattr(self._waiting, "maxlen", None) or _queue_size()
        account.waiting = self._length
        self._near = max(1, account.capacity - _NEARLY)
        self._inside: set[int] = set()
        """Threads that are queueing a span."""
        self._set_aside: deque[ReadableSpan] = deque()
        self._over = False

    def _length(self) -> int | None:
        return None if self._waiting is None else len(self._waiting)

    def after_fork(self) -> None:
        """Leave the open spans to the parent; the SDK itself empties the queue."""
        self._begun_here = set()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note, in a forked child, that the span is its own."""
        if self._begun_here is not None:
            self._begun_here.add(span.get_span_context().span_id)
        super().on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Count a sampled span and queue it."""
        context = span.get_span_context()
        if self._begun_here is not None and context is not None:
            if context.span_id not in self._begun_here:
                return
            self._begun_here.discard(context.span_id)
        if context is not None and context.trace_flags.sampled:
            account = self._account
            account.accept()
            if self._waiting is not None and len(self._waiting) >= self._near:
                account.crowded = True
        if not self._over:  # SDK 1.30 logs a line for each that comes too late
            self._queue(span)

    def shutdown(self) -> None:
        """Queue no more; what still ends is counted as dropped."""
        self._over = True
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped

    def _queue(self, span: ReadableSpan) -> None:
        """Queue a span, or let this thread do so as soon as it is done with another.

        A signal handler or a finalizer may end a span while its thread holds the lock with which
        the SDK wakes the exporting thread; it would wait for that lock for ever.
        """
        here = threading.get_ident()
        if here in self._inside:
            self._set_aside.append(span)
            return
        self._inside.add(here)
        try:
            super().on_end(span)
        finally:
            self._inside.discard(here)
        while self._set_aside:
            try:
                late = self._set_aside.popleft()
            except IndexError:  # another thread was faster
                return
            self._queue(late)


class CountingSampler(Sampler):
    """Samples as another does, and counts what it leaves out."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at nothing: what came before is the parent's to report."""
        self._lock = threading.RLock()  # stats() may be asked for by a signal handler
        self._left_out = itertools.count()
        self._looks = 0

    @property
    def left_out(self) -> int:
        """How many spans were not sampled."""
        with self._lock:
            found = next(self._left_out) - self._looks
            self._looks += 1
            return found

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Return what the other decides."""
        result = self._inner.should_sample(*args, **kwargs)
        if result.decision is not _SAMPLED:
            next(self._left_out)
        return result

    def get_description(self) -> str:
        """Return the other's description."""
        return self._inner.get_description()


def _queue_of(processor: BatchSpanProcessor) -> Sized | None:
    inner = getattr(processor, "_batch_processor", None)
    # SDK 1.30 has it as `queue`
    queue = getattr(inner, "_queue", None) if inner else getattr(processor, "queue", None)
    return queue if hasattr(queue, "__len__") else None


def _queue_size() -> int:
    name, default = _QUEUE
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        return default


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

"""Success counted at the exporter: the only place that knows it.

`force_flush` of the SDK returns True on failure, so each exporter is wrapped, by its public
interface, in one that counts what it took and what it refused.
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_pipeline_metrics import _clock
from otel_pipeline_metrics._guard import logger
from otel_pipeline_metrics.export import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_pipeline_metrics.export.environment import Signal

SLOW_S: Final = 0.5
"""A failure that took longer and gave no reason is told with its time."""


class Account:
    """What became of the data of one exporter. Items are spans or metric points.

    Args:
        signal: What it exports.
        kind: Which exporter it is.
        target: Where it sends to, without credentials.
        remote: Whether that is outside the process.
        said: Hosts whose failure was reported; shared, so that traces and metrics to one
            collector make one line.
    """

    def __init__(
        self,
        signal: Signal,
        kind: str,
        target: str,
        *,
        remote: bool = True,
        said: set[str] | None = None,
    ) -> None:
        self.signal = signal
        self.kind = kind
        self.target = target
        self.remote = remote
        self._said = set() if said is None else said
        self.stopped = False
        """The deadline has passed: whatever still comes is lost without being tried."""
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: _call(reset))

    def _reset(self) -> None:
        """Start at nothing: in a forked child what came before is the parent's to report."""
        self._lock = threading.Lock()
        self._accepted = itertools.count()
        self._looks = 0
        self.exported = 0
        self.failed = 0
        self.batches_failed = 0
        self.last_ok: bool | None = None
        """How the last export went; None before the first."""
        self._under_way = 0
        self._closed = False

    def accept(self) -> None:
        """Count one span into the queue; no lock, since this is in the user's thread."""
        next(self._accepted)

    @property
    def pending(self) -> int:
        """Spans that went into the queue and have not come out of it."""
        with self._lock:
            accepted = next(self._accepted) - self._looks
            self._looks += 1
            return max(0, accepted - self.exported - self.failed)

    def begin(self, items: int) -> None:
        """Note that the exporter has been given `items`; one export runs at a time."""
        with self._lock:
            self._under_way = items

    def note(self, items: int, *, ok: bool, reason: str | None = None) -> None:
        """Count one export of `items`, and say so if it is the first to its host that failed."""
        with self._lock:
            self._under_way = 0
            if self._closed:
                return
            self.last_ok = ok
            if ok:
                self.exported += items
            else:
                self.failed += items
                self.batches_failed += 1
        if not ok and not self.stopped:
            self._say(reason)

    def write_off(self) -> None:
        """Count everything that is not out by now as failed, and count nothing after that."""
        lost = self.pending
        with self._lock:
            if self._under_way:
                lost = max(lost, self._under_way)
                self.batches_failed += 1
                self.last_ok = False
            self.failed += lost
            self._closed = True

    def _say(self, reason: str | None) -> None:
        parts = urlsplit(self.target)
        host = f"{parts.scheme}://{parts.netloc}" if parts.netloc else self.target
        if host in self._said:
            return
        self._said.add(host)
        logger.warning(
            "telemetry cannot be exported to %s%s; the pipeline goes on, and what is lost is "
            "counted. The exporter's own log lines: %s=true",
            host,
            f" ({reason})" if reason else "",
            quiet.ENVIRONMENT_VARIABLE,
        )


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()


class Stoppable:
    """An exporter's shutdown: once, and without waiting where the deadline has passed."""

    def __init__(self, inner: SpanExporter | MetricExporter, account: Account) -> None:
        self._inner = inner
        self._account = account
        self._over = False

    def shutdown(self, timeout_millis: float | None = None) -> None:
        """Shut the exporter down; a second call does nothing."""
        if self._over:
            return
        self._over = True
        takes_timeout = "timeout_millis" in inspect.signature(self._inner.shutdown).parameters
        arguments = (
            {}
            if timeout_millis is None or not takes_timeout
            else {"timeout_millis": timeout_millis}
        )
        with quiet.exporting():
            self._inner.shutdown(**arguments)

    def abort(self) -> None:
        """Make the exporter give up what it is trying; may block, so call it from a lane."""
        self._account.stopped = True
        self.shutdown(timeout_millis=0)


def _attempt(account: Account, items: int, export: Callable[[], bool]) -> bool:
    """Make one export, count it, and say whether it succeeded."""
    if account.stopped:
        account.note(items, ok=False)
        return False
    account.begin(items)
    started = _clock.now()
    ok = False
    with quiet.exporting() as heard:
        try:
            ok = export()
        except Exception as error:  # noqa: BLE001 - SDK 1.30 raises on a refused connection
            heard.reason = type(error).__name__
    reason = heard.reason
    elapsed_s = _clock.now() - started
    if reason is None and elapsed_s > SLOW_S:
        reason = f"no success in {elapsed_s:.1f} s"
    account.note(items, ok=ok, reason=reason)
    return ok


class CountingSpanExporter(SpanExporter):
    """A span exporter that counts, and never raises."""

    def __init__(self, inner: SpanExporter, account: Account) -> None:
        self.account = account
        self.stoppable = Stoppable(inner, account)
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans` and count how it went."""
        ok = _attempt(
            self.account,
            len(spans),
            lambda: self._inner.export(spans) is SpanExportResult.SUCCESS,
        )
        return SpanExportResult.SUCCESS if ok else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the wrapped exporter."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Shut the wrapped exporter down."""
        self.stoppable.shutdown()


class CountingMetricExporter(MetricExporter):
    """A metric exporter that counts, and never raises."""

    def __init__(self, inner: MetricExporter, account: Account) -> None:
        # The reader takes both from the exporter it is given.
        super().__init__(
            preferred_temporality=getattr(inner, "_preferred_temporality", None),
            preferred_aggregation=getattr(inner, "_preferred_aggregation", None),
        )
        self.account = account
        self.stoppable = Stoppable(inner, account)
        self._inner = inner

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export `metrics_data` and count how it went."""
        ok = _attempt(
            self.account,
            _points(metrics_data),
            lambda: (
                self._inner.export(metrics_data, timeout_millis, **kwargs)
                is MetricExportResult.SUCCESS
            ),
        )
        return MetricExportResult.SUCCESS if ok else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the wrapped exporter."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002
        """Shut the wrapped exporter down; the reader's `timeout` argument means nothing here."""
        self.stoppable.shutdown(timeout_millis)


class CountingBatchProcessor(BatchSpanProcessor):
    """The SDK's batch processor, counting what goes in.

    What it has lost at the end is what went in and did not come out: that holds too for spans
    that a full queue dropped and for those that the deadline left behind.
    """

    def __init__(self, exporter: CountingSpanExporter) -> None:
        super().__init__(exporter)
        self._account = exporter.account

    def on_end(self, span: ReadableSpan) -> None:
        """Count a sampled span and queue it."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._account.accept()
        super().on_end(span)


def _points(metrics_data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in metrics_data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )

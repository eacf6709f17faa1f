"""A batch span processor and a sampler that count what they drop."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import environment_checks
from otel_pipeline_metrics._export.background import BackgroundThread
from otel_pipeline_metrics._export.delivery import processor_metrics

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import SamplingResult

    from otel_pipeline_metrics._export.delivery.counting_exporters import (
        CountingSpanExporter,
    )


_SAMPLED: Final = Decision.RECORD_AND_SAMPLE
# a queue with less room than this may have overflowed between two reads of its length
_NEARLY: Final = 64
# the SDK's own limit, for callers that give none
_SHUTDOWN_S: Final = 30.0


class CountingBatchProcessor(SpanProcessor):
    """A batch processor with the settings of the SDK's, counting what enters its queue.

    A thread that ends a span appends it, and at most wakes the exporting thread through a queue
    that needs no lock. So a signal handler or a finalizer may end a span at any moment, and an
    exception that a signal handler raises in between costs one span at most. With the SDK's
    processor it may leave a lock held, for which every later span would wait.

    At the end the lost spans are those that entered and were not exported, which includes the
    spans that a full queue dropped and those that the deadline left behind.

    In a forked child only spans that began in the child count, and are exported: both processes
    end the spans that were open at the fork, and the parent exports them.
    """

    def __init__(self, exporter: CountingSpanExporter) -> None:
        setting = partial(environment_checks.batch_setting, os.environ)
        self._exporter = exporter
        # in a forked child: the ids of its open spans
        self._begun_here: set[int] | None = None
        self._batch_size = setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
        ledger = self._ledger = exporter.ledger
        ledger.capacity = min(setting("OTEL_BSP_MAX_QUEUE_SIZE"), sys.maxsize)
        ledger.waiting = self._length
        self._near = max(1, ledger.capacity - _NEARLY)
        self._is_shut_down = False
        self._metrics = processor_metrics.of_processor(ledger.capacity, self._length)
        self._renew()
        delay_s = setting("OTEL_BSP_SCHEDULE_DELAY") / 1000
        self._thread = BackgroundThread("spans", every=(delay_s, self._export_next))
        forking.watch(self)

    def _renew(self) -> None:
        # a full one drops its oldest span
        self._queued: deque[ReadableSpan] = deque(maxlen=self._ledger.capacity)
        # whether the exporting thread has been woken for a full batch
        self._woken = False
        # of those that a full queue dropped: how many the processor's metrics have
        self._overflowed = 0

    def _length(self) -> int:
        return len(self._queued)

    def after_fork(self) -> None:
        """Leave the open and the queued spans to the parent."""
        self._begun_here = set()
        self._renew()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note, in a forked child, that the span began here."""
        if self._begun_here is not None:
            self._begun_here.add(span.get_span_context().span_id)

    def on_end(self, span: ReadableSpan) -> None:
        """Count a sampled span and queue it; after the shutdown count it only."""
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        if self._begun_here is not None:
            if context.span_id not in self._begun_here:
                return
            self._begun_here.discard(context.span_id)
        ledger, queued = self._ledger, self._queued
        ledger.accept()
        if self._is_shut_down:
            return
        length = len(queued)
        if length >= self._near:
            ledger.crowded = True
        queued.append(span)
        if length + 1 >= self._batch_size and not self._woken:
            # an exception between these two lines delays the batch until the next period
            self._woken = True
            self._thread.submit(self._export_full)

    def shutdown(self) -> None:
        """Export what is queued; spans that end later are counted as dropped."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        self._thread.submit(self._export_all).wait(clock.monotonic() + _SHUTDOWN_S)
        self._thread.close()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what is queued; return whether that was done in time."""
        if self._is_shut_down:
            return False
        timeout_s = _SHUTDOWN_S if timeout_millis is None else timeout_millis / 1000
        return self._thread.submit(self._export_all).wait(clock.monotonic() + timeout_s)

    # --- in the exporting thread ------------------------------------------------------------------

    def _export_next(self) -> None:
        """Export one batch at the end of a period, however small, and then full ones."""
        self._export_batch()
        self._export_full()

    def _export_full(self) -> None:
        self._woken = False
        while len(self._queued) >= self._batch_size and self._export_batch():
            pass

    def _export_all(self) -> None:
        """Export what is queued now; what a busy program adds meanwhile may wait."""
        left = len(self._queued)
        while left > 0 and self._export_batch():
            left -= self._batch_size

    def _export_batch(self) -> bool:
        """Export one batch; return False if there is none.

        After the deadline too: the exporter keeps it on disk, or counts it.
        """
        queued = self._queued
        batch: list[ReadableSpan] = []
        try:
            while len(batch) < self._batch_size:
                batch.append(queued.popleft())
        except IndexError:  # it is empty
            pass
        if not batch:
            return False
        if self._metrics is not None:
            overflowed = self._ledger.overflowed
            self._metrics.dropped(overflowed - self._overflowed)
            self._metrics.exported(len(batch))
            self._overflowed = max(overflowed, self._overflowed)
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            self._exporter.export(batch)
        except Exception:  # it never raises, unless this library has an error
            errors.log_internal_error("exporting spans")
        finally:
            detach(token)
        return True


class CountingSampler(Sampler):
    """Samples like another sampler, and counts what is not sampled."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # a signal handler may call stats()
        # not a `Counter`: a call of its method would cost more for each span
        self._left_out = itertools.count()
        self._looks = 0

    @property
    def left_out(self) -> int:
        """The number of spans that were not sampled."""
        with self._lock:
            found = next(self._left_out) - self._looks
            self._looks += 1
            return found

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        result = self._inner.should_sample(*args, **kwargs)
        if result.decision is not _SAMPLED:
            next(self._left_out)
        return result

    def get_description(self) -> str:
        return self._inner.get_description()

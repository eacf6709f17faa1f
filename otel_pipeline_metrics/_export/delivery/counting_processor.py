"""A batch span processor and a sampler that count what they drop."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler

from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import environment_checks

if TYPE_CHECKING:
    from collections.abc import Sized

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import SamplingResult

    from otel_pipeline_metrics._export.delivery.counting_exporters import (
        CountingSpanExporter,
    )


_SAMPLED: Final = Decision.RECORD_AND_SAMPLE
# a queue with less room than this may have overflowed between two reads of its length
_NEARLY: Final = 64


class CountingBatchProcessor(BatchSpanProcessor):
    """The SDK's batch processor, counting what enters its queue.

    At the end the lost spans are those that entered and were not exported, which includes the
    spans that a full queue dropped and those that the deadline left behind. Until the end the
    length of the queue shows what it dropped; it is read from a private attribute, and where
    that is missing those spans count as pending until the end.

    In a forked child only spans that began in the child count, and are exported: both processes
    end the spans that were open at the fork, and the parent exports them.
    """

    def __init__(self, exporter: CountingSpanExporter) -> None:
        # in a forked child: the ids of its open spans
        self._begun_here: set[int] | None = None
        super().__init__(exporter)
        forking.watch(self)
        ledger = self._ledger = exporter.ledger
        self._waiting: Sized | None = _queue_of(self)
        ledger.capacity = getattr(self._waiting, "maxlen", None) or (
            environment_checks.batch_setting(os.environ, "OTEL_BSP_MAX_QUEUE_SIZE")
        )
        ledger.waiting = self._length
        self._near = max(1, ledger.capacity - _NEARLY)
        # threads that are queueing a span
        self._inside: set[int] = set()
        self._deferred: deque[ReadableSpan] = deque()
        self._is_shut_down = False

    def _length(self) -> int | None:
        return None if self._waiting is None else len(self._waiting)

    def after_fork(self) -> None:
        """Leave the open spans to the parent; the SDK itself empties the queue."""
        self._begun_here = set()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note, in a forked child, that the span began here."""
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
            ledger = self._ledger
            ledger.accept()
            if self._waiting is not None and len(self._waiting) >= self._near:
                ledger.crowded = True
        if not self._is_shut_down:  # SDK 1.30 logs a line for each span after that
            self._queue(span)

    def shutdown(self) -> None:
        """Queue no more; spans that end later are counted as dropped."""
        self._is_shut_down = True
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped

    def _queue(self, span: ReadableSpan) -> None:
        """Queue a span, or defer it until this thread has queued another.

        A signal handler or a finalizer may end a span while its thread holds the lock with which
        the SDK wakes the exporting thread; it would wait for that lock for ever.
        """
        here = threading.get_ident()
        if here in self._inside:
            self._deferred.append(span)
            return
        self._inside.add(here)
        try:
            super().on_end(span)
        finally:
            self._inside.discard(here)
        while self._deferred:
            try:
                late = self._deferred.popleft()
            except IndexError:  # another thread was faster
                return
            self._queue(late)


class CountingSampler(Sampler):
    """Samples like another sampler, and counts what is not sampled."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at zero: the parent reports what happened before the fork."""
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
        """Return the decision of the wrapped sampler."""
        result = self._inner.should_sample(*args, **kwargs)
        if result.decision is not _SAMPLED:
            next(self._left_out)
        return result

    def get_description(self) -> str:
        """Return the description of the wrapped sampler."""
        return self._inner.get_description()


def _queue_of(processor: BatchSpanProcessor) -> Sized | None:
    inner = getattr(processor, "_batch_processor", None)
    # SDK 1.30 has it as `queue`
    queue = getattr(inner, "_queue", None) if inner else getattr(processor, "queue", None)
    return queue if hasattr(queue, "__len__") else None

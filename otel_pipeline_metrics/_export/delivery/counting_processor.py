"""A batch span processor and a sampler that count what they drop."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler

from otel_pipeline_metrics._core.counter import Counter
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Sized

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import SamplingResult

    from otel_pipeline_metrics._export.delivery.counting_exporters import (
        CountingSpanExporter,
    )


_SAMPLED: Final = Decision.RECORD_AND_SAMPLE
_QUEUE: Final = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
_NEARLY: Final = 64
"""A queue with less room than this may have overflowed between two looks."""


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
        self._left_out = Counter()

    @property
    def left_out(self) -> int:
        """How many spans were not sampled."""
        return self._left_out.value()

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Return what the other decides."""
        result = self._inner.should_sample(*args, **kwargs)
        if result.decision is not _SAMPLED:
            self._left_out.add()
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

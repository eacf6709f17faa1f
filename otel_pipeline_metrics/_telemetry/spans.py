"""Spans for stages and runs, through the OpenTelemetry API alone."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._core.metric_definitions import DURATION_BUCKETS
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._telemetry.attributes import stage_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._core.records import AttributeValue, StageResult
    from otel_pipeline_metrics._core.series import Cell, RunScope, Series


(_SPAN_KEY,) = set_span_in_context(INVALID_SPAN, Context())
"""Of the span in a context; `set_span_in_context` would copy the context twice."""


class Spans:
    """Opens and closes spans on one provider, or on the global one once there is one."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._fixed = provider is not None
        self._provider = provider
        self._tracer: Tracer | None = None if provider is None else _tracer_of(provider)
        self.disabled = self._fixed and self._tracer is None
        """Whether no span will ever be taken here."""

    def _current_tracer(self) -> Tracer | None:
        """Return the tracer, or None while nobody would take a span.

        The user may set a global provider at any time, so it is looked up while none is
        configured; the look-up is a few attribute reads.
        """
        if self._fixed:
            return self._tracer
        # `get_tracer_provider` asks the environment first while none is set; this call is on
        # the hot path of every unconfigured program
        if getattr(trace, "_TRACER_PROVIDER", trace) is None:
            return None
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            self._provider = provider
            self._tracer = _tracer_of(provider)
        return self._tracer

    def open(self, cell: Cell, links: Sequence[Link] = (), links_dropped: int = 0) -> None:
        """Open a span under the current one and make it current, if one is wanted."""
        tracer = self._tracer if self._fixed else self._current_tracer()
        series: Series = cell[0]
        if tracer is None or (series.spans_left < 1 and series.skip_span()):
            return
        series.spans_left -= 1
        series.spans_made += 1
        around = get_current()  # given to all that would look it up
        span = tracer.start_span(
            series.key.stage,
            around,
            attributes=series.cache or _fixed_attributes(series),
            links=[_link(link) for link in links] if links else None,
        )
        context = Context({**around, _SPAN_KEY: span})
        cell += span, context, attach(context)
        if links_dropped:
            span.set_attribute(metric_definitions.LINKS_DROPPED, links_dropped)

    def close(self, cell: Cell, elapsed: float) -> None:
        """End the span of an invocation that has nothing to tell but its duration."""
        attached, cell[6] = cell[6], None
        if attached is not None:
            detach(attached)
        cell[4].end()
        # one for each bucket is all that a histogram's reservoir keeps
        exemplars = cell[0].exemplars
        bucket = bisect_left(DURATION_BUCKETS, elapsed)
        if bucket not in exemplars and _is_sampled(cell[4]):
            exemplars[bucket] = (elapsed, cell[5])

    def span_of(self, cell: Cell) -> StageSpan:
        """Return what tells more of the span that is open in a cell."""
        return StageSpan(self, cell)

    def record_late_span(self, series: Series, result: StageResult) -> Any:
        """Make the span of an invocation that is over; return its context if it is sampled."""
        tracer = self._tracer if self._fixed else self._current_tracer()
        if tracer is None or series.late_left < 1:
            return None
        series.late_left -= 1
        series.spans_made += 1
        now = time.time_ns()
        took = result.busy_s + result.idle_s + result.blocked_s
        span = tracer.start_span(
            series.key.stage,
            attributes=_fixed_attributes(series),
            start_time=now - int(took * 1e9),
            record_exception=False,
            set_status_on_exception=False,
        )
        if span.is_recording():
            _describe(span, series, result)
        span.end(now)
        return set_span_in_context(span) if _is_sampled(span) else None

    def start_run(
        self, scope: RunScope, attributes: Mapping[str, AttributeValue]
    ) -> OpenRun | None:
        """Open a run's span and make it current."""
        tracer = self._current_tracer()
        if tracer is None:
            return None
        span = tracer.start_span(
            f"run {scope.pipeline}",
            attributes={
                **attributes,
                metric_definitions.PIPELINE_NAME: scope.pipeline or "",
                metric_definitions.RUN_ID: scope.run_id or "",
            },
            record_exception=False,
            set_status_on_exception=False,
        )
        return OpenRun(span)


class StageSpan:
    """The span of a stage's invocation in progress."""

    __slots__ = ("_cell", "_span", "_spans")

    def __init__(self, spans: Spans, cell: Cell) -> None:
        self._spans = spans
        self._cell = cell
        self._span: Span = cell[4]

    def resume(self) -> None:
        """Make it current."""
        self._cell[6] = attach(self._cell[5])

    def suspend(self) -> None:
        """Make it no longer current."""
        attached, self._cell[6] = self._cell[6], None
        if attached is not None:
            detach(attached)

    def retry(self, attempt: int, error_type: str) -> None:
        """Add the event `retry`; the status stays as it is."""
        attributes: dict[str, AttributeValue] = {metric_definitions.RETRY_ATTEMPT: attempt}
        if error_type:
            attributes[metric_definitions.ERROR_TYPE] = error_type
        self._span.add_event(metric_definitions.RETRY_EVENT, attributes)

    def link(self, link: Link) -> None:
        """Link it to the producer of an item that its stage has got."""
        made = _link(link)
        self._span.add_link(made.context, made.attributes)

    def drop_links(self, count: int) -> None:
        """Say how many producers it is not linked to."""
        self._span.set_attribute(metric_definitions.LINKS_DROPPED, count)

    def identity(self) -> SpanContext:
        """Return what links to it need."""
        return self._span.get_span_context()

    def close(self, elapsed: float) -> None:
        """End it; there is nothing to tell but the duration."""
        self._cell[6] = None  # where it still was current is another context
        self._spans.close(self._cell, elapsed)

    def end(self, result: StageResult) -> Any:
        """End it, with what there is to tell; return its context if sampled, for exemplars."""
        if self._span.is_recording():
            _describe(self._span, self._cell[0], result)
        self._span.end()
        return self._cell[5] if _is_sampled(self._span) else None


class OpenRun:
    """The span of a run in progress."""

    __slots__ = ("_attached", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        in_gc = bool(gc_safety.running_in) and gc_safety.here()
        self._attached = None if in_gc else attach(set_span_in_context(span))

    @property
    def trace_id(self) -> str | None:
        """The trace's id in hexadecimal; None if the span belongs to no trace."""
        context = self.span.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def leave(self) -> None:
        """Make the span no longer current; somebody else ends it."""
        if self._attached is not None:
            context_api.detach(self._attached)

    def end(
        self, result: str, error_type: str | None, message: str | None = None, *, detach: bool
    ) -> Any:
        """Close the span with the run's result; return its context for exemplars.

        Args:
            result: `pipeline.run.result`.
            error_type: `error.type` of a failure.
            message: its message, where messages are wanted.
            detach: whether this is the context in which it was made current.
        """
        self.span.set_attribute(metric_definitions.RUN_RESULT, result)
        if error_type is not None:
            self.span.set_attribute(metric_definitions.ERROR_TYPE, error_type)
            self.span.set_status(trace.StatusCode.ERROR, message)
        if detach:
            self.leave()
        self.span.end()
        return set_span_in_context(self.span) if _is_sampled(self.span) else None


def _tracer_of(provider: TracerProvider) -> Tracer | None:
    if isinstance(provider, (trace.NoOpTracerProvider, trace.ProxyTracerProvider)):
        return None
    return provider.get_tracer(metric_definitions.SCOPE, __version__)


def _is_sampled(span: Span) -> bool:
    return span.get_span_context().trace_flags.sampled


def _fixed_attributes(series: Series) -> dict[str, AttributeValue]:
    """Return what is on every span of a stage, worked out once."""
    if series.cache is None:
        series.cache = {**series.attributes, **stage_attributes(series.key)}
    attributes: dict[str, AttributeValue] = series.cache
    return attributes


def _describe(span: Span, series: Series, result: StageResult) -> None:
    if result.attributes:
        # the library's own stay what they are
        ours = _fixed_attributes(series)
        span.set_attributes({k: v for k, v in result.attributes.items() if k not in ours})
    attributes = _result_attributes(result)
    if attributes:
        span.set_attributes(attributes)
    if result.error_type is not None:
        # the semantic conventions ("Recording errors") want the message as the description
        span.set_status(trace.StatusCode.ERROR, result.error_message)


def _link(link: Link) -> trace.Link:
    context, queue, waited = link
    return trace.Link(
        context, {metric_definitions.QUEUE_NAME: queue, metric_definitions.QUEUE_WAIT: waited}
    )


def _result_attributes(result: StageResult) -> dict[str, AttributeValue]:
    size = result.items_in if result.items_in is not None else result.items_out
    given: dict[str, AttributeValue | None] = {
        metric_definitions.STAGE_ITEMS_IN: result.items_in,
        metric_definitions.STAGE_ITEMS_OUT: result.items_out,
        metric_definitions.STAGE_IO_IN: result.bytes_in,
        metric_definitions.STAGE_IO_OUT: result.bytes_out,
        metric_definitions.BATCH_SIZE: size,
        metric_definitions.ERROR_TYPE: result.error_type,
        metric_definitions.STAGE_OUTCOME: None if result.outcome == "ok" else result.outcome,
    }
    return {key: value for key, value in given.items() if value is not None}

"""Open and close the spans of stages and runs, through the API alone."""

from __future__ import annotations

import functools
import operator
import time
from bisect import bisect_left
from itertools import repeat
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from otel_pipeline_metrics._core import errors, hooks
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.every_series import find_anew, hand_over_spans
from otel_pipeline_metrics._core.metric_definitions import DURATION_BUCKETS
from otel_pipeline_metrics._core.process import gc_safety
from otel_pipeline_metrics._core.slowest import keep_slowest
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._telemetry.attributes import code_attributes, stage_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

    from otel_pipeline_metrics._core.hooks import Link
    from otel_pipeline_metrics._core.records import AttributeValue, StageResult
    from otel_pipeline_metrics._core.series import Cell, RunScope, Series


# the key of the span in a context; `set_span_in_context` would copy the context twice
(_SPAN_KEY,) = set_span_in_context(INVALID_SPAN, Context())
# the key that `suppress_instrumentation()` of opentelemetry-instrumentation sets
_SUPPRESSED = context_api._SUPPRESS_INSTRUMENTATION_KEY
# the key of the innermost run's `OpenRun` in a context
_RUN_KEY = context_api.create_key("otel_pipeline_metrics.run")
# Returns the global provider, None while none is set, or else what it is given. The public way
# reads the environment while none is set.
_global_provider = functools.partial(vars(trace).get, "_TRACER_PROVIDER")


class Spans:
    """The spans on one provider, or on the global one once it is set."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._fixed = provider is not None
        self._provider = provider
        self._tracer: Tracer | None = None if provider is None else _tracer_of(provider)

    def put_in_force(self) -> None:
        """Have calls open spans if the provider takes any, on the global one once it is set."""
        hand_over_spans()
        if self._fixed:
            hooks.set_tracing(None if self._tracer is None else self)
        else:
            hooks.set_tracing(None, to_come=self)
            self.look()
        find_anew()

    def look(self) -> None:
        """Open spans from now on if a global provider is set."""
        if _global_provider(self) is not None:
            hooks.set_tracing(self)

    def until_it_comes(self, found: Series, turns: Iterator[Series]) -> Iterator[Series]:
        """Return turns of a series that end, with a KeyError, once a global provider is set.

        All of it is C, and shorter than a look from Python.
        """
        are_none = map(operator.is_, map(_global_provider, turns), repeat(None))
        return map({True: found}.__getitem__, are_none)

    def current_tracer(self) -> Tracer | None:
        """Return the tracer, or None while there is no provider.

        The user may set a global provider at any time, so it is looked up for each span until
        `configure()`; the look-up is a few attribute reads.
        """
        if self._fixed:
            return self._tracer
        if _global_provider(self) is None:
            return None
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            # in this order, since a signal handler may raise in between
            self._tracer = _tracer_of(provider)
            self._provider = provider
        return self._tracer

    def open(self, cell: Cell, links: Sequence[Link] = (), links_dropped: int = 0) -> None:
        """Open a span under the current one and make it current, if the budget allows."""
        tracer = self._tracer if self._fixed else self.current_tracer()
        series: Series = cell[0]
        budget = series.budget
        if tracer is None or (budget.spans_left < 1 and budget.skip_span()):
            return
        around = get_current()  # passed on, as each of the callees would look it up again
        if _is_suppressed(around):
            return
        budget.spans_left -= 1
        budget.spans_made += 1
        parent = series.scope.around or around
        if parent is not around and around:
            parent = around  # there is a span, or something else, around
        span = _guarded(
            tracer.start_span,
            series.key.stage,
            parent,
            attributes=series.cache or _fixed_attributes(series),
            links=[_link(link) for link in links] if links else None,
        )
        if links_dropped:
            span.set_attribute(defs.LINKS_DROPPED, links_dropped)
        context = Context({**parent, _SPAN_KEY: span})
        cell += span, context, around
        try:
            attach(context)
        except BaseException:  # of a signal handler
            attach(around)
            raise

    def close(self, cell: Cell, elapsed: float) -> None:
        """End the span of a call that has only a duration."""
        _leave(cell)
        _guarded(cell[-3].end)
        # a histogram's reservoir keeps only one exemplar for each bucket
        series: Series = cell[0]
        exemplars = series.exemplars
        bucket = bisect_left(DURATION_BUCKETS, elapsed)
        is_slow = elapsed > series.slow_from
        if (is_slow or bucket not in exemplars) and _is_sampled(cell[-3]):
            exemplars.setdefault(bucket, (elapsed, cell[-2]))
            if is_slow:
                keep_slowest(series, elapsed, cell[-2])

    def span_of(self, cell: Cell) -> StageSpan:
        """Return the open span of a cell, to add details to it."""
        return StageSpan(self, cell)

    def record_late_span(self, series: Series, result: StageResult) -> Any:
        """Make the span of a call that has ended; return its context if it is sampled."""
        tracer = self._tracer if self._fixed else self.current_tracer()
        if tracer is None or series.budget.late_left < 1 or _is_suppressed(get_current()):
            return None
        series.budget.late_left -= 1
        series.budget.spans_made += 1
        now = time.time_ns()
        took = result.busy_s + result.idle_s + result.blocked_s
        span = _guarded(
            tracer.start_span,
            series.key.stage,
            attributes=_fixed_attributes(series),
            start_time=now - int(took * 1e9),
            record_exception=False,
            set_status_on_exception=False,
        )
        if span.is_recording():
            _describe(span, series, result)
        _guarded(span.end, now)
        return set_span_in_context(span) if _is_sampled(span) else None

    def start_run(
        self, scope: RunScope, attributes: Mapping[str, AttributeValue]
    ) -> OpenRun | None:
        """Open a run's span and make it current."""
        tracer = self.current_tracer()
        if tracer is None:
            return None
        around = _outside_ended(get_current())
        if _is_suppressed(around):
            return None
        span = _guarded(
            tracer.start_span,
            f"run {scope.pipeline}",
            around,
            attributes={
                **attributes,
                defs.PIPELINE_NAME: scope.pipeline or "",
                defs.RUN_ID: scope.run_id or "",
            },
            record_exception=False,
            set_status_on_exception=False,
        )
        return OpenRun(span, around)


class StageSpan:
    """The span of a call in progress."""

    __slots__ = ("_cell", "_span", "_spans")

    def __init__(self, spans: Spans, cell: Cell) -> None:
        self._spans = spans
        self._cell = cell
        self._span: Span = cell[-3]

    def resume(self) -> None:
        """Make it current."""
        self._cell[-1] = get_current()
        attach(self._cell[-2])

    def suspend(self) -> None:
        """Make it no longer current; it stays open."""
        _leave(self._cell)

    def retry(self, attempt: int, error_type: str) -> None:
        """Add the event `retry`; the status does not change."""
        attributes: dict[str, AttributeValue] = {defs.RETRY_ATTEMPT: attempt}
        if error_type:
            attributes[defs.ERROR_TYPE] = error_type
        self._span.add_event(defs.RETRY_EVENT, attributes)

    def link(self, link: Link) -> None:
        """Link it to the producer of an item that its stage received."""
        made = _link(link)
        self._span.add_link(made.context, made.attributes)

    def drop_links(self, count: int) -> None:
        """Set the number of producers that it is not linked to."""
        self._span.set_attribute(defs.LINKS_DROPPED, count)

    def identity(self) -> SpanContext:
        """Return its span context, for links to it."""
        return self._span.get_span_context()

    def context(self) -> Any:
        """Return its context if it is sampled, for exemplars."""
        return self._cell[-2] if _is_sampled(self._span) else None

    def close(self, elapsed: float) -> None:
        """End it with only a duration."""
        self._cell[-1] = None  # it was made current in another context
        if self._span.is_recording():  # else it has ended, or nothing keeps it
            self._spans.close(self._cell, elapsed)

    def end(self, result: StageResult) -> Any:
        """End it with its details; return its context for exemplars if it is sampled."""
        if self._span.is_recording():
            _describe(self._span, self._cell[0], result)
        _guarded(self._span.end)
        return self.context()


class OpenRun:
    """The span of a run in progress."""

    __slots__ = ("around", "ended", "span")

    def __init__(self, span: Span, around: Context) -> None:
        """Make the span current; `around` is current again at its end."""
        self.span = span
        self.around = around
        self.ended = False
        if not (gc_safety.here()):
            attach(Context({**around, _SPAN_KEY: span, _RUN_KEY: self}))

    @property
    def trace_id(self) -> str | None:
        """The trace's id in hexadecimal; None if the span is not valid."""
        context = self.span.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    @property
    def is_recording(self) -> bool:
        """Whether attributes of the span are kept."""
        return self.span.is_recording()

    def set_attributes(self, attributes: Mapping[str, str | float]) -> None:
        self.span.set_attributes(attributes)

    def leave(self) -> None:
        """Make the span no longer current; the caller ends it elsewhere.

        A run that began in this one stays current; see `current_run.close_scope`.
        """
        self.ended = True
        if gc_safety.here():
            return
        found = get_current()
        going_on = _outside_ended(found)
        if going_on is not found:
            attach(going_on)

    def end(self, result: str, error_type: str | None, message: str | None = None) -> Any:
        """End the span with the run's result; return its context for exemplars."""
        self.span.set_attribute(defs.RUN_RESULT, result)
        if error_type is not None:
            self.span.set_attribute(defs.ERROR_TYPE, error_type)
            self.span.set_status(trace.StatusCode.ERROR, message)
        self.leave()
        _guarded(self.span.end)
        return set_span_in_context(self.span) if _is_sampled(self.span) else None


def _leave(cell: Cell) -> None:
    """Make current again what was current around an open span; a second call does nothing.

    OpenTelemetry's `detach` would swallow an exception that a signal handler raises inside it.
    """
    around = cell[-1]
    if around is not None:
        attach(around)
        cell[-1] = None


def _outside_ended(context: Context) -> Context:
    """Return the first context, from `context` outwards, that is not of an ended run."""
    while isinstance(run := context.get(_RUN_KEY), OpenRun) and run.ended:
        context = run.around
    return context


def _is_suppressed(context: Context) -> bool:
    """Tell whether this is inside of `suppress_instrumentation()`."""
    return bool(context.get(_SUPPRESSED))


def _guarded(function: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """Call the SDK; what a sampler or a processor raises, also `SystemExit`, is an `Exception`."""
    try:
        return function(*given, **more)
    except BaseException as error:
        if errors.passes(error):
            raise
        raise errors.CallbackError(errors.name_of(error)) from error


def _tracer_of(provider: TracerProvider) -> Tracer | None:
    if isinstance(provider, (trace.NoOpTracerProvider, trace.ProxyTracerProvider)):
        return None
    return provider.get_tracer(defs.SCOPE, __version__, schema_url=defs.SCHEMA_URL)


def ids_of(context: Any) -> tuple[str | None, str | None]:
    """Return the ids of a context's trace and span in hexadecimal; None without a span."""
    if context is None:
        return None, None
    found = trace.get_current_span(context).get_span_context()
    if not found.is_valid:
        return None, None
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)


def _is_sampled(span: Span) -> bool:
    return span.get_span_context().trace_flags.sampled


def _fixed_attributes(series: Series) -> dict[str, AttributeValue]:
    """Return the attributes that are on every span of a stage, built once."""
    if series.cache is None:
        series.cache = {
            **code_attributes(series.stage.code),
            **series.attributes,
            **stage_attributes(series.key),
        }
    attributes: dict[str, AttributeValue] = series.cache
    return attributes


def _describe(span: Span, series: Series, result: StageResult) -> None:
    if result.attributes:
        # attributes of the library cannot be replaced
        ours = _fixed_attributes(series)
        span.set_attributes({k: v for k, v in result.attributes.items() if k not in ours})
    attributes = _result_attributes(result)
    if attributes:
        span.set_attributes(attributes)
    if result.error_type is not None:
        # the description is the message, as the semantic conventions ("Recording errors") say
        span.set_status(trace.StatusCode.ERROR, result.error_message)


def _link(link: Link) -> trace.Link:
    context, queue, waited = link
    return trace.Link(context, {defs.QUEUE_NAME: queue, defs.QUEUE_WAIT: waited})


def _result_attributes(result: StageResult) -> dict[str, AttributeValue]:
    counts = result.counts
    size = counts.items_in if counts.items_in is not None else counts.items_out
    given: dict[str, AttributeValue | None] = {
        defs.STAGE_ITEMS_IN: counts.items_in,
        defs.STAGE_ITEMS_OUT: counts.items_out,
        defs.STAGE_IO_IN: counts.bytes_in,
        defs.STAGE_IO_OUT: counts.bytes_out,
        defs.BATCH_SIZE: size,
        defs.ERROR_TYPE: result.error_type,
        defs.STAGE_OUTCOME: None if result.outcome == "ok" else result.outcome,
    }
    return {key: value for key, value in given.items() if value is not None}

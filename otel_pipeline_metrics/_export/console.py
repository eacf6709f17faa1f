"""Write spans and metrics for people: a line for each span, a table of the metrics."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from otel_pipeline_metrics._core import clock, text
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.output import columns, write_line
from otel_pipeline_metrics._export import console_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan, Span


# spans of one name that are shown between two flushes
LINES_PER_NAME: Final = 20

# a deeper span is indented no further
MAX_DEPTH: Final = 8
# spans in progress whose depth is remembered
MAX_OPEN: Final = 10_000
# metrics that change by themselves, so that they alone are no reason for a table
BY_THEMSELVES: Final = ("process.", "cpython.", "system.", "otel.")

_RESULTS: Final = {"success": "ok", "failure": "error", "cancellation": "cancelled"}


class ConsoleSpanExporter(SpanExporter):
    """Lines like `12:03:04.512  fetch  3.2 ms  ok  items_out=20  trace 4bf92f35`.

    The time is the end of the span, so a span stands below those inside of it, which are
    indented. At most `LINES_PER_NAME` lines of each name are shown until the next flush, which
    writes how many more there were.

    Args:
        stream: where to write; by default the stderr of the moment.
        every: show each span.
    """

    def __init__(self, stream: TextIO | None = None, *, every: bool = False) -> None:
        self._stream = stream
        self._every = every
        # without a lock: spans end in any thread, and in signal handlers
        self._counts: dict[str, itertools.count[int]] = {}
        # how many spans are around one that is in progress, by its id
        self._depths: dict[int, int] = {}

    def begin(self, span: Span) -> None:
        """Remember how deep in others a span is."""
        context = span.get_span_context()
        if context is not None and len(self._depths) < MAX_OPEN:
            self._depths[context.span_id] = self._around(span)

    def _around(self, span: ReadableSpan) -> int:
        return 0 if span.parent is None else self._depths.get(span.parent.span_id, -1) + 1

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a line for each span that is among the first of its name."""
        for span in spans:
            context = span.get_span_context()
            if context is not None:
                self._depths.pop(context.span_id, None)
            counter = self._counts.setdefault(span.name, itertools.count())
            if self._every or next(counter) < LINES_PER_NAME:
                write_line(self._stream, _line(span, min(self._around(span), MAX_DEPTH)))
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write how many spans were not shown, and count again from zero."""
        counts, self._counts = self._counts, {}
        for name, counter in list(counts.items()):
            more = next(counter) - LINES_PER_NAME
            if more > 0 and not self._every:
                spans = f'"{text.printable(name)}" span{"s" * (more > 1)}'
                write_line(self._stream, f"… and {more:,} more {spans}")
        return True

    def shutdown(self) -> None:
        """Write how many spans were not shown."""
        self.force_flush()


class ConsoleSpanProcessor(SimpleSpanProcessor):
    """Exports each span at its end, and flushes the exporter.

    The SDK's own would swallow an exception that a signal handler raises meanwhile.

    Args:
        exporter: what gets the spans, such as one that counts them before.
        console: what is told of spans that begin.
    """

    def __init__(self, exporter: SpanExporter, console: ConsoleSpanExporter | None = None) -> None:
        super().__init__(exporter)
        self._console = console

    def on_start(
        self,
        span: Span,
        parent_context: Context | None = None,
    ) -> None:
        if self._console is not None:
            self._console.begin(span)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self.span_exporter.export((span,))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.span_exporter.force_flush(timeout_millis)


class ConsoleMetricExporter(MetricExporter):
    """A table of all metrics, written if one has changed that does not change by itself."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._last: list[tuple[str, str, str]] | None = None

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **kwargs: Any,
    ) -> MetricExportResult:
        rows = sorted(_rows(metrics_data))
        told = [row for row in rows if not row[0].startswith(BY_THEMSELVES)]
        if rows and (self._last is None or told != self._last):
            self._last = told
            heading = time.strftime("%H:%M:%S", time.localtime(clock.unix()))
            stream = sys.stderr if self._stream is None else self._stream
            write_line(self._stream, f"\nmetrics at {heading}\n{_table(rows, columns(stream))}\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Do nothing: no resource is held."""


def _line(span: ReadableSpan, depth: int) -> str:
    start, end = span.start_time or 0, span.end_time or 0
    context = span.get_span_context()
    trace_id = f"{context.trace_id:032x}" if context is not None else ""
    parts = [
        console_text.clock(end / 1e9),
        f"{'  ' * depth + span.name:<19} {text.duration((end - start) / 1e9):>8}",
        f"{_outcome(span):<5}",
        console_text.attributes(span.attributes, hide=True),
        f"trace {trace_id[:8]}",
    ]
    return text.printable("  ".join(part for part in parts if part))


def _outcome(span: ReadableSpan) -> str:
    given = span.attributes or {}
    outcome = given.get(defs.STAGE_OUTCOME)
    if outcome is not None:
        return str(outcome)
    result = given.get(defs.RUN_RESULT)
    if result is not None:
        return _RESULTS.get(str(result), str(result))
    return "error" if span.status.status_code is StatusCode.ERROR else "ok"


def _table(rows: Sequence[tuple[str, str, str]], room: int | None) -> str:
    """Return a table; where it is too wide for the terminal, a paragraph for each metric."""
    table = text.table(("metric", "attributes", "value"), rows, left=3)
    if room is None or max(map(text.width, table.splitlines())) <= room:
        return table
    lines = []
    for name, points in itertools.groupby(rows, key=lambda row: row[0]):
        lines.append(name)
        for _, attributes, value in points:
            line = text.printable(f"  {attributes}  {value}" if attributes else f"  {value}")
            fits = text.width(line) <= room
            lines += [line] if fits else [f"  {text.printable(attributes)}", f"    {value}"]
    return "\n".join(lines)


def _rows(metrics_data: MetricsData) -> Iterator[tuple[str, str, str]]:
    for resource in metrics_data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                unit = metric.unit or ""
                for point in metric.data.data_points:
                    value = (
                        console_text.histogram(point, unit)
                        if hasattr(point, "bucket_counts") or hasattr(point, "positive")
                        else console_text.quantity(point.value, unit, metric.name)
                    )
                    yield metric.name, console_text.attributes(point.attributes), value

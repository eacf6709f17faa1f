"""Write the development console: a line for each span, a table of the metrics."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from otel_pipeline_metrics._core import clock, errors, text
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._export import console_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan


# spans of one name that are shown between two flushes
LINES_PER_NAME: Final = 20

_RESULTS: Final = {"success": "ok", "failure": "error", "cancellation": "cancelled"}


class Output:
    """A text stream; by default the stderr of the moment, since tests replace it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, message: str) -> None:
        """Write `message` and a line end; ignore a closed or broken stream."""
        stream = self._stream if self._stream is not None else sys.stderr
        if stream is None:  # pythonw, some daemons
            return
        line = f"{message}\n"
        try:
            try:
                stream.write(line)
            except UnicodeEncodeError:
                encoding = stream.encoding or "ascii"
                stream.write(line.encode(encoding, "replace").decode(encoding))
            stream.flush()
        except (OSError, ValueError) as error:
            if errors.from_signal_handler(error):
                raise


class ConsoleSpanExporter(SpanExporter):
    """Lines like `12:03:04.512  fetch  3.2 ms  ok  items_out=20  trace 4bf92f35`.

    The time is the end of the span. At most `LINES_PER_NAME` lines of each name are shown until
    the next flush, which writes how many more there were.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._output = Output(stream)
        # without a lock: spans end in any thread, and in signal handlers
        self._counts: dict[str, itertools.count[int]] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a line for each span that is among the first of its name."""
        for span in spans:
            counter = self._counts.setdefault(span.name, itertools.count())
            if next(counter) < LINES_PER_NAME:
                self._output.write(_line(span))
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Write how many spans were not shown, and count again from zero."""
        counts, self._counts = self._counts, {}
        for name, counter in list(counts.items()):
            more = next(counter) - LINES_PER_NAME
            if more > 0:
                spans = f'"{text.printable(name)}" span{"s" * (more > 1)}'
                self._output.write(f"… and {more:,} more {spans}")
        return True

    def shutdown(self) -> None:
        """Write how many spans were not shown."""
        self.force_flush()


class ConsoleSpanProcessor(SimpleSpanProcessor):
    """Exports each span at its end, and flushes the exporter.

    The SDK's own would swallow an exception that a signal handler raises meanwhile.
    """

    def on_end(self, span: ReadableSpan) -> None:
        """Export a sampled span."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self.span_exporter.export((span,))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self.span_exporter.force_flush(timeout_millis)


class ConsoleMetricExporter(MetricExporter):
    """A table of all metrics, written if it differs from the last one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._output = Output(stream)
        self._last = ""

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> MetricExportResult:
        """Write the table."""
        rows = sorted(_rows(metrics_data))
        if rows:
            table = text.table(("metric", "attributes", "value"), rows, left=3)
            if table != self._last:
                self._last = table
                heading = time.strftime("%H:%M:%S", time.localtime(clock.unix()))
                self._output.write(f"metrics at {heading}\n{table}")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
        """Return True: nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Do nothing: no resource is held."""


def _line(span: ReadableSpan) -> str:
    start, end = span.start_time or 0, span.end_time or 0
    context = span.get_span_context()
    trace_id = f"{context.trace_id:032x}" if context is not None else ""
    parts = [
        console_text.clock(end / 1e9),
        f"{span.name:<15} {text.duration((end - start) / 1e9):>8}",
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

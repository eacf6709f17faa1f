"""An exception of a signal handler at any line of ours costs one span, and nothing later."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import get_current
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN
from otel_pipeline_metrics._export import background, console
from otel_pipeline_metrics._export.delivery import (
    batch,
    counting_exporters,
    counting_processor,
    delivery,
    ledger,
    log_filter,
    responses,
    spool,
)
from otel_pipeline_metrics._export.delivery.counting_exporters import (
    CountingMetricExporter,
    CountingSpanExporter,
)
from otel_pipeline_metrics._export.delivery.counting_processor import CountingBatchProcessor
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.spool import Spool
from otel_pipeline_metrics._telemetry import pending, spans
from otel_pipeline_metrics._telemetry.sdk_private import bulk_record
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import (
    HistogramSeries,
    Instrument,
)
from otel_pipeline_metrics._telemetry.spans import Spans
from tests.support.interrupting import strike_at_every_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

OURS = (
    background,
    batch,
    counting_exporters,
    counting_processor,
    delivery,
    ledger,
    log_filter,
    responses,
    spool,
)


class Taking(SpanExporter):
    """Takes every span, or refuses all."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refuse = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.refuse:
            return SpanExportResult.FAILURE
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS


@pytest.fixture(autouse=True)
def left_visits() -> Iterator[None]:
    """End the visits whose first statement of the end was struck.

    Python handles no signal there, so a real one cannot leave them open.
    """
    yield
    log_filter._here.visit = 0
    log_filter._visits.clear()


@pytest.fixture
def taking() -> Taking:
    return Taking()


@pytest.fixture
def processor(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingBatchProcessor]:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    made = ExportLedger("traces", "otlp/http", "http://collector")
    processor = CountingBatchProcessor(CountingSpanExporter(taking, made))
    yield processor
    processor.shutdown()


def test_every_span_but_the_interrupted_is_exported(
    processor: CountingBatchProcessor, taking: Taking
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    clean = 0

    def after(_: int) -> None:
        nonlocal clean
        for _ in range(4):  # more than a batch, so that the thread is woken as well
            tracer.start_span("clean").end()
            clean += 1

    struck = strike_at_every_line(lambda: tracer.start_span("struck").end(), after, *OURS)
    assert struck > 10
    assert provider.force_flush()
    assert taking.names.count("clean") == clean == 4 * struck
    # at most one is missing for each exception
    assert processor._ledger.snapshot().created <= clean + struck + 1
    assert taking.names.count("struck") <= struck + 1
    state = processor._ledger.snapshot()
    assert (state.dropped, state.spooled) == (0, 0)
    assert state.exported == len(taking.names)
    assert not processor._queued


def test_a_flush_that_is_interrupted_loses_nothing(
    processor: CountingBatchProcessor, taking: Taking
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")
    made = 0

    def flush() -> None:
        nonlocal made
        for _ in range(7):
            tracer.start_span(f"{made}").end()
            made += 1
        provider.force_flush()

    # the spans themselves are not struck here
    struck = strike_at_every_line(provider.force_flush, lambda _: flush(), *OURS)
    assert struck > 5
    assert provider.force_flush()
    assert sorted(taking.names, key=int) == [f"{n}" for n in range(made)]
    assert processor._ledger.snapshot().exported == made > 30


class TakingMetrics(MetricExporter):
    """Takes metrics, or refuses all."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse = False

    def export(self, metrics_data: Any, *_: Any, **__: Any) -> MetricExportResult:
        if self.refuse:
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


# a folder that was being listed is closed late
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kept", [False, True], ids=["no spool", "spool"])
def test_metrics_that_the_program_flushes_itself_are_counted_exactly(
    tmp_path: Path, *, kept: bool
) -> None:
    """Their export runs in the program's thread."""
    exporter = TakingMetrics()
    made = ExportLedger("metrics", "otlp/http", "http://collector")
    directory = Spool(tmp_path, 100_000_000, 3600.0) if kept else None
    counting = CountingMetricExporter(exporter, made, directory, patience_s=60.0)
    reader = PeriodicExportingMetricReader(counting, export_interval_millis=1e9)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("m").create_counter("c").add(1)
    data = batch_of(provider)

    def export() -> None:
        counting.delivery._paused_until = 0.0
        counting.export(data)

    spooled = 0

    def after(_: int) -> None:
        nonlocal spooled
        state = made.snapshot()
        assert state.created == sum(state[1:])
        assert state.pending == 0
        # what is on disk is at least what the ledger says
        assert state.spooled - spooled <= len(list(tmp_path.glob("*.jsonl")))
        spooled = state.spooled
        for path in tmp_path.iterdir():
            path.unlink()
        exporter.refuse = False
        # what was struck goes on in its own thread; until then a batch would go to the disk
        if counting.delivery._call is not None:
            assert counting.delivery._call.wait(clock.monotonic() + 10)
        export()
        assert made.snapshot().exported == state.exported + 1
        exporter.refuse = kept

    exporter.refuse = kept
    struck = strike_at_every_line(export, after, *OURS)
    assert struck > (100 if kept else 20)
    state = made.snapshot()
    assert state.created <= 2 * struck + 1
    assert state.exported >= struck
    provider.shutdown()


def batch_of(provider: MeterProvider) -> Any:
    reader = InMemoryMetricReader()
    other = MeterProvider([reader], shutdown_on_exit=False)
    other.get_meter("m").create_counter("c").add(1)
    return reader.get_metrics_data()


def test_recording_in_bulk_leaves_no_lock_held() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("m")
    values = [0.5, 1.5, 2.5]
    histogram = HistogramSeries(Instrument(meter.create_histogram("h"), bulk=True), {"a": 1})
    counter = pending.PendingSum(Instrument(meter.create_counter("c"), bulk=True), {"a": 1})

    def collected() -> dict[str, Any]:
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: metric.data.data_points[0] for metric in metrics}

    def record() -> None:
        assert histogram.record(values[:])
        more = pending.Additions()
        more.increase(counter, 3)
        more.put_in_force()
        assert counter.flush()

    record()
    clean = 1

    def after(_: int) -> None:
        nonlocal clean
        record()
        clean += 1
        collected()

    struck = strike_at_every_line(record, after, bulk_record)
    assert struck > 30
    points: Any = collected()
    # each strike may have cost one record, and nothing of the others
    assert 3 * clean <= points["c"].value <= 3 * (clean + struck + 1)
    assert 3 * clean <= points["h"].count <= 3 * (clean + struck + 1)
    provider.shutdown()


def test_a_flush_of_many_series_leaves_no_lock_held() -> None:
    """A strike costs the values of one series at most; the others are recorded later."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("m")
    h, c = (
        Instrument(made, bulk=True)
        for made in (meter.create_histogram("h"), meter.create_counter("c"))
    )
    values = [pending.PendingValues(h, {"a": n}) for n in range(3)]
    sums = [pending.PendingSum(c, {"a": n}) for n in range(3)]
    added = 0

    def add() -> None:
        nonlocal added
        added += 1
        more = pending.Additions()
        for n in range(3):
            more.extend(values[n], [0.5, 1.5])
            more.increase(sums[n], 3)
        more.put_in_force()

    def flush() -> None:
        h.flush()
        c.flush()

    def after(_: int) -> None:
        flush()
        collected()
        add()

    def collected() -> dict[str, list[Any]]:
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in metrics}

    add()
    flush()
    add()
    struck = strike_at_every_line(flush, after, bulk_record, pending)
    assert struck > 60
    points = collected()
    counts = [point.count / 2 for point in points["h"]]
    totals = [point.value / 3 for point in points["c"]]
    assert len(counts) == len(totals) == 3
    assert added - struck <= min(*counts, *totals)
    assert max(*counts, *totals) <= added
    # all series together have lost no more than one each time
    assert 6 * added - struck <= sum(counts) + sum(totals)
    assert h.changed == c.changed == {}
    provider.shutdown()


def test_the_console_swallows_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes in the thread that ends the span."""
    written = io.StringIO()
    made = ExportLedger("traces", "console", "stderr", remote=False)
    exporter = console.ConsoleSpanExporter(written)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(console.ConsoleSpanProcessor(CountingSpanExporter(exporter, made)))
    tracer = provider.get_tracer("t")
    names = 0

    def after(_: int) -> None:
        nonlocal names
        tracer.start_span(f"clean{names}").end()
        names += 1

    struck = strike_at_every_line(lambda: tracer.start_span("x").end(), after, console, *OURS)
    assert struck > 30
    lines = written.getvalue().splitlines()
    assert sum("clean" in line for line in lines) == names == struck
    state = made.snapshot()
    assert (state.created, state.pending) == (state.exported + state.dropped, 0)


class TestStageSpans:
    @pytest.fixture
    def provider(self, processor: CountingBatchProcessor) -> TracerProvider:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        return provider

    @pytest.fixture
    def cell(self) -> Callable[[], list[Any]]:
        budget = SimpleNamespace(spans_left=10_000, spans_made=0)
        key = SimpleNamespace(stage="s")
        series = SimpleNamespace(
            key=key,
            budget=budget,
            cache={"a": 1},
            exemplars={},
            slow_from=math.inf,
            scope=SimpleNamespace(around=None),
        )
        return lambda: [series, *[None] * (CELL_WITHOUT_SPAN - 1)]

    def test_a_span_that_fails_to_open_is_not_current(
        self, provider: TracerProvider, cell: Callable[[], list[Any]]
    ) -> None:
        made, around = Spans(provider), get_current()
        cells: list[list[Any]] = []

        def begin() -> None:
            cells.append(cell())
            made.open(cells[-1], [], 3)

        def after(_: int) -> None:
            assert get_current() == around

        assert strike_at_every_line(begin, after, spans) > 10
        made.close(cells[-1], 0.5)
        assert get_current() == around

    def test_a_span_that_fails_to_close_can_be_closed_again(
        self, provider: TracerProvider, cell: Callable[[], list[Any]]
    ) -> None:
        made, around = Spans(provider), get_current()
        opened = cell()
        made.open(opened)

        def after(_: int) -> None:
            nonlocal opened
            made.span_of(opened).suspend()
            assert get_current() == around
            opened = cell()
            made.open(opened)

        assert strike_at_every_line(lambda: made.close(opened, 0.5), after, spans) > 5
        assert get_current() == around

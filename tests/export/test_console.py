"""The console, line by line."""

from __future__ import annotations

import io
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode

from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._export import console_text
from otel_pipeline_metrics._export.console import (
    LINES_PER_NAME,
    ConsoleMetricExporter,
    ConsoleSpanExporter,
    ConsoleSpanProcessor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

START = 1_700_000_000_512_000_000  # 22:13:20.512 UTC


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def span(
    name: str = "fetch",
    took_ns: int = 3_200_000,
    attributes: dict[str, Any] | None = None,
    status: StatusCode = StatusCode.UNSET,
) -> ReadableSpan:
    return ReadableSpan(
        name=name,
        context=SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, False),
        attributes=attributes,
        status=Status(status),
        start_time=START - took_ns,
        end_time=START,
    )


def written(*spans: ReadableSpan, flush: bool = False) -> list[str]:
    stream = io.StringIO()
    exporter = ConsoleSpanExporter(stream)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    if flush:
        exporter.force_flush()
    return stream.getvalue().splitlines()


class TestSpans:
    def test_a_stage_is_one_line(self) -> None:
        given = {
            metric_definitions.PIPELINE_NAME: "nightly",
            metric_definitions.STAGE_NAME: "fetch",
            metric_definitions.STAGE_KIND: "fetch",
            metric_definitions.STAGE_OUTCOME: "ok",
            metric_definitions.STAGE_ITEMS_OUT: 20,
            metric_definitions.STAGE_IO_OUT: 2048,
        }

        given["code.function.name"] = "__main__.fetch"
        given["pipeline.bottleneck.kind"] = "serial"
        assert written(span(attributes=given)) == [
            (
                "22:13:20.512  fetch                3.20 ms  ok     "
                "items_out=20 bytes_out=2.00 KiB  trace 4bf92f35"
            )
        ]

    def test_an_error_is_on_the_line(self) -> None:
        given = {metric_definitions.ERROR_TYPE: "ValueError"}

        assert written(span("parse", 45_000, given, StatusCode.ERROR)) == [
            (
                "22:13:20.512  parse                45.0 µs  error  "
                "error.type=ValueError  trace 4bf92f35"
            )
        ]

    @pytest.mark.parametrize(
        ("attributes", "word"),
        [
            ({metric_definitions.STAGE_OUTCOME: "cancelled"}, "cancelled"),
            ({metric_definitions.STAGE_OUTCOME: "abandoned"}, "abandoned"),
            ({metric_definitions.RUN_RESULT: "success"}, "ok   "),
            ({metric_definitions.RUN_RESULT: "failure"}, "error"),
            ({metric_definitions.RUN_RESULT: "timeout"}, "timeout"),
        ],
    )
    def test_the_outcome_is_one_word(self, attributes: dict[str, Any], word: str) -> None:
        assert written(span("run nightly", 125_000_000_000, attributes)) == [
            f"22:13:20.512  run nightly         2 min 05 s  {word}  trace 4bf92f35"
        ]

    def test_long_and_broken_values_stay_on_the_line(self) -> None:
        (line,) = written(span(attributes={"query": "select\n" + "x" * 100}))

        assert f"query=select\\n{'x' * 51}…  trace" in line

    def test_too_many_spans_of_a_name_are_counted(self) -> None:
        lines = written(*[span("parse")] * (LINES_PER_NAME + 9_980), span("write"), flush=True)

        assert len(lines) == LINES_PER_NAME + 2
        assert lines[-1] == '… and 9,980 more "parse" spans'

    def test_a_flush_resets_the_limit_of_lines(self) -> None:
        stream = io.StringIO()
        exporter = ConsoleSpanExporter(stream)
        exporter.export([span()] * (LINES_PER_NAME + 1))
        exporter.force_flush()
        exporter.export([span()])
        exporter.shutdown()

        lines = stream.getvalue().splitlines()
        assert lines[-2] == '… and 1 more "fetch" span'
        assert lines[-1].startswith("22:13:20.512  fetch")


class TestNesting:
    def test_a_span_stands_below_those_inside_and_they_are_indented(self) -> None:
        stream = io.StringIO()
        exporter = ConsoleSpanExporter(stream)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(ConsoleSpanProcessor(exporter, exporter))
        tracer = provider.get_tracer("test")
        for _ in range(2):
            with tracer.start_as_current_span("run"):
                with tracer.start_as_current_span("batch"):
                    tracer.start_span("row").end()
                tracer.start_span("save").end()
        names = [line[14:28].rstrip() for line in stream.getvalue().splitlines()]

        assert names == ["    row", "  batch", "  save", "run"] * 2
        assert exporter._depths == {}

    def test_all_shows_every_span(self) -> None:
        stream = io.StringIO()
        exporter = ConsoleSpanExporter(stream, every=True)
        exporter.export([span()] * 3 * LINES_PER_NAME)
        exporter.force_flush()

        assert len(stream.getvalue().splitlines()) == 3 * LINES_PER_NAME


class TestStream:
    def test_stderr_is_looked_up_when_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        exporter = ConsoleSpanExporter()
        exporter.export([span()])

        assert "fetch" in capsys.readouterr().err

    def test_without_stderr_nothing_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)

        assert ConsoleSpanExporter().export([span()]) is SpanExportResult.SUCCESS

    def test_a_closed_stream_is_ignored(self) -> None:
        stream = io.StringIO()
        stream.close()

        assert ConsoleSpanExporter(stream).export([span()]) is SpanExportResult.SUCCESS

    def test_a_broken_pipe_is_ignored(self) -> None:
        class Broken(io.StringIO):
            def write(self, text: str) -> int:
                raise BrokenPipeError

        assert ConsoleSpanExporter(Broken()).export([span()]) is SpanExportResult.SUCCESS

    def test_characters_that_the_encoding_lacks_are_replaced(self) -> None:
        raw = io.BytesIO()
        exporter = ConsoleSpanExporter(io.TextIOWrapper(raw, encoding="ascii"))
        exporter.export([span(took_ns=45_000)])

        assert b"45.0 us" in raw.getvalue()


class TestMetrics:
    def test_metrics_are_one_table(self, clock: Any) -> None:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        stage = {metric_definitions.STAGE_NAME: "parse"}
        items = meter.create_counter("pipeline.stage.items", "{item}")
        items.add(12_000, {**stage, metric_definitions.IO_DIRECTION: "out"})
        items.add(1, {**stage, metric_definitions.IO_DIRECTION: "in"})
        meter.create_counter("pipeline.stage.retries", "{retry}").add(3, stage)
        meter.create_gauge("pipeline.cache.hit.ratio", "1").set(0.98765, {"cache.name": "geo"})
        meter.create_gauge("pipeline.run.last_success.time", "s").set(1_700_000_000.5)
        meter.create_gauge("process.memory.usage", "By").set(3 * 2**20)
        durations = meter.create_histogram(
            "pipeline.stage.duration", "s", explicit_bucket_boundaries_advisory=[0.001, 0.01, 0.1]
        )
        for milliseconds in range(1, 101):
            durations.record(milliseconds / 1000, stage)
        stream = io.StringIO()
        ConsoleMetricExporter(stream).export(reader.get_metrics_data())  # type: ignore[arg-type]

        assert stream.getvalue().splitlines() == [
            "",
            "metrics at 22:30:00",
            "metric                          attributes                 value",
            "pipeline.cache.hit.ratio        cache=geo                  0.988",
            "pipeline.run.last_success.time                             2023-11-14 22:13:20",
            (
                "pipeline.stage.duration         stage=parse                "
                "count 100  avg 50.5 ms  p50 ~50.0 ms  p95 ~95.0 ms"
            ),
            "pipeline.stage.items            stage=parse direction=in   1 item",
            "pipeline.stage.items            stage=parse direction=out  12,000 items",
            "pipeline.stage.retries          stage=parse                3 retries",
            "process.memory.usage                                       3.00 MiB",
            "",
        ]
        provider.shutdown()

    def test_the_same_table_is_not_written_twice(self) -> None:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        counter = provider.get_meter("test").create_counter("done")
        counter.add(1)
        stream = io.StringIO()
        exporter = ConsoleMetricExporter(stream)
        for more in (0, 0, 1):
            counter.add(more)
            exporter.export(reader.get_metrics_data())  # type: ignore[arg-type]

        assert stream.getvalue().count("metrics at") == 2
        provider.shutdown()

    def test_on_a_narrow_terminal_a_metric_is_a_paragraph(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setenv("COLUMNS", "50")
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        items = meter.create_counter("pipeline.stage.items", "{item}")
        items.add(12_000, {"pipeline.stage.name": "parse", "pipeline.io.direction": "out"})
        items.add(7, {"pipeline.stage.name": "a stage with a long name", "pipeline.name": "x"})
        meter.create_counter("work", "s").add(1.5)
        stream = Terminal()
        ConsoleMetricExporter(stream).export(reader.get_metrics_data())  # type: ignore[arg-type]
        assert stream.getvalue().splitlines()[2:-1] == [
            "pipeline.stage.items",
            "  stage=a stage with a long name pipeline=x",
            "    7 items",
            "  stage=parse direction=out  12,000 items",
            "work",
            "  1.50 s",
        ]
        provider.shutdown()

    def test_what_changes_by_itself_is_no_reason_for_a_table(self) -> None:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        seconds = meter.create_counter("process.cpu.time", "s")
        counter = meter.create_counter("pipeline.stage.items")
        stream = io.StringIO()
        exporter = ConsoleMetricExporter(stream)
        for more, tables in ((0, 1), (0, 1), (1, 2), (0, 2)):
            seconds.add(1)
            counter.add(more)
            exporter.export(reader.get_metrics_data())  # type: ignore[arg-type]
            assert stream.getvalue().count("metrics at") == tables
        provider.shutdown()

    def test_an_exponential_histogram_has_quantiles(self) -> None:
        reader = InMemoryMetricReader(
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}
        )
        provider = MeterProvider([reader], shutdown_on_exit=False)
        histogram = provider.get_meter("test").create_histogram("latency", "ms")
        for value in range(1, 1001):
            histogram.record(value)
        stream = io.StringIO()
        ConsoleMetricExporter(stream).export(reader.get_metrics_data())  # type: ignore[arg-type]

        line = stream.getvalue().splitlines()[-2]
        assert line.startswith("latency              count 1,000  avg 500 ms  p50 ~")
        middle = float(line.split("p50 ~")[1].split()[0])
        assert middle == pytest.approx(500, rel=0.05)
        provider.shutdown()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1, "{entry}", "1 entry"),
        (2, "{entry}", "2 entries"),
        (3, "{context_switch}", "3 context switches"),
        (0.5, "1", "0.5"),
        (1234567, "", "1,234,567"),
        (12345.678, "", "12,346"),
        (512, "By", "512 B"),
        (3 * 2**40, "By", "3.00 TiB"),
        (7, "requests", "7 requests"),
    ],
)
def test_a_quantity_has_its_unit_in_words(value: float, unit: str, expected: str) -> None:
    assert console_text.quantity(value, unit) == expected

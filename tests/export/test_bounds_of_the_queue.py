"""Bounds of the span queue: its size, when it is crowded, and what is counted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from otel_pipeline_metrics._export import environment_checks, exporters, flush
from otel_pipeline_metrics._export.delivery import counting_exporters, counting_processor, delivery
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def new_ledger(remote: bool = False) -> ExportLedger:
    return ExportLedger("traces", "otlp/grpc", "http://user@host:1/path", remote=remote)


class Taking(SpanExporter):
    meanwhile: Callable[[], list[None]] = list

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.meanwhile()
        return SpanExportResult.SUCCESS


class TestQueue:
    @pytest.mark.parametrize(("text", "size"), [(None, 2048), ("10", 10), ("x", 2048)])
    def test_the_size_of_the_queue_comes_from_the_environment(
        self, text: str | None, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if text is not None:
            monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", text)
        assert environment_checks.batch_setting(os.environ, "OTEL_BSP_MAX_QUEUE_SIZE") == size

    @pytest.mark.parametrize(("size", "near"), [(2048, 1984), (65, 1), (64, 1), (10, 1)])
    def test_the_crowded_length_depends_on_the_size(
        self, size: int, near: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(size))
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
        exporter = counting_exporters.CountingSpanExporter(
            type("Nowhere", (), {"shutdown": lambda self: None})(), new_ledger()
        )
        processor = counting_processor.CountingBatchProcessor(exporter)
        assert (processor._ledger.capacity, processor._near) == (size, near)
        processor.shutdown()

    def test_a_queue_is_crowded_with_64_free_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only sampled spans count; after shutdown none is queued."""
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
        exporter = counting_exporters.CountingSpanExporter(
            type("Nowhere", (), {"shutdown": lambda self: None})(), new_ledger()
        )
        processor = counting_processor.CountingBatchProcessor(exporter)
        processor._thread.close()  # nothing is exported
        found = []
        for waiting, flags in ((35, 1), (36, 0), (36, 1)):
            processor._queued.extend([ReadableSpan("waits")] * (waiting - len(processor._queued)))
            context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(flags))
            processor.on_end(ReadableSpan("s", context=context))
            found.append((exporter.ledger.snapshot().created, exporter.ledger.crowded))
        assert found == [(1, False), (1, False), (2, True)]
        assert len(processor._queued) == 37
        processor._is_shut_down = True
        processor.on_end(ReadableSpan("s", context=context))
        assert exporter.ledger.snapshot().created == 3
        assert len(processor._queued) == 37

    def test_settings_beyond_what_python_takes_are_limited(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(2**80))
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(2**80))
        exporter = counting_exporters.CountingSpanExporter(Taking(), new_ledger())
        processor = counting_processor.CountingBatchProcessor(exporter)
        context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1))
        processor.on_end(ReadableSpan("s", context=context))
        assert processor.force_flush()
        assert exporter.ledger.exported == 1
        processor.shutdown()

    def test_a_flush_ends_though_spans_are_added_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1))
        taking = Taking()
        exporter = counting_exporters.CountingSpanExporter(taking, new_ledger())
        processor = counting_processor.CountingBatchProcessor(exporter)
        processor._woken = True  # the size of the queue wakes nobody
        span = ReadableSpan("s", context=context)
        taking.meanwhile = lambda: [processor.on_end(span) for _ in range(2)]
        for _ in range(5):
            processor.on_end(span)
        assert processor.force_flush()
        assert exporter.ledger.exported == 6
        assert len(processor._queued) == 5
        taking.meanwhile = list
        processor.shutdown()

    def test_the_limits_of_one_attempt(self) -> None:
        assert (exporters.SLACK_S, flush.GRACE_S, delivery.PATIENCE_S) == (0.5, 0.25, 10.0)

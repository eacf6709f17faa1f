"""The ledger and the spool with exporters that misbehave, at shutdown and before."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as context_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk import environment_variables
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.delivery import delivery, responses
from otel_pipeline_metrics._export.delivery.counting_exporters import CountingSpanExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger, LedgerSnapshot
from otel_pipeline_metrics._export.delivery.spool import Spool

from .conftest import Received, make_spans, spans, use

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a failed collector be tried again at once."""
    monkeypatch.setattr(delivery, "PAUSE_S", (0.0, 0.0))


class Exporter(SpanExporter):
    def __init__(self, behave: Callable[[], bool]) -> None:
        self.behave = behave

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self.behave() else SpanExportResult.FAILURE


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], bool]], None]:
    def install(behave: Callable[[], bool]) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4317")
        monkeypatch.setattr(
            exporters, "otlp_class", lambda transport, signal: lambda **_: Exporter(behave)
        )

    return install


class TestShutdown:
    def test_a_full_queue_reaches_the_disk_before_the_deadline(
        self, build: Build, fake: Callable[..., None], tmp_path: Path
    ) -> None:
        released = threading.Event()
        fake(lambda: released.wait(30))
        telemetry = build(spool=tmp_path)
        make_spans(telemetry, 2_000)
        started = time.monotonic()

        report = telemetry.shutdown(4)
        took_s = time.monotonic() - started
        released.set()

        assert took_s < 4.5
        assert (report.spans_spooled, report.spans_failed) == (2_000, 0)
        assert spans(telemetry) == LedgerSnapshot(2_000, 0, 0, 0, 2_000, 0)
        assert sum(p.items for p in Spool(tmp_path, 1, 1).batches()) == 2_000

    def test_the_warning_names_what_is_kept(
        self,
        build: Build,
        fake: Callable[..., None],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake(lambda: False)
        telemetry = build(spool=tmp_path)
        make_spans(telemetry, 3)
        telemetry.shutdown(5)

        assert [record.getMessage() for record in caplog.records] == [
            (
                "telemetry cannot be exported to http://collector:4317; the pipeline continues, "
                f"and what is not accepted is kept in {tmp_path}. "
                "To see the exporter's own log lines: OTEL_PIPELINE_METRICS_EXPORTER_LOGS=true"
            ),
            f"3 spans that http://collector:4317 did not accept are kept in {tmp_path}",
        ]

    def test_spans_after_shutdown_are_counted_as_dropped(
        self, build: Build, fake: Callable[..., None]
    ) -> None:
        fake(lambda: True)
        telemetry = build()
        telemetry.shutdown(5)
        make_spans(telemetry, 2)

        assert spans(telemetry) == LedgerSnapshot(2, 0, 0, 2, 0, 0)


class TestBeforeShutdown:
    def test_a_slow_attempt_is_given_up_and_its_batch_kept(
        self, build: Build, fake: Callable[..., None], tmp_path: Path, monkeypatch: Any
    ) -> None:
        """SDK 1.30 retries one batch for a minute."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        released = threading.Event()
        fake(lambda: released.wait(30))
        telemetry = build(spool=tmp_path)
        make_spans(telemetry, 1_500)
        telemetry.flush(5)

        assert spans(telemetry) == LedgerSnapshot(1_500, 0, 0, 0, 1_500, 0)
        released.set()

    def test_the_drops_of_a_full_queue_are_counted_at_once(
        self, build: Build, fake: Callable[..., None], monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
        entered, released = threading.Event(), threading.Event()

        def behave() -> bool:
            entered.set()
            return released.wait(30)

        fake(behave)
        telemetry = build()
        make_spans(telemetry, 10)
        entered.wait(5)
        make_spans(telemetry, 90)

        assert spans(telemetry) == LedgerSnapshot(100, 0, 0, 80, 0, 20)
        released.set()
        telemetry.shutdown(5)
        assert spans(telemetry) == LedgerSnapshot(100, 20, 0, 80, 0, 0)

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests
    def test_a_child_forked_during_an_attempt_exports_by_itself(
        self, build: Build, fake: Callable[..., None], tmp_path: Path
    ) -> None:
        parent = os.getpid()
        entered, released = threading.Event(), threading.Event()

        def behave() -> bool:
            entered.set()
            return os.getpid() != parent or released.wait(30)

        fake(behave)
        telemetry = build(spool=tmp_path)
        make_spans(telemetry, 512)
        assert entered.wait(5)
        pid = os.fork()
        if pid == 0:
            make_spans(telemetry, 2)
            telemetry.flush(5)
            os._exit(0 if spans(telemetry) == LedgerSnapshot(2, 2, 0, 0, 0, 0) else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        released.set()

        assert status == 0

    def test_instrumentation_is_off_in_the_exporting_thread(
        self, build: Build, fake: Callable[..., None], tmp_path: Path
    ) -> None:
        """Otherwise an instrumented HTTP client would make a span for each export of spans."""
        seen: list[object] = []

        def behave() -> bool:
            seen.append(context_api.get_value(_SUPPRESS_INSTRUMENTATION_KEY))
            return True

        fake(behave)
        telemetry = build(spool=tmp_path)
        make_spans(telemetry, 1)
        telemetry.flush(5)

        assert seen == [True]

    def test_a_kept_batch_without_an_observed_answer_stays_on_disk(self, tmp_path: Path) -> None:
        """So an exporter that bypasses the observer loses nothing."""
        kept = Spool(tmp_path, 1_000, 1_000)
        kept.put("traces", b'{"resourceSpans":[]}\n', 1)
        ledger = ExportLedger("traces", "otlp/grpc", "http://c")
        counting = CountingSpanExporter(Exporter(lambda: True), ledger, kept, watched=True)

        counting.export([])

        assert len(kept.batches()) == 1
        counting.shutdown()

    def test_without_a_usable_disk_batches_are_dropped_and_counted(
        self, build: Build, fake: Callable[..., None], tmp_path: Path
    ) -> None:
        fake(lambda: False)
        (tmp_path / "file").write_text("")
        telemetry = build(spool=tmp_path / "file")
        make_spans(telemetry, 3)
        telemetry.flush(5)

        assert spans(telemetry) == LedgerSnapshot(3, 0, 0, 3, 0, 0)


def test_a_spool_without_an_otlp_exporter_gives_a_warning(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(exporters=("console",), spool=tmp_path)

    (record,) = caplog.records
    assert record.getMessage().startswith("the spool keeps nothing: ")


class TestStats:
    def test_the_counts_of_a_user_provider_are_unknown(self, build: Build) -> None:
        from opentelemetry.sdk.trace import TracerProvider

        telemetry = build(tracer_provider=TracerProvider(), exporters=("none",))

        found = telemetry.stats()
        assert set(found["spans"].values()) == {None}
        assert found["metric_points"]["created"] == 0
        assert found["collector"] == "off"

    def test_stats_hold_every_count(self, build: Build, fake: Callable[..., None]) -> None:
        fake(lambda: True)
        telemetry = build()
        make_spans(telemetry, 2)

        pending = {
            "created": 2,
            "exported": 0,
            "sampled_out": 0,
            "dropped": 0,
            "spooled": 0,
            "pending": 2,
        }
        assert telemetry.stats()["spans"] == pending
        telemetry.flush(5)
        found = telemetry.stats()
        assert found["spans"] == pending | {"exported": 2, "pending": 0}
        assert found["replayed"] == {"spans": 0, "metric_points": 0}
        assert found["collector"] == "ok"
        assert found["flush_s"] > 0

    def test_the_console_is_counted(self, build: Build) -> None:
        telemetry = build(exporters=("console",))
        make_spans(telemetry, 3)

        assert spans(telemetry) == LedgerSnapshot(3, 3, 0, 0, 0, 0)


@pytest.mark.skipif(
    not hasattr(environment_variables, "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"),
    reason="this SDK has no internal metrics",
)
def test_the_sdks_own_metrics_are_exported_too(
    build: Build, http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    telemetry = build()
    use(telemetry, spans=3)
    telemetry.flush(5)
    telemetry.shutdown(5)

    assert spans(telemetry).exported == 3
    for name in (
        "otel.sdk.span.started",
        "otel.sdk.processor.span.processed",
        "otel.sdk.exporter.span.exported",
        "otel.sdk.exporter.metric_data_point.exported",
    ):
        assert http_collector.points[name] >= 1


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("HTTP 400", True),
        ("HTTP 401", True),
        ("HTTP 302", True),
        ("HTTP 408", False),
        ("HTTP 429", False),
        ("HTTP 500", False),
        ("HTTP 503", False),
        ("INVALID_ARGUMENT", True),
        ("UNAUTHENTICATED", True),
        ("UNAVAILABLE", False),
        ("INTERNAL", False),
        ("ConnectionError", False),
        (None, False),
    ],
)
def test_some_reasons_are_permanent(reason: str | None, expected: bool) -> None:
    assert responses.is_permanent(reason) is expected

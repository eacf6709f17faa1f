"""Flush and shutdown end in time, with exporters that misbehave."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal import measurement_consumer
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.background import BackgroundThread, wait_for
from otel_pipeline_metrics._export.delivery.counting_exporters import CountingSpanExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

from .conftest import use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]

sdk_logger = logging.getLogger("opentelemetry.sdk.test")


class Spans(SpanExporter):
    """A span exporter whose results come from `behave`."""

    def __init__(self, behave: Callable[[], bool]) -> None:
        self.behave = behave
        self.shut_down = threading.Event()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self.behave() else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.shut_down.set()


class Points(MetricExporter):
    def __init__(self, behave: Callable[[], bool]) -> None:
        super().__init__()
        self.behave = behave
        self.shut_down = threading.Event()

    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS if self.behave() else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.shut_down.set()


class Collector:
    """The fake collector of the exporters called `otlp`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.behaviour: Callable[[], bool] = lambda: True
        self.exporters: list[Spans | Points] = []
        self.arguments: list[dict[str, Any]] = []
        self.batches = 0

    def make(self, transport: str, signal: str) -> Callable[..., Spans | Points]:
        def behave() -> bool:
            self.batches += 1
            return self.behaviour()

        def construct(**arguments: Any) -> Spans | Points:
            self.arguments.append(arguments)
            exporter = (Spans if signal == "traces" else Points)(behave)
            self.exporters.append(exporter)
            return exporter

        return construct

    def hang(self) -> bool:
        """Block until the test ends."""
        self.released.wait(30)
        return False


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    fake = Collector()
    monkeypatch.setattr(exporters, "otlp_class", fake.make)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@collector:4317")
    yield fake
    fake.released.set()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class TestPipeline:
    def test_success_is_counted(self, build: Build, collector: Collector) -> None:
        telemetry = build()
        use(telemetry, spans=3)

        report = telemetry.flush(5)

        assert report.ok
        assert (report.spans_exported, report.spans_failed, report.spans_pending) == (3, 0, 0)
        assert (report.metric_points_exported, report.metric_points_failed) == (1, 0)
        assert report.collector == "ok"

    def test_failure_is_counted_although_the_sdk_reports_success(
        self, build: Build, collector: Collector, caplog: pytest.LogCaptureFixture
    ) -> None:
        collector.behaviour = lambda: False
        telemetry = build()
        use(telemetry, spans=3)

        report = telemetry.flush(5)

        assert not report.ok
        assert (report.spans_exported, report.spans_failed) == (0, 3)
        assert report.collector == "unreachable"
        use(telemetry, spans=2)
        telemetry.shutdown(5)
        assert messages(caplog) == [
            (
                "telemetry cannot be exported to http://collector:4317; the pipeline continues, "
                "and what is lost is counted. To see the exporter's own log lines: "
                "OTEL_PIPELINE_METRICS_EXPORTER_LOGS=true"
            ),
            "5 spans and 2 metric batches could not be exported to http://collector:4317",
        ]

    def test_an_exporter_that_raises_has_failed(
        self, build: Build, collector: Collector, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse() -> bool:
            raise ConnectionError("header s3cret")

        collector.behaviour = refuse
        telemetry = build()
        use(telemetry)

        report = telemetry.shutdown(5)

        assert (report.ok, report.spans_failed) == (False, 1)
        assert "(ConnectionError)" in messages(caplog)[0]
        assert not any("s3cret" in message for message in messages(caplog))

    def test_a_hanging_collector_costs_the_timeout_at_most(
        self, build: Build, collector: Collector, caplog: pytest.LogCaptureFixture
    ) -> None:
        collector.behaviour = collector.hang
        telemetry = build()
        use(telemetry, spans=600)
        started = time.monotonic()

        report = telemetry.shutdown(0.3)

        assert time.monotonic() - started < 0.8
        assert not report.ok
        assert (report.spans_exported, report.spans_failed, report.spans_pending) == (0, 600, 0)
        assert (report.metric_points_exported, report.metric_points_failed) == (0, 1)
        assert report.collector == "unreachable"
        assert messages(caplog) == [
            (
                "600 spans and 1 metric batch could not be exported to http://collector:4317 "
                "(no answer in time)"
            )
        ]
        assert all(exporter.shut_down.wait(1) for exporter in collector.exporters)

    def test_after_the_deadline_no_export_begins(self, build: Build, collector: Collector) -> None:
        collector.behaviour = collector.hang
        telemetry = build()
        use(telemetry, spans=2_000)
        telemetry.shutdown(0.2)
        collector.released.set()
        threads = [t for t in threading.enumerate() if t.name.startswith("opm-flush-")]
        for thread in threads:
            thread.join(5)

        assert collector.batches == 2  # one of spans, one of metrics, both before the deadline

    def test_one_export_may_take_two_seconds_by_default(
        self, build: Build, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3.5")
        build()

        assert collector.arguments == [{"timeout": 2.0}, {"timeout": 3.5}]

    def test_a_hanging_flush_and_a_shutdown_share_one_timeout(
        self, build: Build, collector: Collector
    ) -> None:
        collector.behaviour = collector.hang
        telemetry = build()
        use(telemetry)
        started = time.monotonic()

        late = telemetry.flush(0.8)
        telemetry.shutdown(0.8)

        assert not late.ok
        assert late.spans_pending == 1
        assert time.monotonic() - started < 0.8 + 0.25 + 0.25 + 0.2

    def test_a_second_shutdown_returns_the_first_report(
        self, build: Build, collector: Collector
    ) -> None:
        telemetry = build()
        use(telemetry)

        first = telemetry.shutdown(5)

        assert telemetry.shutdown(5) is first
        assert telemetry.flush(5) is first

    def test_spans_after_shutdown_are_not_exported(
        self, build: Build, collector: Collector
    ) -> None:
        telemetry = build()
        telemetry.shutdown(5)

        use(telemetry)

        assert telemetry.ledgers[0].exported == 0

    def test_a_hanging_provider_of_the_user_costs_the_timeout_at_most(self, build: Build) -> None:
        released = threading.Event()

        class Hanging(TracerProvider):
            def force_flush(self, timeout_millis: int = 30_000) -> bool:
                return released.wait(30)

        theirs = Hanging(shutdown_on_exit=False)
        telemetry = build(tracer_provider=theirs, exporters=("none",))
        started = time.monotonic()

        report = telemetry.flush(0.2)

        assert time.monotonic() - started < 0.6
        assert (report.ok, report.spans_exported, report.collector) == (False, None, "off")
        released.set()

    def test_spans_that_a_full_queue_drops_are_counted_as_failed(
        self, build: Build, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
        collector.behaviour = lambda: collector.released.wait(30)
        telemetry = build()
        use(telemetry, spans=100)
        collector.released.set()

        report = telemetry.shutdown(5)

        assert report.spans_exported is not None
        assert 10 <= report.spans_exported <= 40
        assert report.spans_exported + (report.spans_failed or 0) == 100
        assert not report.ok


class TestBackgroundThread:
    def test_calls_run_in_order(self) -> None:
        thread = BackgroundThread("test")
        seen: list[int] = []
        calls = [thread.submit(lambda n=n: seen.append(n)) for n in range(3)]  # type: ignore[misc]

        assert wait_for(calls, time.monotonic() + 5)
        assert seen == [0, 1, 2]
        thread.close()

    def test_a_call_that_raises_or_returns_false_has_failed(self) -> None:
        thread = BackgroundThread("test")
        calls = [
            thread.submit(lambda: 1 / 0), thread.submit(lambda: False), thread.submit(lambda: None),
        ]  # fmt: skip

        assert wait_for(calls, time.monotonic() + 5)
        assert [call.failed for call in calls] == [True, True, False]
        thread.close()

    def test_the_thread_is_a_daemon_and_ends(self) -> None:
        thread = BackgroundThread("ends")
        (started,) = [t for t in threading.enumerate() if t.name == "opm-ends"]
        thread.close()
        started.join(5)

        assert started.daemon
        assert not started.is_alive()


def test_the_exporters_lines_can_be_kept(
    build: Build,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def complain() -> bool:
        sdk_logger.error("own words")
        return True

    monkeypatch.setenv("OTEL_PIPELINE_METRICS_EXPORTER_LOGS", "true")
    collector.behaviour = complain
    telemetry = build()
    use(telemetry)
    telemetry.shutdown(5)

    assert set(messages(caplog)) == {"own words"}


def test_shutdown_removes_the_log_filter(build: Build, collector: Collector) -> None:
    telemetry = build()
    log_filter = telemetry._filter
    assert log_filter in sdk_logger.filters

    telemetry.shutdown(5)

    assert log_filter not in sdk_logger.filters


def test_a_late_export_is_not_counted_twice() -> None:
    ledger = ExportLedger("traces", "otlp", "http://c")
    released, started = threading.Event(), threading.Event()

    def slow() -> bool:
        started.set()
        return released.wait(5)

    counting = CountingSpanExporter(Spans(slow), ledger)
    ledger.accept()
    thread = threading.Thread(target=counting.export, args=([object()],))
    thread.start()
    started.wait(5)
    ledger.close()
    released.set()
    thread.join()

    assert (ledger.exported, ledger.failed, ledger.batches_failed) == (0, 1, 1)


def test_a_last_collection_may_take_longer_than_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the clock is set meanwhile; the SDK would lose what it collects."""
    exported: list[Any] = []

    class Exporter(MetricExporter):
        def export(self, metrics_data: Any, *_: Any, **__: Any) -> MetricExportResult:
            exported.append(metrics_data)
            return MetricExportResult.SUCCESS

        def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
            pass

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

    reader = exporters.PatientReader(Exporter(), 10_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("m")
    meter.create_counter("c").add(7)
    meter.create_observable_gauge("g", [lambda _: [Observation(1)]])
    # 15 seconds pass at each look, of which a collection of one callback needs two
    ticks = itertools.count(0, 15 * 10**9)
    monkeypatch.setattr(measurement_consumer, "time_ns", lambda: next(ticks))
    provider.shutdown()
    (data,) = exported
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    assert {metric.name: metric.data.data_points[0].value for metric in metrics} == {"c": 7, "g": 1}

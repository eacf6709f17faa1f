"""Ending in time, with exporters that misbehave."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.background import BackgroundThread, wait_for
from otel_pipeline_metrics._export.delivery import log_filter as _log_filter
from otel_pipeline_metrics._export.delivery.counting_exporters import CountingSpanExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

from .conftest import use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]

sdk_logger = logging.getLogger("opentelemetry.sdk.test")


class Spans(SpanExporter):
    """Does with each batch what `behave` does."""

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
    """Stands behind the exporters called `otlp`, and behaves as told."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.behaviour: Callable[[], bool] = lambda: True
        self.exporters: list[Spans | Points] = []
        self.arguments: list[dict[str, Any]] = []
        self.batches = 0

    def make(self, signal: str) -> Callable[..., Spans | Points]:
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
        """Block for ever, or until the test ends."""
        self.released.wait(30)
        return False


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    fake = Collector()
    monkeypatch.setitem(exporters._CLASSES, "grpc", fake.make)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@collector:4317")
    yield fake
    fake.released.set()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class TestTelemetry:
    def test_success_is_counted(self, build: Build, collector: Collector) -> None:
        telemetry = build()
        use(telemetry, spans=3)

        report = telemetry.flush(5)

        assert report.ok
        assert (report.spans_exported, report.spans_failed, report.spans_pending) == (3, 0, 0)
        assert (report.metric_points_exported, report.metric_points_failed) == (1, 0)
        assert report.collector == "ok"

    def test_failure_is_counted_though_the_sdk_calls_it_success(
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

    def test_an_exporter_that_raises(
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

    def test_a_collector_that_hangs_costs_the_timeout_and_no_more(
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
            "600 spans and 1 metric batch could not be exported to http://collector:4317"
        ]
        assert all(exporter.shut_down.wait(1) for exporter in collector.exporters)

    def test_after_the_deadline_nothing_more_is_tried(
        self, build: Build, collector: Collector
    ) -> None:
        collector.behaviour = collector.hang
        telemetry = build()
        use(telemetry, spans=2_000)
        telemetry.shutdown(0.2)
        collector.released.set()
        lanes = [t for t in threading.enumerate() if t.name.startswith("opm-flush-")]
        for lane in lanes:
            lane.join(5)

        assert collector.batches == 2  # one of spans, one of metrics, both while in time

    def test_one_export_may_take_two_seconds(
        self, build: Build, collector: Collector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3.5")
        build()

        assert collector.arguments == [{"timeout": 2.0}, {"timeout": 3.5}]

    def test_a_flush_that_hangs_leaves_its_budget_to_the_shutdown_only_once(
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

    def test_shutdown_happens_once(self, build: Build, collector: Collector) -> None:
        telemetry = build()
        use(telemetry)

        first = telemetry.shutdown(5)

        assert telemetry.shutdown(5) is first
        assert telemetry.flush(5) is first

    def test_late_spans_are_not_exported(self, build: Build, collector: Collector) -> None:
        telemetry = build()
        telemetry.shutdown(5)

        use(telemetry)

        assert telemetry.ledgers[0].exported == 0

    def test_a_provider_of_the_users_that_hangs(self, build: Build) -> None:
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

    def test_a_full_queue_counts_as_lost(
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


class TestLane:
    def test_jobs_run_in_order(self) -> None:
        lane = BackgroundThread("test")
        seen: list[int] = []
        jobs = [lane.submit(lambda n=n: seen.append(n)) for n in range(3)]  # type: ignore[misc]

        assert wait_for(jobs, time.monotonic() + 5)
        assert seen == [0, 1, 2]
        lane.close()

    def test_a_job_that_raises_or_returns_false_has_failed(self) -> None:
        lane = BackgroundThread("test")
        jobs = [lane.submit(lambda: 1 / 0), lane.submit(lambda: False), lane.submit(lambda: None)]

        assert wait_for(jobs, time.monotonic() + 5)
        assert [job.failed for job in jobs] == [True, True, False]
        lane.close()

    def test_its_thread_is_a_daemon_and_ends(self) -> None:
        lane = BackgroundThread("ends")
        (thread,) = [t for t in threading.enumerate() if t.name == "opm-ends"]
        lane.close()
        thread.join(5)

        assert thread.daemon
        assert not thread.is_alive()


class TestQuiet:
    @pytest.fixture(autouse=True)
    def installed(self) -> Iterator[_log_filter.Filter]:
        log_filter = _log_filter.Filter()
        log_filter.install()
        yield log_filter
        log_filter.remove()

    def test_only_what_our_exporters_say_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        sdk_logger.error("before")
        with _log_filter.exporting():
            sdk_logger.error("inside")
            sdk_logger.critical("critical")
            logging.getLogger("somebody.else").error("other")
        sdk_logger.error("after")

        assert messages(caplog) == ["before", "critical", "other", "after"]

    def test_it_stays_until_the_last_one_is_out(
        self, installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exporter that was given up at the deadline fails later."""
        inside, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            with _log_filter.exporting():
                inside.set()
                go_on.wait(10)
                sdk_logger.error("cannot send to user:s3cret@host")

        thread = threading.Thread(target=hang)
        thread.start()
        inside.wait(10)
        installed.remove()
        assert installed in sdk_logger.filters
        with _log_filter.exporting():
            sdk_logger.error("of the next one")
        go_on.set()
        thread.join()

        assert messages(caplog) == ["of the next one"]
        assert installed not in sdk_logger.filters

    def test_where_the_lines_are_wanted_secrets_are_taken_out(
        self, installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
    ) -> None:
        installed.remove()
        log_filter = _log_filter.Filter(("user:s3cret", "s3cret"))
        log_filter.install()
        with _log_filter.exporting():
            error = ConnectionError("to user:s3cret@host?s3cret")
            sdk_logger.error("failed: %s", "s3cret", exc_info=error)
        sdk_logger.error("not ours: s3cret")
        log_filter.remove()

        first, second = messages(caplog)
        assert first == "failed: ***\nConnectionError: to ***@host?***"
        assert second == "not ours: s3cret"
        assert "s3cret" not in caplog.text.replace(second, "")

    def test_other_threads_keep_their_voice(self, caplog: pytest.LogCaptureFixture) -> None:
        with _log_filter.exporting():
            thread = threading.Thread(target=sdk_logger.error, args=("their own exporter",))
            thread.start()
            thread.join()

        assert messages(caplog) == ["their own exporter"]

    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (("traces", ConnectionError("s3cret")), "ConnectionError"),
            (("spans", 401, "s3cret"), "HTTP 401"),
            (("spans", "s3cret", 2), None),
        ],
    )
    def test_the_reason_is_a_class_or_a_status(self, args: Any, reason: str | None) -> None:
        with _log_filter.exporting() as heard:
            sdk_logger.error(" ".join(["%s"] * len(args)), *args)

        assert heard.reason == reason

    def test_it_can_be_removed(
        self, installed: _log_filter.Filter, caplog: pytest.LogCaptureFixture
    ) -> None:
        installed.remove()
        with _log_filter.exporting():
            sdk_logger.error("inside")

        assert messages(caplog) == ["inside"]


def test_exporters_keep_their_lines_if_asked(
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


def test_the_log_filter_goes_with_the_telemetry(build: Build, collector: Collector) -> None:
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

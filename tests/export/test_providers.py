"""The providers in use are given, found or built; a second configure() replaces ours."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._export import exporters, global_providers, providers
from otel_pipeline_metrics._export.delivery.counting_exporters import CountingMetricExporter
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

from .conftest import global_meter_provider, global_tracer_provider, use

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from otel_pipeline_metrics._export.flush import ExportPipeline

    Build = Callable[..., ExportPipeline]


def resource_of(telemetry: ExportPipeline) -> dict[str, Any]:
    return dict(telemetry.tracer_provider.resource.attributes)  # type: ignore[attr-defined]


class TestBuilt:
    def test_by_default_nothing_is_built(self, build: Build) -> None:
        telemetry = build()

        assert telemetry.exporters == ()
        assert isinstance(telemetry.tracer_provider, trace.NoOpTracerProvider)
        assert isinstance(global_tracer_provider(), trace.ProxyTracerProvider)

    def test_all_shows_both_on_the_console(self, build: Build) -> None:
        telemetry = build(console="all")

        assert telemetry.console
        assert telemetry.owns_tracer_provider
        assert telemetry.owns_meter_provider
        assert telemetry.exporters == (
            ("traces", "console", "stderr"),
            ("metrics", "console", "stderr"),
        )

    def test_a_built_provider_becomes_the_global_one(self, build: Build) -> None:
        telemetry = build(exporters=("console",))

        assert global_tracer_provider() is telemetry.tracer_provider
        assert global_meter_provider() is telemetry.meter_provider

    def test_the_sdk_has_no_atexit_handler(self, build: Build) -> None:
        """Its own atexit handlers would block as long as the exporters do."""
        telemetry = build(exporters=("console",))

        assert telemetry.tracer_provider._atexit_handler is None  # type: ignore[attr-defined]
        assert telemetry.meter_provider._atexit_handler is None  # type: ignore[attr-defined]

    def test_a_flush_reaches_the_console(
        self, build: Build, capsys: pytest.CaptureFixture[str]
    ) -> None:
        telemetry = build(exporters=("console",))
        use(telemetry, spans=25)
        telemetry.flush(5)

        lines = capsys.readouterr().err.splitlines()
        assert lines[20] == '… and 5 more "work" spans'
        assert lines[-2:] == ["done                25", ""]

    def test_none_builds_nothing_and_sets_no_global_provider(self, build: Build) -> None:
        telemetry = build(exporters=("none",))

        assert isinstance(telemetry.tracer_provider, trace.NoOpTracerProvider)
        assert isinstance(telemetry.meter_provider, metrics.NoOpMeterProvider)
        assert isinstance(global_tracer_provider(), trace.ProxyTracerProvider)
        assert telemetry.exporters == ()
        report = telemetry.shutdown(1)
        assert (report.ok, report.spans_exported, report.collector) == (True, 0, "off")

    def test_a_disabled_sdk_ignores_a_global_provider(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))

        telemetry = build(exporters=("otlp",))

        assert isinstance(telemetry.tracer_provider, trace.NoOpTracerProvider)
        assert isinstance(telemetry.meter_provider, metrics.NoOpMeterProvider)

    def test_endpoints_are_described_without_credentials(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@127.0.0.1:1/?k=s3cret")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")

        assert build().exporters == (
            ("traces", "otlp/grpc", "http://127.0.0.1:1/"),
            ("metrics", "otlp/http", "http://127.0.0.1:1/v1/metrics"),
        )

    def test_an_entry_point_can_be_a_metric_reader(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "mine")
        monkeypatch.setattr(providers.environment, "installed", lambda group, name: True)
        monkeypatch.setattr(
            providers.environment.plan, "__kwdefaults__", {"installed": lambda group, name: True}
        )
        monkeypatch.setattr(exporters, "entry_point", lambda group, name: InMemoryMetricReader)

        telemetry = build()

        assert telemetry.exporters == (("metrics", "mine", "entry point"),)
        assert telemetry.owns_meter_provider
        assert not telemetry.owns_tracer_provider
        assert telemetry.flush(1).metric_points_exported is None

    def test_an_exporter_that_cannot_be_built_gives_one_warning(
        self,
        build: Build,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(transport: str, signal: str) -> Callable[..., Any]:
            def construct(**_: object) -> Any:
                raise ValueError("Bearer s3cret")

            return construct

        monkeypatch.setattr(exporters, "otlp_class", broken)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,console")

        telemetry = build()

        assert telemetry.exporters == (("traces", "console", "stderr"),)
        assert [r.getMessage() for r in caplog.records] == [
            "the otlp/grpc exporter for traces cannot be built (ValueError) and is left out"
        ]


class TestResource:
    def test_arguments_win_over_the_environment(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=env,zone=z1")

        attributes = resource_of(
            build(console="all", service_name="argument", resource_attributes={"team": "argument"})
        )

        assert attributes["service.name"] == "argument"
        assert attributes["team"] == "argument"
        assert attributes["zone"] == "z1"

    def test_the_environment_names_the_service(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")

        assert resource_of(build(exporters=("console",)))["service.name"] == "from-env"

    def test_both_signals_share_an_instance_id(self, build: Build) -> None:
        telemetry = build(exporters=("console",))

        instance = resource_of(telemetry)["service.instance.id"]
        assert len(instance) == 36
        meter = telemetry.meter_provider
        shared = meter._sdk_config.resource.attributes  # type: ignore[attr-defined]
        assert shared["service.instance.id"] == instance


class TestBrokenEnvironment:
    def test_each_broken_variable_gives_one_warning_and_its_default(
        self,
        build: Build,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        broken = {
            "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "later",
            "OTEL_METRIC_EXPORT_INTERVAL": "hourly",
            "OTEL_BSP_SCHEDULE_DELAY": "x",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9999",
            "OTEL_TRACES_SAMPLER": "sometimes",
            "OTEL_RESOURCE_ATTRIBUTES": "good=1,bad",
            "OTEL_EXPORTER_OTLP_HEADERS": "s3cret",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
            "OTEL_SPAN_LINK_COUNT_LIMIT": "-1",
            "OTEL_METRICS_EXEMPLAR_FILTER": "x",
        }
        for name, value in broken.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        before = dict(os.environ)

        telemetry = build()

        messages = [record.getMessage() for record in caplog.records]
        assert sorted(message.split()[0] for message in messages) == sorted(broken)
        assert not any("s3cret" in message for message in messages)
        assert telemetry.owns_tracer_provider
        assert telemetry.owns_meter_provider
        assert resource_of(telemetry)["good"] == "1"
        assert dict(os.environ) == before

    def test_without_a_built_provider_there_is_no_warning(
        self,
        build: Build,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "x")

        build(
            tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider()
        )

        assert caplog.records == []


class TestProvidersOfTheUser:
    def test_given_providers_are_used_and_left_open(self, build: Build) -> None:
        kept = InMemorySpanExporter()
        tracer_provider = TracerProvider(shutdown_on_exit=False)
        tracer_provider.add_span_processor(SimpleSpanProcessor(kept))
        reader = InMemoryMetricReader()
        meter_provider = MeterProvider([reader], shutdown_on_exit=False)

        telemetry = build(tracer_provider=tracer_provider, meter_provider=meter_provider)

        assert telemetry.tracer_provider is tracer_provider
        assert telemetry.meter_provider is meter_provider
        assert not telemetry.owns_tracer_provider
        assert not telemetry.owns_meter_provider
        assert not telemetry.console
        assert [info.kind for info in telemetry.exporters] == ["given", "given"]
        use(telemetry)
        report = telemetry.shutdown(1)
        assert report.ok
        assert (report.spans_exported, report.metric_points_failed) == (None, None)
        use(telemetry)
        assert len(kept.get_finished_spans()) == 2
        assert isinstance(global_tracer_provider(), trace.ProxyTracerProvider)
        meter_provider.shutdown()
        tracer_provider.shutdown()

    def test_a_global_provider_is_never_replaced(self, build: Build) -> None:
        user_provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(user_provider)

        telemetry = build(exporters=("console",))

        assert telemetry.tracer_provider is user_provider
        assert global_tracer_provider() is user_provider
        assert telemetry.exporters == (
            ("traces", "global", "opentelemetry.sdk.trace.TracerProvider"),
            ("metrics", "console", "stderr"),
        )

    def test_the_signal_without_a_given_provider_follows_the_rules(self, build: Build) -> None:
        """With a NoOpTracerProvider there are metrics only."""
        telemetry = build(tracer_provider=trace.NoOpTracerProvider(), exporters=("console",))

        assert [info.signal for info in telemetry.exporters] == ["traces", "metrics"]
        assert telemetry.owns_meter_provider
        assert global_meter_provider() is telemetry.meter_provider
        assert isinstance(global_tracer_provider(), trace.ProxyTracerProvider)


class TestSecondBuild:
    def test_the_second_built_provider_replaces_the_first_as_global(
        self, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = build(exporters=("console",))
        first.shutdown(1)

        second = build(exporters=("console",))

        assert second.tracer_provider is not first.tracer_provider
        assert global_tracer_provider() is second.tracer_provider
        assert global_meter_provider() is second.meter_provider
        assert caplog.records == []

    def test_a_built_provider_does_not_stay_global(self, build: Build) -> None:
        build().shutdown(1)

        build(exporters=("none",))

        assert isinstance(global_tracer_provider(), trace.ProxyTracerProvider)
        assert isinstance(global_meter_provider(), type(metrics._internal._PROXY_METER_PROVIDER))

    def test_an_unfamiliar_api_keeps_the_first_global_provider(
        self,
        build: Build,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        first = build(exporters=("console",))
        first.shutdown(1)
        monkeypatch.delattr(trace, "_TRACER_PROVIDER_SET_ONCE")

        second = build(exporters=("console",))

        assert second.tracer_provider is not first.tracer_provider
        assert global_tracer_provider() is first.tracer_provider
        assert len(caplog.records) == 1
        assert caplog.records[0].levelno == logging.WARNING

    def test_a_user_provider_that_is_set_between_two_builds_stays(self, build: Build) -> None:
        build().shutdown(1)
        global_providers.forget_ours()
        user_provider = MeterProvider(shutdown_on_exit=False)
        metrics.set_meter_provider(user_provider)

        assert build().meter_provider is user_provider
        user_provider.shutdown()


def test_the_preferences_of_a_metric_exporter_reach_the_reader(build: Build) -> None:
    class Picky(MetricExporter):
        def __init__(self) -> None:
            temporality = metrics_delta()
            super().__init__(preferred_temporality=temporality)

        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 1) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 1, **kwargs: Any) -> None:
            pass

    picky = Picky()
    ledger = ExportLedger("metrics", "x", "y")
    counting = CountingMetricExporter(picky, ledger)

    assert counting._preferred_temporality is picky._preferred_temporality


def metrics_delta() -> dict[type, Any]:
    from opentelemetry.sdk.metrics import Counter
    from opentelemetry.sdk.metrics.export import AggregationTemporality

    return {Counter: AggregationTemporality.DELTA}


def test_errors_of_the_sdk_do_not_reach_the_caller(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(errors, "raise_faults", False)

    def broken(*_: object) -> Any:
        raise RuntimeError("no resource")

    monkeypatch.setattr(providers, "_resource", broken)

    telemetry = build()

    assert isinstance(telemetry.tracer_provider, trace.NoOpTracerProvider)
    assert len(caplog.records) == 2

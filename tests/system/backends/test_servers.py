"""Test our Collector configurations with the real Collector, Jaeger and Prometheus."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support import process
from tests.support.servers import (
    CONFIG,
    DEVELOPMENT,
    PRODUCTION,
    BackendMissingError,
    Backends,
    Collector,
    Jaeger,
    JsonObject,
    Prometheus,
    StartError,
    binary,
    collector_environment,
    poll,
    validate_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = [
    pytest.mark.backends,
    pytest.mark.xdist_group("backends"),  # one worker starts the servers once
    pytest.mark.usefixtures("built_backends"),
]

TEMPO = CONFIG / "production.tempo.yaml"
SCRAPE = CONFIG / "production.scrape.yaml"
FILE_STORAGE = CONFIG / "production.file-storage.yaml"


@dataclass(frozen=True)
class Sdk:
    """An OpenTelemetry SDK without this library."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider

    def send_three_spans(self) -> None:
        """Make a parent with two children; SimpleSpanProcessor sends each as it ends."""
        tracer = self.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("run"):
            for name in ("fetch", "write"):
                tracer.start_span(name).end()

    def send_three_metrics(self) -> None:
        """Make one of each kind that Prometheus names by a rule of its own, with an exemplar."""
        meter = self.meter_provider.get_meter("test")
        with self.tracer_provider.get_tracer("test").start_as_current_span("measured"):
            meter.create_histogram("pipeline.stage.duration", "s").record(0.25)
        meter.create_gauge("pipeline.cache.hit.ratio", "1").set(0.75)
        meter.create_counter("pipeline.stage.items", "{item}").add(42)
        assert self.meter_provider.force_flush()


def exporters(collector: Collector, protocol: str) -> tuple[SpanExporter, MetricExporter]:
    if protocol == "grpc":
        endpoint = collector.otlp_grpc_endpoint
        return grpc_traces.OTLPSpanExporter(endpoint), grpc_metrics.OTLPMetricExporter(endpoint)
    endpoint = collector.otlp_http_endpoint
    return (
        http_traces.OTLPSpanExporter(f"{endpoint}/v1/traces"),
        http_metrics.OTLPMetricExporter(f"{endpoint}/v1/metrics"),
    )


@contextmanager
def sdk(collector: Collector, service: str, protocol: str = "grpc") -> Iterator[Sdk]:
    resource = Resource.create({"service.name": service})
    span_exporter, metric_exporter = exporters(collector, protocol)
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(SimpleSpanProcessor(span_exporter))
    meters = MeterProvider([PeriodicExportingMetricReader(metric_exporter)], resource=resource)
    try:
        yield Sdk(tracers, meters)
    finally:
        tracers.shutdown()
        meters.shutdown()


def span_names(traces: list[JsonObject]) -> set[str]:
    return {span["operationName"] for trace in traces for span in trace["spans"]}


def has_spans(*names: str) -> Callable[[list[JsonObject]], bool]:
    return lambda traces: span_names(traces) >= set(names)


@contextmanager
def collector_beside(
    backends: Backends, config: Path, *overlays: Path, **env: str
) -> Iterator[Collector]:
    """Run another Collector in front of the same Jaeger and Prometheus."""
    environment = {**collector_environment(backends.jaeger, backends.prometheus), **env}
    with Collector(config, extra_configs=overlays, env=environment) as collector:
        yield collector


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("config", [DEVELOPMENT, PRODUCTION], ids=lambda path: path.stem)
def test_spans_and_metrics_arrive(backends: Backends, config: Path, protocol: str) -> None:
    """Jaeger and Prometheus have what the SDK sends, under the names that we document."""
    service = f"arrive-{config.stem}-{protocol}"
    with collector_beside(backends, config) as collector, sdk(collector, service, protocol) as it:
        it.send_three_spans()
        it.send_three_metrics()

        (trace,) = (
            trace
            for trace in backends.jaeger.traces(
                service, wait_until=has_spans("run", "fetch", "write", "measured")
            )
            if len(trace["spans"]) > 1
        )
        parents = {
            span["operationName"]: [reference["refType"] for reference in span["references"]]
            for span in trace["spans"]
        }
        assert parents == {"run": [], "fetch": ["CHILD_OF"], "write": ["CHILD_OF"]}
        assert service in backends.jaeger.services()

        def value(series: str) -> str:
            (found,) = backends.prometheus.query(f'{series}{{service_name="{service}"}}')
            assert service == found["metric"]["job"]
            return str(found["value"][1])

        assert value("pipeline_stage_duration_seconds_count") == "1"
        assert value("pipeline_stage_duration_seconds_sum") == "0.25"
        assert value("pipeline_cache_hit_ratio") == "0.75"
        assert value("pipeline_stage_items_total") == "42"


def test_exemplars_lead_to_the_trace(backends: Backends) -> None:
    """The trace id kept with a histogram's bucket is that of a trace in Jaeger."""
    with sdk(backends.collector, "exemplars") as it:
        it.send_three_metrics()
        (series,) = backends.prometheus.exemplars(
            'pipeline_stage_duration_seconds_bucket{service_name="exemplars"}'
        )
        (trace,) = backends.jaeger.traces("exemplars")
    assert [trace["traceID"]] == [each["labels"]["trace_id"] for each in series["exemplars"]]


def test_a_counter_starts_from_zero(backends: Backends) -> None:
    """One export is enough for increase(): Prometheus puts a 0 where the counter began."""
    with sdk(backends.collector, "short-run") as it:
        it.meter_provider.get_meter("test").create_counter("done").add(42)
        # The SDK's start time is that of the first add; Prometheus counts in milliseconds.
        time.sleep(0.01)
        assert it.meter_provider.force_flush()
        (series,) = backends.prometheus.query('done_total{service_name="short-run"}[1m]')
    assert [value for _, value in series["values"]] == ["0", "42"]


def test_debug_output_shows_what_arrived(backends: Backends) -> None:
    with sdk(backends.collector, "debugged") as it:
        it.send_three_spans()
        poll(
            backends.collector.debug_output,
            accept=lambda text: "service.name: Str(debugged)" in text,
            timeout=20,
            what="the debug exporter",
        )


@pytest.mark.parametrize(
    "configs",
    [[DEVELOPMENT], [PRODUCTION], [PRODUCTION, TEMPO], [PRODUCTION, FILE_STORAGE, SCRAPE]],
    ids=lambda configs: "+".join(path.stem for path in configs),
)
def test_the_collector_accepts(configs: list[Path]) -> None:
    assert validate_config(*configs) == ""


def test_promtool_accepts_the_prometheus_configuration() -> None:
    subprocess.run(
        [binary("promtool"), "check", "config", CONFIG / "prometheus.yml"],
        check=True,
        capture_output=True,
    )


def test_tempo_overlay_sends_traces_to_both(backends: Backends) -> None:
    """A second Jaeger stands in for Tempo: both take plain OTLP over gRPC."""
    with ExitStack() as stack:
        stand_in = stack.enter_context(Jaeger())
        tempo = {"TEMPO_OTLP_ENDPOINT": stand_in.otlp_endpoint, "TEMPO_OTLP_INSECURE": "true"}
        collector = stack.enter_context(collector_beside(backends, PRODUCTION, TEMPO, **tempo))
        stack.enter_context(sdk(collector, "both")).send_three_spans()
        for jaeger in (backends.jaeger, stand_in):
            jaeger.traces("both", wait_until=has_spans("run", "fetch", "write"))


def test_production_outlasts_an_absent_backend(backends: Backends) -> None:
    """Spans sent while Jaeger is away arrive when it is back."""
    with ExitStack() as stack:
        jaeger = stack.enter_context(Jaeger())
        own = {"JAEGER_OTLP_ENDPOINT": jaeger.otlp_endpoint}
        collector = stack.enter_context(collector_beside(backends, PRODUCTION, **own))
        jaeger.kill()
        stack.enter_context(sdk(collector, "patient")).send_three_spans()
        jaeger.start()
        jaeger.traces("patient", wait_until=has_spans("run", "fetch", "write"))


def test_file_storage_outlasts_a_killed_collector(backends: Backends, tmp_path: Path) -> None:
    """What waits for an absent Jaeger is still there when the Collector comes back."""
    with ExitStack() as stack:
        jaeger = stack.enter_context(Jaeger())
        own = {"JAEGER_OTLP_ENDPOINT": jaeger.otlp_endpoint, "QUEUE_DIRECTORY": str(tmp_path)}
        collector = stack.enter_context(collector_beside(backends, PRODUCTION, FILE_STORAGE, **own))
        jaeger.kill()
        stack.enter_context(sdk(collector, "stored")).send_three_spans()
        collector.kill()
        jaeger.start()
        collector.start()
        traces = jaeger.traces("stored", wait_until=has_spans("run", "fetch", "write"))
        assert sum(len(trace["spans"]) for trace in traces) == 3


def test_a_prometheus_scrapes_the_collector(backends: Backends, tmp_path: Path) -> None:
    """The names and labels are those of a Prometheus that takes OTLP."""
    with (
        collector_beside(backends, PRODUCTION, SCRAPE) as collector,
        sdk(collector, "pulled") as it,
    ):
        target = f"{process.HOST}:{collector.ports['scrape']}"
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "scrape_configs:\n"
            "  - job_name: pipelines\n"
            "    honor_labels: true\n"
            "    scrape_interval: 200ms\n"
            "    scrape_timeout: 200ms\n"
            f"    static_configs: [{{targets: ['{target}']}}]\n"
        )
        it.send_three_metrics()
        with Prometheus(config) as prometheus:
            for series, value in (
                ("pipeline_stage_duration_seconds_sum", "0.25"),
                ("pipeline_cache_hit_ratio", "0.75"),
                ("pipeline_stage_items_total", "42"),
            ):
                (found,) = prometheus.query(f'{series}{{service_name="pulled",job="pulled"}}')
                assert found["value"][1] == value
            assert prometheus.exemplars("pipeline_stage_duration_seconds_bucket")


def one_span() -> Sequence[ReadableSpan]:
    memory = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(memory))
    tracers.get_tracer("test").start_span("one").end()
    tracers.shutdown()
    return memory.get_finished_spans()


def test_production_refuses_data_when_its_queue_is_full(backends: Backends) -> None:
    """The sender learns of it; nothing is dropped silently."""
    nobody = f"{process.HOST}:{process.free_ports(1)[0]}"
    small = {
        "JAEGER_OTLP_ENDPOINT": nobody,
        "QUEUE_SPANS": "3",
        "BATCH_MIN_ITEMS": "1",
        "BATCH_MAX_ITEMS": "1",
    }
    with collector_beside(backends, PRODUCTION, **small) as collector:
        endpoint = f"{collector.otlp_http_endpoint}/v1/traces"
        exporter = http_traces.OTLPSpanExporter(endpoint, timeout=0.5)
        spans = one_span()
        results = [exporter.export(spans) for _ in range(20)]
        exporter.shutdown()  # type: ignore[no-untyped-call]
        assert results[0] == SpanExportResult.SUCCESS
        assert results[-1] == SpanExportResult.FAILURE


def test_restart_keeps_the_addresses(backends: Backends) -> None:
    with collector_beside(backends, DEVELOPMENT) as collector:
        before = dict(collector.ports)
        collector.kill()
        assert not collector.is_running()
        collector.start()
        collector.restart()
        assert before == collector.ports
        with sdk(collector, "restarted") as it:
            it.send_three_spans()
        backends.jaeger.traces("restarted")
        assert 'otelcol_exporter_sent_spans{exporter="debug"' in collector.own_metrics()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("receivers: {nonsense: {}}\n")
    with pytest.raises(StartError, match=r'(?s)log ends with.*unknown type: "nonsense"'):
        Collector(broken).__enter__()


def test_a_missing_binary_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "_binary_paths", lambda: {"otelcol": tmp_path / "otelcol"})
    with pytest.raises(BackendMissingError, match="make backends"):
        binary("otelcol")

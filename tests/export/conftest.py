"""Clean environment, clean API globals, and local OTLP servers that count."""

from __future__ import annotations

import gzip
import os
import threading
from collections import Counter
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.util._once import Once

from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export import providers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline_metrics._export.delivery.ledger import LedgerSnapshot
    from otel_pipeline_metrics._export.flush import ExportPipeline


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def api_globals() -> Iterator[None]:
    """Give each test an API without a global provider, and restore it after."""
    kept = (
        (trace, "_TRACER_PROVIDER", None),
        (trace, "_TRACER_PROVIDER_SET_ONCE", Once()),
        (metrics_internal, "_METER_PROVIDER", None),
        (metrics_internal, "_METER_PROVIDER_SET_ONCE", Once()),
        (metrics_internal, "_PROXY_METER_PROVIDER", metrics_internal._ProxyMeterProvider()),
    )
    before = [getattr(module, name) for module, name, _ in kept]
    for module, name, value in kept:
        setattr(module, name, value)
    yield
    for (module, name, _), value in zip(kept, before, strict=True):
        setattr(module, name, value)


@pytest.fixture
def build() -> Iterator[Callable[..., ExportPipeline]]:
    """Return `providers.build` for a Config with these fields; shut down after the test."""
    made: list[ExportPipeline] = []

    def make(**fields: Any) -> ExportPipeline:
        telemetry = providers.build(Config(**fields))
        made.append(telemetry)
        return telemetry

    yield make
    for telemetry in made:
        telemetry.shutdown(2)


def use(telemetry: ExportPipeline, spans: int = 1) -> None:
    """Make `spans` spans and one metric with one point."""
    tracer = telemetry.tracer_provider.get_tracer("test")
    for _ in range(spans):
        tracer.start_span("work").end()
    telemetry.meter_provider.get_meter("test").create_counter("done").add(spans)


class Received:
    """What a server received."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.resources: list[dict[str, str]] = []
        self.records: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refuse = False
        # refuse in a way that another attempt may overcome
        self.later = False
        # the number of items in each request to reject, while answering with success
        self.rejects = 0
        self.requests = 0
        self.lock = threading.Lock()

    def take_spans(self, request: Any) -> None:
        with self.lock:
            for resource in request.resource_spans:
                self.resources.append(_attributes(resource.resource))
                for scope in resource.scope_spans:
                    self.spans.update(span.name for span in scope.spans)

    def take_points(self, request: Any) -> None:
        with self.lock:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        data = getattr(metric, metric.WhichOneof("data"))
                        self.points[metric.name] += len(data.data_points)

    def take_records(self, request: Any) -> None:
        with self.lock:
            for resource in request.resource_logs:
                service = _attributes(resource.resource)["service.name"]
                for scope in resource.scope_logs:
                    self.records += [
                        {
                            "logger": scope.scope.name,
                            "service": service,
                            "body": record.body.string_value,
                            "severity": record.severity_text,
                            "trace_id": record.trace_id.hex(),
                            "span_id": record.span_id.hex(),
                            # where it was logged is on it in some versions of the SDK
                            "attributes": {
                                key: value
                                for key, value in _attributes(record).items()
                                if not key.startswith("code.")
                            },
                        }
                        for record in scope.log_records
                    ]


def _attributes(resource: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in resource.attributes}


def _value(found: Any) -> Any:
    kind = found.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in found.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value) for pair in found.kvlist_value.values}
    return None if kind is None else getattr(found, kind)


def span_answer(rejected: int) -> Any:
    answer = trace_pb.ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    return answer


def point_answer(rejected: int) -> Any:
    answer = metrics_pb.ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    return answer


@pytest.fixture
def http_collector() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.headers.append({key.lower(): value for key, value in self.headers.items()})
            received.requests += 1
            answer: Any = None
            if not (received.refuse or received.later):
                if self.path == "/v1/traces":
                    received.take_spans(trace_pb.ExportTraceServiceRequest.FromString(body))
                    answer = span_answer(received.rejects)
                elif self.path == "/v1/metrics":
                    received.take_points(metrics_pb.ExportMetricsServiceRequest.FromString(body))
                    answer = point_answer(received.rejects)
                elif self.path == "/v1/logs":
                    received.take_records(logs_pb.ExportLogsServiceRequest.FromString(body))
                    answer = logs_pb.ExportLogsServiceResponse()
            content = b"" if answer is None else answer.SerializeToString()
            # 500, as today's exporters retry 503 but not 500
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "/elsewhere")
            else:
                self.send_response(400 if received.refuse else 500 if received.later else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    received.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def grpc_collector() -> Iterator[Received]:
    received = Received()

    def refuse(context: Any) -> None:
        received.requests += 1
        if received.refuse:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        if received.later:  # today's exporters do not retry it
            context.abort(grpc.StatusCode.INTERNAL, "no")

    class Traces(trace_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            refuse(context)
            received.headers.append(dict(context.invocation_metadata()))
            received.take_spans(request)
            return span_answer(received.rejects)

    class Metrics(metrics_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            refuse(context)
            received.take_points(request)
            return point_answer(received.rejects)

    class Logs(logs_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            refuse(context)
            received.take_records(request)
            return logs_pb.ExportLogsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    logs_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    received.endpoint = f"http://127.0.0.1:{port}"
    yield received
    server.stop(None).wait()


def global_tracer_provider() -> trace.TracerProvider:
    return trace.get_tracer_provider()


def global_meter_provider() -> metrics.MeterProvider:
    return metrics.get_meter_provider()


def make_spans(telemetry: ExportPipeline, count: int) -> None:
    tracer = telemetry.tracer_provider.get_tracer("test")
    for _ in range(count):
        tracer.start_span("work").end()


def spans(telemetry: ExportPipeline) -> LedgerSnapshot:
    found = telemetry.snapshot("traces")
    assert found is not None
    assert found.created == sum(found[1:])
    return found


def points(telemetry: ExportPipeline) -> LedgerSnapshot:
    found = telemetry.snapshot("metrics")
    assert found is not None
    assert found.created == sum(found[1:])
    return found


@pytest.fixture(params=["grpc", "http"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Received:
    """Return a server of each protocol, which the environment names."""
    received: Received = request.getfixturevalue(f"{request.param}_collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    protocol = "grpc" if request.param == "grpc" else "http/protobuf"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    return received

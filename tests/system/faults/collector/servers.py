"""Run collectors that each misbehave in one way, by gRPC and by HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

Fault = Literal["none", "refused", "silent", "slow", "4xx", "5xx", "partial"]
Protocol = Literal["grpc", "http/protobuf"]

# Slower than batches of spans that would all arrive in time, faster than a timeout.
SLOW_S = 0.7


class Collector:
    """Counts what it took."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.port = 0
        self.spans: Counter[str] = Counter()
        self.points = 0
        # By stage and by its other attributes: the calls in its duration metric.
        self.counts: dict[str, dict[str, int]] = {}
        self.rejected = Counter[str]()
        # Everything received, including what was rejected.
        self.requests: list[Any] = []
        self._lock = threading.Lock()

    def take(self, request: Any) -> Any:
        """Count a request, and return the answer; one fault rejects half of it."""
        self.requests.append(request)
        if self.fault == "slow":
            time.sleep(SLOW_S)
        if isinstance(request, trace_pb.ExportTraceServiceRequest):
            names = [
                span.name
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            rejected = len(names) // 2 if self.fault == "partial" else 0
            with self._lock:
                self.spans.update(names[rejected:])
                self.rejected["traces"] += rejected
            spans = trace_pb.ExportTraceServiceResponse()
            spans.partial_success.rejected_spans = rejected
            return spans
        points = sum(
            len(getattr(metric, str(metric.WhichOneof("data"))).data_points)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        rejected = points // 2 if self.fault == "partial" else 0
        with self._lock:
            self._note_counts(request)
            self.points += points - rejected
            self.rejected["metrics"] += rejected
        answer = metrics_pb.ExportMetricsServiceResponse()
        answer.partial_success.rejected_data_points = rejected
        return answer

    def _note_counts(self, request: Any) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name != "pipeline.stage.duration":
                        continue
                    for point in metric.histogram.data_points:
                        labels = {p.key: p.value.string_value for p in point.attributes}
                        of_stage = self.counts.setdefault(labels.pop("pipeline.stage.name"), {})
                        # as in any backend, a new start time is a new count, from zero
                        key = f"{point.start_time_unix_nano} {sorted(labels.items())}"
                        # a late batch from a spool may be older than the last one
                        of_stage[key] = max(point.count, of_stage.get(key, 0))

    def calls(self, stage: str) -> int:
        """Return how many calls of a stage its metrics have, all together."""
        return sum(self.counts.get(stage, {}).values())


@contextmanager
def collector(fault: Fault, protocol: Protocol) -> Iterator[Collector]:
    """Run a collector with this fault."""
    made = Collector(fault)
    if fault in ("refused", "silent"):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            if fault == "silent":
                sock.listen(64)
            made.port = sock.getsockname()[1]
            yield made
    else:
        with (_grpc if protocol == "grpc" else _http)(made):
            yield made


@contextmanager
def _http(made: Collector) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = {"4xx": 400, "5xx": 503}.get(made.fault, 200), b""
            if status == 200:
                kind = (
                    trace_pb.ExportTraceServiceRequest
                    if self.path == "/v1/traces"
                    else metrics_pb.ExportMetricsServiceRequest
                )
                content = made.take(kind.FromString(body)).SerializeToString()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the pipeline has ended
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def _grpc(made: Collector) -> Iterator[None]:
    codes = {"4xx": grpc.StatusCode.INVALID_ARGUMENT, "5xx": grpc.StatusCode.UNAVAILABLE}

    class Service(trace_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            if made.fault in codes:
                context.abort(codes[made.fault], "no")
            return made.take(request)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    trace_grpc.add_TraceServiceServicer_to_server(Service(), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(Service(), server)
    made.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield
    server.stop(None).wait()

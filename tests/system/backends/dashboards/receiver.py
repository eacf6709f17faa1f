"""Take a program's telemetry over HTTP, refuse some of it, and pass the metrics on."""

from __future__ import annotations

import time

import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.serving import QuietHandler, Serving
from tests.system.backends.dashboards.log import Log

# How long it keeps metrics, so that the time of an export is more than what a busy machine adds.
DELAY = 0.8


def points(body: bytes) -> int:
    """Return how many data points a request has."""
    request = ExportMetricsServiceRequest.FromString(body)
    return sum(
        len(getattr(metric, metric.WhichOneof("data")).data_points)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def spans(body: bytes) -> int:
    """Return how many spans a request has."""
    request = ExportTraceServiceRequest.FromString(body)
    return sum(
        len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans
    )


class Receiver(Serving):
    """Takes the first spans, refuses the second and is busy for all later ones.

    It refuses the first metrics, and passes the others on to a collector.
    """

    def __init__(self, collector: str) -> None:
        self.log = Log()
        self._collector = collector
        self._answers = {"/v1/traces": [200, 400], "/v1/metrics": [400]}
        self._then = {"/v1/traces": 503, "/v1/metrics": 200}
        receiver = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - of `http.server`
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)
        self._server.daemon_threads = True

    def take(self, path: str, body: bytes) -> int:
        """Note what came, and return the status to answer with."""
        left = self._answers[path]
        status = left.pop(0) if left else self._then[path]
        is_metrics = path == "/v1/metrics"
        amount = points(body) if is_metrics else spans(body)
        if is_metrics and status == 200:
            headers = {"Content-Type": "application/x-protobuf"}
            url = self._collector + path
            requests.post(url, body, headers=headers, timeout=20).raise_for_status()
            time.sleep(DELAY)
        self.log.add(f"{path} {status}", amount)
        return status

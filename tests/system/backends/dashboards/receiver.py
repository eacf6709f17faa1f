"""Take a program's telemetry over HTTP, refuse some of it, and pass the metrics on."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.process import HOST
from tests.system.backends.dashboards.log import Log

if TYPE_CHECKING:
    from typing_extensions import Self

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


class Receiver:
    """Takes the first spans, refuses the second and is busy for all later ones.

    It refuses the first metrics, and passes the others on to a collector.
    """

    def __init__(self, collector: str) -> None:
        self.log = Log()
        self._collector = collector
        self._answers = {"/v1/traces": [200, 400], "/v1/metrics": [400]}
        self._then = {"/v1/traces": 503, "/v1/metrics": 200}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

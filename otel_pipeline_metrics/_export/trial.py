"""One span or one metric, sent as the pipeline's would be: does it arrive?"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.background import BackgroundThread
from otel_pipeline_metrics._export.delivery import log_filter as _log_filter
from otel_pipeline_metrics._export.delivery.counting_exporters import (
    CountingMetricExporter,
    CountingSpanExporter,
)
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


SPAN: Final = "opm doctor"
METRIC: Final = "opm.doctor"
_NEVER_MS: Final = 1e9
_PORTS: Final = {"http": 80, "https": 443}


class Outcome(NamedTuple):
    """How a trial went."""

    ok: bool
    elapsed_s: float
    reason: str | None = None


def reach(target: str, timeout_s: float = 2.0) -> Outcome | None:
    """Open a connection to an endpoint and close it; None if it names no host and port."""
    parts = urlsplit(target if "://" in target else f"//{target}")
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.hostname is None or port is None:
        return None
    started = time.monotonic()
    try:
        socket.create_connection((parts.hostname, port), timeout_s).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Outcome(ok=False, elapsed_s=time.monotonic() - started, reason=reason)
    return Outcome(ok=True, elapsed_s=time.monotonic() - started)


def send(plan: ExportPlan, signal: Signal, name: str, timeout_s: float) -> Outcome | None:
    """Send one item by the exporter called `name`; None if it is one that is pulled.

    The environment must be repaired around it (`exporters.repaired_environment`). The global
    providers stay what they are.
    """
    kind, target = exporters.describe(plan, signal, name)
    account = ExportLedger(signal, kind, target)
    account.mute()
    started = time.monotonic()
    try:
        exporter, watched = exporters.load(plan, signal, name)
    except Exception as error:  # its message may quote a key file
        reason = f"the exporter cannot be built: {type(error).__name__}"
        return Outcome(ok=False, elapsed_s=time.monotonic() - started, reason=reason)
    if isinstance(exporter, MetricReader):
        return None
    counting: CountingSpanExporter | CountingMetricExporter
    if signal == "traces":
        counting = CountingSpanExporter(exporter, account, watched=watched)
        call = _span(counting)
    else:
        counting = CountingMetricExporter(exporter, account, watched=watched)
        call = _metric(counting)
    log_filter = _log_filter.Filter()
    log_filter.install()
    lane = BackgroundThread("doctor")
    try:
        job = lane.submit(call)
        in_time = job.wait(started + timeout_s)
    finally:
        log_filter.remove()
        lane.close()
    elapsed_s = time.monotonic() - started
    if not in_time:
        return Outcome(ok=False, elapsed_s=elapsed_s, reason=f"no answer in {timeout_s:g} s")
    if account.exported:
        return Outcome(ok=True, elapsed_s=elapsed_s)
    rejected = "answered with success, but rejected it (partial success)"
    reason = rejected if account.last_ok else counting.carrier.reason or "no reason given"
    return Outcome(ok=False, elapsed_s=elapsed_s, reason=reason)


def _span(counting: CountingSpanExporter) -> Callable[[], Any]:
    provider = TracerProvider(resource=Resource.create(), sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(counting))

    def call() -> None:
        provider.get_tracer("otel_pipeline_metrics.doctor").start_span(SPAN).end()
        provider.shutdown()

    return call


def _metric(counting: CountingMetricExporter) -> Callable[[], Any]:
    reader = PeriodicExportingMetricReader(counting, export_interval_millis=_NEVER_MS)
    provider = MeterProvider([reader], resource=Resource.create(), shutdown_on_exit=False)

    def call() -> None:
        provider.get_meter("otel_pipeline_metrics.doctor").create_counter(METRIC).add(1)
        provider.shutdown()

    return call

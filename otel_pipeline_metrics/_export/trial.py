"""Send one span or one metric as the pipeline would, to see whether it arrives."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._export import exporters
from otel_pipeline_metrics._export.background import BackgroundThread
from otel_pipeline_metrics._export.delivery.counting_exporters import COUNTING_EXPORTERS
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.delivery.log_filter import Filter
from otel_pipeline_metrics._export.environment_checks import split_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


SPAN: Final = "opm doctor"
METRIC: Final = "opm.doctor"
_NEVER_MS: Final = 1e9
_PORTS: Final = {"http": 80, "https": 443}


class Outcome(NamedTuple):
    """The result of a trial."""

    ok: bool
    elapsed_s: float
    reason: str | None = None


def reach(target: str, timeout_s: float = 2.0) -> Outcome | None:
    """Connect to an endpoint and close; return None if it names no host and port."""
    parts = split_endpoint(target)
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.hostname is None or port is None:
        return None
    started = clock.monotonic()
    try:
        socket.create_connection((parts.hostname, port), timeout_s).close()
    except (OSError, ValueError) as error:  # ValueError: no name of a host
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Outcome(ok=False, elapsed_s=clock.monotonic() - started, reason=reason)
    return Outcome(ok=True, elapsed_s=clock.monotonic() - started)


def send(plan: ExportPlan, signal: Signal, name: str, timeout_s: float) -> Outcome | None:
    """Send one item by the exporter called `name`; return None if it is pulled.

    The caller repairs the environment (`repaired_environment`). The global providers
    are not changed.
    """
    kind, target = exporters.describe(plan, signal, name)
    ledger = ExportLedger(signal, kind, target)
    ledger.mute()
    started = clock.monotonic()
    try:
        exporter, watched = exporters.load(plan, signal, name)
    except Exception as error:  # its message may quote a key file
        reason = f"the exporter cannot be built: {type(error).__name__}"
        return Outcome(ok=False, elapsed_s=clock.monotonic() - started, reason=reason)
    if isinstance(exporter, MetricReader):
        return None
    counting = COUNTING_EXPORTERS[signal](exporter, ledger, watched=watched)
    send_item = (_prepare_span if signal == "traces" else _prepare_metric)(counting)
    log_filter = Filter()
    log_filter.install()
    thread = BackgroundThread("doctor")
    try:
        in_time = thread.submit(send_item).wait(started + timeout_s)
    finally:
        log_filter.remove()
        thread.close()
    elapsed_s = clock.monotonic() - started
    if not in_time:
        return Outcome(ok=False, elapsed_s=elapsed_s, reason=f"no answer in {timeout_s:g} s")
    if ledger.exported:
        return Outcome(ok=True, elapsed_s=elapsed_s)
    rejected = "answered with success, but rejected it (partial success)"
    reason = rejected if ledger.last_ok else counting.delivery.reason or "no reason given"
    return Outcome(ok=False, elapsed_s=elapsed_s, reason=reason)


def _prepare_span(exporter: Any) -> Callable[[], None]:
    """Build a provider on `exporter`; return the call that sends one span."""
    provider = TracerProvider(resource=Resource.create(), sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def send_span() -> None:
        provider.get_tracer("otel_pipeline_metrics.doctor").start_span(SPAN).end()
        provider.shutdown()

    return send_span


def _prepare_metric(exporter: Any) -> Callable[[], None]:
    """Build a provider on `exporter`; return the call that sends one metric."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=_NEVER_MS)
    provider = MeterProvider([reader], resource=Resource.create(), shutdown_on_exit=False)

    def send_metric() -> None:
        provider.get_meter("otel_pipeline_metrics.doctor").create_counter(METRIC).add(1)
        provider.shutdown()

    return send_metric

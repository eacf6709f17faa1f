"""Build exporters by name, importing each only when it is chosen.

A constructor that raises costs one warning and its own signal, never the caller.
"""

from __future__ import annotations

import math
import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from otel_pipeline_metrics._core import errors, notebook
from otel_pipeline_metrics._export import console
from otel_pipeline_metrics._export.delivery import responses
from otel_pipeline_metrics._export.delivery.counting_exporters import (
    COUNTING_EXPORTERS,
    CountingExporter,
)
from otel_pipeline_metrics._export.delivery.counting_processor import CountingBatchProcessor
from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
from otel_pipeline_metrics._export.environment import (
    GROUPS,
    JSON_ENTRY_POINT,
    ExportPlan,
    Protocol,
    Signal,
    endpoint,
)
from otel_pipeline_metrics._export.environment_repairs import repaired_environment, update

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.delivery.spool import Spool
    from otel_pipeline_metrics._export.prometheus import Page


_KINDS: Final[dict[Protocol, str]] = {
    "grpc": "otlp/grpc",
    "http/protobuf": "otlp/http",
    "http/json": "otlp/json",
}
TRANSPORTS: Final[dict[str | None, str]] = {"grpc": "grpc", "http/protobuf": "http"}
_FIXED: Final[dict[str, Protocol]] = {
    "otlp_proto_grpc": "grpc",
    "otlp_proto_http": "http/protobuf",
}
# the time that an exporter may take beyond its timeout before it is given up
SLACK_S: Final = 0.5


# The SDK's last collection may take one interval, and what it collects is lost beyond that.
COLLECTION_MS: Final = 60_000.0


class PatientReader(PeriodicExportingMetricReader):
    """A reader that loses nothing if a collection takes longer than an interval.

    The flush is bounded from outside.
    """

    def collect(self, timeout_millis: float = COLLECTION_MS) -> None:  # type: ignore[misc]
        """Collect and export, within a minute at least."""
        super().collect(max(timeout_millis, COLLECTION_MS))


class ForkedError(RuntimeError):
    """An exporter that cannot be used in a forked child."""


class BuiltExporter(NamedTuple):
    """An exporter with what connects it to a provider."""

    # a span processor or a metric reader
    source: Any
    # None: a reader that is pulled, such as Prometheus', has no exporter that could count
    counting: CountingExporter | None
    ledger: ExportLedger

    @property
    def page(self) -> Page | None:
        """What Prometheus scrapes, if this is its reader."""
        return getattr(self.source, "page", None)


def build(
    plan: ExportPlan, signal: Signal, already_warned: set[str], spool: Spool | None = None
) -> list[BuiltExporter]:
    """Build every exporter of `signal` that can be built.

    The first OTLP exporter keeps in `spool` what it cannot send.
    """
    built: list[BuiltExporter] = []
    for name in plan.exporters(signal):
        kind, target = describe(plan, signal, name)
        ledger = ExportLedger(
            signal, kind, target, remote=name != "console", already_warned=already_warned
        )
        keep = spool if kind.startswith("otlp/") else None
        try:
            built.append(_build(plan, name, ledger, keep))
        except Exception as error:  # third-party code
            # The message of the error may quote a header or a key file's content: class only.
            errors.logger.warning(
                "the %s exporter for %s cannot be built (%s) and is left out",
                kind,
                signal,
                type(error).__name__,
            )
        else:
            spool = None if keep is not None else spool
    return built


def _build(plan: ExportPlan, name: str, ledger: ExportLedger, spool: Spool | None) -> BuiltExporter:
    signal = ledger.signal
    if name == "prometheus":
        from otel_pipeline_metrics._export.prometheus import PullReader

        return BuiltExporter(PullReader(), None, ledger)
    exporter, watched = _console(plan, signal) if name == "console" else load(plan, signal, name)
    if signal == "metrics" and isinstance(exporter, MetricReader):
        return BuiltExporter(exporter, None, ledger)
    counting: Any = COUNTING_EXPORTERS[signal](
        exporter,
        ledger,
        spool,
        watched=watched,
        patience_s=plan.timeouts_s[signal] + SLACK_S,
        factory=_factory(plan, signal, name),
    )
    if signal == "metrics":
        # an interval's table would stand in a notebook's cell that did not ask for it
        never = name == "console" and notebook.is_running()
        reader = PatientReader(counting, math.inf if never else plan.metrics_interval_ms)
        return BuiltExporter(reader, counting, ledger)
    processor: Any = (
        console.ConsoleSpanProcessor(counting, exporter)
        if name == "console"
        else CountingBatchProcessor(counting)
    )
    return BuiltExporter(processor, counting, ledger)


def _console(plan: ExportPlan, signal: Signal) -> tuple[Any, bool]:
    if signal == "traces":
        return console.ConsoleSpanExporter(every=plan.every_span), False
    return console.ConsoleMetricExporter(), False


def describe(plan: ExportPlan, signal: Signal, name: str) -> tuple[str, str]:
    """Return the kind of an exporter and where it sends to, without credentials."""
    if name == "console":
        return "console", "stderr"
    if name == "prometheus":
        return "prometheus", "scraped"
    protocol = _protocol(plan, signal, name)
    if protocol is None:
        return name, "entry point"
    env = dict(os.environ)
    update(env, dict(plan.repairs))
    return _KINDS[protocol], endpoint(env, signal, protocol)


def _protocol(plan: ExportPlan, signal: Signal, name: str) -> Protocol | None:
    return plan.protocols[signal] if name == "otlp" else _FIXED.get(name)


def _factory(plan: ExportPlan, signal: Signal, name: str) -> Callable[[], Any] | None:
    """Return what makes an exporter in a forked child; None for the console."""
    if name == "console":
        return None
    over_grpc = _protocol(plan, signal, name) == "grpc"

    def make() -> Any:
        if over_grpc and responses.grpc_breaks_after_fork():
            errors.warn_once(
                "gRPC after a fork",
                "GRPC_ENABLE_FORK_SUPPORT is off, and gRPC would crash in this forked process: "
                "its telemetry is not exported",
            )
            raise ForkedError
        with repaired_environment(dict(plan.repairs)):
            return load(plan, signal, name)[0]

    return make


def load(plan: ExportPlan, signal: Signal, name: str) -> tuple[Any, bool]:
    """Build an exporter; return it and whether its answers can be observed."""
    protocol = _protocol(plan, signal, name)
    if protocol in TRANSPORTS:
        build = responses.build_grpc if protocol == "grpc" else responses.build_http
        exporter = otlp_class(TRANSPORTS[protocol], signal)
        return build(exporter, signal, timeout=plan.timeouts_s[signal])
    if protocol == "http/json":
        exporter = entry_point(GROUPS[signal], JSON_ENTRY_POINT)
        return exporter(timeout=plan.timeouts_s[signal]), False
    return entry_point(GROUPS[signal], name)(), False


def entry_point(group: str, name: str) -> Callable[..., Any]:
    """Return what a package offers as an exporter of that name."""
    found = tuple(entry_points(group=group, name=name))
    if not found:
        raise LookupError(f"no entry point {name}")
    loaded: Callable[..., Any] = found[0].load()
    return loaded


def otlp_class(transport: str, signal: Literal[Signal, "logs"]) -> Callable[..., Any]:
    """Return the OTLP exporter of a signal over `grpc` or `http`."""
    module, name = {
        "traces": ("trace_exporter", "OTLPSpanExporter"),
        "metrics": ("metric_exporter", "OTLPMetricExporter"),
        "logs": ("_log_exporter", "OTLPLogExporter"),
    }[signal]
    package = f"opentelemetry.exporter.otlp.proto.{transport}"
    exporter: Callable[..., Any] = getattr(import_module(f"{package}.{module}"), name)
    return exporter

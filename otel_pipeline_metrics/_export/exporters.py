"""Exporters by name, each imported only when it is chosen.

A constructor that raises costs one warning and its own signal, never the caller.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import console
from otel_pipeline_metrics._export.delivery import responses
from otel_pipeline_metrics._export.delivery.counting_exporters import (
    CountingMetricExporter,
    CountingSpanExporter,
    ExportLedger,
)
from otel_pipeline_metrics._export.delivery.counting_processor import CountingBatchProcessor
from otel_pipeline_metrics._export.environment import (
    GROUPS,
    JSON_ENTRY_POINT,
    ExportPlan,
    Protocol,
    Signal,
    endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.sdk.trace import SpanProcessor

    from otel_pipeline_metrics._export.delivery.spool import Spool


Counted = CountingSpanExporter | CountingMetricExporter

_KINDS: Final[dict[Protocol, str]] = {
    "grpc": "otlp/grpc",
    "http/protobuf": "otlp/http",
    "http/json": "otlp/json",
}
_FIXED: Final[dict[str, Protocol]] = {
    "otlp_proto_grpc": "grpc",
    "otlp_proto_http": "http/protobuf",
}
SLACK_S: Final = 0.5
"""What an exporter may take longer than its timeout before it is given up."""


_environment_lock = threading.RLock()  # a signal handler may configure anew in the middle


@forking.in_child
def _free_environment() -> None:
    """Let the environment be free: whoever repaired it is a thread of the parent's."""
    global _environment_lock
    _environment_lock = threading.RLock()


class ForkedError(RuntimeError):
    """This exporter cannot be had in a forked child."""


@contextmanager
def repaired_environment(repairs: Mapping[str, str | None]) -> Iterator[None]:
    """Let the SDK read the repaired values of broken variables; put the user's back after.

    The SDK reads `os.environ` in its constructors, and offers no other way in.
    """
    if not repairs:
        yield
        return
    with _environment_lock:
        before = {name: os.environ[name] for name in repairs if name in os.environ}
        try:
            for name, value in repairs.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            yield
        finally:
            for name in repairs:
                os.environ.pop(name, None)
            os.environ.update(before)


def span_processors(
    plan: ExportPlan, said: set[str], spool: Spool | None = None
) -> list[tuple[SpanProcessor, CountingSpanExporter]]:
    """Build a processor for each exporter of traces that can be built.

    What the first OTLP exporter cannot send is kept in `spool`.
    """
    built: list[tuple[SpanProcessor, CountingSpanExporter]] = []
    for name in plan.traces:
        account = _account(plan, "traces", name, said)
        with _skip_if_unbuildable(account):
            if name == "console":
                counting = CountingSpanExporter(console.ConsoleSpanExporter(), account)
                built.append((console.ConsoleSpanProcessor(counting), counting))
            else:
                exporter, watched = load(plan, "traces", name)
                keep = spool if account.kind.startswith("otlp/") else None
                counting = CountingSpanExporter(
                    exporter,
                    account,
                    keep,
                    watched=watched,
                    patience_s=plan.timeout_s("traces") + SLACK_S,
                    again=_again(plan, "traces", name),
                )
                spool = None if keep is not None else spool
                built.append((CountingBatchProcessor(counting), counting))
    return built


def metric_readers(
    plan: ExportPlan, said: set[str], spool: Spool | None = None
) -> list[tuple[MetricReader, CountingMetricExporter | None, ExportLedger]]:
    """Build a reader for each exporter of metrics that can be built.

    A reader that is pulled, such as Prometheus', has no exporter to count at.
    """
    built: list[tuple[MetricReader, CountingMetricExporter | None, ExportLedger]] = []
    for name in plan.metrics:
        account = _account(plan, "metrics", name, said)
        with _skip_if_unbuildable(account):
            exporter, watched = (
                (console.ConsoleMetricExporter(), False)
                if name == "console"
                else load(plan, "metrics", name)
            )
            if isinstance(exporter, MetricReader):
                built.append((exporter, None, account))
                continue
            keep = spool if account.kind.startswith("otlp/") else None
            counting = CountingMetricExporter(
                exporter,
                account,
                keep,
                watched=watched,
                patience_s=plan.timeout_s("metrics") + SLACK_S,
                again=_again(plan, "metrics", name),
            )
            spool = None if keep is not None else spool
            built.append((PeriodicExportingMetricReader(counting), counting, account))
    return built


def describe(plan: ExportPlan, signal: Signal, name: str) -> tuple[str, str]:
    """Return the kind of an exporter and where it sends to, without credentials."""
    if name == "console":
        return "console", "stderr"
    protocol = _protocol(plan, signal, name)
    if protocol is None:
        return name, "entry point"
    return _KINDS[protocol], endpoint(_effective(plan), signal, protocol)


def _account(plan: ExportPlan, signal: Signal, name: str, said: set[str]) -> ExportLedger:
    kind, target = describe(plan, signal, name)
    return ExportLedger(signal, kind, target, remote=name != "console", said=said)


def _effective(plan: ExportPlan) -> dict[str, str]:
    """Return the environment as the SDK gets to see it."""
    env = dict(os.environ)
    for name, value in plan.repairs:
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def _protocol(plan: ExportPlan, signal: Signal, name: str) -> Protocol | None:
    return plan.protocol(signal) if name == "otlp" else _FIXED.get(name)


@contextmanager
def _skip_if_unbuildable(account: ExportLedger) -> Iterator[None]:
    """Turn what an exporter's constructor raises into one warning."""
    try:
        yield
    except Exception as error:  # third-party code
        # The message of the error may quote a header or a key file's content: class only.
        errors.logger.warning(
            "the %s exporter for %s cannot be built (%s) and is left out",
            account.kind,
            account.signal,
            type(error).__name__,
        )


def _again(plan: ExportPlan, signal: Signal, name: str) -> Callable[[], Any] | None:
    """Return what makes the exporter of this name in a forked child; the console needs none."""
    if name == "console":
        return None
    over_grpc = _protocol(plan, signal, name) == "grpc"

    def make() -> Any:
        if over_grpc and responses.grpc_is_lost_to_children():
            errors.warn_once(
                "gRPC after a fork",
                "GRPC_ENABLE_FORK_SUPPORT is off: gRPC would crash in a forked process, so what "
                "it measures is not exported",
            )
            raise ForkedError
        with repaired_environment(dict(plan.repairs)):
            return load(plan, signal, name)[0]

    return make


def load(plan: ExportPlan, signal: Signal, name: str) -> tuple[Any, bool]:
    """Build an exporter; say whether what it sends can be watched."""
    protocol = _protocol(plan, signal, name)
    if protocol in _CLASSES:
        build = responses.build_grpc if protocol == "grpc" else responses.build_http
        return build(_CLASSES[protocol](signal), signal, timeout=plan.timeout_s(signal))
    if protocol == "http/json":
        exporter = _entry_point(signal, JSON_ENTRY_POINT)
        return exporter(timeout=plan.timeout_s(signal)), False
    return _entry_point(signal, name)(), False


def _entry_point(signal: Signal, name: str) -> Callable[..., Any]:
    found = tuple(entry_points(group=GROUPS[signal], name=name))
    if not found:
        raise LookupError(f"no entry point {name}")
    loaded: Callable[..., Any] = found[0].load()
    return loaded


def _grpc(signal: Signal) -> Callable[..., Any]:
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter


def _http(signal: Signal) -> Callable[..., Any]:
    if signal == "traces":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter


_CLASSES: Final[dict[Protocol | None, Callable[[Signal], Callable[..., Any]]]] = {
    "grpc": _grpc,
    "http/protobuf": _http,
}

"""Let log records meet the traces: the ids of the current span on each, and records over OTLP.

The ids and the translation to OTLP are those of `opentelemetry-instrumentation-logging`.
"""

from __future__ import annotations

import functools
import logging
import logging.config
import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as logs_api
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import exporters, log_handler
from otel_pipeline_metrics._export.delivery import responses
from otel_pipeline_metrics._export.delivery.log_filter import exporting
from otel_pipeline_metrics._export.environment import JSON_ENTRY_POINT
from otel_pipeline_metrics._export.environment_checks import get
from otel_pipeline_metrics._export.environment_repairs import repaired_environment
from otel_pipeline_metrics._export.log_handler import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.environment import ExportPlan


MISSING: Final = 'a package is missing: pip install "otel-pipeline-metrics[logs]"'

_GROUP: Final = "opentelemetry_logs_exporter"
# that set the handlers of the root logger
_SETUPS: Final = (
    (logging, "basicConfig"),
    (logging.config, "dictConfig"),
    (logging.config, "fileConfig"),
)


def installed() -> bool:
    """Tell whether the package of the extra `logs` is installed."""
    return find_spec("opentelemetry.instrumentation") is not None and (
        find_spec(PACKAGE) is not None
    )


def exporter_names(config: Config, plan: ExportPlan) -> tuple[str, ...]:
    """Return the exporters of log records: as traces and metrics go, or as a variable says."""
    if config.exporters is not None:
        return ("otlp",) if "otlp" in config.exporters else ()
    asked = get(os.environ, "OTEL_LOGS_EXPORTER")
    if asked:
        return tuple(n for n in (name.strip() for name in asked.split(",")) if n and n != "none")
    otlp = any(name.startswith("otlp") for name in (*plan.traces, *plan.metrics))
    return ("otlp",) if otlp or get(os.environ, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT") else ()


def build(
    config: Config, plan: ExportPlan, resource: Resource, tracer_provider: TracerProvider
) -> Logs | None:
    """Put ids on the records from now on, and send them where telemetry goes; None if it cannot."""
    if not installed():
        errors.warn_once("logs", "logs: %s", MISSING)
        return None
    existing: Any = logs_api.get_logger_provider()
    if type(existing).__name__ in {"ProxyLoggerProvider", "NoOpLoggerProvider"}:
        return Logs(exporter_names(config, plan), plan, resource, tracer_provider)
    return Logs((), plan, resource, tracer_provider, existing)


class Logs:
    """The log records of this process on their way out."""

    def __init__(
        self,
        names: tuple[str, ...],
        plan: ExportPlan,
        resource: Resource,
        tracer_provider: TracerProvider,
        given: Any = None,
    ) -> None:
        """Build the exporters, or take the provider of the program, `given`."""
        self._names = names
        self._given = given
        self._plan = plan
        self._resource = resource
        self._provider: LoggerProvider | None = None
        self._instrumentor = _inject_ids(tracer_provider)
        self._handler: logging.Handler | None = None
        self._setups: list[tuple[Any, str, Any, Any]] = []
        # the exporters are built now, so that a wrong one is said at once
        if self._current() is not None and not (given is not None and _is_handled()):
            self._attach()
        forking.watch(self)

    def after_fork(self) -> None:
        """Build the exporters anew in a child that logs: connections are the parent's."""
        self._provider = None

    def get_logger(self, *args: Any, **kwargs: Any) -> Any:
        """Return a logger, as the provider that the handler takes this for."""
        provider = self._current()
        return (provider or logs_api.NoOpLoggerProvider()).get_logger(*args, **kwargs)

    def _current(self) -> Any:
        if self._given is not None:
            return self._given
        if self._provider is None and self._names:
            provider = LoggerProvider(self._resource, shutdown_on_exit=False)
            kept = []
            for name in self._names:
                exporter = _exporter(name, self._plan)
                if exporter is not None:
                    kept.append(name)
                    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
            self._names = tuple(kept)
            self._provider = provider if kept else None
        return self._provider

    def flush(self, deadline: float, *, ending: bool) -> object:
        """Send what is pending; False if that failed."""
        provider = self._given or self._provider
        if provider is None or not hasattr(provider, "force_flush"):
            return True
        with exporting():
            sent = provider.force_flush(max(1, int((deadline - clock.monotonic()) * 1000)))
            if ending and provider is not self._given:
                provider.shutdown()
        return sent

    def _attach(self) -> None:
        """Take the records of the root logger, also after the program has set it up."""
        self._handler = handler = log_handler.make(self)
        logging.getLogger().addHandler(handler)
        for module, name in _SETUPS:
            original = getattr(module, name)
            ours = _beside(handler, original)
            setattr(module, name, ours)
            self._setups.append((module, name, original, ours))

    def close(self) -> None:
        """Put no more ids on records, and take none."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        for module, name, original, ours in self._setups:
            if getattr(module, name) is ours:
                setattr(module, name, original)
        if self._instrumentor is not None:
            self._instrumentor.uninstrument()
            self._instrumentor = None


def _inject_ids(tracer_provider: TracerProvider) -> Any:
    """Instrument `logging`; return what to uninstrument, None if the program did it already."""
    instrumentor = import_module(PACKAGE).LoggingInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        errors.logger.info("logs: the program has instrumented logging already, which stays so")
        return None
    instrumentor.instrument(
        tracer_provider=tracer_provider,
        inject_trace_context=True,
        enable_log_auto_instrumentation=False,  # see `_attach`
        skip_dep_check=True,
    )
    return instrumentor


def _is_handled() -> bool:
    """Tell whether the program has set up OpenTelemetry's handler itself."""
    handlers = logging.getLogger().handlers
    return any(type(handler).__name__ == "LoggingHandler" for handler in handlers)


def _beside(handler: logging.Handler, setup: Callable[..., Any]) -> Callable[..., Any]:
    """Return a set-up of logging that neither removes the handler nor takes it for its own."""

    @functools.wraps(setup)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        root = logging.getLogger()
        there = handler in root.handlers
        if there:
            root.removeHandler(handler)
        try:
            return setup(*args, **kwargs)
        finally:
            if there:
                root.addHandler(handler)

    return wrapper


def _exporter(name: str, plan: ExportPlan) -> Any:
    try:
        with repaired_environment(dict(plan.repairs)):
            return _load(name, plan)
    except Exception as error:  # third-party code
        # the message of the error may quote a header: class only
        errors.logger.warning(
            "the %s exporter for logs cannot be built (%s) and is left out",
            name,
            type(error).__name__,
        )
        return None


def _load(name: str, plan: ExportPlan) -> Any:
    variables = ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next(filter(None, (get(os.environ, v) for v in variables)), plan.protocols["traces"])
    if name == "otlp" and protocol in exporters.TRANSPORTS:
        exporter = exporters.otlp_class(exporters.TRANSPORTS[protocol], "logs")
        if protocol == "grpc":
            return exporter(timeout=plan.timeouts_s["traces"])
        return responses.build_http(exporter, "logs", timeout=plan.timeouts_s["traces"])[0]
    return exporters.entry_point(_GROUP, JSON_ENTRY_POINT if name == "otlp" else name)()

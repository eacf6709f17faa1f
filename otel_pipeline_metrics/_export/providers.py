"""Decide which providers are in use: given, found or built.

A provider that the user gave or installed is used as it is, and never replaced or shut down.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import (
    HOST_NAME,
    PROCESS_PID,
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider

from otel_pipeline_metrics._core import environment_variables, errors
from otel_pipeline_metrics._core.cleaning import clean_attribute, clean_text
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import environment, exporters, global_providers
from otel_pipeline_metrics._export.delivery.counting_processor import CountingSampler
from otel_pipeline_metrics._export.delivery.log_filter import Filter
from otel_pipeline_metrics._export.delivery.spool import Spool, settings
from otel_pipeline_metrics._export.environment_checks import get, is_true, secrets
from otel_pipeline_metrics._export.environment_repairs import repaired_environment
from otel_pipeline_metrics._export.flush import (
    ExporterInfo,
    ExportPipeline,
    FlushReport,
    SignalPipeline,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.delivery.spool import Settings
    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


_TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
# both make counters and histograms start at zero with each export
_DELTA: Final = frozenset({"delta", "lowmemory"})

__all__ = ["ExportPipeline", "ExporterInfo", "FlushReport", "build"]


def build(config: Config) -> ExportPipeline:
    """Return the providers that `config` and the environment ask for.

    Never raises for what the environment holds: that becomes a warning and a default. Call
    `shutdown` on the result of an earlier call before.
    """
    plan = plan_of(config)
    pipelines = _existing(config, plan)
    global_providers.forget_ours()
    missing = [signal for signal in environment.SIGNALS if pipelines[signal] is None]
    for problem in plan.problems if missing else ():
        errors.warn_once(f"environment: {problem}", "%s", problem)
    spool_settings = _spool_settings(config)
    if spool_settings is not None and _counts_twice(config, plan, pipelines):
        errors.warn_once(
            "spool and delta",
            "there is no spool: with %s=delta a batch that arrives twice would count twice. "
            "%s=true allows it, cumulative temporality needs no such choice",
            _TEMPORALITY,
            environment_variables.OTEL_PIPELINE_METRICS_SPOOL_DELTA,
        )
        spool_settings = None
    if not plan.disabled:
        spool = None
        uses_otlp = any(name.startswith("otlp") for name in (*plan.traces, *plan.metrics))
        if spool_settings is not None and missing and uses_otlp:
            spool = Spool(*spool_settings)
        _build_missing(missing, pipelines, config, plan, spool)
    traces = pipelines["traces"] or SignalPipeline("traces", trace_api.NoOpTracerProvider(), False)
    metrics = pipelines["metrics"] or SignalPipeline(
        "metrics", metrics_api.NoOpMeterProvider(), False
    )
    counted = (*traces.exporters, *metrics.exporters)
    is_kept = any(exporter.ledger.kept_in for exporter in counted)
    if spool_settings is not None and not plan.disabled and not is_kept:
        errors.warn_once(
            "spool unused",
            "the spool keeps nothing: it serves only the OTLP exporters (gRPC, http/protobuf) "
            "that configure() builds, and it has built none",
        )
    log_filter: Filter | None = None
    if traces.owned or metrics.owned:
        keep_lines = is_true(os.environ, environment_variables.OTEL_PIPELINE_METRICS_EXPORTER_LOGS)
        log_filter = Filter(secrets(os.environ) if keep_lines else None)
        log_filter.install()
    log_records = None
    if config.logs and not plan.disabled:
        try:
            from otel_pipeline_metrics._export import logs  # few programs need it

            log_records = logs.build(config, plan, _resource(config), traces.provider)
        except Exception as error:  # of the instrumentation, whose parts are private
            errors.warn_once("logs", "logs cannot be set up: %r", error)
    return ExportPipeline(traces, metrics, log_filter, log_records)


def check(config: Config) -> None:
    """Refuse arguments that do not go together with the environment.

    Raises:
        ValueError: a spool is asked for, and metrics have delta temporality; or something whose
            package is missing.
    """
    plan = plan_of(config)
    if "prometheus" in (config.exporters or ()) and not environment.installed(
        environment.GROUPS["metrics"], "prometheus"
    ):
        raise ValueError(f'exporter "prometheus" needs a package: {environment.INSTALL_PULLED}')
    by_variable = is_true(os.environ, environment_variables.OTEL_PIPELINE_METRICS_LOGS)
    if config.logs and not by_variable:
        from otel_pipeline_metrics._export import logs

        if not logs.installed():
            raise ValueError(f"logs: {logs.MISSING}")
    if config.spool is not None and _counts_twice(config, plan, _existing(config, plan)):
        raise ValueError(
            f"spool: with {_TEMPORALITY}=delta a batch that arrives twice, as one from the spool "
            "may after a crash, would count twice; spool_delta=True accepts that"
        )


def _counts_twice(
    config: Config, plan: ExportPlan, pipelines: dict[Signal, SignalPipeline | None]
) -> bool:
    """Tell whether a spool would keep metrics of delta temporality without `spool_delta`."""
    return (
        not config.spool_delta
        and not plan.disabled
        and pipelines["metrics"] is None
        and any(name.startswith("otlp") for name in plan.metrics)
        and get(os.environ, _TEMPORALITY).lower() in _DELTA
    )


def _spool_settings(config: Config) -> Settings | None:
    try:
        return settings(config, os.environ)
    except OSError as error:
        errors.warn_once(
            "spool",
            "there is no spool (%s): telemetry that the collector does not take is dropped",
            error.strerror or type(error).__name__,
        )
        return None


class Intent(NamedTuple):
    """What `configure()` and the environment say about where telemetry goes."""

    # nothing is set: there is no exporter, and no provider
    nothing: bool
    # nothing, or the console alone
    development: bool


def plan_of(config: Config) -> ExportPlan:
    """Return what the settings and the environment ask for."""
    return environment.plan(
        os.environ,
        config.exporters,
        config.console,
        pulled=config.enable_prometheus_integration,
        interval_s=config.metrics_sync_interval_s,
    )


def intent(config: Config) -> Intent:
    plan = plan_of(config)
    found = _existing(config, plan).values()
    nothing = plan.source == "default" and not any(found)
    return Intent(
        nothing, nothing or (plan.source != "default" and plan.development and not all(found))
    )


def _existing(config: Config, plan: ExportPlan) -> dict[Signal, SignalPipeline | None]:
    """Return the providers that the user gave or installed."""
    found: dict[Signal, SignalPipeline | None] = {"traces": None, "metrics": None}
    given = {"traces": config.tracer_provider, "metrics": config.meter_provider}
    for signal in environment.SIGNALS:
        provider, kind = given[signal], "given"
        if provider is None and not plan.disabled:
            provider, kind = global_providers.existing(signal), "global"
        if provider is not None:
            of = type(provider)
            info = ExporterInfo(signal, kind, f"{of.__module__}.{of.__qualname__}")
            found[signal] = SignalPipeline(signal, provider, owned=False, infos=(info,))
    return found


def _build_missing(
    missing: list[Signal],
    pipelines: dict[Signal, SignalPipeline | None],
    config: Config,
    plan: ExportPlan,
    spool: Spool | None,
) -> None:
    """Build what the user has not, and install it as the global provider."""
    already_warned: set[str] = set()
    resource: Resource | None = None
    repairs = {**dict(plan.repairs), **global_providers.broken_variables()}
    with repaired_environment(repairs if missing else {}):
        for signal in missing:
            try:
                resource = resource or _resource(config)
                built = exporters.build(plan, signal, already_warned, spool)
                if built:
                    pipelines[signal] = _pipeline(signal, built, resource)
            except Exception as error:  # no more threads, a subinterpreter, a broken detector
                errors.logger.debug("building the SDK for %s failed", signal, exc_info=True)
                errors.warn_once(
                    f"building {signal}",
                    "OpenTelemetry's SDK cannot be set up, so no %s are exported: %r",
                    signal,
                    error,
                )


def _pipeline(
    signal: Signal, built: list[exporters.BuiltExporter], resource: Resource
) -> SignalPipeline:
    """Make the provider of `signal` and install it as the global one."""
    provider: Any
    sampler: CountingSampler | None = None
    if signal == "traces":
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # The SDK reads OTEL_TRACES_SAMPLER; tracers take the sampler from here when they are made.
        provider.sampler = sampler = CountingSampler(provider.sampler)
        for each in built:
            provider.add_span_processor(each.source)
    else:
        provider = MeterProvider(
            metric_readers=[each.source for each in built],
            resource=resource,
            shutdown_on_exit=False,
        )
    global_providers.install(signal, provider)
    pages = tuple(each.page for each in built if each.page is not None)
    for page in pages:
        page.resource = resource
        page.listen(os.environ)
    return SignalPipeline(
        signal,
        provider,
        owned=True,
        exporters=tuple(each.counting for each in built if each.counting is not None),
        infos=tuple(ExporterInfo(signal, each.ledger.kind, each.ledger.target) for each in built),
        sampler=sampler,
        pages=pages,
        console=next((each.source for each in built if each.ledger.kind == "console"), None),
    )


def _resource(config: Config) -> Resource:
    """Merge the SDK's defaults, OTEL_* and the arguments; the last one wins."""
    attributes: dict[str, Any] = dict(config.resource_attributes)
    if config.service_name is not None:
        attributes[SERVICE_NAME] = config.service_name
    # what Resource.create finds, in OTEL_* or by a detector, wins
    resource = Resource.create(attributes)
    resource = Resource(_of_the_process(resource.attributes)).merge(resource)
    if not resource.attributes.get(SERVICE_INSTANCE_ID):
        # Without it two processes of one job write the same Prometheus series.
        resource = resource.merge(Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())}))
    return OwnResource(resource)


def _of_the_process(known: Mapping[str, Any]) -> dict[str, str | int]:
    """Return what tells the process apart, and the service's version where it is known."""
    found: dict[str, str | int] = {PROCESS_PID: os.getpid()}
    with suppress(OSError, UnicodeError):
        found[HOST_NAME] = socket.gethostname()
    version = getattr(sys.modules.get("__main__"), "__version__", None)
    if version is None:
        # a service that is named like a distribution, such as the one it comes in
        with suppress(PackageNotFoundError, ValueError):
            version = distribution_version(str(known.get(SERVICE_NAME)))
    if isinstance(version, str) and version:
        found[SERVICE_VERSION] = version
    return {key: value for key, value in found.items() if value != ""}


class OwnResource(Resource):
    """The resource of this process, and in a forked child of that one.

    Newer SDKs renew `service.instance.id` there themselves, SDK 1.30 does not. An id that was
    given is replaced too: two processes with one id would write the same series.
    """

    def __init__(self, of: Resource) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may hold bytes that are not UTF-8
        super().__init__(
            {clean_text(key): clean_attribute(value, key) for key, value in of.attributes.items()},
            of.schema_url,
        )
        self._current = super().attributes
        forking.watch(self)

    @property
    def attributes(self) -> Any:
        return self._current

    def after_fork(self) -> None:
        """Describe the child in everything that its tracers and readers report."""
        own: dict[str, Any] = {SERVICE_INSTANCE_ID: str(uuid.uuid4())}
        if PROCESS_PID in self._current:
            own[PROCESS_PID] = os.getpid()
        self._current = self.merge(Resource(own)).attributes

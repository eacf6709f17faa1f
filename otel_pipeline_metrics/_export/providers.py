"""Which providers are in use: given, found or built.

A provider that the user gave or installed is used as it is, and never replaced or shut down.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics as metrics_api
from opentelemetry import trace as trace_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import (
    PROCESS_PID,
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export import environment, exporters, global_providers
from otel_pipeline_metrics._export.delivery import log_filter as _log_filter
from otel_pipeline_metrics._export.delivery.counting_processor import CountingSampler
from otel_pipeline_metrics._export.delivery.spool import Spool, settings
from otel_pipeline_metrics._export.environment_checks import secrets
from otel_pipeline_metrics._export.flush import (
    ExporterInfo,
    ExportPipeline,
    FlushReport,
    SignalPipeline,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


__all__ = ["ExportPipeline", "ExporterInfo", "FlushReport", "build"]


def build(config: Config) -> ExportPipeline:
    """Return the providers that `config` and the environment ask for.

    Never raises for what the environment holds: that becomes a warning and a default. Call
    `shutdown` on what an earlier call returned before.
    """
    plan = environment.plan(os.environ, config.exporters)
    sides = {
        "traces": _existing_provider("traces", config.tracer_provider, plan),
        "metrics": _existing_provider("metrics", config.meter_provider, plan),
    }
    log_filter: _log_filter.Filter | None = None
    global_providers.forget_ours()
    if not all(sides.values()):
        for problem in plan.problems:
            errors.warn_once(f"environment: {problem}", "%s", problem)
        if not plan.disabled:
            log_filter = _build_missing(sides, config, plan)
    if settings(config, os.environ) is not None and not plan.disabled:
        _check_spool(sides)
    infos: list[ExporterInfo] = []
    traces = sides["traces"] or (_noop_side("traces"), ())
    metrics = sides["metrics"] or (_noop_side("metrics"), ())
    for _side, described in (traces, metrics):
        infos.extend(described)
    return ExportPipeline(traces[0], metrics[0], infos, log_filter)


def on_console(config: Config) -> bool:
    """Tell whether `build` will set up the development console."""
    plan = environment.plan(os.environ, config.exporters)
    given = {"traces": config.tracer_provider, "metrics": config.meter_provider}
    return any(
        "console" in plan.exporters(signal)
        and _existing_provider(signal, given[signal], plan) is None
        for signal in environment.SIGNALS
    )


_Described = tuple[SignalPipeline, tuple[ExporterInfo, ...]]


def _existing_provider(signal: Signal, given: Any, plan: ExportPlan) -> _Described | None:
    """Return the provider that the user gave or installed, if there is one."""
    provider, kind = given, "given"
    if provider is None and not plan.disabled:
        kind = "global"
        provider = (
            global_providers.tracer_provider()
            if signal == "traces"
            else global_providers.meter_provider()
        )
    if provider is None:
        return None
    of = type(provider)
    info = ExporterInfo(signal, kind, f"{of.__module__}.{of.__qualname__}")
    return SignalPipeline(signal, provider, owned=False), (info,)


def _noop_side(signal: Signal) -> SignalPipeline:
    """A signal that nobody wants costs as little as the API allows."""
    if signal == "traces":
        return SignalPipeline(signal, trace_api.NoOpTracerProvider(), owned=False)
    return SignalPipeline(signal, metrics_api.NoOpMeterProvider(), owned=False)


def _build_missing(
    sides: dict[str, _Described | None], config: Config, plan: ExportPlan
) -> _log_filter.Filter | None:
    """Build what the user has not, and install it as the global provider."""
    said: set[str] = set()
    asked = settings(config, os.environ)
    spool = Spool(*asked) if asked is not None and _sends(plan) else None
    with exporters.repaired_environment(dict(plan.repairs)):
        resource: Resource | None = None
        for signal, make in (("traces", _build_traces), ("metrics", _build_metrics)):
            if sides[signal] is None:
                # configure() must not fail for what the SDK dislikes
                with errors.suppress_errors(f"building the OpenTelemetry SDK for {signal}"):
                    resource = resource or _resource(config)
                    sides[signal] = make(plan, resource, said, spool)
    return _quieten() if any(side and side[0].owned for side in sides.values()) else None


def _check_spool(sides: Mapping[str, _Described | None]) -> None:
    built = [exporter for side in sides.values() if side for exporter in side[0].exporters]
    if not any(exporter.account.kept_in for exporter in built):
        errors.warn_once(
            "spool unused",
            "the spool keeps nothing here: it serves the OTLP exporters (gRPC, http/protobuf) "
            "that configure() builds, and there is none",
        )


def _sends(plan: ExportPlan) -> bool:
    """Tell whether there is an exporter that a spool can help."""
    names = (*plan.traces, *plan.metrics)
    return any(name.startswith("otlp") for name in names)


def _quieten() -> _log_filter.Filter:
    wanted = os.environ.get(_log_filter.ENVIRONMENT_VARIABLE, "").strip().lower() == "true"
    log_filter = _log_filter.Filter(secrets(os.environ) if wanted else None)
    log_filter.install()
    return log_filter


def _build_traces(
    plan: ExportPlan, resource: Resource, said: set[str], spool: Spool | None
) -> _Described | None:
    built = exporters.span_processors(plan, said, spool)
    if not built:
        return None
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # The SDK reads OTEL_TRACES_SAMPLER; tracers take the sampler from here when they are made.
    provider.sampler = sampler = CountingSampler(provider.sampler)
    for processor, _ in built:
        provider.add_span_processor(processor)
    global_providers.install_tracer_provider(provider)
    infos = tuple(
        ExporterInfo("traces", counting.account.kind, counting.account.target)
        for _, counting in built
    )
    counted = tuple(counting for _, counting in built)
    return SignalPipeline("traces", provider, owned=True, exporters=counted, sampler=sampler), infos


def _build_metrics(
    plan: ExportPlan, resource: Resource, said: set[str], spool: Spool | None
) -> _Described | None:
    built = exporters.metric_readers(plan, said, spool)
    if not built:
        return None
    provider = MeterProvider(
        metric_readers=[reader for reader, _, _ in built],
        resource=resource,
        shutdown_on_exit=False,
    )
    global_providers.install_meter_provider(provider)
    infos = tuple(ExporterInfo("metrics", a.kind, a.target) for _, _, a in built)
    counted = tuple(counting for _, counting, _ in built if counting is not None)
    return SignalPipeline("metrics", provider, owned=True, exporters=counted), infos


def _resource(config: Config) -> Resource:
    """Merge, weakest first: the SDK's defaults, OTEL_*, the arguments of `configure()`."""
    attributes: dict[str, Any] = dict(config.resource_attributes)
    if config.service_name is not None:
        attributes[SERVICE_NAME] = config.service_name
    resource = Resource.create(attributes)
    if not resource.attributes.get(SERVICE_INSTANCE_ID):
        # Without it two processes of one job write the same Prometheus series.
        resource = resource.merge(Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())}))
    return OwnResource(resource)


class OwnResource(Resource):
    """Describes this process, and in a forked child that one.

    Newer SDKs see to `service.instance.id` there themselves, SDK 1.30 does not. An id that was
    given is replaced too: two processes with one would write the same series.
    """

    def __init__(self, of: Resource) -> None:
        super().__init__(of.attributes, of.schema_url)
        self._current = super().attributes
        forking.watch(self)

    @property
    def attributes(self) -> Any:
        """What describes the process."""
        return self._current

    def after_fork(self) -> None:
        """Describe the child: whoever holds this, tracers and readers, now tells of it."""
        own: dict[str, Any] = {SERVICE_INSTANCE_ID: str(uuid.uuid4())}
        if PROCESS_PID in self._current:
            own[PROCESS_PID] = os.getpid()
        self._current = self.merge(Resource(own)).attributes

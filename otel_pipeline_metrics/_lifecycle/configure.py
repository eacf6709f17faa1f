"""Put settings, providers and probes in force: `configure` and `shutdown`."""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import (
    cardinality,
    clock,
    errors,
    every_series,
    options,
    output,
    privacy,
    settings,
)
from otel_pipeline_metrics._core.process import forking, signals
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._core.validation import check_wait
from otel_pipeline_metrics._lifecycle import attach as attach_server
from otel_pipeline_metrics._lifecycle import configuration, summary, telemetry_stats
from otel_pipeline_metrics._probes.resources.instruments import install_resources
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.records import AttributeValue
    from otel_pipeline_metrics._core.settings import Console, ExporterName
    from otel_pipeline_metrics._export.flush import FlushReport
    from otel_pipeline_metrics._export.providers import ExportPipeline


_lock = threading.RLock()
_export: ExportPipeline | None = None
# what the call that made `_export` asked for
_asked: configuration.Asked | None = None
# The user's own providers, which `flush()` finds without `configure()`.
_found: ExportPipeline | None = None
_exit_registered = False


def configure(
    *,
    service_name: str | None = None,
    exporter: ExporterName | Sequence[ExporterName] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    resource_attributes: Mapping[str, AttributeValue] | None = None,
    metric_attributes: Sequence[str] = (),
    console: Console = None,
    spans_per_second: float | None = 100.0,
    flush_timeout: float | None = None,
    spool: str | os.PathLike[str] | None = None,
    spool_max_bytes: int = Config.spool_max_bytes,
    spool_max_age_s: float = Config.spool_max_age_s,
    spool_delta: bool = Config.spool_delta,
    strict: bool | None = None,
    forbidden_keys: Sequence[str] = (),
    allowed_keys: Sequence[str] = (),
    max_attribute_values: int = Config.max_attribute_values,
    error_messages: bool | None = None,
    code_location: bool | None = None,
    logs: bool | None = None,
    stalled_after: float = Config.stalled_after_s,
    monitoring_enabled: bool = Config.monitoring_enabled,
    monitoring_interval: float = Config.monitoring_interval_s,
    enable_system_metrics: bool = Config.enable_system_metrics,
    enable_performance_metrics: bool = Config.enable_performance_metrics,
    enable_business_metrics: bool = Config.enable_business_metrics,
    enable_prometheus_integration: bool = Config.enable_prometheus_integration,
    metrics_sync_interval: float | None = None,
    history_size: int = Config.history_size,
    trace_url: str | None = None,
    attach: bool | None = None,
) -> None:
    """Set where telemetry goes; without arguments, OTEL_* variables decide.

    A provider given here is used; otherwise a provider that the process has already, which is
    never replaced; otherwise one is built: for `exporter`, for OTEL_* (endpoint, protocol,
    headers, exporters, service name, OTEL_SDK_DISABLED). Without any, nothing is exported, and each
    run prints a summary to stderr. Providers built here are flushed when the process ends. A second
    call replaces the first, also inside a run, whose span and duration go where the second one
    says; with the same arguments and OTEL_* variables it does nothing. Forked children report too,
    from zero; spawned ones have to call it themselves.

    Where an argument has its default, its variable decides: OTEL_PIPELINE_METRICS_ and its name in
    capitals.

    Args:
        service_name: `service.name` on everything that is exported; the argument wins.
        exporter: "otlp", "console", "prometheus", "none", or several in a sequence. "prometheus"
            takes metrics only, and opens a port on loopback for a scrape: docs/service.md.
        tracer_provider: gets the spans; a `NoOpTracerProvider` means metrics only.
        meter_provider: gets the metrics.
        resource_attributes: describe this process on everything that is exported; the argument
            wins.
        metric_attributes: names of stage attributes that also go on metrics. Each value makes a
            series of its own, so name only attributes with few values. Both sources count.
        console: what is printed. "summary": the summary of each run, to stderr. "all": every span
            and the metrics too, beside any exporter. "off": nothing; the summary goes to the log
            at INFO. A text stream takes the summary. None: "summary" where no exporter is set, or
            the console is one, or stderr is a terminal; "off" otherwise. True is "summary", False
            is "off".
        spans_per_second: the number of spans that a stage may make in a second, over time,
            after its first thousand. Past that, all calls are still measured, and those that
            fail or are slower than the stage's p99 still get spans, as many again. Reports count
            the calls without a span. None: no limit. See docs/metrics.md#spans.
        flush_timeout: seconds that the flush at the end may take, all signals together, up to
            1,000,000; None: 5.
        spool: directory that keeps what the collector does not take. It is sent once the
            collector is back, or by `opm replay`: at least once, so that after a crash some may
            arrive twice: docs/failures.md#the-spool. None: it is dropped, and counted.
        spool_max_bytes: size of that directory at which the oldest batch is dropped.
        spool_max_age_s: age in seconds at which a batch there is dropped.
        spool_delta: allow a spool although metrics have delta temporality: a batch that arrives
            twice counts twice then.
        strict: True makes an attribute with a forbidden key a ValueError here, in `run()` and
            where a function is decorated; False drops and counts it, as everywhere else. None:
            True where no exporter is set, or the console alone.
        forbidden_keys: more attribute keys to forbid, also as the part after the last dot, in any
            spelling. docs/privacy.md lists those that are always forbidden. Both sources count.
        allowed_keys: whole keys that pass though they may identify a person, such as `user.id`;
            never a password, token, secret or API key. Both sources count.
        max_attribute_values: the number of values that an attribute, the pipeline or the error
            type may have on metrics; later values become one, `_OTHER`.
        error_messages: put the message of an exception, up to 1,000 characters, on the span
            that failed. Messages may quote data; by default only the class of an exception goes
            out.
        code_location: put `code.file.path` and `code.line.number` of a decorated function on its
            spans, beside `code.function.name`.
        logs: put the ids of trace and span on log records, and send these over OTLP where
            telemetry goes there; needs the extra `logs`. Messages may quote data. See
            docs/metrics.md#logs.
        stalled_after: seconds without any movement after which a stage with calls in progress,
            or a queue with items, counts as stalled; at least ten times the stage's p99. See
            docs/service.md#health.
        monitoring_enabled: False reads no resources of process and host, for metrics or reports,
            and watches no event loop.
        monitoring_interval: seconds between two readings of a service's resources; a run has its
            own, `resources=`.
        enable_system_metrics: report `system.*`.
        enable_performance_metrics: report `process.*`, and how late the event loop is.
        enable_business_metrics: report events, operations and the program's own metrics.
        enable_prometheus_integration: add the exporter "prometheus" to the others.
        metrics_sync_interval: seconds between two exports of metrics. None:
            OTEL_METRIC_EXPORT_INTERVAL, or 10.
        history_size: latest samples of an event or operation that quantiles are taken of.
        trace_url: the address of a trace in your backend, such as
            "https://tempo.example/trace/{trace_id}": http or https, without a password. Reports
            keep it, and their pages link to the traces.
        attach: let `opm top`, run by the same user or root, look at this process. Otherwise
            nothing listens. See docs/report.md#look-at-a-process-from-outside.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an exporter is unknown, a name is empty, `console="off"` is given beside
            `exporter="console"`, `spool` is given with delta temporality but without
            `spool_delta`, `allowed_keys` has a secret, or `strict` is in force and a key is
            forbidden here or in a stage that is defined already.
    """
    # `locals()` has every argument by its name, and nothing else yet
    given = dict(locals())
    config = options.resolve(given)
    options.warn_of_unknown_variables()
    providers = configuration.load_providers(config)
    overruled = False
    if providers is not None and os.environ.get("OTEL_CONFIG_FILE"):
        from otel_pipeline_metrics._export import config_file

        by_file = config_file.overrule(config, given)
        overruled, config = by_file is not config, by_file
    asked = configuration.ask(config, providers)
    intent = providers.intent(config) if providers is not None else None
    nothing_set = intent is not None and intent.nothing

    global _asked, _export, _exit_registered
    with _lock:
        if _export is not None and asked.is_same(_asked):
            attach_server.update(wanted=config.attach)
            watch_the_end()
            return
        # both raise before anything changes, so the earlier configuration stays in force
        if providers is not None:
            providers.check(config)
        config = configuration.with_privacy_rules(
            config, metric_attributes, strict=intent is not None and intent.development
        )
        before = _export
        _end_export()
        _export = providers.build(config) if providers is not None else None
        _asked = asked
        summary.show_telemetry = None
        summary.tell_of_more = nothing_set and config.console is None
        if _export is not None:
            if before is not None:
                before.hand_over(_export)
            telemetry_stats.exported = _export.stats
            telemetry_stats.ledgers = _export.ledgers
            telemetry_stats.pages = _export.pages
            summary.show_telemetry = _export.show_console
            if not overruled:  # or the file has said so
                configuration.warn_of_ignored(config, _export)
            if config.console is None and (nothing_set or _export.console):
                config = dataclasses.replace(config, console="summary")
        settings.replace(config)
        every_series.limit_spans(config.spans_per_second)
        cardinality.limit(config.max_attribute_values)
        sink.set_probe("resources", install_resources)
        sink.install(_sink(config, _export))
        if not _exit_registered:
            _exit_registered = True
            atexit.register(_at_exit)
            signals.at_end.append(_end_export)
        attach_server.update(wanted=config.attach)
        watch_the_end()


def watch_the_end() -> None:
    """Flush as this process ends; again, since the first call may have been in another one."""
    forking.at_end_of_child(_end_export)
    with errors.suppress_errors("watching for SIGTERM"):
        # providers of the user's are flushed at SIGTERM only during a run
        signals.watch_always(_owns_providers(_export) or attach_server.listens())


def _sink(config: Config, export: ExportPipeline | None) -> sink.OtelSink:
    if export is None:
        return sink.silent()
    try:
        return sink.OtelSink(
            export.tracer_provider,
            export.meter_provider,
            config.metric_attributes,
            owns_meter_provider=export.owns_meter_provider,
        )
    except Exception as error:  # a provider of somebody else's
        errors.logger.warning("the providers cannot be used, so nothing is exported: %r", error)
        return sink.silent()


def _owns_providers(export: ExportPipeline | None) -> bool:
    return export is not None and (export.owns_tracer_provider or export.owns_meter_provider)


def is_configured() -> bool:
    """Tell whether `configure()` was called, and `shutdown()` not since then."""
    return _export is not None


def was_configured() -> bool:
    """Tell whether `configure()` was called in this process or before it was forked."""
    return _asked is not None


def in_force() -> Config | None:
    """Return what the latest `configure()` asked for; None after `shutdown()`."""
    return None if _export is None or _asked is None else _asked.config


def stats() -> dict[str, Any]:
    """Return where spans and metric points went since `configure()`.

    `created = exported + sampled_out + dropped + spooled + pending`, for `spans` and for
    `metric_points`; `replayed` counts those sent from the spool. Unknown is None: with your own
    providers everything is. `process` names the process and the `configure()` that the counts
    belong to; they stay after `shutdown()`. `guards` counts, since the process began, the
    attributes dropped because of their key, the values that became `_OTHER`, and the messages
    that were cut.
    """
    return telemetry_stats.telemetry_stats()


def shutdown() -> None:
    """Flush everything and stop reporting, within the flush timeout.

    Providers that `configure()` built are shut down. One of yours is flushed and stays open.
    Decorated functions go on working, and runs go on writing reports. `configure()` may be
    called again.
    """
    with _lock:
        _end_export()
        attach_server.update(wanted=False)
        sink.install(sink.silent(), retire=False)
        settings.replace(Config())
        every_series.limit_spans(Config().spans_per_second)
        cardinality.limit(Config().max_attribute_values)
        privacy.activate(options.environment_rules())
        with errors.suppress_errors("watching for SIGTERM"):
            signals.watch_always(always=False)


def flush(timeout: float | None = None) -> FlushReport:
    """Send everything that is pending, all signals at once, and go on reporting.

    For work that may be followed by an end without warning, such as a task on a worker that its
    engine kills. Without `configure()`, the global providers of the program are flushed.

    Args:
        timeout: seconds after which it returns, up to 1,000,000; what is not done by then goes on
            in the background. None: the flush timeout of `configure()`.

    Returns:
        What became of the telemetry; `ok` tells whether everything was sent in time.

    Raises:
        TypeError: `timeout` is not a number.
        ValueError: it is not positive, or too large.
    """
    timeout_s = settings.settings().flush_timeout_s
    if timeout is not None:
        timeout_s = check_wait(timeout, "timeout")
    deadline = clock.monotonic() + timeout_s
    drained = False
    with errors.suppress_errors("flushing"):
        drained = sink.installed().stages.flush()
    # the lock is not taken: `configure()` in another thread may hold it for as long as it flushes
    export = _export or _global_export()
    report = export.flush(max(0.001, deadline - clock.monotonic()))
    output.write_held()
    return report if drained else dataclasses.replace(report, ok=False)


def _global_export() -> ExportPipeline:
    """Return the global providers of the program, for a flush alone."""
    global _found  # a cache
    from otel_pipeline_metrics._export import global_providers
    from otel_pipeline_metrics._export.flush import ExportPipeline, SignalPipeline

    found = global_providers.all_existing()
    traces = SignalPipeline("traces", found[0], owned=False)
    metrics = SignalPipeline("metrics", found[1], owned=False)
    export = _found
    if (
        export is None
        or export.tracer_provider is not traces.provider
        or export.meter_provider is not metrics.provider
    ):
        export = _found = ExportPipeline(traces, metrics)
    return export


def _end_export() -> None:
    global _export
    export, _export = _export, None
    summary.show_telemetry = None
    if export is None:
        return

    def flush() -> None:
        if not sink.installed().stages.flush():
            errors.logger.warning(
                "the last calls are not in the metrics: they could not be flushed in time"
            )
        export.shutdown(settings.settings().flush_timeout_s)

    with errors.suppress_errors("flushing"):
        deferring_signals(flush)


def _at_exit() -> None:
    # The user's provider flushes itself at exit, and then still reads our instruments.
    if _owns_providers(_export):
        try:
            _end_export()
        except KeyboardInterrupt:
            # the program has ended already, so the signal can only mean the flush
            errors.logger.warning("the last flush was interrupted; telemetry not yet sent is lost")


@forking.in_child
def _in_child() -> None:
    global _lock  # a thread of the parent may hold the old one
    _lock = threading.RLock()
    if _export is not None:
        forking.at_end_of_child(_end_export)

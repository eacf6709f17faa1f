"""`configure` and `shutdown`: from what the user asked for to providers in force."""

from __future__ import annotations

import atexit
import dataclasses
import math
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from otel_pipeline_metrics import _config, _guard, _series, _telemetry, _termination
from otel_pipeline_metrics import environment_variables as env
from otel_pipeline_metrics._config import EXPORTERS, Config, Console, ExporterName
from otel_pipeline_metrics._model import AttributeValue, check_attributes, check_name
from otel_pipeline_metrics._probes.metrics import install_resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics.export.providers import Telemetry as Export

_lock = threading.RLock()
_export: Export | None = None
_ended: Export | None = None
"""The one before, for `stats()` after `shutdown()`."""
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
) -> None:
    """Say where telemetry goes. Without arguments the standard OTEL_* variables decide.

    A provider given here is used; else one that the process has already, which is never
    replaced; else one is built: for `exporter`, for OTEL_* (endpoint, protocol, headers,
    exporters, service name, OTEL_SDK_DISABLED), or, without any, for the development
    console, which prints a line a span and a table of metrics to stderr. What is built here
    is flushed when the process ends. A second call replaces the first.

    Args:
        service_name: `service.name`; wins over OTEL_SERVICE_NAME.
        exporter: "otlp", "console", "none", or several in a sequence.
        tracer_provider: takes the spans; a `NoOpTracerProvider` means metrics only.
        meter_provider: takes the metrics.
        resource_attributes: describe this process on everything that is exported.
        metric_attributes: those of the stages' `attributes` that also go on metrics. Each
            value makes a series of its own, so name only those with few values.
        console: True prints run summaries to stderr, a text stream there, False nowhere.
            None prints them where the development console is on or stderr is a terminal.
        spans_per_second: how many spans a stage may make a second, over time, after its
            first thousand. Past that, invocations are still measured, one and all, and
            those that fail or are slower than the stage's p99 still get spans, as many
            again. Reports tell how many had none. None: no limit.
        flush_timeout: seconds that the flush at the end may take, all signals together; 5
            unless OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT says otherwise.
        spool: directory that keeps what the collector would not take, and from which it is
            sent once the collector is back, or by `opm replay`: at least once, so that
            after a crash some may arrive twice. None: it is dropped, and counted.
        spool_max_bytes: size of that directory at which the oldest is dropped.
        spool_max_age_s: seconds after which something kept there is dropped.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an exporter is unknown, or a name is empty.
    """
    config = Config(
        service_name=None if service_name is None else check_name(service_name, "service_name"),
        exporters=_exporters(exporter),
        tracer_provider=_provider(tracer_provider, trace.TracerProvider, "tracer_provider"),
        meter_provider=_provider(meter_provider, metrics.MeterProvider, "meter_provider"),
        resource_attributes=check_attributes(resource_attributes, "resource_attributes"),
        metric_attributes=_metric_attributes(metric_attributes),
        console=_console(console),
        spans_per_second=_spans_per_second(spans_per_second),
        flush_timeout_s=_flush_timeout(flush_timeout),
        spool=_spool(spool),
        spool_max_bytes=round(_positive(spool_max_bytes, "spool_max_bytes")),
        spool_max_age_s=_positive(spool_max_age_s, "spool_max_age_s"),
    )
    # The SDK is imported here and not before: an unconfigured program never pays for it.
    with _limits_that_are_numbers():
        from otel_pipeline_metrics.export import providers

    global _export, _exit_registered  # noqa: PLW0603 - the one place that holds them
    with _lock:
        _end_export()
        with _limits_that_are_numbers():
            _export = providers.build(config)
        _say_what_is_ignored(config, _export)
        if config.console is None and _export.console:
            config = dataclasses.replace(config, console=True)
        _config.replace(config)
        _series.limit_spans(config.spans_per_second)
        _telemetry.set_probe("resources", install_resources)
        _telemetry.install(
            _telemetry.Telemetry(
                _export.tracer_provider, _export.meter_provider, config.metric_attributes
            )
        )
        if not _exit_registered:
            _exit_registered = True
            atexit.register(_at_exit)
            _termination.at_end.append(_end_export)


def stats() -> dict[str, Any]:
    """Return where every span and metric point went since `configure()`, or until `shutdown()`.

    `created = exported + sampled_out + dropped + spooled + pending`, for `spans` and for
    `metric_points`; `replayed` are those that were sent from the spool. Unknown is None, as
    everything is where the providers are yours.
    """
    export = _export if _export is not None else _ended
    if export is None:
        counts = ("created", "exported", "sampled_out", "dropped", "spooled", "pending")
        return {
            "spans": dict.fromkeys(counts),
            "metric_points": dict.fromkeys(counts),
            "replayed": {"spans": None, "metric_points": None},
            "flush_s": None,
            "collector": None,
        }
    return export.stats()


def _say_what_is_ignored(config: Config, export: Export) -> None:
    """Providers that are there already are used as they are: what was asked for is said."""
    if not any(info.kind == "global" for info in export.exporters):
        return
    given = {
        "service_name": config.service_name,
        "exporter": config.exporters,
        "resource_attributes": config.resource_attributes,
        "spool": config.spool,
    }
    ignored = [name for name, value in given.items() if value]
    if ignored:
        _guard.logger.warning(
            "configure(): %s left out, since the process has providers already, and they are used",
            ", ".join(ignored),
        )


def shutdown() -> None:
    """Flush everything and stop reporting, within the flush timeout; `configure()` starts anew.

    Providers that `configure()` built are shut down. One of yours is flushed and stays open.
    Decorated functions go on working, and runs go on writing reports.
    """
    with _lock:
        _end_export()
        _telemetry.install(_telemetry.silent(), retire=False)
        _config.replace(Config())
        _series.limit_spans(Config().spans_per_second)


def _end_export() -> None:
    global _export, _ended  # noqa: PLW0603 - as in `configure`
    export, _export = _export, None
    if export is not None:
        _ended = export
    if export is None:
        return
    with _guard.guarded("flushing"):
        _telemetry.current().stages.settle()
        export.shutdown(_config.current().flush_timeout_s)


def _at_exit() -> None:
    # A provider of the user's ends by itself and still reads our instruments then.
    if _export is not None and (_export.owns_tracer_provider or _export.owns_meter_provider):
        _end_export()


def _exporters(exporter: object) -> tuple[ExporterName, ...] | None:
    if exporter is None:
        return None
    names: list[Any]
    if isinstance(exporter, str):
        names = [exporter]
    elif isinstance(exporter, (list, tuple, set, frozenset)):
        names = list(exporter)
    else:
        raise TypeError(
            f"exporter must be a string or a sequence of them, not {type(exporter).__name__}"
        )
    for name in names:
        if name not in EXPORTERS:
            raise ValueError(f"exporter must be of {', '.join(EXPORTERS)}, not {name!r}")
    if not names:
        raise ValueError('exporter must not be empty: "none" turns exporting off')
    if "none" in names and len(names) > 1:
        raise ValueError('exporter "none" stands alone')
    return tuple(dict.fromkeys(names))


def _provider(given: Any, kind: type, argument: str) -> Any:
    if given is not None and not isinstance(given, kind):
        raise TypeError(
            f"{argument} must be an OpenTelemetry {kind.__name__}, not {type(given).__name__}"
        )
    return given


def _metric_attributes(names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, (list, tuple, set, frozenset)):
        raise TypeError(
            f"metric_attributes must be a sequence of strings, not {type(names).__name__}"
        )
    given = [check_name(name, "metric_attributes") for name in names]
    named = os.environ.get(env.OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES, "")
    given += [name.strip() for name in named.split(",") if name.strip()]
    return tuple(dict.fromkeys(given))


def _console(console: Any) -> Console:
    if console is None:
        said = os.environ.get(env.OTEL_PIPELINE_METRICS_CONSOLE, "").strip().lower()
        if said and said not in ("true", "false"):
            _guard.once(
                env.OTEL_PIPELINE_METRICS_CONSOLE,
                "%s must be true or false, not %r; left out",
                env.OTEL_PIPELINE_METRICS_CONSOLE,
                said,
            )
        return {"true": True, "false": False}.get(said)
    if isinstance(console, bool) or hasattr(console, "write"):
        checked: Console = console
        return checked
    raise TypeError(
        f"console must be True, False, None or a text stream, not {type(console).__name__}"
    )


def _spans_per_second(rate: Any) -> float | None:
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise TypeError(f"spans_per_second must be a number or None, not {type(rate).__name__}")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"spans_per_second must be finite and not negative, not {rate}")
    return float(rate)


@contextmanager
def _limits_that_are_numbers() -> Iterator[None]:
    """Hide broken limits from the SDK, which reads them, and fails, while it is imported."""
    broken = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("OTEL_")
        and name.endswith(("_COUNT_LIMIT", "_LENGTH_LIMIT"))
        and value.strip()
        and not value.strip().isdecimal()
    }
    for name in broken:
        _guard.once(name, "%s must be a whole number; it is left out", name)
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(broken)


def _positive(number: Any, argument: str) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{argument} must be a number, not {type(number).__name__}")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{argument} must be finite and positive, not {number}")
    return float(number)


def _spool(spool: Any) -> Path | None:
    if spool is None:
        return None
    if not isinstance(spool, (str, os.PathLike)):
        raise TypeError(f"spool must be a path or None, not {type(spool).__name__}")
    if not os.fspath(spool):
        raise ValueError("spool must not be empty")
    return Path(spool)


def _flush_timeout(given: Any) -> float:
    if given is not None:
        return _positive(given, "flush_timeout")
    default = Config().flush_timeout_s
    said = os.environ.get(env.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT, "").strip()
    if not said:
        return default
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        _guard.once(
            env.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT,
            "%s must be a positive number of seconds, not %r; %g is used",
            env.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT,
            said,
            default,
        )
        return default
    return seconds

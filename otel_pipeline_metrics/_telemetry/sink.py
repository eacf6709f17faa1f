"""Report spans and metrics to OpenTelemetry, through the API alone.

There is one set of instruments at a time. Before `configure()` it uses the global providers,
which get everything once the user sets them; `configure()` replaces the whole set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from otel_pipeline_metrics._core import cardinality, drain, stage_totals
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._telemetry import values
from otel_pipeline_metrics._telemetry.instruments import InstrumentSet, meter_of
from otel_pipeline_metrics._telemetry.run_metrics import RunMetrics
from otel_pipeline_metrics._telemetry.sdk_private import reset_after_fork
from otel_pipeline_metrics._telemetry.spans import OpenRun, Spans
from otel_pipeline_metrics._telemetry.stage_metrics import StageMetrics
from otel_pipeline_metrics._telemetry.values import ValueMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.records import Sink


__all__ = [
    "OpenRun",
    "OtelSink",
    "add_probe",
    "add_sink",
    "install",
    "installed",
    "set_probe",
    "silent",
]


class OtelSink:
    """The spans and metrics on one pair of providers.

    In a forked child all metrics of a meter provider that `configure()` built start at zero,
    also those that the program made on it. On any other provider only ours do.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        metric_attributes: tuple[str, ...] = (),
        *,
        owns_meter_provider: bool = False,
    ) -> None:
        self.instruments = InstrumentSet(meter_of(meter_provider), meter_provider)
        self.spans = Spans(tracer_provider)
        distinct = cardinality.Distinct()
        self.stages = StageMetrics(self.instruments, metric_attributes, distinct)
        self.runs = RunMetrics(self.instruments, distinct)
        self.values = ValueMetrics(self.instruments)
        self.stages.flush_values = self.values.flush
        self._probes: set[str] = set()
        self._owns_meter_provider = owns_meter_provider
        forking.watch(self)

    def after_fork(self) -> None:
        self.stages.after_fork()
        self.runs.after_fork()
        self.values.after_fork()
        reset_after_fork.reset(self.instruments.provider(), self._restarts)

    def _restarts(self, instrument: Any) -> bool:
        scope = getattr(instrument, "instrumentation_scope", None)
        return self._owns_meter_provider or getattr(scope, "name", None) == defs.SCOPE

    def probe(self, name: str, install_on: Callable[[InstrumentSet], None]) -> None:
        """Install a probe's instruments, unless one of that name is installed."""
        if name not in self._probes:
            self._probes.add(name)
            install_on(self.instruments)


_telemetry: OtelSink | None = None
_earlier: list[OtelSink] = []
_probes: dict[str, Callable[[InstrumentSet], None]] = {}
_more_sinks: list[Sink] = [stage_totals.totals]


def install(telemetry: OtelSink, *, retire: bool = True) -> None:
    """Replace the sink; flush what has finished until now to the one before.

    Args:
        telemetry: reports from now on.
        retire: silence the earlier sinks. Otherwise they continue to report their totals, so
            that a provider that outlives `shutdown()` still finds them at its own last
            collection, until the next sink replaces them.
    """
    global _telemetry
    before = _telemetry
    if before is not None:
        before.stages.flush()
        _earlier.append(before)
    if retire:
        for earlier in _earlier:
            earlier.instruments.retire(telemetry.instruments)
            telemetry.runs.take_over(earlier.runs)
        _earlier.clear()
    _telemetry = telemetry
    telemetry.spans.put_in_force()
    values.flush_full = telemetry.values.flush_full
    _update_sinks()
    if before is not None:
        stages = before.stages
        drain.drain(lambda: telemetry.stages.take_over(stages))
    for name, install_on in _probes.items():
        telemetry.probe(name, install_on)


def add_sink(more: Sink) -> None:
    """Give the results of every scope to another sink too, whatever is installed."""
    if more not in _more_sinks:
        _more_sinks.append(more)
        installed()
        _update_sinks()


def _update_sinks() -> None:
    stages = () if _telemetry is None else (_telemetry.stages,)
    drain.set_sinks((*stages, *_more_sinks))


def installed() -> OtelSink:
    """Return the current sink; before `configure()`, one on the global providers."""
    if _telemetry is None:
        install(OtelSink())
    assert _telemetry is not None  # noqa: S101 - install has just set it
    return _telemetry


def silent() -> OtelSink:
    """Return a sink that reports nothing."""
    return OtelSink(trace.NoOpTracerProvider(), metrics.NoOpMeterProvider())


def add_probe(name: str, install_on: Callable[[InstrumentSet], None]) -> None:
    """Report a probe from now on, unless one of that name is installed."""
    _probes.setdefault(name, install_on)
    installed().probe(name, install_on)


def set_probe(name: str, install_on: Callable[[InstrumentSet], None]) -> None:
    """Replace the probe of that name from the next `install` on."""
    _probes[name] = install_on

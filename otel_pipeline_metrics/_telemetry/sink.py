"""The OpenTelemetry sink: spans and metrics through the API alone, no SDK.

There is one set of instruments at a time. Unconfigured it stands on the global providers,
which take everything once the user sets them; `configure()` replaces the set whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from otel_pipeline_metrics._core import cardinality, drain, hooks, metric_definitions
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._telemetry.instruments import InstrumentSet, meter_of
from otel_pipeline_metrics._telemetry.run_metrics import RunMetrics
from otel_pipeline_metrics._telemetry.sdk_private import reset_after_fork
from otel_pipeline_metrics._telemetry.spans import OpenRun, Spans
from otel_pipeline_metrics._telemetry.stage_metrics import StageMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


__all__ = ["OpenRun", "OtelSink", "add_probe", "install", "installed", "set_probe", "silent"]


class OtelSink:
    """Everything that reports to one pair of providers.

    In a forked child all metrics of a meter provider that `configure()` built start from zero,
    those that the program made on it too. On any other one only ours do.
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
        self._probes: set[str] = set()
        self._owns_meter_provider = owns_meter_provider
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at nothing: what came before is the parent's to report."""
        self.stages.after_fork()
        self.runs.after_fork()
        reset_after_fork.reset(self.instruments.where(), self._starts_anew)

    def _starts_anew(self, instrument: Any) -> bool:
        scope = getattr(instrument, "instrumentation_scope", None)
        return self._owns_meter_provider or getattr(scope, "name", None) == metric_definitions.SCOPE

    def probe(self, name: str, install_on: Callable[[InstrumentSet], None]) -> None:
        """Put a probe's instruments on this set, unless they are there already."""
        if name not in self._probes:
            self._probes.add(name)
            install_on(self.instruments)


_telemetry: OtelSink | None = None
_earlier: list[OtelSink] = []
_probes: dict[str, Callable[[InstrumentSet], None]] = {}


def install(telemetry: OtelSink, *, retire: bool = True) -> None:
    """Let `telemetry` take over; what has finished until now goes to the one before.

    Args:
        telemetry: what reports from now on.
        retire: silence those before. Otherwise they go on reporting the totals they have, so
            that a provider that outlives `shutdown()` still finds them at its own last
            collection, until the next one takes over.
    """
    global _telemetry  # the one place that holds it
    before = _telemetry
    if before is not None:
        before.stages.flush()
        _earlier.append(before)
    if retire:
        for earlier in _earlier:
            earlier.instruments.retire(telemetry.instruments)
        _earlier.clear()
    _telemetry = telemetry
    # where spans are never wanted, the hot path does not even ask
    hooks.tracing = None if telemetry.spans.disabled else telemetry.spans
    drain.set_sinks((telemetry.stages,))
    if before is not None:
        stages = before.stages
        drain.drain(lambda: telemetry.stages.take_over(stages))
    for name, install_on in _probes.items():
        telemetry.probe(name, install_on)


def installed() -> OtelSink:
    """Return the telemetry in force, on the global providers where nobody configured any."""
    if _telemetry is None:
        install(OtelSink())
    assert _telemetry is not None  # noqa: S101 - install has just set it
    return _telemetry


def silent() -> OtelSink:
    """Return telemetry that reports to nobody."""
    return OtelSink(trace.NoOpTracerProvider(), metrics.NoOpMeterProvider())


def add_probe(name: str, install_on: Callable[[InstrumentSet], None]) -> None:
    """Report a probe's readings from now on, unless there is one of that name already."""
    _probes.setdefault(name, install_on)
    installed().probe(name, install_on)


def set_probe(name: str, install_on: Callable[[InstrumentSet], None]) -> None:
    """Have this probe, and none before it of that name, on the next configuration."""
    _probes[name] = install_on

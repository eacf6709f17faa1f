"""Keep what providers get, and reset all state around each test."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._probes.caches import registry
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._telemetry import sink
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

Attributes = tuple[tuple[str, Any], ...]


class Captured:
    """A user's pair of providers, with everything they got."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def configure(self, **arguments: Any) -> None:
        opm.configure(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **arguments
        )

    def install(self) -> None:
        """Make them the global providers."""
        trace.set_tracer_provider(self.tracer_provider)
        metrics.set_meter_provider(self.meter_provider)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span_names(self) -> list[str]:
        return [span.name for span in self.spans()]

    def points(self) -> dict[str, list[Any]]:
        """Collect, and return all points by the name of their metric."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def values(self, name: str, *labels: str) -> dict[Any, Any]:
        """Collect, and return the values of a metric, or counts of a histogram, by labels."""
        return {
            tuple((point.attributes or {}).get(label) for label in labels)
            if len(labels) != 1
            else (point.attributes or {}).get(labels[0]): (
                point.count if hasattr(point, "bucket_counts") else point.value
            )
            for point in self.points().get(name, [])
        }

    def close(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


@contextmanager
def clean_slate() -> Iterator[None]:
    """Remove global providers and the configuration, before and after."""
    kept = (
        # a configuration file may replace it
        (propagate, "_HTTP_TEXT_FORMAT", propagate.get_global_textmap()),
        (trace, "_TRACER_PROVIDER", None),
        (trace, "_TRACER_PROVIDER_SET_ONCE", Once()),
        (metrics_internal, "_METER_PROVIDER", None),
        (metrics_internal, "_METER_PROVIDER_SET_ONCE", Once()),
        (metrics_internal, "_PROXY_METER_PROVIDER", metrics_internal._ProxyMeterProvider()),
    )
    before = [getattr(module, name) for module, name, _ in kept]
    recorded = probe.manual()
    variables = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OTEL_")
    }
    for module, name, value in kept:
        setattr(module, name, value)
    registry.reset()
    privacy.activate(privacy.Rules())
    # the state after the import, on present and later global providers; pending results are
    # dropped
    sink.install(sink.silent())
    sink.install(sink.OtelSink())
    try:
        yield
    finally:
        opm.shutdown()
        registry.reset()
        probe._manual = recorded
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            del os.environ[name]
        os.environ.update(variables)
        for (module, name, _), value in zip(kept, before, strict=True):
            setattr(module, name, value)
        sink.install(sink.OtelSink())
        errors.reset()


def run_python(
    program: str | Path, *arguments: object, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a file or a program's text, with the given OTEL_* variables only."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    command = ["-c", program] if isinstance(program, str) else [str(program)]
    return subprocess.run(
        [sys.executable, "-W", "error", *command, *map(str, arguments)],
        cwd=cwd or ROOT,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

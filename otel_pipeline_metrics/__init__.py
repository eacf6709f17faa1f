"""OpenTelemetry instrumentation for data pipelines: which stage holds the pipeline back.

    import otel_pipeline_metrics as opm

    opm.configure()

    @opm.fetch
    async def pages(): ...

    with opm.run("nightly", report="out/export_metrics.json") as run:
        ...

Importing this loads neither the OpenTelemetry SDK nor psutil.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics import _hooks
from otel_pipeline_metrics import _telemetry as _telemetry_room
from otel_pipeline_metrics._execution import Execution
from otel_pipeline_metrics._model import StageResult
from otel_pipeline_metrics._stage import Stage, current_stage, fetch, process, stage, write
from otel_pipeline_metrics._version import __version__
from otel_pipeline_metrics._waiting import waiting
from otel_pipeline_metrics.environment_variables import JUDGING as _JUDGING

if TYPE_CHECKING:
    from otel_pipeline_metrics._configure import configure, shutdown, stats

    # the alias re-exports it; `import *` must not ask for an extra that may not be there
    from otel_pipeline_metrics._instrumentor import (
        PipelineMetricsInstrumentor as PipelineMetricsInstrumentor,
    )
    from otel_pipeline_metrics._manual import MetricsCollector, get_metrics_collector
    from otel_pipeline_metrics._probes._queue_kinds import wrap_queue
    from otel_pipeline_metrics._probes.caches import (
        counted_cache,
        register_cache,
        unregister_cache,
    )
    from otel_pipeline_metrics._probes.monitor import ResourceMonitor, ResourceSummary
    from otel_pipeline_metrics._propagate import propagate, wrap_executor
    from otel_pipeline_metrics._readings import CacheReading, ResourceReading
    from otel_pipeline_metrics._run import Run, run
    from otel_pipeline_metrics.report import RunReport

__all__ = [
    "CacheReading",
    "Execution",
    "MetricsCollector",
    "ResourceMonitor",
    "ResourceReading",
    "ResourceSummary",
    "Run",
    "RunReport",
    "Stage",
    "StageResult",
    "__version__",
    "configure",
    "counted_cache",
    "current_stage",
    "fetch",
    "get_metrics_collector",
    "process",
    "propagate",
    "register_cache",
    "run",
    "shutdown",
    "stage",
    "stats",
    "unregister_cache",
    "waiting",
    "wrap_executor",
    "wrap_queue",
    "write",
]

# Unconfigured, stages report to whatever global providers the program sets.
_telemetry_room.current()
# What is decorated before `configure()`, or without it, is judged by the environment.
if any(name in os.environ for name in _JUDGING):
    from otel_pipeline_metrics import _arguments, _privacy

    _privacy.put_in_force(_arguments.rules_of_the_environment())


def _watch_workers() -> None:
    """Load the accounting of workers, and begin it: something waits for the first time."""
    from otel_pipeline_metrics import _workers

    _workers.watch()


_hooks.watch = _watch_workers

# Loaded when first asked for: a module that only decorates functions pays for nothing else.
_LAZY = {
    name: f"otel_pipeline_metrics.{module}"
    for module, names in {
        "_configure": ("configure", "shutdown", "stats"),
        "_instrumentor": ("PipelineMetricsInstrumentor",),
        "_manual": ("MetricsCollector", "get_metrics_collector"),
        "_probes._queue_kinds": ("wrap_queue",),
        "_probes.caches": ("counted_cache", "register_cache", "unregister_cache"),
        "_probes.monitor": ("ResourceMonitor", "ResourceSummary"),
        "_propagate": ("propagate", "wrap_executor"),
        "_readings": ("CacheReading", "ResourceReading"),
        "_run": ("Run", "run"),
        "report": ("RunReport",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

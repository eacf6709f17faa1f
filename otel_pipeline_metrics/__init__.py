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
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics import _telemetry as _telemetry_room
from otel_pipeline_metrics._configure import configure, shutdown, stats
from otel_pipeline_metrics._execution import Execution
from otel_pipeline_metrics._manual import MetricsCollector, get_metrics_collector
from otel_pipeline_metrics._model import CacheReading, ResourceReading, StageResult
from otel_pipeline_metrics._probes.caches import (
    counted_cache,
    register_cache,
    unregister_cache,
)
from otel_pipeline_metrics._probes.metrics import install_caches as _install_caches
from otel_pipeline_metrics._probes.metrics import install_queues as _install_queues
from otel_pipeline_metrics._probes.monitor import ResourceMonitor, ResourceSummary
from otel_pipeline_metrics._run import Run, run
from otel_pipeline_metrics._stage import Stage, current_stage, fetch, process, stage, write
from otel_pipeline_metrics._version import __version__
from otel_pipeline_metrics._waiting import waiting
from otel_pipeline_metrics.report import RunReport

if TYPE_CHECKING:
    # the alias re-exports it; `import *` must not ask for an extra that may not be there
    from otel_pipeline_metrics._instrumentor import (
        PipelineMetricsInstrumentor as PipelineMetricsInstrumentor,
    )
    from otel_pipeline_metrics._probes._queue_kinds import wrap_queue

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
    "register_cache",
    "run",
    "shutdown",
    "stage",
    "stats",
    "unregister_cache",
    "waiting",
    "wrap_queue",
    "write",
]

# Unconfigured, stages and caches report to whatever global providers the program sets.
_telemetry_room.add_probe("caches", _install_caches)
_telemetry_room.add_probe("queues", _install_queues)


_LAZY = {
    # needs the extra `instrument`, which only `opentelemetry-instrument` programs have
    "PipelineMetricsInstrumentor": "otel_pipeline_metrics._instrumentor",
    # needs asyncio and multiprocessing, which many programs never load
    "wrap_queue": "otel_pipeline_metrics._probes._queue_kinds",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value

"""Find the stage that holds a data pipeline back, with OpenTelemetry.

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

from otel_pipeline_metrics._core import errors, hooks, options, privacy
from otel_pipeline_metrics._core.records import StageResult
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._stages.execution import Execution
from otel_pipeline_metrics._stages.stage import Stage, current_stage, fetch, process, stage, write
from otel_pipeline_metrics._stages.waiting import waiting
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.flush import FlushReport
    from otel_pipeline_metrics._lifecycle.collector import MetricsCollector, get_metrics_collector
    from otel_pipeline_metrics._lifecycle.configure import configure, flush, shutdown, stats

    # The alias re-exports it. It is not in `__all__`, since `import *` must work without the extra.
    from otel_pipeline_metrics._lifecycle.instrumentor import (
        PipelineMetricsInstrumentor as PipelineMetricsInstrumentor,
    )
    from otel_pipeline_metrics._lifecycle.part import part
    from otel_pipeline_metrics._lifecycle.run import Run, run
    from otel_pipeline_metrics._lifecycle.track import track
    from otel_pipeline_metrics._pools.workers import workers
    from otel_pipeline_metrics._probes.caches.counted_lru import counted_lru_cache
    from otel_pipeline_metrics._probes.caches.reading import CacheReading
    from otel_pipeline_metrics._probes.caches.register import (
        counted_cache,
        register_cache,
        unregister_cache,
    )
    from otel_pipeline_metrics._probes.handoff.consume import consume
    from otel_pipeline_metrics._probes.handoff.headers import extract, inject
    from otel_pipeline_metrics._probes.limits.executor import wrap_executor
    from otel_pipeline_metrics._probes.limits.wrap import wrap_limit
    from otel_pipeline_metrics._probes.queues.wrap import wrap_queue
    from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor, ResourceSummary
    from otel_pipeline_metrics._probes.resources.reading import ResourceReading
    from otel_pipeline_metrics._stages.propagate import propagate
    from otel_pipeline_metrics._telemetry.own_metrics import counter, gauge, histogram
    from otel_pipeline_metrics.report import RunReport


__all__ = [
    "CacheReading",
    "Execution",
    "FlushReport",
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
    "consume",
    "counted_cache",
    "counted_lru_cache",
    "counter",
    "current_stage",
    "extract",
    "fetch",
    "flush",
    "gauge",
    "get_metrics_collector",
    "histogram",
    "inject",
    "part",
    "process",
    "propagate",
    "register_cache",
    "run",
    "shutdown",
    "stage",
    "stats",
    "track",
    "unregister_cache",
    "waiting",
    "workers",
    "wrap_executor",
    "wrap_limit",
    "wrap_queue",
    "write",
]


# Before `configure()`, stages report to the global providers that the program sets.
sink.installed()


# Stages that are decorated before `configure()`, or without it, follow the environment's rules.
if any(option.at_import and option.variable in os.environ for option in options.OPTIONS):
    privacy.activate(options.environment_rules())


def _watch_workers() -> None:
    """Load and start the accounting of workers, at the first wait."""
    from otel_pipeline_metrics._stages.workers import accounting

    accounting.watch()


hooks.watch = _watch_workers


def _open_part(context: dict[str, Any]) -> hooks.OpenPart:
    """Load what measures parts of other processes' runs, at the first one."""
    from otel_pipeline_metrics._lifecycle.part import Part

    return Part(context)


def _begin_work() -> Callable[[], None]:
    """Load what configures and flushes a worker, at its first work of another process."""
    from otel_pipeline_metrics._lifecycle.worker_parts import begin_work

    return begin_work()


hooks.open_part = _open_part
hooks.begin_work = _begin_work

# Loaded at first use: a module that only decorates functions loads none of them.
_LAZY = {
    name: f"otel_pipeline_metrics.{module}"
    for module, names in {
        "_export.flush": ("FlushReport",),
        "_lifecycle.collector": ("MetricsCollector", "get_metrics_collector"),
        "_lifecycle.configure": ("configure", "flush", "shutdown", "stats"),
        "_lifecycle.instrumentor": ("PipelineMetricsInstrumentor",),
        "_pools.workers": ("workers",),
        "_probes.queues.wrap": ("wrap_queue",),
        "_probes.handoff.consume": ("consume",),
        "_probes.handoff.headers": ("extract", "inject"),
        "_probes.limits.wrap": ("wrap_limit",),
        "_probes.caches.counted_lru": ("counted_lru_cache",),
        "_probes.caches.register": ("counted_cache", "register_cache", "unregister_cache"),
        "_probes.resources.monitor": ("ResourceMonitor", "ResourceSummary"),
        "_stages.propagate": ("propagate",),
        "_probes.limits.executor": ("wrap_executor",),
        "_telemetry.own_metrics": ("counter", "gauge", "histogram"),
        "_probes.caches.reading": ("CacheReading",),
        "_probes.resources.reading": ("ResourceReading",),
        "_lifecycle.part": ("part",),
        "_lifecycle.run": ("Run", "run"),
        "_lifecycle.track": ("track",),
        "report": ("RunReport",),
    }.items()
    for name in names
}

# what a program calls for its telemetry alone, so that it must not fail
_HARMLESS = {"configure", "shutdown"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    except OSError as error:  # as without file descriptors: the module cannot be read
        if name not in _HARMLESS:
            raise
        errors.logger.warning("%s() does nothing now: %r", name, error)
        return lambda **_: None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

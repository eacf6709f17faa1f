"""A service whose telemetry is refused in part, and one of whose stages hangs; it knows of what.

    python -m tests.system.backends.dashboards.lossy SPOOL LOG

The one that takes its telemetry is `tests.system.backends.dashboards.receiver`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

import otel_pipeline_metrics as opm
from otel_pipeline_metrics.service import MetricsManager
from tests.system.backends.dashboards.log import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExportResult

SPOOL, OUT = Path(sys.argv[1]), Path(sys.argv[2])
log = Log()


def time_exports() -> None:
    """Note how long each export of metrics takes."""
    export = OTLPMetricExporter.export

    def timed(exporter: OTLPMetricExporter, *arguments: Any, **more: Any) -> MetricExportResult:
        with log.timing("metrics"):
            return export(exporter, *arguments, **more)

    OTLPMetricExporter.export = timed  # type: ignore[method-assign, assignment]


def hang(released: threading.Event) -> None:
    with opm.stage("stuck"):
        released.wait()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def main() -> None:
    for spans in (1, 10, 7):
        for _ in range(spans):
            with opm.stage("work"):
                pass
        opm.flush(30)
    released = threading.Event()
    hanging = threading.Thread(target=hang, args=(released,))
    hanging.start()
    manager = MetricsManager(
        OUT.with_suffix(".operations"), flush_interval_seconds=3600, max_queue_size=20
    )
    async with manager:
        for _ in range(25):
            await manager.record_operation("database", "insert", 1.0)
        print("busy", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        log.facts["end"] = time.time()
        log.facts["spool"] = size_of(SPOOL)
        log.write(OUT)
        await asyncio.to_thread(sys.stdin.read)
    released.set()
    hanging.join()


time_exports()
opm.configure(exporter="otlp", service_name="lossy", console=False, spool=SPOOL, stalled_after=2)
asyncio.run(main())

"""Report the health of the telemetry itself: what arrives, what is lost, what waits on disk.

Where the semantic conventions have a name for it, `otel.sdk.*`, that name is used, unless the SDK
has been told to report these itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._export.delivery import spool
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.values import measure
from otel_pipeline_metrics.service.known_managers import managers

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._export.environment import Signal
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


# The SDK's own switch for its metrics about itself; off by default.
_SDK_REPORTS: Final = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"

_EXPORT_DURATION: Final = measure(defs.SDK_EXPORT_DURATION)


def watch() -> None:
    """Report the health of the telemetry from now on."""
    sink.add_probe("own health", _install)


def _install(instruments: InstrumentSet) -> None:
    level, counter = instruments.observable_up_down_counter, instruments.observable_counter
    level(defs.SPOOL_SIZE, _spool_size)
    counter(defs.OPERATIONS_DROPPED, _dropped)
    level(defs.OPERATIONS_PENDING, _pending)
    instruments.observable_gauge(defs.CONTAINER_CPU_LIMIT, lambda: [(cgroup.limits().cpus, {})])
    instruments.observable_gauge(defs.CONTAINER_MEMORY_LIMIT, _memory_limit)
    if os.environ.get(_SDK_REPORTS, "").strip().lower() == "true":
        return
    counter(defs.SDK_SPANS_EXPORTED, _exported("traces"))
    counter(defs.SDK_POINTS_EXPORTED, _exported("metrics"))


def _spool_size() -> list[Point]:
    directories = {ledger.kept_in for ledger in telemetry_stats.ledgers} - {None}
    return [(sum(spool.size_of(Path(str(one))) for one in directories), {})] if directories else []


def _dropped() -> list[Point]:
    found = list(managers)
    return [(sum(manager.counts()[1] for manager in found), {})] if found else []


def _pending() -> list[Point]:
    found = list(managers)
    return [(sum(manager.counts()[0] for manager in found), {})] if found else []


def _memory_limit() -> list[Point]:
    limit = cgroup.limits().memory_bytes
    return [] if limit is None else [(limit, {})]


def _exported(signal: Signal) -> Callable[[], list[Point]]:
    def points() -> list[Point]:
        found: list[Point] = []
        for number, ledger in enumerate(telemetry_stats.ledgers):
            if ledger.signal != signal:
                continue
            name = {defs.SDK_COMPONENT: f"{ledger.kind}/{number}"}
            failed = {**name, defs.ERROR_TYPE: cardinality.OTHER}
            state = ledger.snapshot()
            found += [(state.exported, name), (state.dropped, failed)]
            while ledger.durations:
                # recorded at the next collection
                seconds, ok = ledger.durations.popleft()
                _EXPORT_DURATION.record(seconds, tuple((name if ok else failed).items()))
        return found

    return points

"""The probes as observable instruments."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors, metric_definitions
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._telemetry.instruments import Snapshot, point_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._probes.resources.reading import ResourceReading
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


_SHARED_AGE_S: Final = 0.05
"""Two exporters that collect at the same moment share one look at psutil."""

_CONTRIB: Final = "opentelemetry.instrumentation.system_metrics"


def install_resources(instruments: InstrumentSet, *, psutil: bool = True) -> None:
    """Report what this process and its host use.

    Nothing is reported where contrib's `SystemMetricsInstrumentor` is on: it uses the same
    names. Two metrics keep their states as one value without an attribute, as the conventions
    allow: `process.cpu.utilization` and `system.cpu.utilization`.

    Args:
        instruments: where to.
        psutil: False reports only what `resources.record_manual` was given.
    """
    contrib = _Contrib()
    if not psutil:
        snapshot = Snapshot(probe.manual)
    else:
        reader = probe.shared().reader()
        # The first look has no utilisation: take it now, so that the first export has one.
        with errors.suppress_errors("resources"):
            reader.read()
        snapshot = Snapshot(lambda: reader.read(_SHARED_AGE_S))

    def points(*fields: tuple[str, dict[str, str]]) -> Callable[[], Iterator[Point]]:
        read = snapshot.reader()

        def callback() -> Iterator[Point]:
            if contrib.is_on():
                return
            reading: ResourceReading = read()
            for field, attributes in fields:
                yield from point_of(reading, field, attributes)

        return callback

    gauge = instruments.observable_gauge
    counter = instruments.observable_counter
    level = instruments.observable_up_down_counter
    gauge(metric_definitions.PROCESS_CPU_UTILIZATION, points(("cpu_utilization", {})))
    level(metric_definitions.PROCESS_MEMORY_USAGE, points(("rss_bytes", {})))
    if not psutil:
        return
    for make, metric, fields in (
        (counter, metric_definitions.PROCESS_CPU_TIME, _CPU_TIME),
        (level, metric_definitions.PROCESS_MEMORY_VIRTUAL, (("vms_bytes", {}),)),
        (level, metric_definitions.PROCESS_THREAD_COUNT, (("thread_count", {}),)),
        (level, metric_definitions.PROCESS_FD_COUNT, (("fd_count", {}),)),
        (counter, metric_definitions.PROCESS_DISK_IO, _DISK_IO),
        (counter, metric_definitions.PROCESS_CONTEXT_SWITCHES, _CONTEXT_SWITCHES),
        (gauge, metric_definitions.SYSTEM_CPU_UTILIZATION, (("system_cpu_utilization", {}),)),
        (level, metric_definitions.SYSTEM_MEMORY_USAGE, (("system_memory_used_bytes", _USED),)),
        (
            gauge,
            metric_definitions.SYSTEM_MEMORY_UTILIZATION,
            (("system_memory_utilization", _USED),),
        ),
        (counter, metric_definitions.SYSTEM_NETWORK_IO, _NETWORK_IO),
    ):
        make(metric, points(*fields))


_USED: Final = {metric_definitions.MEMORY_STATE: "used"}


_CPU_TIME: Final = (
    ("cpu_user_s", {metric_definitions.CPU_MODE: "user"}),
    ("cpu_system_s", {metric_definitions.CPU_MODE: "system"}),
)


_DISK_IO: Final = (
    ("disk_read_bytes", {metric_definitions.DISK_IO_DIRECTION: "read"}),
    ("disk_write_bytes", {metric_definitions.DISK_IO_DIRECTION: "write"}),
)


_CONTEXT_SWITCHES: Final = (
    ("context_switches_voluntary", {metric_definitions.CONTEXT_SWITCH_TYPE: "voluntary"}),
    ("context_switches_involuntary", {metric_definitions.CONTEXT_SWITCH_TYPE: "involuntary"}),
)


_NETWORK_IO: Final = (
    ("network_receive_bytes", {metric_definitions.NETWORK_IO_DIRECTION: "receive"}),
    ("network_transmit_bytes", {metric_definitions.NETWORK_IO_DIRECTION: "transmit"}),
)


class _Contrib:
    """Whether contrib's system metrics are on, asked at every collection, as either may be first.

    Its `uninstrument()` leaves its instruments running, so once seen it stays on.
    """

    def __init__(self) -> None:
        self._seen = False

    def is_on(self) -> bool:
        if not self._seen and _contrib_is_instrumented():
            self._seen = True
            errors.logger.info(
                "opentelemetry-instrumentation-system-metrics is on: "
                "process.* and system.* metrics are left to it"
            )
        return self._seen


def _contrib_is_instrumented() -> bool:
    # Not imported by us, and not constructed: constructing it resets its configuration.
    instrumentor = getattr(sys.modules.get(_CONTRIB), "SystemMetricsInstrumentor", None)
    only = getattr(instrumentor, "_instance", None)
    return getattr(only, "is_instrumented_by_opentelemetry", False) is True

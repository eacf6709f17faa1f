"""Report resources of the process and its host as observable instruments."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors, settings
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._probes.resources import filesystems, probe
from otel_pipeline_metrics._telemetry.instruments import Snapshot, point_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._probes.resources.reading import ResourceReading
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


_CONTRIB: Final = "opentelemetry.instrumentation.system_metrics"


def install_resources(instruments: InstrumentSet, *, psutil: bool = True) -> None:
    """Report the resources that this process and its host use.

    Nothing is reported while contrib's `SystemMetricsInstrumentor` is on: it uses the same
    names. `process.cpu.utilization` and `system.cpu.utilization` are one value for all modes,
    without an attribute, as the conventions allow. The settings leave out the process, the host,
    or all readings.

    Args:
        instruments: the set to add them to.
        psutil: False reports only the values given to `probe.record_manual()`.
    """
    contrib = _Contrib()
    asked = settings.settings()
    psutil &= asked.monitoring_enabled
    if not psutil:
        snapshot = Snapshot(probe.manual)
    else:
        reader = probe.shared().reader()
        # The first reading has no utilisation: take it now, so that the first export has one.
        with errors.suppress_errors("resources"):
            reader.read()
        snapshot = Snapshot(lambda: reader.read(probe.SHARED_AGE_S))

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
    by_hand: tuple[Any, ...] = (
        (gauge, defs.PROCESS_CPU_UTILIZATION, (("cpu_utilization", {}),)),
        (level, defs.PROCESS_MEMORY_USAGE, (("rss_bytes", {}),)),
    )
    of_process: tuple[Any, ...] = (
        (counter, defs.PROCESS_CPU_TIME, _CPU_TIME),
        (level, defs.PROCESS_MEMORY_VIRTUAL, (("vms_bytes", {}),)),
        (level, defs.PROCESS_THREAD_COUNT, (("thread_count", {}),)),
        (level, defs.PROCESS_FD_COUNT, (("fd_count", {}),)),
        (counter, defs.PROCESS_DISK_IO, _DISK_IO),
        (counter, defs.PROCESS_CONTEXT_SWITCHES, _CONTEXT_SWITCHES),
    )
    of_host: tuple[Any, ...] = (
        (gauge, defs.SYSTEM_CPU_UTILIZATION, (("system_cpu_utilization", {}),)),
        (level, defs.SYSTEM_MEMORY_USAGE, (("system_memory_used_bytes", _USED),)),
        (gauge, defs.SYSTEM_MEMORY_UTILIZATION, (("system_memory_utilization", _USED),)),
        (counter, defs.SYSTEM_NETWORK_IO, _NETWORK_IO),
        (counter, defs.SYSTEM_DISK_IO, _SYSTEM_DISK_IO),
    )
    process = (*by_hand, *of_process) if psutil else by_hand
    host = of_host if psutil and asked.enable_system_metrics else ()
    for make, metric, fields in (*(process if asked.enable_performance_metrics else ()), *host):
        make(metric, points(*fields))
    if host:
        gauge(
            defs.SYSTEM_FILESYSTEM_UTILIZATION,
            lambda: [] if contrib.is_on() else filesystems.points(),
        )


_USED: Final = {defs.MEMORY_STATE: "used"}
_CPU_TIME: Final = (
    ("cpu_user_s", {defs.CPU_MODE: "user"}),
    ("cpu_system_s", {defs.CPU_MODE: "system"}),
)
_DISK_IO: Final = (
    ("disk_read_bytes", {defs.DISK_IO_DIRECTION: "read"}),
    ("disk_write_bytes", {defs.DISK_IO_DIRECTION: "write"}),
)
_SYSTEM_DISK_IO: Final = (
    ("system_disk_read_bytes", {defs.DISK_IO_DIRECTION: "read"}),
    ("system_disk_write_bytes", {defs.DISK_IO_DIRECTION: "write"}),
)
_CONTEXT_SWITCHES: Final = (
    ("context_switches_voluntary", {defs.CONTEXT_SWITCH_TYPE: "voluntary"}),
    ("context_switches_involuntary", {defs.CONTEXT_SWITCH_TYPE: "involuntary"}),
)
_NETWORK_IO: Final = (
    ("network_receive_bytes", {defs.NETWORK_IO_DIRECTION: "receive"}),
    ("network_transmit_bytes", {defs.NETWORK_IO_DIRECTION: "transmit"}),
)


class _Contrib:
    """The state of contrib's system metrics, read at every collection.

    Its `uninstrument()` leaves its instruments running, so once it was on it stays on.
    """

    def __init__(self) -> None:
        self._seen = False

    def is_on(self) -> bool:
        # neither imported nor constructed here: constructing it resets its configuration
        instrumentor = getattr(sys.modules.get(_CONTRIB), "SystemMetricsInstrumentor", None)
        only = getattr(instrumentor, "_instance", None)
        if not self._seen and getattr(only, "is_instrumented_by_opentelemetry", False) is True:
            self._seen = True
            errors.logger.info(
                "opentelemetry-instrumentation-system-metrics is on: it reports the metrics "
                "process.* and system.*, and otel_pipeline_metrics does not"
            )
        return self._seen

"""Names, units and descriptions of the resource metrics: OpenTelemetry's, none of ours.

Checked against opentelemetry-semantic-conventions 0.66b2 (its current names: the contrib
instrumentation still uses deprecated ones). They are written out here because that package's
names are in its `_incubating` modules, which come and go between versions.
"""

from __future__ import annotations

from typing import Final

from otel_pipeline_metrics._semconv import Metric

CPU_MODE: Final = "cpu.mode"
DISK_IO_DIRECTION: Final = "disk.io.direction"
NETWORK_IO_DIRECTION: Final = "network.io.direction"
CONTEXT_SWITCH_TYPE: Final = "process.context_switch.type"
MEMORY_STATE: Final = "system.memory.state"

PROCESS_CPU_TIME: Final = Metric(
    "process.cpu.time", "s", "Total CPU seconds broken down by different CPU modes."
)
PROCESS_CPU_UTILIZATION: Final = Metric(
    "process.cpu.utilization",
    "1",
    "Difference in process.cpu.time since the last measurement, divided by the elapsed time "
    "and number of CPUs available to the process.",
)
PROCESS_MEMORY_USAGE: Final = Metric(
    "process.memory.usage", "By", "The amount of physical memory in use."
)
PROCESS_MEMORY_VIRTUAL: Final = Metric(
    "process.memory.virtual", "By", "The amount of committed virtual memory."
)
PROCESS_THREAD_COUNT: Final = Metric("process.thread.count", "{thread}", "Process threads count.")
PROCESS_FD_COUNT: Final = Metric(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "Number of UNIX file descriptors in use by the process.",
)
PROCESS_DISK_IO: Final = Metric("process.disk.io", "By", "Disk bytes transferred.")
PROCESS_CONTEXT_SWITCHES: Final = Metric(
    "process.context_switches",
    "{context_switch}",
    "Number of times the process has been context switched.",
)
SYSTEM_CPU_UTILIZATION: Final = Metric(
    "system.cpu.utilization",
    "1",
    "Share of the time of all logical CPUs since the last measurement in which they were busy.",
)
SYSTEM_MEMORY_USAGE: Final = Metric("system.memory.usage", "By", "Reports memory in use by state.")
SYSTEM_MEMORY_UTILIZATION: Final = Metric(
    "system.memory.utilization", "1", "Share of memory bytes in use, 0 to 1."
)
SYSTEM_NETWORK_IO: Final = Metric(
    "system.network.io",
    "By",
    "The number of bytes transmitted and received by the host or network namespace.",
)

"""Define readings of the process and its host, and the limits of resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["cgroup2", "cgroup1", "host"]


@dataclass(frozen=True)
class ResourceReading:
    """A reading of the machine and this process; a field that cannot be read is None.

    Utilisations are 0 to 1 over the time since the previous reading. Byte counts are totals
    since the start of the process (disk), or of the host or network namespace (network).
    """

    # `clock.now()` at the reading
    at: float
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    # CPU time over elapsed time and the CPUs that this process may use
    cpu_utilization: float | None = None
    rss_bytes: int | None = None
    vms_bytes: int | None = None
    thread_count: int | None = None
    fd_count: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    network_receive_bytes: int | None = None
    network_transmit_bytes: int | None = None
    context_switches_voluntary: int | None = None
    context_switches_involuntary: int | None = None
    system_cpu_utilization: float | None = None
    system_memory_used_bytes: int | None = None
    system_memory_utilization: float | None = None
    # of all disks of the host, since it started
    system_disk_read_bytes: int | None = None
    system_disk_write_bytes: int | None = None


@dataclass(frozen=True)
class ResourceLimits:
    """The most that this process may use."""

    source: Source
    cpus: float
    memory_bytes: int | None = None

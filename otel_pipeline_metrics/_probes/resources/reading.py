"""What probes see when they look: at a cache, at the process and its host, at their limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ResourceReading:
    """One look at the machine and this process; what could not be read is None.

    Utilisations are 0 to 1 over the time since the reading before; byte counts are totals
    since the process (disk) or the host or network namespace (network) started.
    """

    at: float
    """`clock.now()` when it was taken."""
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    cpu_utilization: float | None = None
    """CPU time over elapsed time and the CPUs this process may use."""
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


@dataclass(frozen=True)
class ResourceLimits:
    """What this process may use at most."""

    source: Literal["cgroup2", "cgroup1", "host"]
    cpus: float
    memory_bytes: int | None = None
    extra: Mapping[str, float] = field(default_factory=dict)

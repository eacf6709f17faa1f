"""Sum up the samples of the process's resources, of all readers."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.resources.reading import ResourceReading


MIB: Final = 1024 * 1024


@dataclass
class Level:
    """The average and the peak of a sampled level."""

    samples: int = 0
    total: float = 0.0
    peak: float = 0.0

    def add(self, value: float) -> None:
        self.samples += 1
        self.total += value
        self.peak = max(self.peak, value)

    def merge(self, other: Level) -> None:
        """Add the samples of another level."""
        self.samples += other.samples
        self.total += other.total
        self.peak = max(self.peak, other.peak)

    @property
    def avg(self) -> float | None:
        """The average; None without a sample."""
        return ratio(self.total, self.samples)


class ResourceLevels:
    """Levels of CPU (in per cent), memory, disk and network I/O (in MiB between samples)."""

    def __init__(self) -> None:
        self.cpu = Level()
        self.memory = Level()
        self.disk = Level()
        self.network = Level()

    def merge(self, other: ResourceLevels) -> None:
        """Add the samples of the other one."""
        for name, level in vars(self).items():
            level.merge(getattr(other, name))

    def to_dict(self) -> dict[str, Any]:
        """Return the collector's row; unknown is None."""
        cpu, memory = self.cpu, self.memory
        return {
            "avg_cpu_percent": cpu.avg,
            "peak_cpu_percent": cpu.peak if cpu.samples else None,
            "avg_memory_mb": memory.avg,
            "peak_memory_mb": memory.peak if memory.samples else None,
            "avg_disk_io_mb": self.disk.avg,
            "avg_network_io_mb": self.network.avg,
            "cpu_samples": cpu.samples,
            "memory_samples": memory.samples,
        }


class SampledLevels:
    """The levels of what all monitors and runs of the process sampled."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        # re-entrant, since a signal handler may start a run while its thread is in here
        self._lock = threading.RLock()
        self._levels = ResourceLevels()
        self._at = -math.inf
        self._disk: int | None = None
        self._network: int | None = None

    def add(self, reading: ResourceReading) -> None:
        """Add a reading, once if several monitors share it."""
        with self._lock:
            if reading.at <= self._at:
                return
            self._at = reading.at
            levels = self._levels
            if reading.cpu_utilization is not None:
                levels.cpu.add(100 * reading.cpu_utilization)
            if reading.rss_bytes is not None:
                levels.memory.add(reading.rss_bytes / MIB)
            disk = _sum(reading.disk_read_bytes, reading.disk_write_bytes)
            network = _sum(reading.network_receive_bytes, reading.network_transmit_bytes)
            if disk is not None and self._disk is not None:
                levels.disk.add(max(0, disk - self._disk) / MIB)
            if network is not None and self._network is not None:
                levels.network.add(max(0, network - self._network) / MIB)
            self._disk, self._network = disk, network

    def read(self) -> ResourceLevels:
        """Return a copy of the levels."""
        found = ResourceLevels()
        with self._lock:
            found.merge(self._levels)
        return found


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


sampled = SampledLevels()

"""`MetricsCollector`: recording by hand, for code that already times itself."""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, drain, series, stage_id
from otel_pipeline_metrics._core.files import write_atomically
from otel_pipeline_metrics._core.records import StageResult
from otel_pipeline_metrics._core.validation import check_name, check_number
from otel_pipeline_metrics._probes.caches import register
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._probes.resources.instruments import install_resources
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


_MIB: Final = 1024 * 1024


@dataclass
class _Stage:
    count: int = 0
    total_s: float = 0.0
    min_s: float = math.inf
    max_s: float = 0.0
    errors: int = 0

    def to_dict(self) -> dict[str, Any]:
        known = math.isfinite(self.min_s)
        return {
            "count": self.count,
            "total_duration_s": self.total_s,
            "avg_duration_s": _ratio(self.total_s, self.count),
            "min_duration_s": self.min_s if known else None,
            "max_duration_s": self.max_s if known else None,
            "throughput_per_s": _ratio(self.count, self.total_s),
            "errors": self.errors,
        }


@dataclass
class _Level:
    """A level that is sampled: its average over the samples, and its peak."""

    samples: int = 0
    total: float = 0.0
    peak: float = 0.0

    def add(self, value: float) -> None:
        self.samples += 1
        self.total += value
        self.peak = max(self.peak, value)

    @property
    def avg(self) -> float | None:
        return self.total / self.samples if self.samples else None


@dataclass
class _Cache:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    size_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        lookups = self.hits + self.misses
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate_pct": 100 * self.hits / lookups if lookups else None,
            "evictions": self.evictions,
            "size_mb": self.size_bytes / _MIB,
        }


class MetricsCollector:
    """Takes measurements that code made itself; `get_metrics_collector()` gives the one there is.

    Safe from any thread or task. What is recorded feeds the same sinks as decorated stages:
    metrics, and the report of the run in progress. Here MB is 1024 x 1024 bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may record in the middle of recording
        self._started_unix = clock.unix()
        self._started = clock.now()
        self._stages: dict[str, _Stage] = {}
        self._caches: dict[str, _Cache] = {}
        self._cpu, self._memory, self._disk, self._network = (_Level() for _ in range(4))

    def record_stage(
        self, name: str, duration_s: float, count: int = 1, *, error: bool = False
    ) -> None:
        """Record that stage `name` took `duration_s` seconds for `count` items.

        Minimum, maximum and average are per item, so a record of several items counts as
        that many of `duration_s / count` each; `error` counts one error a record.

        Raises:
            TypeError: a number is none, or `name` is no string.
            ValueError: a number is negative or not finite, or `name` is empty or too long.
        """
        name = cardinality.instrument_names.name(
            "names of stages by hand", check_name(name, "name")
        )
        duration = check_number(duration_s, "duration_s")
        items = int(check_number(count, "count", whole=True))
        failed = bool(error)
        with self._lock:
            stage = self._stages.setdefault(name, _Stage())
            stage.count += items
            stage.total_s += duration
            stage.errors += failed
            if items:
                stage.min_s = min(stage.min_s, duration / items)
                stage.max_s = max(stage.max_s, duration / items)
        drain.submit(
            stage_id.stage_id(name, None),
            StageResult(
                busy_s=duration,
                outcome="error" if failed else "ok",
                error_type="_OTHER" if failed else None,
                items_out=items,
            ),
        )

    def record_resources(
        self,
        cpu_percent: float,
        memory_mb: float,
        disk_io_mb: float = 0,
        network_io_mb: float = 0,
    ) -> None:
        """Record one sample: CPU in per cent, memory in MB, I/O in MB since the sample before.

        Raises:
            TypeError: an argument is no number.
            ValueError: an argument is negative or not finite.
        """
        cpu = check_number(cpu_percent, "cpu_percent")
        memory = check_number(memory_mb, "memory_mb")
        disk = check_number(disk_io_mb, "disk_io_mb")
        network = check_number(network_io_mb, "network_io_mb")
        with self._lock:
            self._cpu.add(cpu)
            self._memory.add(memory)
            self._disk.add(disk)
            self._network.add(network)
        probe.record_manual(cpu_utilization=cpu / 100, rss_bytes=round(memory * _MIB))
        # Where psutil is read, its gauges stand; these are for where it is not.
        sink.add_probe("resources", _install_manual)
        scope = series.current_scope()
        if scope.on_resources is not None:
            scope.on_resources(cpu / 100, memory * _MIB)

    def record_cache(
        self, name: str, hits: int, misses: int, evictions: int = 0, size_bytes: int = 0
    ) -> None:
        """Record look-ups since the record before, which add up, and the cache's size now.

        Raises:
            TypeError: a count is no integer, or `name` is no string.
            ValueError: a count is negative, or `name` is empty or too long.
        """
        name = cardinality.instrument_names.name("cache names", check_name(name, "name"))
        counts = {
            "hits": int(check_number(hits, "hits", whole=True)),
            "misses": int(check_number(misses, "misses", whole=True)),
            "evictions": int(check_number(evictions, "evictions", whole=True)),
        }
        bytes_now = int(check_number(size_bytes, "size_bytes", whole=True))
        with self._lock:
            cache = self._caches.setdefault(name, _Cache())
            cache.hits += counts["hits"]
            cache.misses += counts["misses"]
            cache.evictions += counts["evictions"]
            cache.size_bytes = bytes_now
        register.record(name, **counts, size_bytes=bytes_now)

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """By name: count, total/avg/min/max_duration_s, throughput_per_s, errors."""
        with self._lock:
            return {name: stage.to_dict() for name, stage in self._stages.items()}

    @property
    def resources(self) -> dict[str, Any]:
        """Average and peak of cpu_percent and memory_mb, average I/O, numbers of samples."""
        with self._lock:
            sampled = bool(self._cpu.samples)
            return {
                "avg_cpu_percent": self._cpu.avg,
                "peak_cpu_percent": self._cpu.peak if sampled else None,
                "avg_memory_mb": self._memory.avg,
                "peak_memory_mb": self._memory.peak if sampled else None,
                "avg_disk_io_mb": self._disk.avg,
                "avg_network_io_mb": self._network.avg,
                "cpu_samples": self._cpu.samples,
                "memory_samples": self._memory.samples,
            }

    @property
    def caches(self) -> dict[str, dict[str, Any]]:
        """By name: hits, misses, hit_rate_pct (None before a look-up), evictions, size_mb."""
        with self._lock:
            return {name: cache.to_dict() for name, cache in self._caches.items()}

    def export_json(self, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return everything recorded; with `path`, write it there too, whole or not at all.

        Raises:
            OSError: the place cannot be written.
        """
        data: dict[str, Any] = {
            "start_time": datetime.fromtimestamp(self._started_unix, tz=timezone.utc).isoformat(),
            "duration_s": clock.now() - self._started,
            "stages": self.stages,
            "resources": self.resources,
            "caches": self.caches,
        }
        if path is not None:
            text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomically(path, text + "\n")
        return data


_collectors: dict[int, MetricsCollector] = {}


def get_metrics_collector() -> MetricsCollector:
    """Return the process's one collector, made at the first call; a forked child has its own."""
    process = os.getpid()
    collector = _collectors.get(process)
    if collector is None:
        # setdefault is atomic: of two threads that come first, one's collector is everybody's
        collector = _collectors.setdefault(process, MetricsCollector())
    return collector


def _install_manual(instruments: InstrumentSet) -> None:
    install_resources(instruments, psutil=False)


def _ratio(part: float, whole: float) -> float | None:
    """Return part over whole where that is a number that JSON can hold."""
    ratio = part / whole if whole else math.inf
    return ratio if math.isfinite(ratio) else None

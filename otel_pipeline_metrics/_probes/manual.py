"""Record values of code that times itself, with `MetricsCollector`."""

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
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.records import StageResult
from otel_pipeline_metrics._core.validation import check_name, check_number, check_whole
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
            "avg_duration_s": ratio(self.total_s, self.count),
            "min_duration_s": self.min_s if known else None,
            "max_duration_s": self.max_s if known else None,
            "throughput_per_s": ratio(self.count, self.total_s),
            "errors": self.errors,
        }


@dataclass
class Level:
    """The average and the peak of a sampled level."""

    samples: int = 0
    total: float = 0.0
    peak: float = 0.0

    def add(self, value: float) -> None:
        """Add one sample."""
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


@dataclass
class _Cache:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    size_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate_pct": ratio(100 * self.hits, self.hits + self.misses),
            "evictions": self.evictions,
            "size_mb": self.size_bytes / _MIB,
        }


class MetricsCollector:
    """A collector of values that a program measures itself.

    `get_metrics_collector()` returns the one of the process. Any thread or task may record.
    Recorded values go where those of decorated stages go: to metrics, and to the report of the
    run in progress. Here MB is 1024 x 1024 bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may record while its thread does
        self._started_unix = clock.unix()
        self._started = clock.now()
        self._stages: dict[str, _Stage] = {}
        self._caches: dict[str, _Cache] = {}
        self._levels = {
            name: Level() for name in ("cpu_percent", "memory_mb", "disk_io_mb", "network_io_mb")
        }

    def record_stage(
        self, name: str, duration_s: float, count: int = 1, *, error: bool = False
    ) -> None:
        """Record that stage `name` took `duration_s` seconds for `count` items.

        Minimum, maximum and average are per item, so a record of several items counts as
        that many of `duration_s / count` each; `error` counts one error for each record.

        Raises:
            TypeError: a number has another type, or `name` is not a string.
            ValueError: a number is negative or not finite, or `name` is empty or too long.
        """
        name = cardinality.instrument_names.name(
            "names of stages by hand", check_name(name, "name")
        )
        duration = check_number(duration_s, "duration_s")
        items = check_whole(count, "count")
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
            stage_id.stage_id(name, None, form="by hand"),
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
        """Record a sample: CPU in per cent, memory in MB, I/O in MB since the last sample.

        Raises:
            TypeError: an argument is not a number.
            ValueError: an argument is negative or not finite.
        """
        given = (cpu_percent, memory_mb, disk_io_mb, network_io_mb)
        sample = {
            name: check_number(value, name) for name, value in zip(self._levels, given, strict=True)
        }
        with self._lock:
            for name, value in sample.items():
                self._levels[name].add(value)
        cpu, rss = sample["cpu_percent"] / 100, sample["memory_mb"] * _MIB
        probe.record_manual(cpu_utilization=cpu, rss_bytes=round(rss))
        # has an effect only where psutil is not read
        sink.add_probe("resources", _install_manual)
        scope = series.current_scope()
        if scope.on_resources is not None:
            scope.on_resources(cpu, rss)

    def record_cache(
        self, name: str, hits: int, misses: int, evictions: int = 0, size_bytes: int = 0
    ) -> None:
        """Record look-ups since the last record, and the cache's present size.

        Raises:
            TypeError: a count is not a number, or `name` is not a string.
            ValueError: a count is negative, or `name` is empty or too long.
        """
        name = cardinality.instrument_names.name("cache names", check_name(name, "name"))
        given = {"hits": hits, "misses": misses, "evictions": evictions, "size_bytes": size_bytes}
        counts = {key: check_whole(n, key) for key, n in given.items()}
        with self._lock:
            cache = self._caches.setdefault(name, _Cache())
            cache.hits += counts["hits"]
            cache.misses += counts["misses"]
            cache.evictions += counts["evictions"]
            cache.size_bytes = counts["size_bytes"]
        register.record(name, **counts)

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """By name: count, total/avg/min/max_duration_s, throughput_per_s, errors."""
        with self._lock:
            return {name: stage.to_dict() for name, stage in self._stages.items()}

    @property
    def resources(self) -> dict[str, Any]:
        """Average and peak of cpu_percent and memory_mb, average I/O, numbers of samples."""
        with self._lock:
            cpu, memory, disk, network = self._levels.values()
            return {
                "avg_cpu_percent": cpu.avg,
                "peak_cpu_percent": cpu.peak if cpu.samples else None,
                "avg_memory_mb": memory.avg,
                "peak_memory_mb": memory.peak if memory.samples else None,
                "avg_disk_io_mb": disk.avg,
                "avg_network_io_mb": network.avg,
                "cpu_samples": cpu.samples,
                "memory_samples": memory.samples,
            }

    @property
    def caches(self) -> dict[str, dict[str, Any]]:
        """By name: hits, misses, hit_rate_pct (None before a look-up), evictions, size_mb."""
        with self._lock:
            return {name: cache.to_dict() for name, cache in self._caches.items()}

    def export_json(self, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return all recorded values; with `path`, write them to that file too.

        The file is written completely or not at all.

        Raises:
            OSError: the file cannot be written.
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
    """Return the process's one collector; a forked child has its own."""
    process = os.getpid()
    collector = _collectors.get(process)
    if collector is None:
        # setdefault is atomic: two threads that make a collector get the same one
        collector = _collectors.setdefault(process, MetricsCollector())
    return collector


def _install_manual(instruments: InstrumentSet) -> None:
    install_resources(instruments, psutil=False)

"""Record values of code that times itself, for `MetricsCollector`."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import cardinality, drain, series, stage_id
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.stage_totals import RecordedResult, StageTotal
from otel_pipeline_metrics._core.validation import (
    check_flag,
    check_name,
    check_number,
    check_whole,
)
from otel_pipeline_metrics._probes.caches import register, registry
from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.resources import probe
from otel_pipeline_metrics._probes.resources.instruments import install_resources
from otel_pipeline_metrics._probes.resources.levels import MIB, ResourceLevels
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


class Row(dict[str, Any]):
    """A row of numbers, read as `row["count"]` or `row.count`."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def cache_row(cache: CacheReading) -> Row:
    """Return the collector's row of a cache; unknown is None."""
    return Row(
        hits=cache.hits,
        misses=cache.misses,
        hit_rate_pct=ratio(100 * cache.hits, cache.hits + cache.misses),
        evictions=cache.evictions,
        expirations=cache.expirations,
        size_mb=None if cache.size_bytes is None else cache.size_bytes / MIB,
    )


class Records:
    """Values that a program measures itself. Any thread or task may record."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may record while its thread does
        self._stages: dict[str, StageTotal] = {}
        self._caches: dict[str, CacheReading] = {}
        self._levels = ResourceLevels()

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
            each = (duration / items,) * 2 if items else (math.inf, 0.0)
            total = self._stages.get(name, StageTotal())
            self._stages[name] = total.plus(items, duration, *each, int(failed))
        drain.submit(
            stage_id.stage_id(name, None, form="by hand"),
            RecordedResult(
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
        names = ("cpu_percent", "memory_mb", "disk_io_mb", "network_io_mb")
        sample = [check_number(value, name) for value, name in zip(given, names, strict=True)]
        with self._lock:
            for level, value in zip(vars(self._levels).values(), sample, strict=True):
                level.add(value)
        cpu, rss = sample[0] / 100, sample[1] * MIB
        probe.record_manual(cpu_utilization=cpu, rss_bytes=round(rss))
        # has an effect only where psutil is not read
        sink.add_probe("resources", _install_manual)
        scope = series.current_scope()
        if scope.on_resources is not None:
            scope.on_resources(cpu, rss)

    def record_cache(
        self,
        name: str,
        hits: int,
        misses: int,
        evictions: int = 0,
        size_bytes: int = 0,
        expirations: int = 0,
        cumulative: bool = False,
    ) -> None:
        """Record look-ups since the last record, and the cache's present size.

        Args:
            name: the `cache.name` attribute.
            hits: look-ups that found a value.
            misses: look-ups that did not.
            evictions: entries removed to make room.
            size_bytes: the size now.
            expirations: entries removed because of their age.
            cumulative: the counts are totals, which replace what was recorded before.

        Raises:
            TypeError: a count is not a number, `name` is not a string or `cumulative` is
                neither True nor False.
            ValueError: a count is negative, or `name` is empty or too long.
        """
        name = cardinality.instrument_names.name("cache names", check_name(name, "name"))
        check_flag(cumulative, "cumulative")
        given = {
            "hits": hits,
            "misses": misses,
            "evictions": evictions,
            "expirations": expirations,
            "size_bytes": size_bytes,
        }
        checked: dict[str, Any] = {key: check_whole(n, key) for key, n in given.items()}
        counts = CacheReading(name, **checked)
        with self._lock:
            self._caches[name] = counts.plus(None if cumulative else self._caches.get(name))
        registry.caches.record(counts, cumulative=cumulative)
        register.ensure_instruments()

    def stage_totals(self) -> dict[str, StageTotal]:
        """Return the recorded sums by stage."""
        with self._lock:
            return dict(self._stages)

    def resource_levels(self) -> ResourceLevels:
        """Return a copy of the recorded levels."""
        found = ResourceLevels()
        with self._lock:
            found.merge(self._levels)
        return found

    def cache_rows(self) -> dict[str, Row]:
        """Return a row for each recorded cache."""
        with self._lock:
            return {name: cache_row(cache) for name, cache in self._caches.items()}


def _install_manual(instruments: InstrumentSet) -> None:
    install_resources(instruments, psutil=False)

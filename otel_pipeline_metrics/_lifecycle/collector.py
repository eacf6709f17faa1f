"""The collector: what a program records itself and, for the process, what is measured."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.files import write_atomically
from otel_pipeline_metrics._core.stage_totals import totals
from otel_pipeline_metrics._probes.caches.registry import caches as registered
from otel_pipeline_metrics._probes.manual import Records, Row, cache_row
from otel_pipeline_metrics._probes.resources.levels import sampled
from otel_pipeline_metrics.report import RunReport

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.stage_totals import StageTotal
    from otel_pipeline_metrics._probes.resources.levels import ResourceLevels
    from otel_pipeline_metrics.report.run_report import Format


class MetricsCollector(Records):
    """A collector of values that a program measures itself.

    `get_metrics_collector()` returns the one of the process, which also has its decorated stages,
    registered caches and sampled resources. Any thread or task may record. Recorded values go
    where those of decorated stages go: to metrics, and to the report of the run in progress. Here
    MB is 1024 x 1024 bytes. A row is read by key or by attribute: `stages["fetch"].count`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started_unix = clock.unix()
        self._started = clock.now()

    @property
    def stages(self) -> dict[str, Row]:
        """By name: count, total/avg/min/max_duration_s, throughput_per_s, errors.

        `count` is items of a stage recorded by hand, and calls of a decorated one.
        """
        return {name: Row(stage.to_dict()) for name, stage in self.stage_totals().items()}

    @property
    def resources(self) -> Row:
        """Average and peak of cpu_percent and memory_mb, average I/O, numbers of samples."""
        return Row(self.resource_levels().to_dict())

    @property
    def caches(self) -> dict[str, Row]:
        """By name: hits, misses, hit_rate_pct, evictions, expirations, size_mb.

        A count that is not known, and the rate before the first look-up, are None.
        """
        return self.cache_rows()

    def export_json(self, path: str | os.PathLike[str] | None = None) -> Row:
        """Return all values; with `path`, write them to that file too.

        The file is written completely or not at all, and `opm report` reads it.

        Raises:
            OSError: the file cannot be written.
        """
        started = datetime.fromtimestamp(self._started_unix, tz=timezone.utc)
        data = Row(
            start_time=started.isoformat(),
            duration_s=clock.now() - self._started,
            stages=self.stages,
            resources=self.resources,
            caches=self.caches,
        )
        if path is not None:
            text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomically(path, text + "\n")
        return data

    def render(self, format: Format = "console") -> str:  # noqa: A002 - as of RunReport
        """Return the values as text for people or, as JSON, as a report for programs.

        Raises:
            ValueError: the format is unknown.
            ImportError: "html" needs jinja2, which the extra `cli` installs.
        """
        return RunReport(self.export_json()).render(format)

    def log_summary(self) -> None:
        """Log the values as text, at level INFO of the logger `otel_pipeline_metrics`."""
        # the text is clean already; as an argument its newlines would be shown as data
        errors.logger.info(self.render())


class _ProcessCollector(MetricsCollector):
    """The collector that has everything of its process, each value once."""

    def __init__(self) -> None:
        super().__init__()
        self._started_unix, self._started = totals.started_unix, totals.started

    def stage_totals(self) -> dict[str, StageTotal]:
        found = super().stage_totals()
        for name, stage in totals.read().items():
            found[name] = found[name].merged(stage) if name in found else stage
        return found

    def resource_levels(self) -> ResourceLevels:
        levels = super().resource_levels()
        levels.merge(sampled.read())
        return levels

    def cache_rows(self) -> dict[str, Row]:
        # a registered source wins, since counts that are recorded under its name are ignored
        return super().cache_rows() | {
            reading.name: cache_row(reading) for reading in registered.read_all(by_hand=False)
        }


_collectors: dict[int, MetricsCollector] = {}


def get_metrics_collector() -> MetricsCollector:
    """Return the process's one collector; a forked child has its own."""
    process = os.getpid()
    # setdefault is atomic: two threads that make a collector get the same one
    return _collectors.get(process) or _collectors.setdefault(process, _ProcessCollector())

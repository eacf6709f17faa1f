"""Gather the data of a run's report from the places where it was counted."""

from __future__ import annotations

import contextlib
import numbers
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, drain, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.validation import check_positive
from otel_pipeline_metrics._experiments.results import add_results
from otel_pipeline_metrics._lifecycle import telemetry_stats
from otel_pipeline_metrics._lifecycle.limit_stats import limit_list
from otel_pipeline_metrics._lifecycle.live_verdict import LiveVerdict
from otel_pipeline_metrics._lifecycle.run_stats import RunStats
from otel_pipeline_metrics._lifecycle.stage_times import StageTimes
from otel_pipeline_metrics._lifecycle.windows import (
    MAX_STAGES,
    RUNS_AT_ONCE,
    STATES,
    Reading,
    Windows,
)
from otel_pipeline_metrics._pools.registry import pool_list
from otel_pipeline_metrics._probes.caches import registry as caches_registry
from otel_pipeline_metrics._probes.eventloop import Heartbeat
from otel_pipeline_metrics._probes.queues import registry as queues_registry
from otel_pipeline_metrics._probes.queues.held import HeldInRun
from otel_pipeline_metrics._probes.resources import cgroup, ticker
from otel_pipeline_metrics._probes.resources.levels import Level
from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor, ResourceSummary
from otel_pipeline_metrics._stages import hints
from otel_pipeline_metrics._stages.workers import snapshot
from otel_pipeline_metrics.analysis import analyze
from otel_pipeline_metrics.report import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.series import RunScope
    from otel_pipeline_metrics._experiments.experiment import Experiment
    from otel_pipeline_metrics._lifecycle.live_verdict import Tell
    from otel_pipeline_metrics._lifecycle.run_parts import RunParts
    from otel_pipeline_metrics._probes.caches.reading import CacheReading
    from otel_pipeline_metrics._probes.resources.ticker import Ticker


# A reading of the resources takes about a tenth of a millisecond.
SAMPLE_INTERVAL_S: Final = 1.0


class RecordedResources:
    """CPU and memory that the program recorded itself during a run."""

    def __init__(self) -> None:
        # by thread, CPU and RSS: without a lock, each level is changed by one thread only
        self._levels: dict[int, tuple[Level, Level]] = {}

    def add(self, cpu_utilization: float, rss_bytes: float) -> None:
        """Take one sample, in any thread."""
        thread = threading.get_ident()
        cpu, rss = self._levels.get(thread) or self._levels.setdefault(thread, (Level(), Level()))
        cpu.add(cpu_utilization)
        rss.add(rss_bytes)

    def summary(self) -> ResourceSummary:
        """Return the averages over samples, not over time, and the peaks."""
        levels = list(self._levels.values())
        if not levels:
            return ResourceSummary()
        cpu, rss = Level(), Level()
        for thread_cpu, thread_rss in levels:
            cpu.merge(thread_cpu)
            rss.merge(thread_rss)
        return ResourceSummary(
            samples=cpu.samples,
            cpu_utilization_avg=cpu.avg,
            cpu_utilization_peak=cpu.peak,
            rss_bytes_avg=rss.avg,
            rss_bytes_peak=round(rss.peak),
        )


class RunDataCollector:
    """Everything that is counted during one run."""

    def __init__(self, sample_interval_s: float | None) -> None:
        self.stats = RunStats()
        self.monitor = None if sample_interval_s is None else ResourceMonitor(sample_interval_s)
        self.recorded = RecordedResources()
        self.heartbeat = Heartbeat()
        # of a run: what other processes measured
        self.parts: RunParts | None = None
        # of a run that experiments
        self.experiment: Experiment | None = None
        self._caches_before: dict[str, CacheReading] = {}
        self.held = HeldInRun()
        self._windows = Windows()
        self._ticker: Ticker | None = None
        self._live: LiveVerdict | None = None

    def begin(self, scope: RunScope, tell: Tell) -> None:
        """Remember what queues and caches are like before the run, and begin the first window."""
        self._began = clock.now()
        self.held.begin()
        if self.monitor is not None:
            self._live = LiveVerdict(str(scope.pipeline), lambda: self._so_far(scope), tell)
            self._windows.add(self._reading(scope, 0.0))
            self._interval = self.monitor.interval
            found = ticker.shared(self.monitor.interval)
            with contextlib.suppress(RuntimeError):  # no thread: the monitor has said so
                found.add(self, lambda: self._tick(scope))
                self._ticker = found
        self._caches_before = {reading.name: reading for reading in caches_registry.read_all()}

    def report_data(self, run: dict[str, Any], scope: RunScope, now: float) -> dict[str, Any]:
        """Return the data of the report.

        Args:
            run: the report's part about the run; `started_at` is removed from it.
            scope: the scope that counts the run's stages and queues.
            now: `clock.now()` at the end of the run, or during it.
        """
        wall_s = run["wall_s"]
        hints.check_names_differ(scope)
        data = self._times_of(run, scope, now) | {
            "schema": SCHEMA,
            "pools": pool_list(scope),
            "caches": [
                delta(reading, self._caches_before.get(reading.name))
                for reading in caches_registry.read_all()
            ],
            "windows": self._windows.rows(self._reading(scope, wall_s)),
            # the state before the last flush
            "telemetry": telemetry_stats.snapshot_for_report()
            | {"stage_spans": self._stage_spans(scope, traced=run["trace_id"] is not None)},
        }
        if self.parts is not None:
            with errors.suppress_errors("folding the parts of other processes"):
                self.parts.fold(data)
        data["bottleneck"] = _verdict(data)
        if self.experiment is not None:
            with errors.suppress_errors("the results of an experiment"):
                add_results(self.experiment, data)
        return data

    def _times_of(
        self, run: dict[str, Any], scope: RunScope, now: float, *, percentiles: bool = True
    ) -> dict[str, Any]:
        """Return the parts of a report that a verdict reads, without those of other processes."""
        started_at, wall_s = run.pop("started_at"), run["wall_s"]
        in_progress = snapshot.WaitsInProgress(scope, now)
        return {
            "run": run,
            "stages": self._stages(run, scope, now, percentiles=percentiles),
            "queues": self._queues(scope, wall_s, now, in_progress, percentiles=percentiles),
            "limits": limit_list(scope, self.stats.limits, wall_s, now, in_progress),
            "resources": self._resources(started_at, series=percentiles),
        }

    def _so_far(self, scope: RunScope) -> dict[str, Any]:
        """Return what a verdict reads of the run until now."""
        drain.drain_scope(scope)
        now = clock.now()
        run = {"wall_s": now - self._began, "started_at": self._began, "partial": False}
        # most of the cost of a report are its percentiles
        return self._times_of(run, scope, now, percentiles=False)

    def part_data(self, scope: RunScope, wall_s: float, now: float) -> dict[str, Any]:
        """Return what a part says of its stages, queues and limits, as in a report."""
        times = self._times(scope, wall_s, now)
        self._add_open_stages(times)
        rows = self.stats.stage_list(wall_s, times.row)
        for key, row in zip(list(self.stats.stages), rows, strict=False):
            row["worker_ids"] = list(times.worker_ids(key))
        in_progress = snapshot.WaitsInProgress(scope, now)
        return {
            "stages": rows,
            "queues": self._queues(scope, wall_s, now, in_progress),
            "limits": limit_list(scope, self.stats.limits, wall_s, now, in_progress),
        }

    def end(self) -> None:
        """Begin no more windows, and come to no more verdicts."""
        # it refers to the run, which would be a reference cycle
        self._live = None
        if self._ticker is not None:
            self._ticker.remove(self)
            self._ticker = None

    def _tick(self, scope: RunScope) -> None:
        at_s = clock.now() - self._began
        # of many runs at a time each has wider windows, so that together they cost no more
        least_s = len(_series.scopes) / RUNS_AT_ONCE * self._interval
        if self._windows.is_due(at_s, least_s):
            drain.drain_scope(scope)
            self._windows.add(self._reading(scope, at_s))
        live = self._live
        if live is not None:
            live.tick()

    def _reading(self, scope: RunScope, at_s: float) -> Reading:
        """Return the run's sums until now."""
        times = self._times(scope, at_s, clock.now())
        stages = list(self.stats.stages.items())[:MAX_STAGES]
        found: dict[tuple[str, str | None], tuple[float | None, ...]] = {}
        for key, stats in stages:
            spent = times.row(key)["time_s"]
            items = stats.items_out if stats.items_out is not None else stats.items_in
            sums = (stats.count, items, *(spent[state] for state in STATES))
            found[key.stage, key.kind] = sums
        sample = None if self.monitor is None else self.monitor.latest_sample
        return Reading(
            at_s,
            found,
            queues_registry.sizes() if scope.queues else {},
            None if sample is None else sample.cpu_s,
            0.0 if sample is None else sample.capacity_s,
            None if sample is None else sample.reading.rss_bytes,
        )

    def _times(self, scope: RunScope, wall_s: float, now: float) -> StageTimes:
        states = snapshot.snapshot(scope, now)
        root = _series.scopes.get(scope) or _series.root_cell(scope)
        return StageTimes(scope, root, wall_s, now, states)

    def _stages(
        self, run: dict[str, Any], scope: RunScope, now: float, *, percentiles: bool
    ) -> list[dict[str, Any]]:
        """Return the stages' rows, and add to the run's what lies outside of them."""
        times = self._times(scope, run["wall_s"], now)
        run["outside_s"] = times.outside_s
        self._add_open_stages(times)
        return self.stats.stage_list(run["wall_s"], times.row, percentiles=percentiles)

    def _add_open_stages(self, times: StageTimes) -> None:
        """Have a row for stages too of which no call has ended."""
        for key, series_of_key in list(times.stages.items()):
            if any(each.active for main in series_of_key for each in main.variants):
                self.stats.of_stage(key)

    def _queues(
        self,
        scope: RunScope,
        wall_s: float,
        now: float,
        in_progress: Mapping[object, float],
        *,
        percentiles: bool = True,
    ) -> list[dict[str, Any]]:
        depths = queues_registry.sizes()
        found = self.stats.queue_list(
            wall_s,
            list(scope.queues.values()),
            queues_registry.known_capacities(),
            self.held,
            now,
            in_progress,
            percentiles=percentiles,
        )
        return [{**queue, "depth": depths.get(queue["name"])} for queue in found]

    def _stage_spans(self, scope: RunScope, *, traced: bool) -> dict[str, int | None]:
        """Return the numbers of calls with and without a span of their own."""
        if not traced:
            return {"made": None, "skipped": None}
        made = sum(budget.spans_made for budget in list(scope.budgets.values()))
        count = sum(stats.count for stats in list(self.stats.stages.values()))
        return {"made": made, "skipped": max(0, count - made)}

    def _resources(self, started_at: float, *, series: bool) -> dict[str, Any]:
        # without psutil's readings, those that the program recorded itself
        summary = (self.recorded if self.monitor is None else self.monitor).summary()
        found = cgroup.limits()
        return {
            "samples": summary.samples,
            "cpu_utilization": {
                "avg": summary.cpu_utilization_avg,
                "peak": summary.cpu_utilization_peak,
            },
            "children_cpu_s": summary.children_cpu_s,
            "system_cpu_utilization": summary.system_cpu_utilization_avg,
            "rss_bytes": {"avg": summary.rss_bytes_avg, "peak": summary.rss_bytes_peak},
            "disk_io_bytes": {
                "read": summary.disk_read_bytes,
                "write": summary.disk_write_bytes,
            },
            "network_io_bytes": {
                "receive": summary.network_receive_bytes,
                "transmit": summary.network_transmit_bytes,
            },
            "limits": {
                "source": found.source,
                "cpus": found.cpus,
                "memory_bytes": found.memory_bytes,
            },
            "gil_held": summary.gil_held,
            "gil_held_samples": summary.gil_held_samples,
            "run_delay": summary.run_delay,
            "run_delay_samples": summary.run_delay_samples,
            "run_delay_waited": summary.run_delay_waited,
            "event_loop_delay_s": self.heartbeat.summary(),
            # seconds since the start, CPU utilisation and RSS of the latest samples
            "series": None
            if self.monitor is None or not series
            else [
                [max(0.0, reading.at - started_at), reading.cpu_utilization, reading.rss_bytes]
                for reading in self.monitor.readings
            ],
        }


def _verdict(data: dict[str, Any]) -> dict[str, Any]:
    try:
        return analyze(data)
    except Exception:  # a report without a verdict is still useful
        errors.log_internal_error("the verdict")
        return {"kind": "unknown", "stage": None, "busy": None, "why": "the analysis failed"}


def delta(now: CacheReading, before: CacheReading | None) -> dict[str, Any]:
    """Return a cache's counts during the run, and its present levels."""

    def during(key: str) -> Any:
        value, earlier = getattr(now, key), getattr(before, key, None)
        return value if value is None or earlier is None else max(0, value - earlier)

    counts = ("hits", "misses", "evictions", "expirations")
    reuse = now.reuse
    if reuse is not None and before is not None and before.reuse is not None:
        reuse = reuse.since(before.reuse)
    reading = replace(now, reuse=reuse, **{key: during(key) for key in counts})
    keys = ("name", *counts, "hit_ratio", "entries", "size_bytes", "what_if")
    return {key: getattr(reading, key) for key in keys}


def sample_interval(resources: object) -> float | None:
    """Return the seconds between two samples; None: no sampling."""
    if isinstance(resources, bool):
        return SAMPLE_INTERVAL_S if resources else None
    if not isinstance(resources, numbers.Real):
        kind = type(resources).__name__
        raise TypeError(f"resources must be True, False or a number of seconds, not {kind}")
    return check_positive(resources, "resources")

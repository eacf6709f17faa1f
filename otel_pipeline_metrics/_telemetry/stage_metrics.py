"""Metrics of stages and runs, through the OpenTelemetry API alone.

Nothing is recorded while a stage runs. What has finished is totalled when a sink's batch
comes, and recorded when a collection begins: every reader calls all observable callbacks
before it reads its storage, so the values land in that same collection, and the user's call
has not paid for them.

The counters are synchronous ones that take increments, not observable ones. An observable
counter's series begins, for the SDK, at its first collection, so a job with one export would
show Prometheus a first sample and no increase. A synchronous one begins with its first
record, which is made as soon as a series is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, drain, metric_definitions
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.records import QueueBatch, TimeInStates
from otel_pipeline_metrics._telemetry.attributes import stage_attributes
from otel_pipeline_metrics._telemetry.backlog import PreConfigureBacklog
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import (
    CounterSeries,
    HistogramSeries,
    Instrument,
)
from otel_pipeline_metrics._telemetry.sdk_private.self_check import is_supported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline_metrics._core.records import (
        AttributeValue,
        Batch,
        Point,
        StageKey,
        StageResult,
    )
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


WAITING_BOUND: Final = 1024
"""Histogram values kept for the next collection before they are recorded at once."""


class _Sum:
    """Increments of one counter under one set of attributes, until they are recorded."""

    __slots__ = ("_more", "_series")

    def __init__(self, counter: Instrument, attributes: dict[str, AttributeValue]) -> None:
        self._series = CounterSeries(counter, attributes)
        self._more: float = 0

    def add(self, more: float) -> None:
        self._more += more

    def record(self) -> None:
        more, self._more = self._more, 0
        if more and not self._series.record((more,)):
            self._more = more


class _Values:
    """Values of one histogram under one set of attributes, until they are recorded."""

    __slots__ = ("_exemplary", "_series", "_waiting")

    def __init__(self, histogram: Instrument, attributes: dict[str, AttributeValue]) -> None:
        self._series = HistogramSeries(histogram, attributes)
        self._waiting: list[float] = []
        self._exemplary: dict[int, tuple[float, Any]] = {}
        """By bucket, the latest value with a sampled span: as many as a reservoir keeps."""

    def add_many(
        self, values: Sequence[float], exemplars: Sequence[tuple[float, Any]] = ()
    ) -> None:
        """Add sorted values; those of them that are exemplars, with their contexts."""
        begins = len(self._waiting)
        self._waiting.extend(values)
        for value, context in exemplars:
            place = bisect_left(self._waiting, value, begins)
            if place < len(self._waiting) and self._waiting[place] == value:
                del self._waiting[place]
                self.add(value, context, metric_definitions.DURATION_BUCKETS)

    def add(self, value: float, context: Any, boundaries: Sequence[float]) -> None:
        """Add a value and the context of its span, if that is sampled."""
        if context is not None:
            bucket = bisect_left(boundaries, value)
            before = self._exemplary.get(bucket)
            self._exemplary[bucket] = (value, context)
            if before is None:
                return
            value = before[0]
        self._waiting.append(value)

    def flush_if_full(self) -> None:
        """Record what waits if that is too much to keep until the next collection."""
        if len(self._waiting) >= WAITING_BOUND:
            self.record()

    def record(self) -> None:
        """Record what waits."""
        waiting, exemplary = self._waiting, self._exemplary
        if not (waiting or exemplary):
            return
        # put aside first: what raises here would raise, and grow, every time
        self._waiting, self._exemplary = [], {}
        waiting.sort()
        if not self._series.record(waiting, exemplary.values()):
            self._waiting, self._exemplary = waiting, exemplary


class _Totals:
    """What is not recorded yet of one stage under one set of metric attributes."""

    __slots__ = ("attributes", "sums", "values")

    def __init__(self, attributes: dict[str, AttributeValue]) -> None:
        self.attributes = attributes
        self.sums: dict[tuple[str, ...], _Sum] = {}
        self.values: dict[tuple[str, str], _Values] = {}
        """By metric and error type."""

    def with_extra(self, more: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
        """Return the attributes and those of `more` that have a value."""
        return {**self.attributes, **{key: value for key, value in more.items() if value}}

    def flush_if_full(self) -> None:
        """Record what is too much to keep until the next collection."""
        for values in list(self.values.values()):
            values.flush_if_full()

    def record(self) -> None:
        """Record everything that waits."""
        for values in list(self.values.values()):
            values.record()
        for total in list(self.sums.values()):
            total.record()


class StageMetrics:
    """The sink that turns results into `pipeline.stage.*`; one for each configuration.

    Whoever drains calls it, and there is one at a time, so it needs no lock of its own.
    """

    def __init__(
        self,
        instruments: InstrumentSet,
        metric_attributes: tuple[str, ...],
        distinct: cardinality.Distinct,
    ) -> None:
        self._named = frozenset(metric_attributes)
        self._distinct = distinct
        self.after_fork()
        measured = (
            metric_definitions.STAGE_DURATION,
            metric_definitions.STAGE_BATCH_SIZE,
            metric_definitions.QUEUE_ITEM_DURATION,
            metric_definitions.ITEM_DURATION,
        )
        self._histograms = {
            m.name: Instrument(instruments.histogram(m), folds=is_supported) for m in measured
        }
        counted = (
            metric_definitions.STAGE_TIME,
            metric_definitions.STAGE_ITEMS,
            metric_definitions.STAGE_IO,
            metric_definitions.STAGE_RETRIES,
        )
        self._counters = {
            m.name: Instrument(instruments.counter(m), folds=is_supported) for m in counted
        }
        # Its callback is what begins a collection; the SDK calls it even where a view drops it.
        instruments.observable_up_down_counter(
            metric_definitions.STAGE_ACTIVE, self._settled_active
        )
        instruments.observable_gauge(metric_definitions.WATERMARK_LAG, self._watermark_lag)

    def after_fork(self) -> None:
        """Start at nothing: what came before is the parent's to report."""
        self._totals: dict[tuple[StageKey, tuple[tuple[str, Any], ...]], _Totals] = {}
        self._sets: Counter[StageKey] = Counter()
        """How many sets of attributes each stage has on metrics."""
        self._queues: dict[str, _Totals] = {}
        self._watermarks: dict[StageKey, float] = {}
        self._seen: set[StageKey] = set()
        self._early = PreConfigureBacklog()

    def take_over(self, before: StageMetrics) -> None:
        """Take what finished while `before` had no provider for it."""
        for batch in before._early.take():
            if isinstance(batch, QueueBatch):
                self.accept_queue(batch)
            else:
                self.accept(batch)

    def _is_early(self, batch: Batch | QueueBatch | None = None) -> bool:
        """Tell whether nobody takes metrics yet, and keep `batch` until somebody does."""
        instrument = self._histograms[metric_definitions.STAGE_DURATION.name]
        if instrument.live:
            if self._early:
                self.take_over(self)
            return False
        if batch is not None and instrument.can_become_live:
            self._early.keep(batch)
        return True

    def accept(self, batch: Batch) -> None:
        """Total a batch; record only what makes a new series begin."""
        if self._is_early(batch):
            return
        stage = self.limit_pipeline_name(batch.key)
        totals = self._totals_of(stage, batch.attributes)
        if batch.time is not None:
            self._count_time(totals, batch.time)
        if batch.durations:
            if batch.time is None:
                self._count_time(totals, TimeInStates(busy=sum(batch.durations)))
            self._values(totals, metric_definitions.STAGE_DURATION).add_many(
                batch.durations, batch.exemplars
            )
        if batch.sizes:
            self._count(
                totals,
                metric_definitions.STAGE_ITEMS,
                sum(batch.sizes),
                metric_definitions.IO_DIRECTION,
                "out",
            )
            self._values(totals, metric_definitions.STAGE_BATCH_SIZE).add_many(batch.sizes)
        touched = {id(totals): totals}
        for result in batch.results:
            if self._named:
                totals = self._totals_of(stage, {**batch.attributes, **(result.attributes or {})})
                touched[id(totals)] = totals
            if batch.time is None:
                spent = TimeInStates(result.busy_s, result.idle_s, result.blocked_s)
                self._count_time(totals, spent)
            self._add(stage, totals, result)
        for totals in touched.values():
            totals.flush_if_full()

    def accept_queue(self, batch: QueueBatch) -> None:
        """Add the times of items that left a queue."""
        if self._is_early(batch):
            return
        totals = self._queues.get(batch.name)
        if totals is None:
            totals = self._queues[batch.name] = _Totals({metric_definitions.QUEUE_NAME: batch.name})
        self._values(totals, metric_definitions.QUEUE_ITEM_DURATION).add_many(batch.waits)
        totals.flush_if_full()

    def flush(self) -> bool:
        """Bring everything that has finished into the instruments."""

        def record() -> None:
            if self._is_early():
                return
            for totals in [*self._totals.values(), *self._queues.values()]:
                totals.record()

        return drain.drain(record)

    def limit_pipeline_name(self, key: StageKey) -> StageKey:
        """Return the key under which a stage is reported, if its pipeline is one too many."""
        if key.pipeline is None:
            return key
        pipeline = self._distinct.name(metric_definitions.PIPELINE_NAME, key.pipeline, again=True)
        return key if pipeline == key.pipeline else key._replace(pipeline=pipeline)

    def _error_type(self, found: str | None) -> str:
        return self._distinct.name(metric_definitions.ERROR_TYPE, found) if found else ""

    def _totals_of(self, stage: StageKey, given: Mapping[str, AttributeValue]) -> _Totals:
        chosen: dict[str, Any] = {}
        if self._named:
            chosen = {
                key: self._distinct.limit(key, tuple(value) if isinstance(value, list) else value)
                for key, value in given.items()
                if key in self._named
            }
        key = (stage, tuple(sorted(chosen.items())))
        totals = self._totals.get(key)
        if totals is None and self._sets[stage] >= cardinality.MAX_NAMES:
            # few values of each key, and yet too many together
            other = cardinality.overflow("sets of attributes on metrics", cardinality.MAX_NAMES)
            chosen = dict.fromkeys(chosen, other)
            key = (stage, tuple(sorted(chosen.items())))
            totals = self._totals.get(key)
        if totals is None:
            self._sets[stage] += 1
            totals = self._totals[key] = _Totals({**chosen, **stage_attributes(stage)})
        return totals

    def _count(  # noqa: PLR0917 - a row of a table
        self,
        totals: _Totals,
        metric: metric_definitions.Metric,
        more: float | None,
        key: str = "",
        value: str = "",
        error_type: str = "",
    ) -> None:
        if more is None:
            return
        identity = (metric.name, key, value, error_type)
        total = totals.sums.get(identity)
        if total is None:
            attributes = totals.with_extra({key: value, metric_definitions.ERROR_TYPE: error_type})
            total = totals.sums[identity] = _Sum(self._counters[metric.name], attributes)
        total.add(more)

    def _count_time(self, totals: _Totals, time: TimeInStates) -> None:
        state = metric_definitions.STAGE_STATE
        self._count(totals, metric_definitions.STAGE_TIME, time.busy, state, "busy")
        # a state that nobody was ever in is unknown where no queue is instrumented, not zero
        self._count(totals, metric_definitions.STAGE_TIME, time.idle or None, state, "idle")
        self._count(totals, metric_definitions.STAGE_TIME, time.blocked or None, state, "blocked")

    def _add(self, key: StageKey, totals: _Totals, result: StageResult) -> None:
        direction, failed = metric_definitions.IO_DIRECTION, self._error_type(result.error_type)
        self._count(
            totals, metric_definitions.STAGE_ITEMS, result.items_in, direction, "in", failed
        )
        self._count(
            totals, metric_definitions.STAGE_ITEMS, result.items_out, direction, "out", failed
        )
        self._count(totals, metric_definitions.STAGE_IO, result.bytes_in, direction, "in")
        self._count(totals, metric_definitions.STAGE_IO, result.bytes_out, direction, "out")
        for retried_for, count in result.retries:
            error_type = self._error_type(retried_for)
            self._count(totals, metric_definitions.STAGE_RETRIES, count, error_type=error_type)
        durations = self._values(totals, metric_definitions.STAGE_DURATION, failed)
        durations.add(result.busy_s, result.context, metric_definitions.DURATION_BUCKETS)
        size = result.items_in if result.items_in is not None else result.items_out
        if size is not None:
            sizes = self._values(totals, metric_definitions.STAGE_BATCH_SIZE)
            sizes.add(size, result.context, metric_definitions.SIZE_BUCKETS)
        for event_time, finished in result.event_times:
            ages = self._values(totals, metric_definitions.ITEM_DURATION)
            ages.add(
                max(0.0, finished - event_time), result.context, metric_definitions.DURATION_BUCKETS
            )
            newest = self._watermarks.get(key)
            self._watermarks[key] = event_time if newest is None else max(newest, event_time)

    def _values(
        self, totals: _Totals, metric: metric_definitions.Metric, error_type: str = ""
    ) -> _Values:
        values = totals.values.get((metric.name, error_type))
        if values is None:
            attributes = totals.with_extra({metric_definitions.ERROR_TYPE: error_type})
            values = _Values(self._histograms[metric.name], attributes)
            totals.values[metric.name, error_type] = values
        return values

    def _settled_active(self) -> list[Point]:
        self.flush()
        active: dict[StageKey, int] = dict.fromkeys(self._seen, 0)
        for series in _series.all_series():
            key = self.limit_pipeline_name(series.key)
            active[key] = active.get(key, 0) + series.active
        self._seen.update(active)
        return [(count, stage_attributes(key)) for key, count in active.items()]

    def _watermark_lag(self) -> list[Point]:
        now = clock.unix()
        return [
            (max(0.0, now - newest), stage_attributes(key))
            for key, newest in list(self._watermarks.items())
        ]

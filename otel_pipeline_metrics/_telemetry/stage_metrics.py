"""Record the metrics of stages and queues, through the API alone.

Nothing is recorded while a stage runs. Finished calls are totalled when a batch of them is
flushed, and recorded when a collection begins: every reader calls all observable callbacks
before it reads its storage, so the values are part of that collection, and the user's call does
not pay for them.

The counters are synchronous, not observable. For the SDK the series of an observable counter
begins at its first collection, so a job with one export would show Prometheus a first sample
and no increase. A synchronous one begins with its first record, made as soon as a series is
known.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, drain, series
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.records import (
    NOTHING,
    LimitBatch,
    QueueBatch,
    StageKey,
    StageTime,
)
from otel_pipeline_metrics._telemetry.attributes import stage_attributes
from otel_pipeline_metrics._telemetry.backlog import PreConfigureBacklog
from otel_pipeline_metrics._telemetry.pending import WAITING_BOUND, PendingSum, PendingValues
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import Instrument
from otel_pipeline_metrics._telemetry.sdk_private.self_check import is_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_pipeline_metrics._core.records import (
        AttributeValue,
        Batch,
        Counts,
        EventTime,
        Point,
        StageResult,
    )
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


_NO_STAGE: Final = StageKey(None, "", None)


class _Totals:
    """The pending values of one stage under one set of metric attributes."""

    __slots__ = ("attributes", "cpu_time", "durations", "running", "stage", "sums", "values")

    def __init__(self, attributes: dict[str, AttributeValue], stage: StageKey = _NO_STAGE) -> None:
        self.attributes = attributes
        # the key that the stage is reported under
        self.stage = stage
        # of `sums` and `values`, what most batches add to
        self.durations: PendingValues | None = None
        self.running: PendingSum | None = None
        self.cpu_time: PendingSum | None = None
        self.sums: dict[_Sum, PendingSum] = {}
        # by metric and error type
        self.values: dict[tuple[str, str], PendingValues] = {}

    def with_extra(self, more: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
        """Return the attributes, and those of `more` that have a value."""
        return {**self.attributes, **{key: value for key, value in more.items() if value}}

    def flush_if_full(self) -> None:
        """Record histograms with too many values for the next collection."""
        for values in self.values.values():
            values.flush_if_full()


# A counter's name, an attribute and its value, and an error type; each may be empty but the first.
_Sum = tuple[str, str, str, str]

_RUNNING, *_OTHERS = [
    (defs.STAGE_TIME.name, defs.STAGE_STATE, state, "") for state in StageTime._fields
]
_CPU_TIME: Final[_Sum] = (defs.STAGE_CPU_TIME.name, "", "", "")
_ITEMS_OUT: Final[_Sum] = (defs.STAGE_ITEMS.name, defs.IO_DIRECTION, "out", "")

# what counts the fields of `Counts`, and in which direction
_COUNTED: Final = (
    (defs.STAGE_ITEMS, "in"), (defs.STAGE_ITEMS, "out"),
    (defs.STAGE_IO, "in"), (defs.STAGE_IO, "out"),
)  # fmt: skip

_HISTOGRAMS: Final = (
    defs.STAGE_DURATION,
    defs.STAGE_BATCH_SIZE,
    defs.QUEUE_ITEM_DURATION,
    defs.LIMIT_WAIT_DURATION,
    defs.ITEM_DURATION,
)
_COUNTERS: Final = (
    defs.STAGE_TIME,
    defs.STAGE_CPU_TIME,
    defs.STAGE_ITEMS,
    defs.STAGE_IO,
    defs.STAGE_RETRIES,
)


class StageMetrics:
    """The sink that turns results into `pipeline.stage.*`; one for each configuration.

    Only the flushing thread calls it, one at a time, so it needs no lock.
    """

    def __init__(
        self,
        instruments: InstrumentSet,
        metric_attributes: tuple[str, ...],
        distinct: cardinality.Distinct,
    ) -> None:
        self._named = frozenset(metric_attributes)
        self._distinct = distinct
        # flushes what is not of stages, at the same moments
        self.flush_values: Callable[[], None] | None = None
        self._instruments = {
            metric.name: Instrument(make(metric), bulk=is_supported)
            for make, metrics in (
                (instruments.histogram, _HISTOGRAMS),
                (instruments.counter, _COUNTERS),
            )
            for metric in metrics
        }
        self._live = False
        self.after_fork()
        # its callback flushes at each collection; the SDK calls it even if a view drops it
        instruments.observable_up_down_counter(defs.STAGE_ACTIVE, self._flush_and_read_active)
        instruments.observable_gauge(defs.WATERMARK_LAG, self._watermark_lag)

    def after_fork(self) -> None:
        self._totals: dict[tuple[StageKey, tuple[tuple[str, Any], ...]], _Totals] = {}
        # without attributes of the calls, those of each stage whose pipeline keeps its name
        self._of_key: dict[StageKey, _Totals] = {}
        # the number of attribute sets that each stage has on metrics
        self._sets: Counter[StageKey] = Counter()
        # by the attribute that names it, and its name
        self._named_totals: dict[tuple[str, str], _Totals] = {}
        self._watermarks: dict[StageKey, float] = {}
        # the stages so far, and their attributes
        self._seen: dict[StageKey, dict[str, AttributeValue]] = {}
        self._last: Batch | None = None
        self._backlog = PreConfigureBacklog()
        for instrument in self._instruments.values():
            instrument.changed.clear()

    def take_over(self, before: StageMetrics) -> None:
        """Accept what finished while `before` had no provider."""
        for batch in before._backlog.take():
            if isinstance(batch, QueueBatch):
                self.accept_queue(batch)
            elif isinstance(batch, LimitBatch):
                self.accept_limit(batch)
            else:
                self.accept(batch)

    def _is_live(self, batch: Batch | QueueBatch | LimitBatch | None = None) -> bool:
        """Tell whether there is a provider; if it may come later, keep `batch` until then."""
        instrument = self._instruments[defs.STAGE_DURATION.name]
        if instrument.live:
            if self._backlog:
                self.take_over(self)
            self._live = True
        elif batch is not None and instrument.can_become_live:
            self._backlog.keep(batch)
        return self._live

    def accept(self, batch: Batch) -> None:
        """Add a batch to the totals; record only the begin of a new series."""
        if batch is self._last or not (self._live or self._is_live(batch)):
            return
        totals = self._of_key.get(batch.key)
        if totals is None:
            totals = self._totals_of(self._limit_pipeline_name(batch.key), batch.attributes)
            if not self._named and totals.stage == batch.key:
                self._of_key[batch.key] = totals
        durations = totals.durations
        if durations is None:
            durations = totals.durations = self._values(totals, defs.STAGE_DURATION)
        pending = durations.changing()
        # at once: a signal handler may raise, and then the batch comes again
        pending[len(pending) :], self._last = batch.durations, batch
        if batch.exemplars:
            durations.show(batch.exemplars, len(pending) - len(batch.durations))
        self._take_time(totals, batch)
        if (
            (batch.sizes or batch.results or batch.progress or batch.event_times)
            or len(pending) >= WAITING_BOUND
        ):  # fmt: skip
            self._take_more(totals, batch)

    def _take_time(self, totals: _Totals, batch: Batch) -> None:
        running, awaiting, busy, idle, blocked = batch.time
        # a state that was never seen may be unknown, which is not zero
        if running or batch.durations or batch.results:
            if totals.running is None:
                totals.running = self._sum(totals, _RUNNING)
            totals.running.increase(running)
        if awaiting or busy or idle or blocked:
            for state, seconds in zip(_OTHERS, batch.time[1:], strict=True):
                if seconds:
                    self._sum(totals, state).increase(seconds)
        if batch.cpu_s:
            if totals.cpu_time is None:
                totals.cpu_time = self._sum(totals, _CPU_TIME)
            totals.cpu_time.increase(batch.cpu_s)

    def _take_more(self, totals: _Totals, batch: Batch) -> None:
        """Take what few batches have, and record histograms that are full."""
        if batch.sizes:
            self._sum(totals, _ITEMS_OUT).increase(sum(batch.sizes))
            self._values(totals, defs.STAGE_BATCH_SIZE).extend(batch.sizes)
        touched = {id(totals): totals}
        for result in batch.results:
            own = self._totals_of_call(totals, batch, result.attributes)
            touched[id(own)] = own
            self._add(own, result)
        for more in batch.progress:
            own = self._totals_of_call(totals, batch, more.attributes)
            touched[id(own)] = own
            self._count_items(own, more.counts)
        for event in batch.event_times:
            own = self._totals_of_call(totals, batch, event.attributes)
            touched[id(own)] = own
            self._add_event(own, event)
        for own in touched.values():
            own.flush_if_full()

    def accept_queue(self, batch: QueueBatch) -> None:
        """Add the times that items spent in a queue."""
        if not self._is_live(batch):
            return
        totals = self._totals_named(defs.QUEUE_NAME, batch.name)
        self._values(totals, defs.QUEUE_ITEM_DURATION).extend(batch.waits)
        totals.flush_if_full()

    def accept_limit(self, batch: LimitBatch) -> None:
        """Add the times that were waited for permits of a limit."""
        if not self._is_live(batch):
            return
        totals = self._totals_named(defs.LIMIT_NAME, batch.name)
        values = self._values(totals, defs.LIMIT_WAIT_DURATION)
        # a limit may pass millions between two collections
        for begin in range(0, batch.passed, WAITING_BOUND):
            values.extend([0.0] * min(WAITING_BOUND, batch.passed - begin))
            values.flush_if_full()
        values.extend(batch.waits)
        values.flush_if_full()

    def _totals_named(self, attribute: str, name: str) -> _Totals:
        found = self._named_totals.get((attribute, name))
        if found is None:
            found = self._named_totals[attribute, name] = _Totals({attribute: name})
        return found

    def flush(self) -> bool:
        """Record everything that has finished in the instruments."""

        def record() -> None:
            if self.flush_values is not None:
                self.flush_values()
            if self._is_live():
                for instrument in self._instruments.values():
                    instrument.flush()

        return drain.drain(record)

    def _limit_pipeline_name(self, key: StageKey) -> StageKey:
        """Return the key under which a stage is reported, with a limited pipeline name."""
        if key.pipeline is None:
            return key
        pipeline = self._distinct.name(defs.PIPELINE_NAME, key.pipeline, again=True)
        return key if pipeline == key.pipeline else key._replace(pipeline=pipeline)

    def _error_type(self, found: str | None) -> str:
        return self._distinct.name(defs.ERROR_TYPE, found) if found else ""

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
            # too many combinations, though each key has few values
            other = cardinality.overflow("sets of attributes on metrics", cardinality.MAX_NAMES)
            chosen = dict.fromkeys(chosen, other)
            key = (stage, tuple(sorted(chosen.items())))
            totals = self._totals.get(key)
        if totals is None:
            self._sets[stage] += 1
            totals = self._totals[key] = _Totals({**chosen, **stage_attributes(stage)}, stage)
        return totals

    def _totals_of_call(
        self, totals: _Totals, batch: Batch, given: Mapping[str, AttributeValue] | None
    ) -> _Totals:
        """Return those for the attributes that a call has set; `totals` without any."""
        if not (self._named and given):
            return totals
        return self._totals_of(totals.stage, {**batch.attributes, **given})

    def _sum(self, totals: _Totals, identity: _Sum) -> PendingSum:
        total = totals.sums.get(identity)
        if total is None:
            metric, key, value, error_type = identity
            attributes = totals.with_extra({key: value, defs.ERROR_TYPE: error_type})
            total = totals.sums[identity] = PendingSum(self._instruments[metric], attributes)
        return total

    def _count_items(self, totals: _Totals, counts: Counts, failed: str = "") -> None:
        for amount, (metric, direction) in zip(counts, _COUNTED, strict=True):
            if amount is not None:
                error_type = failed if metric is defs.STAGE_ITEMS else ""
                identity = metric.name, defs.IO_DIRECTION, direction, error_type
                self._sum(totals, identity).increase(amount)

    def _add(self, totals: _Totals, result: StageResult) -> None:
        failed, counts = self._error_type(result.error_type), result.counts
        is_new = result.reported is NOTHING  # nearly always
        self._count_items(totals, counts if is_new else counts.since(result.reported), failed)
        for retried_for, count in result.retries:
            error_type = self._error_type(retried_for)
            self._sum(totals, (defs.STAGE_RETRIES.name, "", "", error_type)).increase(count)
        durations = self._values(totals, defs.STAGE_DURATION, failed)
        durations.append(result.busy_s, result.context, defs.DURATION_BUCKETS)
        size = counts.items_in if counts.items_in is not None else counts.items_out
        if size is not None:
            sizes = self._values(totals, defs.STAGE_BATCH_SIZE)
            sizes.append(size, result.context, defs.SIZE_BUCKETS)

    def _add_event(self, totals: _Totals, event: EventTime) -> None:
        ages = self._values(totals, defs.ITEM_DURATION)
        age = max(0.0, event.finished - event.originated)
        ages.append(age, event.context, defs.DURATION_BUCKETS)
        newest = self._watermarks.get(totals.stage, event.originated)
        self._watermarks[totals.stage] = max(newest, event.originated)

    def _values(self, totals: _Totals, metric: defs.Metric, error_type: str = "") -> PendingValues:
        values = totals.values.get((metric.name, error_type))
        if values is None:
            attributes = totals.with_extra({defs.ERROR_TYPE: error_type})
            values = PendingValues(self._instruments[metric.name], attributes)
            totals.values[metric.name, error_type] = values
        return values

    def _flush_and_read_active(self) -> list[Point]:
        self.flush()
        active: Counter[StageKey] = Counter()
        for scope in list(series.scopes):
            some_not_kept = series.not_kept(scope)
            for each in list(scope.series.values()):
                key = each.key
                if key not in self._seen:
                    key = self._limit_pipeline_name(key)
                    self._seen.setdefault(key, stage_attributes(key))
                count = each.active if some_not_kept else len(each.kept)
                if count:
                    active[key] += count
        if not active:
            return [(0, attributes) for attributes in self._seen.values()]
        return [(active[key], attributes) for key, attributes in self._seen.items()]

    def _watermark_lag(self) -> list[Point]:
        now = clock.unix()
        return [
            (max(0.0, now - newest), stage_attributes(key))
            for key, newest in list(self._watermarks.items())
        ]

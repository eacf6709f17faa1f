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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, drain, errors, series
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.records import (
    NO_TIME,
    NOTHING,
    Batch,
    QueueBatch,
    StageKey,
    StageTime,
)
from otel_pipeline_metrics._telemetry.attributes import stage_attributes
from otel_pipeline_metrics._telemetry.backlog import PreConfigureBacklog
from otel_pipeline_metrics._telemetry.pending import WAITING_BOUND, Additions
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import Instrument
from otel_pipeline_metrics._telemetry.sdk_private.self_check import is_supported
from otel_pipeline_metrics._telemetry.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_pipeline_metrics._core.records import (
        AttributeValue,
        Counts,
        EventTime,
        LimitBatch,
        Point,
        StageResult,
    )
    from otel_pipeline_metrics._telemetry.backlog import AnyBatch
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet
    from otel_pipeline_metrics._telemetry.totals import SumId


_RUNNING, *_OTHERS = [
    (defs.STAGE_TIME.name, defs.STAGE_STATE, state, "") for state in StageTime._fields
]
_NO_OTHER_TIME: Final = NO_TIME[1:]
_CPU_TIME: Final[SumId] = (defs.STAGE_CPU_TIME.name, "", "", "")
_ITEMS_OUT: Final[SumId] = (defs.STAGE_ITEMS.name, defs.IO_DIRECTION, "out", "")

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
        self._totals: dict[tuple[StageKey, tuple[tuple[str, Any], ...]], Totals] = {}
        # without attributes of the calls, those of each stage whose pipeline keeps its name
        self._of_key: dict[StageKey, Totals] = {}
        # the number of attribute sets that each stage has on metrics
        self._sets: Counter[StageKey] = Counter()
        # by the attribute that names it, and its name
        self._named_totals: dict[tuple[str, str], Totals] = {}
        self._watermarks: dict[StageKey, float] = {}
        # the stages so far, and their attributes
        self._seen: dict[StageKey, dict[str, AttributeValue]] = {}
        # the batch that was taken last; of a limit's that is being taken, the zeros so far
        self._last: AnyBatch | None = None
        self._zeros: tuple[object, int] = (None, 0)
        self._backlog = PreConfigureBacklog()
        for instrument in self._instruments.values():
            instrument.changed.clear()

    def take_over(self, before: StageMetrics) -> None:
        """Accept what finished while `before` had no provider."""
        both, none = before._backlog.with_those_of(self._backlog), PreConfigureBacklog()
        # at once; this accepts no more until all of it is taken
        before._backlog, self._backlog, self._live = none, both, False
        self._is_live()

    def _is_live(self, batch: AnyBatch | None = None) -> bool:
        """Tell whether there is a provider; if it may come later, keep `batch` until then."""
        instrument = self._instruments[defs.STAGE_DURATION.name]
        if instrument.live:
            for early in self._backlog.taking():
                with errors.suppress_errors("taking what finished before configure()"):
                    self._take(early)
            self._live = True
        elif not instrument.can_become_live:
            self._backlog = PreConfigureBacklog()
        elif batch is not None:
            self._backlog.keep(batch)
        return self._live

    def accept(self, batch: AnyBatch) -> None:
        """Add a batch to the totals; record only the begin of a new series."""
        if self._live or self._is_live(batch):
            self._take(batch)

    accept_queue = accept_limit = accept

    def _take(self, batch: AnyBatch) -> None:
        """Take a batch at once: interrupted by an exception of a signal handler, it comes again."""
        if batch is self._last:
            return
        if not isinstance(batch, Batch):
            self._take_waits(batch)
            return
        totals = self._of_key.get(batch.key)
        if totals is None:
            totals = self._totals_of(self._limit_pipeline_name(batch.key), batch.attributes)
            if not self._named and totals.stage == batch.key:
                self._of_key[batch.key] = totals
        durations, running, cpu_time = totals.durations, totals.running, totals.cpu_time
        if (
            (durations is None or running is None or cpu_time is None)
            or (batch.sizes or batch.results or batch.progress or batch.event_times)
            or (batch.exemplars or batch.time[1:] != _NO_OTHER_TIME)
        ):
            self._take_more(totals, batch)
            return
        # what most batches have; `Additions` would cost more
        durations.will_change()
        running.will_change()
        cpu_time.will_change()
        pending = durations._pending
        # at once: a signal handler raises before or after this, as nothing is called there
        pending[len(pending) :], running._pending, cpu_time._pending, self._last = (
            batch.durations,
            running._pending + batch.time[0],
            cpu_time._pending + batch.cpu_s,
            batch,
        )
        if len(pending) >= WAITING_BOUND:
            durations.flush()

    def _take_more(self, totals: Totals, batch: Batch) -> None:
        """Take all that a batch may have, and record histograms that are full."""
        more = Additions()
        if totals.durations is None:
            totals.durations = totals.histogram(defs.STAGE_DURATION)
        more.extend(totals.durations, batch.durations, batch.exemplars)
        self._add_time(more, totals, batch)
        if batch.sizes:
            more.increase(totals.sum(_ITEMS_OUT), sum(batch.sizes))
            more.extend(totals.histogram(defs.STAGE_BATCH_SIZE), batch.sizes)
        touched = {id(totals): totals}
        for result in batch.results:
            own = self._totals_of_call(totals, batch, result.attributes)
            touched[id(own)] = own
            self._add(more, own, result)
        for progress in batch.progress:
            own = self._totals_of_call(totals, batch, progress.attributes)
            touched[id(own)] = own
            self._count_items(more, own, progress.counts)
        for event in batch.event_times:
            own = self._totals_of_call(totals, batch, event.attributes)
            touched[id(own)] = own
            self._add_event(more, own, event)
        more.put_in_force(partial(setattr, self, "_last", batch))
        for own in touched.values():
            own.flush_if_full()

    def _add_time(self, more: Additions, totals: Totals, batch: Batch) -> None:
        # a state that was never seen may be unknown, which is not zero
        if batch.time[0] or batch.durations or batch.results:
            if totals.running is None:
                totals.running = totals.sum(_RUNNING)
            more.increase(totals.running, batch.time[0])
        for state, seconds in zip(_OTHERS, batch.time[1:], strict=True):
            if seconds:
                more.increase(totals.sum(state), seconds)
        if batch.cpu_s:
            if totals.cpu_time is None:
                totals.cpu_time = totals.sum(_CPU_TIME)
            more.increase(totals.cpu_time, batch.cpu_s)

    def _take_waits(self, batch: QueueBatch | LimitBatch) -> None:
        if isinstance(batch, QueueBatch):
            key, metric, zeros = defs.QUEUE_NAME, defs.QUEUE_ITEM_DURATION, 0
        else:
            key, metric, zeros = defs.LIMIT_NAME, defs.LIMIT_WAIT_DURATION, batch.passed
        values = self._totals_named(key, batch.name).histogram(metric)
        values.will_change()
        pending, (before, taken) = values._pending, self._zeros
        if before is not batch:
            taken = 0
        # a limit may pass millions between two collections
        while taken < zeros:
            some = min(WAITING_BOUND, zeros - taken)
            taken += some
            # at once, as in `_take`; the next one too
            pending[len(pending) :], self._zeros = [0.0] * some, (batch, taken)
            values.flush_if_full()
        pending[len(pending) :], self._last = batch.waits, batch
        values.flush_if_full()

    def _totals_named(self, attribute: str, name: str) -> Totals:
        found = self._named_totals.get((attribute, name))
        if found is None:
            found = self._named_totals[attribute, name] = Totals(
                self._instruments, {attribute: name}
            )
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

    def _totals_of(self, stage: StageKey, given: Mapping[str, AttributeValue]) -> Totals:
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
            attributes = {**chosen, **stage_attributes(stage)}
            totals = Totals(self._instruments, attributes, stage)
            self._totals[key], self._sets[stage] = totals, self._sets[stage] + 1
        return totals

    def _totals_of_call(
        self, totals: Totals, batch: Batch, given: Mapping[str, AttributeValue] | None
    ) -> Totals:
        """Return those for the attributes that a call has set; `totals` without any."""
        if not (self._named and given):
            return totals
        return self._totals_of(totals.stage, {**batch.attributes, **given})

    def _count_items(
        self, more: Additions, totals: Totals, counts: Counts, failed: str = ""
    ) -> None:
        for amount, (metric, direction) in zip(counts, _COUNTED, strict=True):
            if amount is not None:
                error_type = failed if metric is defs.STAGE_ITEMS else ""
                identity = metric.name, defs.IO_DIRECTION, direction, error_type
                more.increase(totals.sum(identity), amount)

    def _add(self, more: Additions, totals: Totals, result: StageResult) -> None:
        failed, counts = self._error_type(result.error_type), result.counts
        is_new = result.reported is NOTHING  # nearly always
        new_counts = counts if is_new else counts.since(result.reported)
        self._count_items(more, totals, new_counts, failed)
        for retried_for, count in result.retries:
            identity = defs.STAGE_RETRIES.name, "", "", self._error_type(retried_for)
            more.increase(totals.sum(identity), count)
        durations = totals.histogram(defs.STAGE_DURATION, failed)
        more.append(durations, result.busy_s, result.context, defs.DURATION_BUCKETS)
        size = counts.items_in if counts.items_in is not None else counts.items_out
        if size is not None:
            sizes = totals.histogram(defs.STAGE_BATCH_SIZE)
            more.append(sizes, size, result.context, defs.SIZE_BUCKETS)

    def _add_event(self, more: Additions, totals: Totals, event: EventTime) -> None:
        ages = totals.histogram(defs.ITEM_DURATION)
        age = max(0.0, event.finished - event.originated)
        more.append(ages, age, event.context, defs.DURATION_BUCKETS)
        newest = self._watermarks.get(totals.stage, event.originated)
        self._watermarks[totals.stage] = max(newest, event.originated)

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

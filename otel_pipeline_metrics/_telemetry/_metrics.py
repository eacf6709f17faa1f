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

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics

from otel_pipeline_metrics import _measure
from otel_pipeline_metrics import _semconv as names
from otel_pipeline_metrics._telemetry._attributes import stage_attributes
from otel_pipeline_metrics._telemetry._fold import HistogramSeries
from otel_pipeline_metrics._telemetry._instruments import InstrumentSet
from otel_pipeline_metrics._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider

    from otel_pipeline_metrics._model import AttributeValue, Batch, Point, StageKey, StageResult

WAITING_BOUND: Final = 8192
"""Histogram values kept for the next collection before they are recorded at once."""


class _Sum:
    """Increments of one counter under one set of attributes, until they are recorded."""

    __slots__ = ("_attributes", "_counter", "_more")

    def __init__(self, counter: Counter, attributes: Mapping[str, AttributeValue]) -> None:
        self._counter = counter
        self._attributes = attributes
        self._more: float = 0
        # Zero first: a backend that sees the series begin can tell the first increase.
        counter.add(0, attributes)

    def add(self, more: float) -> None:
        self._more += more

    def record(self) -> None:
        if self._more:
            more, self._more = self._more, 0
            self._counter.add(more, self._attributes)


class _Values:
    """Values of one histogram under one set of attributes, until they are recorded."""

    __slots__ = ("_attributes", "_exemplary", "_histogram", "_series", "_waiting")

    def __init__(self, histogram: Histogram, attributes: dict[str, AttributeValue]) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._series = HistogramSeries(histogram, attributes)
        self._waiting: list[float] = []
        self._exemplary: dict[int, tuple[float, Any]] = {}
        """By bucket, the latest value with a sampled span: as many as a reservoir keeps."""

    def add_many(self, values: Sequence[float]) -> bool:
        """Add values; True when enough of them wait."""
        self._waiting.extend(values)
        return len(self._waiting) >= WAITING_BOUND

    def add(self, value: float, context: Any, boundaries: Sequence[float]) -> bool:
        """Add a value and the context of its span, if that is sampled."""
        if context is not None:
            bucket = bisect_left(boundaries, value)
            before = self._exemplary.get(bucket)
            self._exemplary[bucket] = (value, context)
            if before is None:
                return False
            value = before[0]
        self._waiting.append(value)
        return len(self._waiting) >= WAITING_BOUND

    def record(self, *, collecting: bool) -> None:
        """Record what waits."""
        exemplary, self._exemplary = self._exemplary, {}
        for value, context in exemplary.values():
            self._histogram.record(value, self._attributes, context)
        waiting, self._waiting = self._waiting, []
        if waiting:
            waiting.sort()
            self._series.record(waiting, collecting=collecting)


class _Totals:
    """What is not recorded yet of one stage under one set of metric attributes."""

    __slots__ = ("attributes", "sums", "values")

    def __init__(self, attributes: dict[str, AttributeValue]) -> None:
        self.attributes = attributes
        self.sums: dict[tuple[str, ...], _Sum] = {}
        self.values: dict[tuple[str, str], _Values] = {}
        """By metric and error type."""

    def with_(self, more: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
        """Return the attributes and those of `more` that have a value."""
        return {**self.attributes, **{key: value for key, value in more.items() if value}}

    def record(self, *, collecting: bool) -> None:
        """Record everything that waits."""
        for values in list(self.values.values()):
            values.record(collecting=collecting)
        for total in list(self.sums.values()):
            total.record()


class StageMetrics:
    """The sink that turns results into `pipeline.stage.*`; one for each configuration."""

    def __init__(self, instruments: InstrumentSet, metric_attributes: tuple[str, ...]) -> None:
        self._named = frozenset(metric_attributes)
        self._totals: dict[tuple[StageKey, tuple[tuple[str, Any], ...]], _Totals] = {}
        # Taken by collections and by drains, never on the hot path.
        self._lock = threading.RLock()
        self._recording = False
        measured = (names.STAGE_DURATION, names.STAGE_BATCH_SIZE)
        self._histograms = {metric.name: instruments.histogram(metric) for metric in measured}
        counted = (names.STAGE_TIME, names.STAGE_ITEMS, names.STAGE_IO, names.STAGE_RETRIES)
        self._counters = {metric.name: instruments.counter(metric) for metric in counted}
        # Its callback is what begins a collection; the SDK calls it even where a view drops it.
        instruments.observable_up_down_counter(names.STAGE_ACTIVE, self._settled_active)

    def accept(self, batch: Batch) -> None:
        """Total a batch; record only what makes a new series begin."""
        with self._lock:
            if batch.plain:
                totals = self._totals_of(batch, None)
                busy = sum(batch.plain)
                self._count(totals, names.STAGE_TIME, busy, names.STAGE_STATE, "busy")
                if self._values(totals, names.STAGE_DURATION).add_many(batch.plain):
                    self._record(totals)
            for result in batch.results:
                totals = self._totals_of(batch, result.attributes)
                self._add(totals, result)

    def settle(self, *, collecting: bool = False) -> None:
        """Bring everything that has finished into the instruments."""
        _measure.drain()
        with self._lock:
            for totals in list(self._totals.values()):
                self._record(totals, collecting=collecting)

    def _totals_of(self, batch: Batch, own: Mapping[str, AttributeValue] | None) -> _Totals:
        chosen: dict[str, Any] = {}
        if self._named:
            given = {**batch.attributes, **(own or {})}
            chosen = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in given.items()
                if key in self._named
            }
        key = (batch.key, tuple(sorted(chosen.items())))
        totals = self._totals.get(key)
        if totals is None:
            totals = self._totals[key] = _Totals({**chosen, **stage_attributes(batch.key)})
        return totals

    def _count(
        self,
        totals: _Totals,
        metric: names.Metric,
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
            attributes = totals.with_({key: value, names.ERROR_TYPE: error_type})
            total = totals.sums[identity] = _Sum(self._counters[metric.name], attributes)
        total.add(more)

    def _add(self, totals: _Totals, result: StageResult) -> None:
        state, direction, failed = names.STAGE_STATE, names.IO_DIRECTION, result.error_type or ""
        self._count(totals, names.STAGE_TIME, result.busy_s, state, "busy")
        self._count(totals, names.STAGE_TIME, result.idle_s or None, state, "idle")
        self._count(totals, names.STAGE_TIME, result.blocked_s or None, state, "blocked")
        self._count(totals, names.STAGE_ITEMS, result.items_in, direction, "in", failed)
        self._count(totals, names.STAGE_ITEMS, result.items_out, direction, "out", failed)
        self._count(totals, names.STAGE_IO, result.bytes_in, direction, "in")
        self._count(totals, names.STAGE_IO, result.bytes_out, direction, "out")
        for retried_for, count in result.retries:
            self._count(totals, names.STAGE_RETRIES, count, error_type=retried_for)
        full = self._values(totals, names.STAGE_DURATION, failed).add(
            result.busy_s, result.context, names.DURATION_BUCKETS
        )
        size = result.items_in if result.items_in is not None else result.items_out
        if size is not None:
            full |= self._values(totals, names.STAGE_BATCH_SIZE).add(
                size, result.context, names.SIZE_BUCKETS
            )
        if full:
            self._record(totals)

    def _values(self, totals: _Totals, metric: names.Metric, error_type: str = "") -> _Values:
        values = totals.values.get((metric.name, error_type))
        if values is None:
            attributes = totals.with_({names.ERROR_TYPE: error_type})
            values = _Values(self._histograms[metric.name], attributes)
            totals.values[metric.name, error_type] = values
        return values

    def _record(self, totals: _Totals, *, collecting: bool = False) -> None:
        if self._recording:
            # A gc callback entered a stage while the SDK held a lock of its own that it does
            # not let the same thread take twice; the values wait for the next time.
            return
        self._recording = True
        try:
            totals.record(collecting=collecting)
        finally:
            self._recording = False

    def _settled_active(self) -> list[Point]:
        self.settle(collecting=True)
        active: dict[StageKey, int] = {}
        for series in _measure.all_series():
            active[series.key] = active.get(series.key, 0) + len(series.active)
        return [(count, stage_attributes(key)) for key, count in active.items()]


class RunMetrics:
    """`pipeline.run.*`; runs are few, so they are recorded as they end."""

    def __init__(self, instruments: InstrumentSet) -> None:
        self._duration = instruments.histogram(names.RUN_DURATION)
        self._active: dict[str, int] = {}
        self._last_success: dict[str, float] = {}
        self._lock = threading.Lock()
        instruments.observable_up_down_counter(names.RUN_ACTIVE, self._read_active)
        instruments.observable_gauge(names.RUN_LAST_SUCCESS, self._read_last_success)

    def started(self, pipeline: str) -> None:
        """Count a run that begins."""
        with self._lock:
            self._active[pipeline] = self._active.get(pipeline, 0) + 1

    def ended(  # noqa: PLR0917 - one call, in one place
        self,
        pipeline: str,
        seconds: float,
        result: str,
        error_type: str | None,
        unix_time: float,
        context: Any,
    ) -> None:
        """Record a run that is over."""
        with self._lock:
            self._active[pipeline] = max(0, self._active.get(pipeline, 0) - 1)
            if result == "success":
                self._last_success[pipeline] = unix_time
        attributes = {names.PIPELINE_NAME: pipeline, names.RUN_RESULT: result}
        if error_type is not None:
            attributes[names.ERROR_TYPE] = error_type
        self._duration.record(seconds, attributes, context)

    def _read_active(self) -> list[Point]:
        return [(n, {names.PIPELINE_NAME: name}) for name, n in list(self._active.items())]

    def _read_last_success(self) -> list[Point]:
        return [(t, {names.PIPELINE_NAME: name}) for name, t in list(self._last_success.items())]


def meter_of(provider: MeterProvider | None) -> Meter:
    """Return our meter on `provider`, or on the global one, present or to come."""
    if provider is None:
        return metrics.get_meter(names.SCOPE, __version__)
    return provider.get_meter(names.SCOPE, __version__)

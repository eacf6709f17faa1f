"""Metrics of stages and runs, through the OpenTelemetry API alone.

Everything but histograms is plain state that observable instruments read. Histogram values
wait until a collection begins: every reader calls all observable callbacks before it reads
its storage, so the values land in that same collection, and the user's call has not paid
for recording them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics

from otel_pipeline_metrics import _measure
from otel_pipeline_metrics import _semconv as names
from otel_pipeline_metrics._telemetry._attributes import stage_attributes
from otel_pipeline_metrics._telemetry._instruments import InstrumentSet
from otel_pipeline_metrics._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.metrics import Histogram, Meter, MeterProvider

    from otel_pipeline_metrics._model import (
        AttributeValue,
        Batch,
        Point,
        StageKey,
        StageResult,
    )

WAITING_BOUND: Final = 8192
"""Histogram values kept for the next collection before they are recorded at once."""


class _Totals:
    """The running totals of one stage under one set of metric attributes."""

    __slots__ = ("attributes", "bytes", "items", "retries", "time", "waiting")

    def __init__(self, attributes: dict[str, AttributeValue]) -> None:
        self.attributes = attributes
        self.time: dict[str, float] = {}
        self.items: dict[tuple[str, str | None], int] = {}
        self.bytes: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.waiting: list[tuple[float, str | None, int | None, Any]] = []
        """(duration, error type, batch size, exemplar context) not recorded yet."""

    def with_(self, key: str, value: AttributeValue | None) -> dict[str, AttributeValue]:
        """Return the attributes and one more; without it where `value` is None or empty."""
        return {**self.attributes, key: value} if value else self.attributes


class StageMetrics:
    """The sink that turns results into `pipeline.stage.*`; one for each configuration."""

    def __init__(self, instruments: InstrumentSet, metric_attributes: tuple[str, ...]) -> None:
        self._named = frozenset(metric_attributes)
        self._totals: dict[tuple[StageKey, tuple[tuple[str, Any], ...]], _Totals] = {}
        # Taken by collections and by drains, never on the hot path.
        self._lock = threading.RLock()
        self._recording = False
        self._duration: Histogram = instruments.histogram(names.STAGE_DURATION)
        self._batch_size: Histogram = instruments.histogram(names.STAGE_BATCH_SIZE)
        instruments.observable_counter(names.STAGE_TIME, self._after_settling(self._time))
        instruments.observable_counter(names.STAGE_ITEMS, self._after_settling(self._items))
        instruments.observable_counter(names.STAGE_IO, self._after_settling(self._bytes))
        instruments.observable_counter(names.STAGE_RETRIES, self._after_settling(self._retries))
        instruments.observable_up_down_counter(
            names.STAGE_ACTIVE, self._after_settling(self._active)
        )

    def accept(self, batch: Batch) -> None:
        """Add a batch to the totals."""
        with self._lock:
            if batch.plain:
                totals = self._totals_of(batch, None)
                totals.time["busy"] = totals.time.get("busy", 0.0) + sum(batch.plain)
                totals.waiting.extend((d, None, None, None) for d in batch.plain)
            for result in batch.results:
                self._add(self._totals_of(batch, result.attributes), result)
            for totals in list(self._totals.values()):
                if len(totals.waiting) >= WAITING_BOUND:
                    self._record(totals)

    def settle(self) -> None:
        """Bring everything that has finished into the totals and the histograms."""
        _measure.drain()
        with self._lock:
            for totals in list(self._totals.values()):
                self._record(totals)

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

    @staticmethod
    def _add(totals: _Totals, result: StageResult) -> None:
        time = totals.time
        time["busy"] = time.get("busy", 0.0) + result.busy_s
        if result.idle_s:
            time["idle"] = time.get("idle", 0.0) + result.idle_s
        if result.blocked_s:
            time["blocked"] = time.get("blocked", 0.0) + result.blocked_s
        for direction, count in (("in", result.items_in), ("out", result.items_out)):
            if count is not None:
                kind = (direction, result.error_type)
                totals.items[kind] = totals.items.get(kind, 0) + count
        for direction, size in (("in", result.bytes_in), ("out", result.bytes_out)):
            if size is not None:
                totals.bytes[direction] = totals.bytes.get(direction, 0) + size
        for error_type, count in result.retries:
            totals.retries[error_type] = totals.retries.get(error_type, 0) + count
        size_of_batch = result.items_in if result.items_in is not None else result.items_out
        totals.waiting.append((result.busy_s, result.error_type, size_of_batch, result.context))

    def _record(self, totals: _Totals) -> None:
        if self._recording:
            # A gc callback entered a stage while the SDK held a lock of its own that it does
            # not let the same thread take twice; the values wait for the next time.
            return
        self._recording = True
        try:
            waiting, totals.waiting = totals.waiting, []
            for duration, error_type, batch_size, context in waiting:
                attributes = totals.with_(names.ERROR_TYPE, error_type)
                self._duration.record(duration, attributes, context)
                if batch_size is not None:
                    self._batch_size.record(batch_size, totals.attributes, context)
        finally:
            self._recording = False

    def _after_settling(self, read: Callable[[], Iterator[Point]]) -> Callable[[], list[Point]]:
        # Each callback settles, since a view may drop any instrument and its callback with it.
        def settled() -> list[Point]:
            self.settle()
            with self._lock:
                return list(read())

        return settled

    def _time(self) -> Iterator[Point]:
        for totals in self._totals.values():
            for state, seconds in totals.time.items():
                yield seconds, totals.with_(names.STAGE_STATE, state)

    def _items(self) -> Iterator[Point]:
        for totals in self._totals.values():
            for (direction, error_type), count in totals.items.items():
                attributes = totals.with_(names.IO_DIRECTION, direction)
                if error_type is not None:
                    attributes = {**attributes, names.ERROR_TYPE: error_type}
                yield count, attributes

    def _bytes(self) -> Iterator[Point]:
        for totals in self._totals.values():
            for direction, size in totals.bytes.items():
                yield size, totals.with_(names.IO_DIRECTION, direction)

    def _retries(self) -> Iterator[Point]:
        for totals in self._totals.values():
            for error_type, count in totals.retries.items():
                yield count, totals.with_(names.ERROR_TYPE, error_type)

    def _active(self) -> Iterator[Point]:
        active: dict[StageKey, int] = {}
        for series in _measure.all_series():
            active[series.key] = active.get(series.key, 0) + len(series.active)
        for key, count in active.items():
            yield count, stage_attributes(key)


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

"""Report values that are not of stages: operations, events, and the program's own metrics.

A recorded value waits in a list, as the results of stages do, and is added to its instrument at
the next collection. So `record` takes no lock, and a signal handler may call it at any point.
Levels are kept by their attributes and read at each collection.

What is kept here belongs to the process and not to a configuration: values that were recorded
before `configure()`, and levels, are reported by the sink that comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current
from opentelemetry.trace import get_current_span

from otel_pipeline_metrics._core import cardinality, drain, errors, settings
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._telemetry.backlog import BOUND
from otel_pipeline_metrics._telemetry.pending import Additions, PendingSum, PendingValues
from otel_pipeline_metrics._telemetry.sdk_private.bulk_record import Instrument
from otel_pipeline_metrics._telemetry.sdk_private.self_check import is_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue, Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


# Keys and values, in an order that is the same for equal attributes.
Attributes = tuple[tuple[str, Any], ...]
_Recorded = tuple[Attributes, float, Any]
_Pending = PendingSum | PendingValues

# Values of a measure that wait before the thread that adds one more flushes them.
PENDING_BOUND: Final = drain.PENDING_BOUND

# By name, in the order in which they were made.
_measures: dict[str, Measure] = {}
_levels: dict[str, Level] = {}

# Flushes a measure with many pending values; set when a sink is installed.
flush_full: Callable[[Measure], None] | None = None


class Measure:
    """A counter or histogram of the process; `measure()` returns the one of a metric."""

    __slots__ = ("__weakref__", "_early", "_missed", "metric", "pending")

    def __init__(self, metric: defs.Metric) -> None:
        self.metric = metric
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self.pending: list[_Recorded] = []
        self._early: list[_Recorded] = []
        self._missed = 0

    def record(self, value: float, attributes: Attributes = ()) -> None:
        """Add a checked value. Never waits."""
        pending = self.pending
        pending.append(
            (attributes, value, None if self.metric.kind == "counter" else _sampled_context())
        )
        if len(pending) >= PENDING_BOUND and flush_full is not None:
            flush_full(self)

    def waiting(self) -> tuple[list[_Recorded], list[partial[None]]]:
        """Return the pending values, those from before there was a provider too.

        The second part removes them, for `Additions.put_in_force`.
        """
        if self._missed:
            errors.warn_once(
                f"early {self.metric.name}",
                "%d values of %s from before configure() are missing: only the first %d are kept "
                "until then",
                self._missed,
                self.metric.name,
                BOUND,
            )
        # others append at the end, and only the holder of the lock deletes
        new = self.pending[:]
        return [*self._early, *new], [
            partial(self.pending.__delitem__, slice(len(new))),
            partial(setattr, self, "_early", []),
            partial(setattr, self, "_missed", 0),
        ]

    def keep(self) -> None:
        """Keep a bounded number of pending values for a provider that may come."""
        new = self.pending[:]
        early = [*self._early, *new]
        if self.metric.kind == "counter":
            # sums need no more room for more values
            sums: dict[Attributes, float] = {}
            for attributes, value, _ in early:
                sums[attributes] = sums.get(attributes, 0) + value
            early = [(attributes, value, None) for attributes, value in sums.items()]
        missed = self._missed + max(0, len(early) - BOUND)
        # at once: a signal handler raises before or after this, as nothing is called there
        self.pending[: len(new)], self._early, self._missed = (), early[:BOUND], missed

    def discard(self) -> None:
        """Drop the pending values: no provider takes them."""
        self.pending[:], self._early, self._missed = (), [], 0


class Level:
    """A gauge or up-down counter of the process: the latest value under each set of attributes.

    `level()` returns the one of a metric.
    """

    __slots__ = ("__weakref__", "metric", "values")

    def __init__(self, metric: defs.Metric) -> None:
        self.metric = metric
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self.values: dict[Attributes, float] = {}

    def set(self, value: float, attributes: Attributes = ()) -> None:
        """Replace the level under `attributes`."""
        if attributes not in self.values and len(self.values) >= cardinality.MAX_NAMES:
            attributes = _other(attributes)
        self.values[attributes] = value

    def install(self, instruments: InstrumentSet) -> None:
        """Report the levels on one set of instruments."""
        make = (
            instruments.observable_gauge
            if self.metric.kind == "gauge"
            else instruments.observable_up_down_counter
        )
        make(self.metric, self.points)

    def points(self) -> list[Point]:
        if not _is_wanted(self.metric):
            return []
        return [(value, dict(attributes)) for attributes, value in list(self.values.items())]


def measure(metric: defs.Metric) -> Measure:
    """Return the process's one measure of a counter or histogram, made if need be."""
    # setdefault is atomic: two threads that make a measure get the same one
    return _measures.get(metric.name) or _measures.setdefault(metric.name, Measure(metric))


def level(metric: defs.Metric) -> Level:
    """Return the process's one level of a gauge or up-down counter, made if need be."""
    return _levels.get(metric.name) or _levels.setdefault(metric.name, Level(metric))


class _Recorder:
    """The pending values of one measure, by attributes, on one instrument."""

    def __init__(self, metric: defs.Metric, instruments: InstrumentSet) -> None:
        self._is_counter = metric.kind == "counter"
        make: Any = instruments.counter if self._is_counter else instruments.histogram
        self.instrument = Instrument(make(metric), bulk=is_supported)
        self._buckets = metric.buckets or defs.SIZE_BUCKETS
        self.after_fork()

    def after_fork(self) -> None:
        self._by_attributes: dict[Attributes, _Pending] = {}
        self.instrument.changed.clear()

    def add(self, measure: Measure) -> None:
        values, removed = measure.waiting()
        more = Additions()
        for attributes, value, context in values:
            pending = self._by_attributes.get(attributes)
            if pending is None:
                pending = self._make(attributes)
            if isinstance(pending, PendingSum):
                more.increase(pending, value)
            else:
                more.append(pending, value, context, self._buckets)
        more.put_in_force(*removed)

    def _make(self, attributes: Attributes) -> _Pending:
        found = self._by_attributes
        if len(found) >= cardinality.MAX_NAMES:
            attributes = _other(attributes)
            if attributes in found:
                return found[attributes]
        kind = PendingSum if self._is_counter else PendingValues
        made = found[attributes] = kind(self.instrument, dict(attributes))
        return made


class ValueMetrics:
    """Records the values of all measures on one meter provider.

    Only the flushing thread calls it, one at a time, so it needs no lock.
    """

    def __init__(self, instruments: InstrumentSet) -> None:
        self._instruments = instruments
        self._recorders: dict[str, _Recorder] = {}

    def after_fork(self) -> None:
        for recorder in self._recorders.values():
            recorder.after_fork()

    def flush(self) -> None:
        """Record all pending values in their instruments."""
        for measure in list(_measures.values()):
            self._flush(measure)

    def flush_full(self, measure: Measure) -> None:
        """Record the values of one measure, unless another thread is flushing."""
        with errors.suppress_errors("recording values"):
            drain.unless_draining(lambda: self._flush(measure))

    def _flush(self, measure: Measure) -> None:
        if not _is_wanted(measure.metric):
            measure.discard()
            return
        recorder = self._recorders.get(measure.metric.name)
        if recorder is None:
            recorder = _Recorder(measure.metric, self._instruments)
            self._recorders[measure.metric.name] = recorder
        if recorder.instrument.live:
            recorder.add(measure)
            recorder.instrument.flush()
        elif recorder.instrument.can_become_live:
            measure.keep()
        else:
            measure.discard()


def _is_wanted(metric: defs.Metric) -> bool:
    """Tell whether the settings ask for a metric; the telemetry's own health is always there."""
    return settings.settings().enable_business_metrics or metric.name.startswith("otel.")


def pairs(attributes: Mapping[str, AttributeValue]) -> Attributes:
    """Return attributes in the form that measures and levels take."""
    return tuple(
        sorted(
            (key, tuple(value) if isinstance(value, list) else value)
            for key, value in attributes.items()
        )
    )


def _other(attributes: Attributes) -> Attributes:
    """Return the attributes of a metric that has too many sets of them."""
    other = cardinality.overflow("sets of attributes on metrics", cardinality.MAX_NAMES)
    return tuple((key, other) for key, _ in attributes)


def _sampled_context() -> Any:
    """Return the current context if it has a sampled span, for an exemplar; else None."""
    context = get_current()
    if not context:
        return None
    return context if get_current_span(context).get_span_context().trace_flags.sampled else None

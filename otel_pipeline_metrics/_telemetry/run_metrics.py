"""Record the metrics of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import cardinality
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._telemetry.bottlenecks import Bottlenecks
from otel_pipeline_metrics._telemetry.sdk_private.readers import count_readers

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


# Those that replaced the others, which do not hold their successors.
_latest: RunMetrics | None = None


class RunMetrics:
    """The metrics `pipeline.run.*`; runs are few, so each is recorded at its end."""

    def __init__(self, instruments: InstrumentSet, distinct: cardinality.Distinct) -> None:
        self._distinct = distinct
        self._replaced = False
        self._duration = instruments.histogram(defs.RUN_DURATION)
        self._eventloop_delay = instruments.histogram(defs.EVENTLOOP_DELAY)
        self._bottlenecks = Bottlenecks(
            instruments, distinct, lambda: count_readers(instruments.provider())
        )
        self.after_fork()
        instruments.observable_up_down_counter(defs.RUN_ACTIVE, self._read_active)
        instruments.observable_gauge(defs.RUN_LAST_SUCCESS, self._read_last_success)

    def after_fork(self) -> None:
        # neither a lock nor a counter: a signal handler may begin a run at any moment
        self._open: dict[str, str] = {}
        self._seen: dict[str, None] = {}
        self._last_success: dict[str, float] = {}
        self._bottlenecks.after_fork()

    def take_over(self, before: RunMetrics) -> None:
        """Continue with the runs in progress of an earlier configuration."""
        global _latest
        before._replaced, self._replaced, _latest = True, False, self
        if before is self:
            return
        self._bottlenecks.take_over(before._bottlenecks)
        for run_id, pipeline in list(before._open.items()):
            self.started(pipeline, run_id)

    def latest(self) -> RunMetrics:
        """Return the metrics of the configuration that replaced this one, or these."""
        return _latest if self._replaced and _latest is not None else self

    def loop_delay(self, pipeline: str, seconds: float) -> None:
        """Record a delay of the run's event loop."""
        self._eventloop_delay.record(
            seconds, {defs.PIPELINE_NAME: self._limit_pipeline_name(pipeline)}
        )

    def _limit_pipeline_name(self, pipeline: str) -> str:
        return self._distinct.name(defs.PIPELINE_NAME, pipeline, again=True)

    def bottleneck(self, pipeline: str, run_id: str, found: tuple[str, str | None] | None) -> None:
        """Set what limits a run in progress: its kind and name, or None if that is not known."""
        if run_id not in self._open:
            return
        self._bottlenecks.tell(run_id, pipeline, found)
        if run_id not in self._open:
            # it has ended in another thread meanwhile
            self._bottlenecks.ended(run_id)

    def started(self, pipeline: str, run_id: str) -> None:
        """Count a run that begins."""
        pipeline = self._distinct.name(defs.PIPELINE_NAME, pipeline)
        self._seen[pipeline] = None
        self._open[run_id] = pipeline

    def ended(
        self,
        pipeline: str,
        run_id: str,
        seconds: float,
        result: str,
        error_type: str | None,
        unix_time: float,
        context: Any,
    ) -> None:
        """Record a run at its end."""
        pipeline = self._limit_pipeline_name(pipeline)
        self._seen[pipeline] = None
        self._open.pop(run_id, None)
        self._bottlenecks.ended(run_id)
        if result == "success":
            self._last_success[pipeline] = unix_time
        attributes = {defs.PIPELINE_NAME: pipeline, defs.RUN_RESULT: result}
        if error_type is not None:
            attributes[defs.ERROR_TYPE] = self._distinct.name(defs.ERROR_TYPE, error_type)
        self._duration.record(seconds, attributes, context)

    def _read_active(self) -> list[Point]:
        active = dict.fromkeys(list(self._seen), 0)
        for pipeline in list(self._open.values()):
            active[pipeline] = active.get(pipeline, 0) + 1
        return [(count, {defs.PIPELINE_NAME: name}) for name, count in active.items()]

    def _read_last_success(self) -> list[Point]:
        return [(t, {defs.PIPELINE_NAME: name}) for name, t in list(self._last_success.items())]

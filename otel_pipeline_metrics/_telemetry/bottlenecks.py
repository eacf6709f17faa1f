"""Report what limits each run in progress, as the metric `pipeline.bottleneck`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock
from otel_pipeline_metrics._core import metric_definitions as defs

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


# The series of one run: what limited it earlier stays at 0, so that an alert on it ends.
MOST: Final = 50
# With several readers, how long the zeros of a run that ended stay: a reader exports once a
# minute, and none is told apart from the others.
STAY_S: Final = 120.0


class _Run:
    """The series of one run, by kind and name: 1 for what limits it, 0 for what did."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.series: dict[tuple[str, str | None], int] = {}
        self.ended_at: float | None = None


class Bottlenecks:
    """What limits each run in progress."""

    def __init__(
        self,
        instruments: InstrumentSet,
        distinct: cardinality.Distinct,
        readers: Callable[[], int],
    ) -> None:
        self._distinct = distinct
        self._readers = readers
        self.after_fork()
        instruments.observable_gauge(defs.BOTTLENECK, self._read)

    def after_fork(self) -> None:
        self._runs: dict[str, _Run] = {}

    def take_over(self, before: Bottlenecks) -> None:
        """Continue with the runs of an earlier configuration."""
        self._runs = before._runs | self._runs

    def tell(self, run_id: str, pipeline: str, found: tuple[str, str | None] | None) -> None:
        """Set what limits a run: its kind and name, or None if that is not known."""
        run = self._runs.get(run_id)
        if run is None:
            run = _Run(self._distinct.name(defs.PIPELINE_NAME, pipeline, again=True))
        series = dict.fromkeys(run.series, 0)
        if found is not None:
            kind, name = found
            if name is not None:
                name = self._distinct.name(defs.BOTTLENECK_NAME, name)
            # the latest one is the last, so that the oldest are dropped
            series.pop((kind, name), None)
            series[kind, name] = 1
        run.series = dict(list(series.items())[-MOST:])
        self._runs[run_id] = run

    def ended(self, run_id: str) -> None:
        """Set what limited a run to 0; after the next collection it is gone."""
        run = self._runs.get(run_id)
        if run is not None:
            run.series = dict.fromkeys(run.series, 0)
            run.ended_at = clock.now()

    def _read(self) -> list[Point]:
        found: dict[tuple[str, str, str | None], int] = {}
        for run_id, run in list(self._runs.items()):
            for (kind, name), value in run.series.items():
                key = run.pipeline, kind, name
                found[key] = max(value, found.get(key, 0))
            if run.ended_at is not None and (
                self._readers() <= 1 or clock.now() >= run.ended_at + STAY_S
            ):
                self._runs.pop(run_id, None)
        return [(value, _attributes(*key)) for key, value in found.items()]


def _attributes(pipeline: str, kind: str, name: str | None) -> dict[str, Any]:
    attributes = {defs.PIPELINE_NAME: pipeline, defs.BOTTLENECK_KIND: kind}
    return attributes if name is None else attributes | {defs.BOTTLENECK_NAME: name}

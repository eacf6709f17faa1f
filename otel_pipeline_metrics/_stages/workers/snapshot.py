"""Read the workers' time for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core.records import TimeInStates
from otel_pipeline_metrics._stages.workers.worker import Worker, add_time

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import RunScope, Series


def snapshot(scope: RunScope, now: float) -> dict[Series, dict[int | None, TimeInStates]]:
    """Return the time in states until `now` by stage and worker, if waits are known.

    Time that is not shared out yet is added: of the stage or the wait that a worker is in, and of
    waits for a stage that it has not entered, which count for the one it left last. If the scope
    has ended, that time is shared out for good and flushed, so that metrics show the same.
    """
    if scope.ended:
        _flush_workers(scope, now)
    states = {
        series: {
            number: TimeInStates(time.busy, time.idle, time.blocked)
            for number, time in list(series.states.items())
        }
        for series in list(scope.series.values())
        if series.queued
    }
    for worker in list(scope.workers.values()):
        for series, more in _open_time(worker, now):
            if series in states:
                number = worker.number if worker.number in states[series] else None
                add_time(states[series].setdefault(number, TimeInStates()), more)
    return states


def _open_time(worker: Worker, now: float) -> list[tuple[Series, TimeInStates]]:
    """Return a worker's time that is not shared out yet, by stage."""
    stack, last, state = list(worker.stack), worker.stage, worker.state()
    more = TimeInStates()
    if stack or state != "busy":
        setattr(more, state, max(0.0, now - worker.mark))
    if stack:
        return [(series, more) for series in {e.series.main for e in stack if e.series is not None}]
    if last is None:
        return []
    add_time(more, worker.pending)
    return [(last, more)]


def _flush_workers(scope: RunScope, now: float) -> None:
    """Share out the time of all workers until `now`, and flush it."""
    for worker in list(scope.workers.values()):
        if worker.stack or worker.waits:
            worker.account_until(now)
        worker.give_pending()
    for series in list(scope.series.values()):
        if series.queued:
            drain.drain_series(series)

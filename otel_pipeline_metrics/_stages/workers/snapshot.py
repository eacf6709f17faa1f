"""Read the workers' time for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import drain
from otel_pipeline_metrics._core.records import TimeInStates
from otel_pipeline_metrics._stages.workers.replay import catch_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.observed import WorkerTimes
    from otel_pipeline_metrics._core.series import RunScope
    from otel_pipeline_metrics._stages.workers.worker import OpenWait, Worker


States = dict["WorkerTimes", dict["int | None", TimeInStates]]


def snapshot(scope: RunScope, now: float) -> States:
    """Return the time in states until `now` by stage and worker, if waits are known.

    Time that is not shared out yet is added: of the stage or the wait that a worker is in, and of
    waits for a stage that it has not entered, which count for the one it left last. If the scope
    has ended, that time is shared out for good and flushed, so that metrics show the same.
    """
    if scope.ended:
        drain.drain_workers(scope, lambda: _share_out(scope, now))
        for series in list(scope.series.values()):
            if series.times.queued:
                drain.drain_series(series)
    found: States = {}
    if not drain.drain_workers(scope, lambda: found.update(_read(scope, now))):
        # another thread has been draining for long: what it shared out so far is better than none
        found = _read(scope, now)
    return found


class WaitsInProgress(Mapping[object, float]):
    """How long workers have waited at queues and limits in waits that are not over.

    The keys are the counts that will have a wait once it is over; those of a queue with the state.
    """

    def __init__(self, scope: RunScope, now: float) -> None:
        self._now = now
        self._waits: dict[object, list[OpenWait]] = {}
        for worker in list(scope.workers.values()):
            for wait in list(worker.waits):
                if (at := wait.at) is not None:
                    self._waits.setdefault(at, []).append(wait)

    def __getitem__(self, at: object) -> float:
        # one that is over by now is in the counts, which are read just beside this
        waits = [wait for wait in self._waits[at] if wait.at is not None]
        return sum([max(0.0, self._now - wait.since) for wait in waits])

    def __iter__(self) -> Iterator[object]:
        return iter(self._waits)

    def __len__(self) -> int:
        return len(self._waits)


def _share_out(scope: RunScope, now: float) -> None:
    """Share out the time of all workers until `now`."""
    for worker in list(scope.workers.values()):
        catch_up(worker, now)
        worker.account.give_pending()


def _read(scope: RunScope, now: float) -> States:
    for worker in list(scope.workers.values()):
        catch_up(worker)
    states = {
        times: {number: replace(time) for number, time in list(times.states.items())}
        for times in list(scope.times.values())
        if times.queued
    }
    for worker in list(scope.workers.values()):
        for times, more in _open_time(worker, now):
            if times in states:
                number = worker.number if worker.number in states[times] else None
                states[times].setdefault(number, TimeInStates()).add(more)
    return states


def _open_time(worker: Worker, now: float) -> list[tuple[WorkerTimes, TimeInStates]]:
    """Return a worker's time that is not shared out yet, by stage."""
    account = worker.account
    opened = set(account.opened.values())
    last, state, mark = account.stage, account.state, account.mark
    more = TimeInStates(is_task=account.is_task)
    if (opened or state != "busy") and mark is not None:
        setattr(more, state, max(0.0, now - mark))
    if opened:
        return [(times, more) for times in opened]
    if last is None:
        return []
    more.add(account.pending)
    return [(last, more)]

"""Derive the time of each worker in three states from its log.

The rules are those of `accounting`. All of this runs under the lock of the flush.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.drain import pop_front
from otel_pipeline_metrics._core.records import TimeInStates
from otel_pipeline_metrics._stages.workers.worker import (
    ENTER,
    EXIT,
    GOT,
    JOINED,
    MAX_WORKERS,
    PUT,
    PUT_FOR,
    TICK,
    WAIT,
    Worker,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.series import RunScope, Series
    from otel_pipeline_metrics._stages.workers.worker import Event


def replay_logs(scope: RunScope) -> None:
    """Replay what the workers of a scope logged; forget idle workers if there are many."""
    for worker in list(scope.workers.values()):
        if worker.log:
            replay(worker, pop_front(worker.log))
    if len(scope.workers) >= MAX_WORKERS:
        for worker in list(scope.workers.values()):
            if not worker.stack and not worker.waits:
                _retire(scope, worker)


def _retire(scope: RunScope, worker: Worker) -> None:
    """Forget a worker until it logs something again."""
    worker.plain = False
    scope.workers.pop(worker.number, None)
    if worker.log:
        # it was at work: another thread's, or of a signal handler
        scope.workers[worker.number] = worker
    else:
        give_pending(worker)


def count_until(worker: Worker, now: float) -> None:
    """Share out a worker's time until `now`, once its log has been replayed."""
    replay(worker, [(now, TICK, None, None)])


def give_pending(worker: Worker) -> None:
    """Add the pending time to the stage that the worker is in or left last."""
    stage, pending = worker.account.stage, worker.account.pending
    if stage is not None:
        time_at(worker, stage).add(pending)
        pending.clear()


def time_at(worker: Worker, series: Series) -> TimeInStates:
    """Return the time in states of a worker at a stage, made if need be."""
    times = worker.account.times
    time = times.get(series)
    if time is None:
        number = worker.number if len(series.states) < MAX_WORKERS else None
        time = times[series] = series.states.setdefault(number, TimeInStates())
    return time


def replay(worker: Worker, events: Sequence[Event]) -> None:  # noqa: C901, PLR0912, PLR0915 - one loop: a call for each event would cost more than the event
    """Share out a worker's time between the events of its log."""
    scope, account = worker.scope, worker.account
    if scope is None:
        return
    opened, pending, got_from = account.opened, account.pending, account.got_from
    mark, stage, state = account.mark, account.stage, account.state
    met_queue, queue_since = account.met_queue, account.queue_since
    # of the stages in progress, each once; of the stage that it is in or left last
    inside = [time_at(worker, series) for series in dict.fromkeys(opened)]
    own = pending if stage is None else time_at(worker, stage)
    # what was the last to be recorded as a producer, and as a consumer
    produced = consumed = (None, None)
    for at, kind, what, call in events:
        # --- the time since the last event
        seconds = 0.0 if mark is None else at - mark
        if mark is None or seconds > 0.0:
            mark = at
        if seconds <= 0.0:
            pass
        elif inside:
            for time in inside:
                if state == "busy":
                    time.busy += seconds
                elif state == "idle":
                    time.idle += seconds
                else:
                    time.blocked += seconds
        elif kind != JOINED and (
            queue_since or (stage is not None and (kind != ENTER or what is stage))
        ):
            if state == "busy":
                own.busy += seconds
                own.between += seconds
            elif state == "idle":
                pending.idle += seconds
            else:
                own.blocked += seconds
        # --- what happened
        if kind == ENTER:
            if opened:
                if what not in opened:
                    inside.append(time_at(worker, what))
            else:
                mark = at
                queue_since = False
                if what is not stage:
                    stage, own = what, time_at(worker, what)
                if met_queue:
                    what.queued = True
                if pending:
                    own.add(pending)
                    pending.clear()
                for name in got_from:
                    if consumed != (name, what):
                        consumed = (name, what)
                        scope.add_queue(name).consumers[what.key.stage] = None
                got_from.clear()
                inside.append(own)
            opened.append(what)
        elif kind == EXIT:
            if opened and opened[-1] is what:
                opened.pop()
            elif what in opened:
                # the calls of one worker may end in any order
                del opened[len(opened) - 1 - opened[::-1].index(what)]
            if not opened:
                inside.clear()
                queue_since = False
            elif what not in opened:
                inside = [time_at(worker, series) for series in dict.fromkeys(opened)]
        elif kind <= WAIT:
            # at a queue, or a wait that begins or ends
            leaving = kind in (PUT, PUT_FOR) or what == "blocked"
            if kind != WAIT or what is not None:
                met_queue = queue_since = True
                for series in opened:
                    series.queued = True
                if leaving and not opened and stage is not None:
                    stage.queued = True
            if kind == WAIT:
                state = call
            elif kind == GOT:
                if what is None:
                    pass
                elif call is None:
                    got_from[what] = None
                elif consumed != (what, call):
                    consumed = (what, call)
                    scope.add_queue(what).consumers[call.key.stage] = None
            else:
                if stage is not None and (call is None or kind == PUT_FOR):
                    call = stage
                elif stage is None:
                    # it only fills the queue, or it works for the stage that started its task
                    pending.clear()
                    met_queue = queue_since = False
                if what is not None and call is not None and produced != (what, call):
                    produced = (what, call)
                    scope.add_queue(what).producers[call.key.stage] = None
        elif kind != TICK and not opened:
            # a join, or the end of a wait for room: the time of no stage if it has none
            if kind == JOINED or stage is None:
                met_queue = queue_since = False
            if stage is None:
                pending.clear()
    account.mark, account.stage, account.state = mark, stage, state
    account.met_queue, account.queue_since = met_queue, queue_since

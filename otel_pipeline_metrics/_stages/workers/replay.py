"""Derive the time of each worker in three states from its log.

All of this runs under the lock of the flush.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.stage_time import pop_front
from otel_pipeline_metrics._stages.workers.account import (
    ENTER,
    EXIT,
    GOT,
    MAX_WORKERS,
    PUT,
    TICK,
    WAIT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.series import RunScope
    from otel_pipeline_metrics._stages.workers.account import Account, Event
    from otel_pipeline_metrics._stages.workers.worker import Worker


def replay_logs(scope: RunScope, *, in_progress: bool = False) -> None:
    """Replay what the workers of a scope logged; forget idle ones if they are many.

    Args:
        scope: whose workers.
        in_progress: whether calls and waits in progress count until now.
    """
    for worker in list(scope.workers.values()):
        # first, so that all that was logged before it is replayed before it
        run = worker.run
        if worker.log:
            events = pop_front(worker.log)
            try:
                replay(worker.account, events)
            except BaseException:
                worker.account.begin_anew(events)
                raise
        if run is not None:
            so_far = run.event()
            if not run.over:
                worker.account.take(so_far)
        if in_progress and (worker.stack or worker.waits):
            catch_up(worker, clock.now())
    if scope.ended or len(scope.workers) >= MAX_WORKERS:
        for worker in list(scope.workers.values()):
            if not worker.stack and not worker.waits and worker.run is None:
                _forget(scope, worker)


def _forget(scope: RunScope, worker: Worker) -> None:
    """Forget a worker until it logs something again."""
    worker.plain = False
    scope.workers.pop(worker.number, None)
    if worker.log:
        # its thread logged something meanwhile
        scope.workers[worker.number] = worker
    else:
        worker.account.give_pending()


def catch_up(worker: Worker, now: float | None = None) -> None:
    """Take over the begin of calls in progress, and share out the time until `now`."""
    account, run = worker.account, worker.run
    for cell in [*worker.stack, *([] if run is None else [run.execution.cell])]:
        # if it ends now, its end is in the log and tells the same begin
        if cell[7] is worker and cell[1] is not None and (cell[2] or account.mark is not None):
            account.take((cell[2], ENTER, cell[0].times, id(cell), 0.0))
    for wait in worker.waits[-1:]:
        if wait.start is not None and (started := wait.start.at) is not None:
            # it is over since then, although its worker has not logged that yet
            around = [each.state for each in worker.waits if each.level is wait.level]
            account.take((started, WAIT, None, around[-2] if len(around) > 1 else "busy", 0.0))
    if now is not None and (account.opened or account.state != "busy"):
        account.take((now, TICK, None, None, 0.0))


def replay(account: Account, events: Sequence[Event]) -> None:  # noqa: C901, PLR0912, PLR0915 - one tight loop
    """Share out a worker's time between the events of its log.

    The most frequent events are those of a worker that gets, calls one stage and puts, or that
    calls one stage and uses no queue. They are handled here, with local variables only, and all
    others by the account.
    """
    stage, mark, quick = account.stage, account.mark or 0.0, account.quick
    since, got = account.queue_since, None
    # whether its next use of a queue is not its first one
    met = stage is None or account.met_queue
    # what was recorded last as put into and as got from by this stage
    produced = consumed = None
    # the time from then on is this stage's, of which some is inside of calls
    start, inside, pending = mark, 0.0, bool(account.pending)
    for event in events:
        at, kind, what, call, began = event
        if quick:
            if kind == EXIT:
                if what is stage:
                    if began > mark:  # noqa: PLR1730 - a call of `max` costs more
                        mark = began
                    if at > mark:
                        inside += at - mark
                        mark = at
                    since = False
                    if got is not None:
                        if got is not consumed:
                            consumed = got
                            account.consumes(got, stage)
                        got = None
                    continue
            elif kind == GOT:
                if met and call is None and what is not None and (got is None or got is what):
                    if at > mark:  # noqa: PLR1730
                        mark = at
                    if not since:
                        since = True
                        if stage is None:
                            start = mark
                    got = what
                    continue
            elif kind == PUT and met and call is None and (what is not None or stage is None):
                if at > mark:  # noqa: PLR1730
                    mark = at
                if stage is None:
                    # it only fills the queue
                    since = False
                    if pending:
                        account.pending.clear()
                        pending = False
                else:
                    since = True
                    if what is not produced:
                        produced = what
                        account.produces(what, stage)
                continue
            account.put_back(start, mark, inside, since=since, got=got)
            inside, got = 0.0, None
        account.take(event)
        if account.stage is not stage:
            stage, produced, consumed = account.stage, None, None
        start = mark = account.mark or 0.0
        quick, since, pending = account.quick, account.queue_since, bool(account.pending)
        met = stage is None or account.met_queue
    if quick:
        account.put_back(start, mark, inside, since=since, got=got)

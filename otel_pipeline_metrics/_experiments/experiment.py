"""Run the experiments of a run: from the calls that begin and end there, and nothing else.

While a run experiments, this stands in for the accounting of workers, so other runs pay nothing
for it. A thread pauses before a call of a stage; a task pauses in the wrapper of a coroutine
function, where our own code awaits. What holds up an event loop is never paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, nesting
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.series import active_cell
from otel_pipeline_metrics._experiments.effects import Window
from otel_pipeline_metrics._experiments.ledger import Ledger
from otel_pipeline_metrics._experiments.schedule import LEAD_IN, Schedule
from otel_pipeline_metrics._stages import sampling
from otel_pipeline_metrics._stages.invocation import open_span
from otel_pipeline_metrics._stages.workers.accounting import Accounting, begin_wait, end_wait
from otel_pipeline_metrics._stages.workers.finding import current_worker
from otel_pipeline_metrics._stages.workers.worker import Worker, owner_here

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from otel_pipeline_metrics._core.series import Cell, RunScope

# Seconds. A pause looks so often whether the window is over; shorter ones are put off.
SLICE_S: Final = 0.25
SHORTEST_PAUSE_S: Final = 50e-6

# Forms of stages of which the wrapper may await.
_AWAITED: Final = frozenset({"coroutine", "async step"})
# Workers that are remembered from window to window.
_REMEMBERED: Final = 10_000

_running: list[Experiment] = []
_lock = threading.RLock()


class Experiment(Accounting):
    """The experiments of one run."""

    pauses = True

    __slots__ = (
        "_accrues", "_added_s", "_ahead_s", "_cells", "_counts", "_ended", "_gaps", "_invocations",
        "_known", "_ledger", "_length", "_mode", "_open_calls", "_paused_s", "_schedule", "_spent",
        "_started", "_target", "_until", "accounts", "scope", "why",
    )  # fmt: skip

    def __init__(self, scope: RunScope) -> None:
        self.scope = scope
        # whether a queue or limit is instrumented, so that the time of workers is shared out
        self.accounts = False
        # why there is none
        self.why: str | None = None
        now = clock.now()
        self._schedule = Schedule(now)
        self._known: dict[int, None] = {}
        # by identity: the workers of the calls in progress
        self._cells: dict[int, Worker] = {}
        self._counts: dict[Any, int] = {}
        # by stage: the distances of its calls' ends, and when one ended last
        self._gaps: dict[Any, tuple[int, float, float]] = {}
        self._ended: dict[Any, float] = {}
        # by stage: seconds of its calls in this window; how many are in progress, since when
        self._spent: dict[Any, float] = {}
        self._open_calls: dict[Any, list[Any]] = {}
        self._open(now)

    def begin(self) -> None:
        """Begin, unless another run of this process experiments."""
        with _lock:
            if _running:
                self.why = "another run of this process was experimenting"
            else:
                self.accounts = hooks.workers is not None
                _running.append(self)
                hooks.set_workers(self)
                hooks.pausing = self.before_coroutine

    def end(self) -> None:
        """End: nothing pauses from now on."""
        with _lock:
            if self in _running:
                self._turn(clock.now(), last=True)
                _stop()

    def results(self) -> dict[Any, Any]:
        """Return the effect of each stage so far, by its `WorkerTimes`."""
        with _lock:
            return self._schedule.effects()

    @property
    def slowed_s(self) -> float:
        """The seconds by which this has made the run longer, estimated."""
        return self._schedule.slowed_s

    @property
    def paused_s(self) -> float:
        """The seconds that workers paused, all together."""
        return self._schedule.paused_s

    # --- calls ------------------------------------------------------------------------------------

    def accounting(self) -> Experiment:
        """Share out the time of workers too from now on."""
        self.accounts = True
        return self

    def entered(self, cell: Cell) -> None:
        """Count time for a call that begins, with its span, or resumes; pause before it."""
        due: tuple[Worker, float] | None = None
        if cell[0].scope is self.scope:
            try:
                due = self._begins(cell)
            except Exception:
                errors.log_internal_error("an experiment")
        if due is not None:
            self._pause(*due, cell[0].times)
        if self.accounts:
            super().entered(cell)
        elif hooks.tracing is not None and cell[3] is None:
            open_span(cell)

    def left(self, cell: Cell, now: float) -> None:
        """Count the time of a call that ends or pauses. Never raises."""
        super().left(cell, now)
        worker = self._cells.pop(id(cell), None)
        if worker is not None:
            try:
                self._ends(cell, worker, now)
            except Exception:
                errors.log_internal_error("an experiment")

    def _begins(self, cell: Cell) -> tuple[Worker, float] | None:
        """Note a call that begins; return who should pause for how many seconds."""
        worker, now = current_worker(cell[0].scope), clock.now()
        stage, number = cell[0].times, worker.number
        self._cells[id(cell)] = worker
        with _lock:
            if now >= self._until:
                self._turn(now)
            ledger = self._ledger
            known = number in self._known
            payer = ledger.came(number, known=known, waited_until=worker.wait_mark, now=now)
            self._in_progress(stage, 1, now)
            ledger.begins(cell, number, payer, now, is_target=stage is self._target)
            due = ledger.owed(number)
        if due < SHORTEST_PAUSE_S:
            return None
        if cell[0].stage.form in _AWAITED:
            # `before_coroutine` pauses, since only samples are driven by our own code
            sampling.begin(cell)
            return None
        return (worker, due) if _may_sleep() else None

    def _ends(self, cell: Cell, worker: Worker, now: float) -> None:
        stage, number = cell[0].times, worker.number
        waits_until = worker.wait_mark
        with _lock:
            ledger, is_target = self._ledger, stage is self._target
            payer = ledger.came(
                number,
                known=number in self._known,
                waited_until=waits_until,
                now=now,
                in_target=is_target,
            )
            ledger.ends(cell, number, payer, waits_until, now, is_target=is_target)
            calls = self._schedule.calls.setdefault(stage, [0.0, 0.0])
            spent_s = max(0.0, now - cell[2] - (0.0 if cell[3] is None else cell[3].idle))
            calls[0] += 1
            calls[1] += spent_s
            self._in_progress(stage, -1, now)
            self._counts[stage] = self._counts.get(stage, 0) + 1
            before, self._ended[stage] = self._ended.get(stage, now), now
            count, total_s, squares = self._gaps.get(stage, (0, 0.0, 0.0))
            gap_s = now - before
            self._gaps[stage] = (count + 1, total_s + gap_s, squares + gap_s * gap_s)

    def _in_progress(self, stage: Any, change: int, now: float) -> None:
        """Count how long calls of a stage are in progress, all together."""
        found = self._open_calls.setdefault(stage, [0, now])
        if self._accrues:
            spent_s = found[0] * (now - max(found[1], self._started))
            self._spent[stage] = self._spent.get(stage, 0.0) + spent_s
        found[0], found[1] = max(0, found[0] + change), now

    # --- pauses -----------------------------------------------------------------------------------

    def _pause(self, worker: Worker, due: float, stage: Any) -> None:
        """Let a thread sleep; whatever the program's signal handlers raise goes through."""
        ledger = self._ledger
        with self._paused(ledger, worker, stage):
            while due > 0 and ledger is self._ledger and self in _running:
                time.sleep(min(due, SLICE_S))
                due -= SLICE_S

    async def before_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Pause, and then await a coroutine that has not begun."""
        worker, ledger = current_worker(self.scope), self._ledger
        due = ledger.owed(worker.number)
        if due >= SHORTEST_PAUSE_S and worker.is_task and _in_event_loop():
            cell = active_cell.get()
            inside = None if cell is None else cell[0].times
            try:
                with self._paused(ledger, worker, inside):
                    while due > 0 and ledger is self._ledger and self in _running:
                        await asyncio.sleep(min(due, SLICE_S))
                        due -= SLICE_S
            except asyncio.CancelledError as error:
                _cancel_later(error)
            except BaseException:
                coroutine.close()
                raise
        return await coroutine

    @contextlib.contextmanager
    def _paused(self, ledger: Ledger, worker: Worker, inside: Any = None) -> Iterator[None]:
        """Take a pause into account: it is no worker's work.

        Args:
            ledger: of the window.
            worker: that pauses.
            inside: the stage whose call has begun already.
        """
        began = clock.now()
        wait, calls = None, []
        # without queues and limits a run has no waits, so pauses are taken out of its calls
        if self.accounts and (self.scope.queues or self.scope.limits):
            wait = begin_wait(worker, "idle", began)
        else:
            calls = self._calls_of(worker)
            for cell in calls:
                nesting.pause(cell, began)
        try:
            yield
        finally:
            now = clock.now()
            if wait is not None:
                end_wait(wait, now)
            for cell in reversed(calls):
                cell[2] += now - began
                nesting.enter(cell, now)
            with _lock:
                ledger.paid(worker.number, now - began, now)
                if ledger is self._ledger and self._accrues and inside is not None:
                    paused_s = now - max(began, self._started)
                    self._spent[inside] = self._spent.get(inside, 0.0) - paused_s

    def _calls_of(self, worker: Worker) -> list[Cell]:
        """Return the calls in progress of a worker that runs this code, the innermost first."""
        found, cell = [], active_cell.get()
        while cell is not None and cell[1] is not None and self._cells.get(id(cell)) is worker:
            found.append(cell)
            cell = cell[4]
        return found

    # --- windows ----------------------------------------------------------------------------------

    def _open(self, now: float) -> None:
        """Begin a window, with its lead-in."""
        self._mode, self._target = self._schedule.next(now)
        self._added_s = 0.0
        if self._mode == "slower":
            self._added_s = self._schedule.added_s(self._target, now)
        self._ledger = Ledger(self._mode, now, self._added_s)
        self._length = self._schedule.length_s(now)
        self._accrues = False
        self._until = now + self._length * LEAD_IN

    def _turn(self, now: float, *, last: bool = False) -> None:
        """End the lead-in of a window, or the window."""
        for stage in self._open_calls:
            self._in_progress(stage, 0, now)
        ahead_s = self._ledger.mark(now)
        if not self._accrues and not last:
            self._accrues = True
            self._started, self._ahead_s = now, ahead_s
            self._paused_s = self._ledger.paused_s
            self._invocations = self._ledger.invocations
            self._counts, self._spent, self._gaps, self._ended = {}, {}, {}, {}
            self._until = now + self._length
            return
        # the last one may be cut off, but not so short that it says nothing
        if self._accrues and now - self._started > self._length / 2:
            ledger = self._ledger
            self._schedule.add(
                Window(
                    mode=self._mode,
                    target=self._target,
                    seconds=now - self._started,
                    ahead_s=ahead_s - self._ahead_s,
                    paused_s=ledger.paused_s - self._paused_s,
                    counts=self._counts,
                    invocations=ledger.invocations - self._invocations,
                    spent=self._spent,
                    added_s=self._added_s,
                    gaps=self._gaps,
                )
            )
        # what ends from now on belongs to no window, until the next one's lead-in is over
        self._counts, self._spent, self._gaps, self._ended = {}, {}, {}, {}
        if not last:
            self._remember()
            self._open(now)
            if self._schedule.is_over and self in _running:
                # the calls in progress end as usual
                _stop()

    def _remember(self) -> None:
        """Keep the workers of the window that is over: they owe from the next one's beginning."""
        for number in self._ledger.numbers():
            self._known.pop(number, None)
            self._known[number] = None
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]


def _may_sleep() -> bool:
    """Tell whether this thread may sleep: it runs no event loop, and is no greenlet."""
    return not _in_event_loop() and owner_here() == (threading.get_ident(),)


def _in_event_loop() -> bool:
    # the public function raises where there is none
    return asyncio._get_running_loop() is not None


def _cancel_later(error: asyncio.CancelledError) -> None:
    """Cancel the task when it awaits next, since the program's coroutine has not begun yet."""
    task = asyncio.current_task()
    if task is None:
        raise error
    if sys.version_info >= (3, 11):
        task.uncancel()
    task.cancel(*error.args)


def _stop() -> None:
    accounts = any(one.accounts for one in _running)
    _running.clear()
    hooks.set_workers(Accounting() if accounts else None)
    hooks.pausing = None


@forking.in_child
def _leave_to_parent() -> None:
    """Forget the experiment of the parent, which goes on there."""
    global _lock  # another thread of the parent may hold it
    _lock = threading.RLock()
    if _running:
        _stop()

"""`Account`: what a worker did so far, and the rules that share out its time.

The rules are told in `accounting`. All of this runs under the lock of the flush.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core.records import TimeInStates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.observed import WorkerTimes
    from otel_pipeline_metrics._core.series import RunScope
    from otel_pipeline_metrics._stages.workers.worker import Run


State = Literal["busy", "idle", "blocked"]

# What happened, as a worker's log has it: `clock.now()`, one of these kinds, two things that the
# kind's comment names, and of an EXIT the time when the call began.
Event = tuple[float, int, Any, Any, float]
EXIT: Final = 0  # series; identity of the call
# the queue's name, None for a sentinel; the series of the call that it happened in, None outside
GOT: Final = 1
PUT: Final = 2
PUT_FOR: Final = 3  # the same, in the call of another worker
ENTER: Final = 4  # like EXIT; logged only if something else happens during the call
WAIT: Final = 5  # the state of a wait that begins, or None; the state of the worker from now on
WAITED_TO_PUT: Final = 6
JOINED: Final = 7
TICK: Final = 8
# a run of steps; the seconds in them, and when it began
STEPS: Final = 9

# Workers counted separately at one stage: a task for each item would make an endless number.
MAX_WORKERS: Final = 256


class Account:
    """What the events of one worker have led to so far."""

    __slots__ = (
        "got_from", "is_task", "mark", "met_queue", "number", "opened", "pending", "queue_since",
        "quick", "scope", "stage", "state", "times",
    )  # fmt: skip

    def __init__(self, scope: RunScope, number: int, *, is_task: bool) -> None:
        self.scope = scope
        self.number = number
        self.is_task = is_task
        # its time is shared out until then; None before its first event
        self.mark: float | None = None
        # by identity: the series of its calls in progress, the innermost last
        self.opened: dict[int, WorkerTimes] = {}
        # the outermost stage it is in, or the one it left last
        self.stage: WorkerTimes | None = None
        self.state: State = "busy"
        self.times: dict[WorkerTimes, TimeInStates] = {}
        # time of the stage that it enters next: waits for input; before the first one, all
        self.pending = TimeInStates()
        # the queues it got from since it last entered a stage
        self.got_from: dict[str, None] = {}
        # whether its waits are known, and so the shares of its stages
        self.met_queue = False
        # the same since it last left a stage
        self.queue_since = False
        # whether `replay` may handle the most frequent events
        self.quick = False

    def time_at(self, series: WorkerTimes) -> TimeInStates:
        """Return the time in states at a stage, made if need be."""
        time = self.times.get(series)
        if time is None:
            number = self.number if len(series.states) < MAX_WORKERS else None
            time = self.times[series] = series.states.setdefault(
                number, TimeInStates(is_task=self.is_task)
            )
        return time

    def consumes(self, name: str, series: WorkerTimes) -> None:
        """Record that a stage gets from a queue."""
        self.scope.add_queue(name).consumers[series.key.stage] = None

    def produces(self, name: str, series: WorkerTimes) -> None:
        """Record that a stage puts into a queue."""
        self.scope.add_queue(name).producers[series.key.stage] = None

    def put_back(
        self, start: float, mark: float, inside: float, *, since: bool, got: str | None
    ) -> None:
        """Take over what `replay` found out about the stage that the worker left last.

        Args:
            start: the time since then was that stage's.
            mark: until when.
            inside: the seconds of it in calls.
            since: whether it has used a queue since.
            got: the queue that it has got from since.
        """
        self.mark, self.queue_since = mark, since
        if self.stage is None:
            self.met_queue, time = since, self.pending
            start = start if since else mark
        else:
            time = self.time_at(self.stage)
            self.quick = got is None
        time.busy += mark - start
        time.between += max(0.0, mark - start - inside)
        if got is not None:
            self.got_from[got] = None

    def begin_anew(self, events: Sequence[Event]) -> None:
        """Go on after events that were only in part taken, as a signal handler raised meanwhile.

        The worker's time until its next event is counted for no stage.
        """
        self.opened.clear()
        self.got_from.clear()
        self.pending.clear()
        self.stage = self.mark = None
        self.met_queue = self.queue_since = self.quick = False
        for _, kind, _, state, _ in events:
            if kind == WAIT:
                self.state = state

    def take(self, event: Event) -> None:
        """Share out the time until an event, and record what happened."""
        at, kind, what, call, began = event
        if kind == EXIT:
            self._enter(began, what, call)
            self._count_until(at)
            # the calls of one worker may end in any order
            del self.opened[call]
            if not self.opened:
                self.queue_since = False
        elif kind == ENTER:
            self._enter(at, what, call)
        elif kind == STEPS:
            self._take_steps(at, what, call)
        elif kind == JOINED and not self.opened:
            self._skip(at)
            self.met_queue = self.queue_since = False
        else:
            self._count_until(at)
            self._happened(kind, what, call)
        stage = self.stage
        self.quick = (
            self.state == "busy"
            and self.mark is not None
            and not self.opened
            and (
                stage is None
                or ((stage.queued or not self.met_queue) and not (self.got_from or self.pending))
            )
        )

    def _take_steps(self, at: float, run: Run, inside: float) -> None:
        """Share out the time of a run of steps until `at`, of which some is taken already."""
        times = run.execution.cell[0].times
        between = max(run.between, at - run.began - inside)
        if between == run.between and self.mark is not None and at <= self.mark:
            return
        self._enter(run.began, times, id(run))
        self._count_until(at)
        self.opened.clear()
        self.queue_since = False
        self.time_at(times).between += between - run.between
        run.between = between

    def _happened(self, kind: int, what: Any, call: Any) -> None:
        if kind in (PUT, PUT_FOR):
            self._put(what, call, inside=kind == PUT)
        elif kind == WAIT:
            if what is not None:
                self._mark_waits_seen(leaving=what == "blocked")
            self.state = call
        elif kind == GOT:
            self._mark_waits_seen(leaving=False)
            if what is not None and call is not None:
                self.consumes(what, call)
            elif what is not None:
                self.got_from[what] = None
        elif kind == WAITED_TO_PUT and self.stage is None:
            self._skip(self.mark)

    def _put(self, name: str | None, series: WorkerTimes | None, *, inside: bool) -> None:
        self._mark_waits_seen(leaving=True)
        if self.stage is None:
            # it only fills the queue, or it works for the stage that started its task
            self._skip(self.mark)
        elif series is None or not inside:
            series = self.stage
        if name is not None and series is not None:
            self.produces(name, series)

    def _count_until(self, now: float) -> None:
        mark = self.mark
        if mark is None:
            self.mark = now
            return
        seconds = now - mark
        if seconds <= 0.0:
            return
        self.mark = now
        opened = self.opened
        if opened:
            # a stage inside itself: its worker's time counts once
            for series in opened.values() if len(opened) == 1 else set(opened.values()):
                self._count(self.time_at(series), seconds)
        elif self.stage is not None or self.queue_since:
            last = None if self.state == "idle" else self.stage
            time = self.pending if last is None else self.time_at(last)
            self._count(time, seconds)
            if self.state == "busy":
                time.between += seconds

    def _count(self, time: TimeInStates, seconds: float) -> None:
        if self.state == "busy":
            time.busy += seconds
        elif self.state == "idle":
            time.idle += seconds
        else:
            time.blocked += seconds

    def _enter(self, at: float, series: WorkerTimes, call: int) -> None:
        if call in self.opened:
            return
        if self.opened:
            self._count_until(at)
        else:
            if self.stage is None or self.stage is series or self.queue_since:
                self._count_until(at)
            if self.mark is None or at > self.mark:
                self.mark = at
            self.queue_since = False
            series.queued = series.queued or self.met_queue
            self.stage = series
            time = self.time_at(series)
            if self.pending:
                time.add(self.pending)
                self.pending.clear()
            for name in self.got_from:
                self.consumes(name, series)
            self.got_from.clear()
        self.opened[call] = series

    def _mark_waits_seen(self, *, leaving: bool) -> None:
        """Record that the waits, and so the shares of the worker's stages, are known.

        Args:
            leaving: whether it still works for the stage it left last, and not for the next one.
        """
        self.met_queue = self.queue_since = True
        for series in self.opened.values():
            series.queued = True
        if leaving and not self.opened and self.stage is not None:
            self.stage.queued = True

    def _skip(self, now: float | None) -> None:
        """Count the time until `now` for no stage; without a stage, all time before too."""
        if now is not None and (self.mark is None or now > self.mark):
            self.mark = now
        if self.stage is None:
            self.pending.clear()
            self.met_queue = self.queue_since = False

    def give_pending(self) -> None:
        """Add the pending time to the stage that the worker is in or left last."""
        if self.stage is not None:
            self.time_at(self.stage).add(self.pending)
            self.pending.clear()

"""One worker: a task or thread that runs stages, and what it does now; and which one is here."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import TimeInStates, WaitState
from otel_pipeline_metrics._stages import execution as _execution
from otel_pipeline_metrics._stages.workers.links import FIRST_LINKS, LAST_LINKS, Links

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import QueueSeries, RunScope, Series
    from otel_pipeline_metrics._stages.execution import Execution


State = Literal["busy", "idle", "blocked"]

MAX_WORKERS: Final = 256
"""Workers told apart at one stage; a task for each item would make an endless number."""


_numbers = itertools.count()
_first_number = 0
"""Of the workers of this process; those before are of the process that it was forked from."""


class OpenWait:
    """A wait in progress, of one worker."""

    __slots__ = ("by", "level", "state", "worker")

    def __init__(self, worker: Worker, state: WaitState) -> None:
        self.worker = worker
        self.state: WaitState = state
        self.level = worker.inside()
        """The stage that waits: only while that is the worker's innermost, the worker does."""
        self.by = owner_here()
        """The task or thread that it happens in."""


class Worker:
    """One task or thread at work in one scope, and whoever waits for it."""

    __slots__ = (
        "context", "got_from", "late", "lendable", "links", "mark", "met_queue", "number", "owner",
        "pending", "queue_since", "scope", "stack", "stage", "waits",
    )  # fmt: skip

    def __init__(self, owner: object, scope: RunScope) -> None:
        self.owner = owner
        self.scope = scope
        self.number = next(_numbers)
        self.mark = clock.now()
        """Until when its time is shared out."""
        self.stack: list[Execution] = []
        """What it runs now, the innermost last."""
        self.waits: list[OpenWait] = []
        """Mostly one or none."""
        self.stage: Series | None = None
        """The outermost stage it is in, or the one it left last."""
        self.pending = TimeInStates()
        """Of the stage that it enters next: waits for input; before the first one, all."""
        self.got_from: dict[str, QueueSeries] = {}
        """The queues it got from since it last entered a stage."""
        self.links: Links | None = None
        self.late: dict[Execution, deque[Any]] = {}
        """Links of stages in progress that may not be the last ones of theirs."""
        self.context: Any = None
        """The span context of the stage it left last, for what it puts."""
        self.met_queue = False
        """Whether its waits can be seen, so that its stages' shares are known."""
        self.queue_since = False
        """The same since it last left a stage."""
        self.lendable = True
        """Whether a thread that its task may wait for may be it."""

    @property
    def is_parents(self) -> bool:
        """Whether it is one of the process that this one was forked from."""
        return self.number < _first_number

    def account_until(self, now: float) -> None:
        """Share out the time until now."""
        seconds = now - self.mark
        if seconds <= 0.0:
            return
        self.mark = now
        state = self.state() if self.waits else "busy"
        if not self.stack:
            if self.stage is not None or self.queue_since:
                _count(self._outside(state), state, seconds)
            return
        for depth, execution in enumerate(self.stack):
            if state == "idle":
                execution.idle += seconds
                execution.duration_only = False
            elif state == "blocked":
                execution.blocked += seconds
                execution.duration_only = False
            series = execution.series
            # a stage in itself: its worker's time passes once
            if series is None or (depth and series in [e.series for e in self.stack[:depth]]):
                continue
            _count(states_of(series, self), state, seconds)

    def state(self) -> State:
        """Return the state it is in."""
        innermost = self.stack[-1] if self.stack else None
        for wait in reversed(self.waits):
            if wait.level is innermost:
                return wait.state
        return "busy"

    def _outside(self, state: State) -> TimeInStates:
        """Return where time outside of stages goes."""
        if state == "idle" or self.stage is None:
            return self.pending
        return states_of(self.stage, self)

    def inside(self) -> Execution | None:
        """Return the stage of this worker that the code here is in."""
        execution = _execution.executing()
        return execution if execution is not None and execution.worker is self else None

    def mark_waits_seen(self, *, leaving: bool) -> None:
        """Note that this worker's waits can be seen: its stages' shares are known.

        Args:
            leaving: whether it is done with the stage it left last, and not about to begin one.
        """
        self.met_queue = self.queue_since = True
        for execution in self.stack:
            if execution.series is not None:
                execution.series.queued = True
        if leaving and not self.stack and self.stage is not None:
            self.stage.queued = True

    def discard_time(self, now: float) -> None:
        """Let the time outside of stages until now be nobody's."""
        if self.stack:
            return
        self.mark = now
        if self.stage is None:
            self.pending = TimeInStates()
            self.met_queue = self.queue_since = False

    def add_link(self, link: Any) -> None:
        """Remember a producer of what was got, for the stage that it is got for."""
        if self.links is None:
            self.links = Links()
        self.links.add(link)

    def link_inside(self, execution: Execution, link: Any) -> None:
        """Link a stage in progress to a producer: at once, or when it ends or pauses."""
        if execution.span is None:
            return
        if len(execution.links) < FIRST_LINKS:
            execution.links = (*execution.links, link)
            execution.link(link)
            return
        late = self.late.get(execution)
        if late is None:
            room = max(0, FIRST_LINKS + LAST_LINKS - len(execution.links))
            late = self.late[execution] = deque(maxlen=room)
        if len(late) == late.maxlen:
            execution.links_dropped += 1
        late.append(link)

    def link_late(self, execution: Execution) -> None:
        """Link a stage to the producers that were the last, and say how many are left out."""
        late = self.late.pop(execution, None)
        if late is None:
            return
        execution.links = (*execution.links, *late)
        for link in late:
            execution.link(link)
        if execution.links_dropped and execution.span is not None:
            execution.span.drop_links(execution.links_dropped)

    def entered(self, series: Series, now: float) -> None:
        """Give the stage what was spent for it before."""
        if self.stage is None or self.stage is series or self.queue_since:
            self.account_until(now)
        self.mark = now
        self.queue_since = False
        series.queued = series.queued or self.met_queue
        self.stage = series
        self.give_pending()
        if self.got_from:
            for queue in self.got_from.values():
                queue.consumers[series.key.stage] = None
            self.got_from.clear()

    def give_pending(self) -> None:
        """Give the stage that it is in, or left last, what is pending."""
        if self.stage is None:
            return
        time, pending = states_of(self.stage, self), self.pending
        add_time(time, pending)
        pending.busy = pending.idle = pending.blocked = 0.0


def _count(time: TimeInStates, state: State, seconds: float) -> None:
    # written out: no call in between, so that no thread comes in between
    if state == "busy":
        time.busy += seconds
    elif state == "idle":
        time.idle += seconds
    else:
        time.blocked += seconds


def states_of(series: Series, worker: Worker) -> TimeInStates:
    """Return where a worker's time at a stage is kept."""
    states = series.states
    time = states.get(worker.number)
    if time is None:
        number = worker.number if len(states) < MAX_WORKERS else None
        time = states.setdefault(number, TimeInStates())
    return time


def owner_here() -> int | tuple[int]:
    """Return the running task's identity, or the thread's in a tuple where there is none."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()  # noqa: SLF001 - public in asyncio.events' docs
        if loop is not None:
            task = asyncio.current_task(loop)
            if task is not None:
                return id(task)
    return (threading.get_ident(),)


def add_time(time: TimeInStates, more: TimeInStates) -> None:
    time.busy += more.busy
    time.idle += more.idle
    time.blocked += more.blocked


@forking.in_child
def _forget_parent() -> None:
    """Let the parent's workers be none of a forked child's, whatever still knows them."""
    global _first_number
    _first_number = next(_numbers)

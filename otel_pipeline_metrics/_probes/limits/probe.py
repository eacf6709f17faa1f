"""Count what happens at one limit: who waits for a permit, and how permits become held time.

Nothing here runs around the user's call, and nothing here raises.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, drain, errors, hooks
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.limit_series import LimitUse
from otel_pipeline_metrics._stages.workers import accounting, finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from otel_pipeline_metrics._core.records import WaitState
    from otel_pipeline_metrics._stages.workers.worker import OpenWait, Worker


# A permit that is held: what its holder did at the limit, since when, how long it was waited for
# (None: not at all). The holder is a stage, not a worker: which worker is not needed for sums.
Hold = tuple["LimitUse", float, "float | None"]


def use_here(name: str) -> LimitUse:
    """Return what the current stage, or the code outside of stages, did at a limit."""
    here = (_series.active_cell.get() or _series.default_cell)[0]
    use: LimitUse = here.limits.get(name) or here.add_limit(name)
    return use


class LimitProbe:
    """The counts at one limit; how its permits are followed is up to subclasses.

    A permit is counted after it was acquired and until before it is released, so the count never
    exceeds what is really held.

    Args:
        name: of the limit.
        kind: what it is: a lock, a semaphore, …
        maximum: the most permits that can be held at a time, or a function that returns it; None if
            that is not known.
    """

    __slots__ = ("__weakref__", "_maximum", "again", "kind", "name", "shared")

    def __init__(
        self, name: str, kind: str, maximum: int | Callable[[], int | None] | None
    ) -> None:
        self.name = name
        self.kind = kind
        self._maximum = maximum
        # whether its permits are in `LimitSeries.level`
        self.shared = False
        # what makes the stand-in from a copy of the limit, and its other arguments
        self.again: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    def __del__(self) -> None:
        # its permits can no longer be released
        for use, since, _ in self.held():
            if self.shared:
                use.limit.level -= 1
            use.held += max(0.0, clock.now() - since)

    def capacity(self) -> int | None:
        """Return the most permits that can be held at a time; None if that is not known."""
        return self._maximum() if callable(self._maximum) else self._maximum

    def depth(self) -> int | None:
        """Return how many permits are held; None if releases cannot be seen."""
        return len(self.held())

    def held(self) -> list[Hold]:
        """Return the permits that are held."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """Forget the permits: the parent reports them."""
        raise NotImplementedError

    def share(self) -> None:
        """Count from now on how many permits of its name are held at a time."""
        raise NotImplementedError

    def acquired(self, waited: float | None = None) -> object:
        """Count a permit that was acquired.

        Args:
            waited: seconds that were waited for it; None if it was free.
        """
        raise NotImplementedError

    def interrupted(self) -> None:
        """Count a permit as not acquired after all: it is released at once."""
        raise NotImplementedError

    def take(self) -> Hold | None:
        """Return the permit that is about to be released; None if none is known."""
        raise NotImplementedError

    def give_back(self, hold: Hold | None) -> None:
        """Count a permit as held still: its release was refused."""
        raise NotImplementedError

    def released(self) -> None:
        """Count a permit that is about to be released, and cannot be refused."""
        hold = self.take()
        if hold is not None:
            self.end(hold)

    def suspend(self) -> Any:
        """Count no permit as held while a condition waits; return what `resume` takes."""
        hold = self.take()
        if hold is not None:
            self.end(hold)
        return hold

    def resume(self, suspended: Any) -> None:
        """Count a permit as held again from now on, by the stage that held it before."""
        if suspended is not None:
            self.give_back((suspended[0], clock.now(), None))

    def end(self, hold: Hold | None) -> None:
        """Count the time for which a permit was held."""
        if hold is None:
            return
        try:
            use, since, waited = hold
            if use.stage is None:
                use = self.use_left(use, waited)
            seconds = clock.now() - since
            if seconds > 0.0:
                use.held += seconds
        except Exception:  # the permit is released all the same
            errors.log_internal_error("releasing a permit")

    def use_left(self, use: LimitUse, waited: float | None) -> LimitUse:
        """Return the use of the stage that this worker is in or left last.

        A permit that was acquired outside of stages belongs to it, and the wait for it too: so a
        worker that acquires, calls a stage and releases is reported like a stage that does all.
        """
        worker = finding.worker_of_context.get()
        stage = None if worker is None else worker.stage
        if stage is None:
            return use
        found = stage.limits.get(self.name)
        if found is None:
            scope = _series.current_scope()
            known = any(stage is one for one in list(scope.times.values()))
            if not known or scope.limits.get(self.name) is not use:
                return use
            found = stage.add_limit(self.name, scope)
        elif found.limit is not use.limit:  # it is of another run
            return use
        use.by_stage[stage] = found
        _move_wait(waited, use, found)
        return found

    def use_of(self, stage: str, hold: Hold) -> LimitUse:
        """Return the use of a stage of another process that held a permit, and waited for it."""
        use, _, waited = hold
        found = next((each for each in use.limit.uses if each.stage == stage), None)
        found = found or LimitUse(use.limit, stage)
        _move_wait(waited, use, found)
        return found


def _move_wait(waited: float | None, use: LimitUse, found: LimitUse) -> None:
    if waited and found.waited is not None and use.waited is not None:
        found.waited += waited
        use.waited -= waited


class PermitWait:
    """A `with` block in which a worker waits at a limit.

    Args:
        probe: of the limit.
        worker: that waits; the current one if None.
        state: "blocked" for a wait for a permit, "idle" for one for input.
    """

    __slots__ = ("_began", "_probe", "_scope", "_state", "_use", "_wait", "_worker", "seconds")

    def __init__(
        self, probe: LimitProbe, worker: Worker | None = None, state: WaitState = "blocked"
    ) -> None:
        self._probe = probe
        self._worker = worker
        self._state: WaitState = state
        self._wait: OpenWait | None = None
        # its duration, once it is over
        self.seconds = 0.0

    def __enter__(self) -> Self:
        """Begin the wait. Never raises."""
        try:
            if hooks.workers is None or not hooks.workers.accounts:
                accounting.watch()
            self._scope = _series.current_scope()
            self._use = use_here(self._probe.name)
            self._began = clock.now()
            worker = self._worker or finding.current_worker(waits=True)
            self._wait = accounting.begin_wait(worker, self._state, self._began)
            if self._state == "blocked":
                self._wait.at = self._use
        except Exception:  # the user's call goes on
            errors.log_internal_error("beginning to wait at a limit")
        return self

    def __exit__(self, *_: object) -> None:
        """End the wait. Never raises."""
        if self._wait is None:
            return
        try:
            now = clock.now()
            self.seconds = seconds = max(0.0, now - self._began)
            # at once, as at a queue: a report has this wait as one in progress or as over
            self._wait.at = None
            if self._state == "blocked" and self._use.waited is not None:
                self._use.waited += seconds
            accounting.end_wait(self._wait, now)
            if self._state == "blocked":
                self._count()
        except Exception:
            errors.log_internal_error("ending to wait at a limit")

    def drop(self) -> None:
        """End the wait, and do not count it as one for a permit."""
        self._state = "idle"

    def _count(self) -> None:
        use, waits = self._use, self._use.limit.waits
        waits.append(self.seconds)
        if len(waits) >= drain.PENDING_BOUND:
            drain.drain_limit(self._scope, use.limit)


def interrupted(lock: Any, probe: LimitProbe) -> None:
    """Release it: who gets a signal handler's exception instead of the lock holds nothing."""
    traceback, counting = sys.exc_info()[2], type(probe).acquired.__code__
    while traceback is not None and traceback.tb_frame.f_code is not counting:
        traceback = traceback.tb_next
    try:
        # what strikes in `acquired` is before it counts, or is undone there
        if traceback is None:
            probe.interrupted()
    finally:
        lock.release()


def failed(lock: Any, probe: LimitProbe, error: BaseException) -> None:
    """Count the first permit of a stage, log an internal error, or raise a signal handler's.

    Args:
        lock: that was acquired, and is the user's all the same.
        probe: of it.
        error: that is being handled.
    """
    traceback = error.__traceback__
    # what a signal handler raises has the handler's frame too
    if type(error) is KeyError and traceback is not None and traceback.tb_next is None:
        try:
            probe.acquired()
        except BaseException as inner:
            # what the program gets is as if it were raised alone
            last = inner
            while last.__context__ is not None and last.__context__ is not error:
                last = last.__context__
            if last.__context__ is error:
                last.__context__ = error.__context__
            failed(lock, probe, inner)
        return
    if not isinstance(error, Exception):
        interrupted(lock, probe)
        raise error
    try:
        errors.log_internal_error("acquiring a permit")
    except BaseException:
        interrupted(lock, probe)
        raise

"""Follow the many permits of a semaphore, a pool, or any other limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.limits.probe import Hold, LimitProbe, use_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitUse


# Permits that are followed at a time, of a limit without a known maximum.
HOLDS_BOUND: Final = 10_000


class Permits(LimitProbe):
    """The permits of a semaphore, a pool, or any other limit.

    Args:
        name: of the limit.
        kind: what it is: a semaphore, a capacity limiter, …
        maximum: the most permits that can be held at a time, or a function that returns it; None if
            that is not known.
        releases: whether releases can be seen, and so how many permits are held.
    """

    __slots__ = ("_bound", "_holds", "releases")

    def __init__(
        self,
        name: str,
        kind: str,
        maximum: int | Callable[[], int | None] | None,
        *,
        releases: bool = True,
    ) -> None:
        super().__init__(name, kind, maximum)
        self.releases = releases
        # there are many
        self.shared = True
        # the latest last
        self._holds: list[Hold] = []
        # the maximum as read last
        self._bound = 0

    def depth(self) -> int | None:
        """Return how many permits are held; None if releases cannot be seen."""
        return len(self._holds) if self.releases else None

    def held(self) -> list[Hold]:
        """Return the permits that are held."""
        return list(self._holds)

    def after_fork(self) -> None:
        """Forget the permits: the parent reports them."""
        self._holds.clear()

    def share(self) -> None:
        """Nothing: they are always counted."""

    def acquired(self, waited: float | None = None, use: LimitUse | None = None) -> Hold | None:
        """Count a permit that was acquired; return it.

        Args:
            waited: seconds that were waited for it; None if it was free.
            use: of the stage that has it; by default the current one.
        """
        try:
            use = use or use_here(self.name)
            limit = use.limit
            hold = (use, clock.now(), waited)
            if self.releases:
                try:
                    self._holds.append(hold)
                    if len(self._holds) > self._bound:
                        self._end_surplus()
                except BaseException:  # a signal handler's: it is not counted
                    if not self._remove(hold):  # it was counted as released already
                        limit.level += 1
                    raise
            else:
                limit.known = False
            if waited is not None:
                limit.waited += 1
            # threads share these, so there is no call between reading and writing them
            limit.counted += 1
            limit.level = level = limit.level + 1
            if level > limit.peak:
                limit.peak += 1
        except Exception:  # the permit is the user's all the same
            errors.log_internal_error("acquiring a permit")
            return None
        return hold

    def releasing(self, lock: Any) -> Callable[[], None]:
        """Return a function that counts a permit as released, and then releases it."""
        log, release = self.released, lock.release

        def counted() -> None:
            try:
                log()
            finally:
                release()

        return counted

    def drop(self, hold: Hold, stage: str | None = None) -> None:
        """Count the permit that `hold` returned as released.

        Args:
            hold: what was returned.
            stage: the one in another process that held it, if it was held outside of stages here.
        """
        if not self._remove(hold):
            return
        hold[0].limit.level -= 1
        if stage is not None and hold[0].stage is None:
            hold = (self.use_of(stage, hold), *hold[1:])
        self.end(hold)

    def _remove(self, hold: Hold) -> bool:
        """Forget a permit; tell whether it was known still, after a fork or among too many."""
        try:
            self._holds.remove(hold)
        except ValueError:
            return False
        return True

    def interrupted(self) -> None:
        """Count a permit as not acquired after all: it is released at once."""
        self.take()

    def take(self) -> Hold | None:
        """Return the permit that is about to be released; None if none is known.

        It is one that the current stage holds, else the one that is held longest.
        """
        try:
            hold = self._holds.pop()
            if self._holds and hold[0] is not (use := self._use_so_far()):
                hold = self._of(use, hold)
            hold[0].limit.level -= 1
        except IndexError:  # acquired before it was wrapped, or through a raw reference
            return None
        except Exception:
            errors.log_internal_error("releasing a permit")
            return None
        return hold

    def give_back(self, hold: Hold | None) -> None:
        """Count a permit as held still: its release was refused."""
        if hold is not None:
            self._holds.append(hold)
            limit = hold[0].limit
            limit.level = level = limit.level + 1
            if level > limit.peak:
                limit.peak += 1

    def _use_so_far(self) -> LimitUse | None:
        here = (_series.active_cell.get() or _series.default_cell)[0]
        use: LimitUse | None = here.limits.get(self.name)
        return use

    def _of(self, use: LimitUse | None, latest: Hold) -> Hold:
        holds = self._holds
        holds.append(latest)
        for hold in reversed(list(holds)):
            if hold[0] is use:
                try:
                    holds.remove(hold)
                except ValueError:  # another thread has just released it
                    continue
                return hold
        return holds.pop(0)

    def _end_surplus(self) -> None:
        """End permits above the maximum: they were released through a raw reference."""
        most = self.capacity()
        # read again each time, since it may change
        self._bound = HOLDS_BOUND if most is None else most
        while len(self._holds) > self._bound:
            hold = self._holds.pop(0)
            hold[0].limit.level -= 1
            self.end(hold)

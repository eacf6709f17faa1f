"""Follow the many permits of a semaphore, a pool, or any other limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.limits.probe import Hold, LimitProbe

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitUse


# Permits that are followed at a time, of a limit without a known maximum.
HOLDS_BOUND: Final = 10_000

# in place of a stage's use: there is one permit only
_ANY: Final[Any] = object()


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
            if use is None:
                # `use_here` written out
                here = (_series.active_cell.get() or _series.default_cell)[0]
                use = here.limits.get(self.name) or here.add_limit(self.name)
            limit = use.limit
            hold = (use, clock.now(), waited)
            if self.releases:
                try:
                    self._holds.append(hold)
                    if len(self._holds) > self._bound:
                        self._end_surplus()
                except BaseException:  # a signal handler's: it is not counted
                    self._remove(hold)
                    # as it was, whether it was removed here or released already
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
        # `released` written out, since this is called for every permit
        take, end, release = self.take, self.end, lock.release

        def counted() -> None:
            try:
                end(take())
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
        if stage is not None and hold[0].stage is None:
            hold = (self.use_of(stage, hold), *hold[1:])
        self.end(hold)

    # Where a permit is removed, nothing is called between the look for it and the statement that
    # counts it as released: no signal handler raises and no other thread comes in between.

    def _remove(self, hold: Hold) -> bool:
        """Count a permit as released; tell whether it was known still."""
        holds, limit = self._holds, hold[0].limit
        try:
            place = holds.index(hold)
            while holds[place] != hold:  # another thread has just released one before it
                place = holds.index(hold)
            holds[place : place + 1], limit.level = (), limit.level - 1
        except (ValueError, IndexError) as error:  # after a fork, among too many, or just now
            if errors.from_signal_handler(error):
                raise
            return False
        return True

    def interrupted(self) -> None:
        """Count a permit as not acquired after all: it is released at once."""
        self.take()

    def take(self) -> Hold | None:
        """Return the permit that is about to be released; None if none is known.

        It is one that the current stage holds, else the one that is held longest. The caller
        releases it also if this is interrupted by an exception: it is counted as released.
        """
        holds, hold = self._holds, None
        try:
            use = self._use_so_far() if len(holds) > 1 else _ANY
            while holds:  # else acquired before it was wrapped, or through a raw reference
                hold = holds[-1]
                limit = hold[0].limit
                if use is _ANY or hold[0] is use:
                    holds[-1:], limit.level = (), limit.level - 1
                    return hold
                hold = self._other(use)
                if self._remove(hold):
                    return hold
        except BaseException as error:  # a signal handler's: it is released all the same
            if hold is not None or holds:
                self._remove(hold or holds[-1])
            if not isinstance(error, Exception):
                raise
            errors.log_internal_error("releasing a permit")
        return None

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

    def _other(self, use: LimitUse | None) -> Hold:
        """Return the latest permit of a stage, or else the one that is held longest."""
        holds = list(self._holds)
        return next((hold for hold in reversed(holds) if hold[0] is use), holds[0])

    def _end_surplus(self) -> None:
        """End permits above the maximum: they were released through a raw reference."""
        most = self.capacity()
        # read again each time, since it may change
        self._bound = HOLDS_BOUND if most is None else most
        while len(self._holds) > self._bound:
            hold = self._holds[0]
            limit = hold[0].limit
            self._holds[:1], limit.level = (), limit.level - 1
            self.end(hold)

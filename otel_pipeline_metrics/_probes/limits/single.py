"""Follow the one permit of a lock or a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._probes.limits.probe import Hold, LimitProbe, use_here
from otel_pipeline_metrics._stages.workers.finding import worker_of_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitUse


class SinglePermit(LimitProbe):
    """The permit of a lock or a condition.

    Who calls this holds the lock, so nothing else changes these attributes meanwhile.

    Args:
        name: of the limit.
        kind: what it is: a lock or a condition.
        maximum: as for `LimitProbe`.
        reentrant: whether its holder may acquire it again, which counts as one.
    """

    __slots__ = ("nested", "reentrant", "since", "use", "waited")

    def __init__(
        self,
        name: str,
        kind: str,
        maximum: int | Callable[[], int | None] | None,
        *,
        reentrant: bool = False,
    ) -> None:
        super().__init__(name, kind, maximum)
        self.reentrant = reentrant
        # of who holds it; None if it is free
        self.use: LimitUse | None = None
        self.since = 0.0
        # what it was waited for, while it is held outside of stages
        self.waited: float | None = None
        # how often its holder has acquired it again
        self.nested = 0

    def held(self) -> list[Hold]:
        """Return the permit if it is held."""
        use = self.use
        return [] if use is None else [(use, self.since, self.waited)]

    def after_fork(self) -> None:
        """Forget the permit: the parent reports it."""
        self.use = self.waited = None
        self.nested = 0

    def acquired(self, waited: float | None = None) -> None:
        """Count the permit as acquired, unless its holder does so again."""
        if self.use is not None:
            if self.reentrant:
                self.nested += 1
                return
            # it was released through a raw reference
            self.released()
        try:
            use = use_here(self.name)
            limit = use.limit
            self.since = clock.now()
            self.use = use
            if waited is not None:
                limit.waited += 1
                self.waited = waited if use.stage is None else None
            # threads share these, so there is no call between reading and writing them
            limit.acquired = acquired = limit.acquired + 1
            if acquired > limit.until_peak:
                limit.until_peak = acquired
                limit.peak += 1
        except Exception:  # the permit is the user's all the same
            errors.log_internal_error("acquiring a permit")

    def releasing(
        self, release: Callable[[], Any], owned: Callable[[], bool] | None = None
    ) -> Callable[[], None]:
        """Return a function that counts the permit as released, and then releases it.

        Args:
            release: the object's own method.
            owned: tells whether this thread may release it; None if every thread may.
        """
        left_last = worker_of_context.get

        def counted() -> None:
            use = self.use
            if use is None or (owned is not None and (self.nested or not owned())):
                self._release_otherwise(release, owned)
                return
            # `released` written out, since this is called for every permit
            try:
                self.use = None
                use.limit.until_peak += 1
                if use.stage is None:
                    if self.waited:
                        waited, self.waited = self.waited, None
                        use = self.use_left(use, waited)
                    elif (worker := left_last()) is not None:
                        try:
                            use = use.by_stage[worker.stage]
                        except KeyError:  # the first one of this stage
                            use = self.use_left(use, None)
                # threads share the sum, so there is no call between reading and writing it
                seconds = clock.now() - self.since
                use.held += seconds
            except Exception:  # it is released all the same
                errors.log_internal_error("releasing a permit")
            finally:
                release()

        return counted

    def _release_otherwise(
        self, release: Callable[[], Any], owned: Callable[[], bool] | None
    ) -> None:
        if owned is None or owned():
            self.released()
        release()

    def take(self) -> Hold | None:
        """Return the permit that is about to be released; None if it is not known, or nested."""
        use = self.use
        if self.nested or use is None:
            self.nested = max(0, self.nested - 1)
            return None
        waited, self.use, self.waited = self.waited, None, None
        use.limit.until_peak += 1
        return use, self.since, waited

    def give_back(self, hold: Hold | None) -> None:
        """Count the permit as held still: its release was refused."""
        if hold is not None:
            self.use, self.since, self.waited = hold
            hold[0].limit.until_peak -= 1
        elif self.reentrant and self.use is not None:
            self.nested += 1

    def interrupted(self) -> None:
        """Count the permit as not acquired: it is released at once."""
        if self.nested:
            self.nested -= 1
        elif self.use is not None:
            self.use.limit.until_peak += 1
            self.use = self.waited = None

    def suspend(self) -> Any:
        """Count the permit as released completely while a condition waits."""
        nested, self.nested = self.nested, 0
        return nested, super().suspend()

    def resume(self, suspended: Any) -> None:
        """Count the permit as held again, as often as before."""
        self.nested, hold = suspended
        super().resume(hold)

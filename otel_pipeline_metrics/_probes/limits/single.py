"""Follow the one permit of a lock or a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._probes.limits.instrumented import Limited
from otel_pipeline_metrics._probes.limits.probe import Hold, LimitProbe, use_here
from otel_pipeline_metrics._stages.workers.finding import worker_of_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitUse


_left_last: Final = worker_of_context.get


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
            # No call from here on: threads share the counts, and `share` counts the permit if it
            # is held.
            self.use = use
            use.locked += 1.0
            if self.shared:
                limit.level = level = limit.level + 1
                if level > limit.peak:
                    limit.peak += 1
            if waited is not None:
                limit.waited += 1
                self.waited = waited if use.stage is None else None
        except Exception:  # the permit is the user's all the same
            errors.log_internal_error("acquiring a permit")

    def releasing(self, lock: Any) -> Callable[[], None]:
        """Return a function that counts the permit as released, and then releases it."""
        return Released(lock, self).release

    def share(self) -> None:
        """Count from now on how many permits of its name are held at a time, this one too."""
        if not self.shared:
            self.shared = True
            if self.use is not None:
                limit = self.use.limit
                limit.level = level = limit.level + 1
                if level > limit.peak:
                    limit.peak += 1

    def take(self) -> Hold | None:
        """Return the permit that is about to be released; None if it is not known, or nested."""
        use = self.use
        if self.nested or use is None:
            self.nested = max(0, self.nested - 1)
            return None
        waited, self.use, self.waited = self.waited, None, None
        if self.shared:
            use.limit.level -= 1
        return use, self.since, waited

    def give_back(self, hold: Hold | None) -> None:
        """Count the permit as held still: its release was refused."""
        if hold is not None:
            limit = hold[0].limit
            self.use, self.since, self.waited = hold
            if self.shared:
                limit.level = level = limit.level + 1
                if level > limit.peak:
                    limit.peak += 1
        elif self.reentrant and self.use is not None:
            self.nested += 1

    def interrupted(self) -> None:
        """Count the permit as not acquired: it is released at once."""
        if self.nested:
            self.nested -= 1
        elif self.use is not None:
            use, self.use, self.waited = self.use, None, None
            if self.shared:
                use.limit.level -= 1

    def suspend(self) -> Any:
        """Count the permit as released completely while a condition waits."""
        nested, self.nested = self.nested, 0
        return nested, super().suspend()

    def resume(self, suspended: Any) -> None:
        """Count the permit as held again, as often as before."""
        self.nested, hold = suspended
        super().resume(hold)


def _releasing(*, reentrant: bool) -> Callable[[Any], None]:
    """Return the `release` of a stand-in.

    Args:
        reentrant: whether only its holder may release the lock, and as often as it acquired it.
    """

    def release(self: Any) -> None:
        """Release as the wrapped object does."""
        probe = self._opm_probe
        use = probe.use
        if use is None or (reentrant and (probe.nested or not self._opm_queue._is_owned())):
            if not reentrant or self._opm_queue._is_owned():
                probe.released()
            self._opm_queue.release()
            return
        # `released` of the probe written out, since this is called for every permit
        since = probe.since
        try:
            probe.use = None
            if probe.shared:
                use.limit.level -= 1
            if use.stage is None:
                if probe.waited:
                    waited, probe.waited = probe.waited, None
                    use = probe.use_left(use, waited)
                elif (worker := _left_last()) is not None:
                    try:
                        use = use.by_stage[worker.stage]
                    except KeyError:  # the first one of this stage
                        use = probe.use_left(use, None)
            # threads share the sum, so there is no call between reading and writing it
            use.held = clock.now() - since + use.held
        except Exception:  # it is released all the same
            errors.log_internal_error("releasing a permit")
        finally:
            self._opm_queue.release()

    return release


class Released(Limited):
    """The stand-in of a lock that any thread or task may release."""

    __slots__ = ()

    release = _releasing(reentrant=False)


class ReleasedByHolder(Released):
    """The stand-in of a lock that only its holder may release."""

    __slots__ = ()

    release = _releasing(reentrant=True)

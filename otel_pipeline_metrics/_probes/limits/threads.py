"""Stand in for threading's locks, semaphores and conditions, with permits that are counted.

The wrapped object's own methods never run inside a guard. A permit is acquired without waiting
first if it is free, so only waits that really happen are measured.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.limits.instrumented import Limited
from otel_pipeline_metrics._probes.limits.probe import LimitProbe, PermitWait
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from collections.abc import Callable


# The default depends on the class.
_UNSET: Final = object()


class LimitedLock(Limited):
    """An instrumented `Lock` of threading; base of what else threading has."""

    # bound methods of the wrapped object, which are looked up for each permit otherwise
    __slots__ = ("_opm_acquire", "_opm_release")

    _opm_acquire: Callable[..., bool]
    _opm_release: Callable[..., None]

    def __init__(self, lock: Any, probe: LimitProbe) -> None:
        super().__init__(lock, probe)
        object.__setattr__(self, "_opm_acquire", lock.acquire)
        object.__setattr__(self, "_opm_release", lock.release)

    def acquire(self, blocking: bool = True, timeout: Any = _UNSET) -> bool:
        """Acquire as the wrapped object does."""
        if blocking is True and timeout is _UNSET:
            return self.__enter__()
        given = (blocking,) if timeout is _UNSET else (blocking, timeout)
        if _may_wait(self._opm_queue, blocking, timeout):
            if not self._opm_acquire(False):
                return self._opm_wait(*given)
        elif not self._opm_acquire(*given):
            return False
        self._opm_count()
        return True

    def _opm_wait(self, *given: Any) -> bool:
        got = False
        try:
            with PermitWait(self._opm_probe) as wait:
                got = self._opm_acquire(*given)
            if got:
                self._opm_probe.acquired(wait.seconds)
        except BaseException:
            if got:
                self._opm_interrupted()
            raise
        return got

    def _opm_count(self) -> None:
        try:
            self._opm_probe.acquired()
        except BaseException:
            self._opm_interrupted()
            raise

    def _opm_interrupted(self) -> None:
        """Release it: who gets a signal handler's exception instead of the lock holds nothing."""
        try:
            self._opm_probe.interrupted()
        finally:
            self._opm_release()

    def __enter__(self) -> bool:
        if not self._opm_acquire(False):
            return self._opm_wait()
        # `acquired` of `SinglePermit` written out: the calls are a fifth of the cost of a lock
        try:
            probe = self._opm_probe
            if probe.use is not None:
                probe.acquired()
                return True
            found = _series.active_cell.get()
            here = _series.default_scope if found is None else found[0]
            use = here.limits.get(probe.name) or here.add_limit(probe.name)
            limit = use.limit
            limit.acquired += 1
            probe.waited = None
            probe.since = clock.now()
            probe.use = use
            limit.level = level = limit.level + 1
            if level > limit.peak:  # noqa: PLR1730 - a call of `max` costs more
                limit.peak = level
        except BaseException as error:  # the lock is the user's all the same
            self._opm_failed(error)
        return True

    def _opm_failed(self, error: BaseException) -> None:
        """Log an internal error, which is being handled; raise one of a signal handler."""
        if not isinstance(error, Exception):
            self._opm_interrupted()
            raise error
        try:
            errors.log_internal_error("acquiring a permit")
        except BaseException:
            self._opm_interrupted()
            raise

    def release(self) -> None:
        """Release as the wrapped object does."""
        try:
            self._opm_probe.released()
        finally:
            self._opm_release()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        probe = self._opm_probe
        use = probe.use
        if use is None or probe.nested:
            self.release()
            return
        # `released` of `SinglePermit` written out
        try:
            probe.use = None
            use.limit.level -= 1
            seconds = clock.now() - probe.since
            if use.stage is None and (left := accounting.stage_left()):
                found = left.limits.get(probe.name)
                if found is None or found.limit is not use.limit or probe.waited:
                    found = probe.stage_of(left, use, probe.waited)
                use = found
            if seconds > 0.0:
                use.held += seconds
        except Exception:  # it is released all the same
            errors.log_internal_error("releasing a permit")
        finally:
            self._opm_release()


class LimitedSemaphore(LimitedLock):
    """An instrumented `Semaphore` or `BoundedSemaphore` of threading."""

    __slots__ = ()

    def __enter__(self) -> bool:
        if self._opm_acquire(False):
            self._opm_count()
            return True
        return self._opm_wait()

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self, n: int = 1) -> None:
        """Release as the wrapped semaphore does."""
        try:
            for _ in range(n if isinstance(n, int) else 0):
                self._opm_probe.released()
        finally:
            self._opm_release(n)


class LimitedRLock(LimitedLock):
    """An instrumented `RLock`, also as the lock of a `Condition`."""

    __slots__ = ()

    def release(self) -> None:
        """Release as the wrapped lock does."""
        if self._opm_queue._is_owned():  # noqa: SLF001 - what `Condition` calls too
            super().release()
        else:
            self._opm_release()

    def _release_save(self) -> Any:
        """Release the lock completely, for `Condition.wait`."""
        saved = self._opm_probe.suspend()
        return self._opm_queue._release_save(), saved  # noqa: SLF001

    def _acquire_restore(self, saved: Any) -> None:
        """Acquire the lock as often as before, for `Condition.wait`."""
        state, held = saved
        self._opm_queue._acquire_restore(state)  # noqa: SLF001
        self._opm_probe.resume(held)


class LimitedCondition(LimitedLock):
    """An instrumented `Condition` of threading: its lock, which its `wait` does not hold."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as the wrapped condition does: its worker is idle."""
        condition, probe = self._opm_queue, self._opm_probe
        if not condition._is_owned():  # noqa: SLF001 - what its own `wait` asks first
            return bool(condition.wait(timeout))
        held = probe.suspend()
        try:
            with PermitWait(probe, state="idle"):
                return bool(condition.wait(timeout))
        finally:
            probe.resume(held)

    # the library's own, which calls `wait`
    wait_for = threading.Condition.wait_for

    def release(self) -> None:
        """Release as the wrapped condition does."""
        if self._opm_queue._is_owned():  # noqa: SLF001 - of an `RLock`, only its holder may
            super().release()
        else:
            self._opm_release()


def _may_wait(lock: Any, blocking: object, timeout: object) -> bool:
    """Tell whether arguments of `acquire` are valid and let it wait."""
    if not isinstance(blocking, int) or not blocking:
        return False
    if timeout is _UNSET:
        return True
    if timeout is None:
        return isinstance(lock, threading.Semaphore)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        return False
    return timeout == -1 or 0 < timeout <= threading.TIMEOUT_MAX

"""Stand in for threading's locks, semaphores and conditions, with permits that are counted.

The wrapped object's own methods never run inside a guard. A permit is acquired without waiting
first if it is free, so only waits that really happen are measured.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.limits.instrumented import (
    ENTER,
    EXIT,
    LimitedBySlots,
    LimitedOpen,
)
from otel_pipeline_metrics._probes.limits.probe import LimitProbe, PermitWait, failed, interrupted
from otel_pipeline_metrics._probes.limits.single import Released, ReleasedByHolder

if TYPE_CHECKING:
    from otel_pipeline_metrics._probes.limits.probe import Hold
    from otel_pipeline_metrics._probes.limits.single import SinglePermit


_current: Final = _series.active_cell.get

# The default depends on the class.
_UNSET: Final = object()


class LimitedLock(Released):
    """An instrumented `Lock` or `RLock` of threading."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: Any = _UNSET) -> bool:
        """Acquire as the wrapped object does."""
        if blocking is not True or timeout is not _UNSET or not self._opm_queue.acquire(False):
            return _acquire_or_wait(self._opm_queue, self._opm_probe, blocking, timeout)
        probe = self._opm_probe
        # `acquired` of the probe written out: the calls are a fifth of the cost of a lock
        try:
            if probe.use is None:
                use = (_current() or _series.default_cell)[0].limits[probe.name]
                probe.since = clock.now()
                probe.use = use
                use.locked += 1.0
                if probe.shared:
                    limit = use.limit
                    limit.level = level = limit.level + 1
                    if level > limit.peak:
                        limit.peak += 1
                return True
            probe.acquired()
        except BaseException as error:  # the lock is the user's all the same
            failed(self._opm_queue, probe, error)
        return True

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


def _acquire_or_wait(lock: Any, probe: LimitProbe, blocking: Any, timeout: Any) -> bool:
    """Acquire a permit that is not free, or with arguments; count a wait if it may wait."""
    given = (blocking,) if timeout is _UNSET else (blocking, timeout)
    if not _may_wait(lock, blocking, timeout):
        if not lock.acquire(*given):
            return False
    elif not lock.acquire(False):
        return _wait(lock, probe, given)
    # here, not in a function of its own: a signal handler may raise as one begins
    try:
        probe.acquired()
    except BaseException:
        interrupted(lock, probe)
        raise
    return True


def _wait(lock: Any, probe: LimitProbe, given: tuple[Any, ...]) -> bool:
    got = False
    try:
        with PermitWait(probe) as wait:
            got = lock.acquire(*given)
    except BaseException:
        if got:
            lock.release()
        raise
    if got:
        try:
            probe.acquired(wait.seconds)
        except BaseException:
            interrupted(lock, probe)
            raise
    return bool(got)


class LimitedOpenLock(LimitedBySlots, LimitedOpen):
    """The same of a lock that may have any other attribute; base of the `Condition`."""

    __slots__ = ()

    __enter__ = ENTER
    __exit__ = EXIT

    def __init__(self, lock: Any, probe: SinglePermit) -> None:
        super().__init__(lock, probe)
        # A condition's methods are those of its own lock, which are found faster there.
        own = getattr(lock, "_lock", None)
        if own is not None and (lock.acquire, lock.release) == (own.acquire, own.release):
            lock = own
        # its methods look up attributes, which is slow in this class
        inner = (LimitedRLock if probe.reentrant else LimitedLock)(lock, probe)
        self._opm_set(inner.acquire, inner.release, inner.__enter__, inner.__exit__)


class LimitedSemaphore(LimitedOpen):
    """An instrumented `Semaphore` or `BoundedSemaphore` of threading."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: Any = _UNSET) -> bool:
        """Acquire as the wrapped object does."""
        return _acquire_or_wait(self._opm_queue, self._opm_probe, blocking, timeout)

    def __enter__(self) -> bool:
        return _acquire_or_wait(self._opm_queue, self._opm_probe, True, _UNSET)

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self, n: int = 1) -> None:
        """Release as the wrapped semaphore does."""
        probe = self._opm_probe
        known = min(n, probe.depth()) if isinstance(n, int) else 0
        taken: list[Hold | None] = []
        try:
            for _ in range(known):
                taken.append(probe.take())  # noqa: PERF401 - an exception keeps the first ones
        finally:
            try:
                self._opm_queue.release(n)
            except Exception as error:  # refused: a bounded one has fewer to release
                # unless a signal handler raised it: most likely the semaphore is released by then
                kept = [] if errors.from_signal_handler(error) else taken
                while kept:
                    probe.give_back(kept.pop())
                raise
            finally:
                for hold in taken:
                    probe.end(hold)


class LimitedRLock(ReleasedByHolder, LimitedLock):
    """An instrumented `RLock`, also as the lock of a `Condition`."""

    __slots__ = ()

    def _release_save(self) -> Any:
        """Release the lock completely, for `Condition.wait`."""
        saved = self._opm_probe.suspend()
        return self._opm_queue._release_save(), saved

    def _acquire_restore(self, saved: Any) -> None:
        """Acquire the lock as often as before, for `Condition.wait`."""
        state, held = saved
        self._opm_queue._acquire_restore(state)
        self._opm_probe.resume(held)


class LimitedOpenRLock(LimitedOpenLock):
    """The same of an `RLock` that may have any other attribute."""

    __slots__ = ()

    _release_save = LimitedRLock._release_save
    _acquire_restore = LimitedRLock._acquire_restore


class LimitedCondition(LimitedOpenLock):
    """An instrumented `Condition` of threading: its lock, which its `wait` does not hold."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as the wrapped condition does: its worker is idle."""
        condition, probe = self._opm_queue, self._opm_probe
        if not condition._is_owned():
            return bool(condition.wait(timeout))
        held = probe.suspend()
        try:
            with PermitWait(probe, state="idle"):
                return bool(condition.wait(timeout))
        finally:
            probe.resume(held)

    # the library's own, which calls `wait`
    wait_for = threading.Condition.wait_for


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

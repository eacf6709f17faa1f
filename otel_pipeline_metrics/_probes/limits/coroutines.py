"""Stand in for asyncio's locks, semaphores and conditions, with permits that are counted.

A free permit is taken from the object's own attributes, since it has no method that does not wait.
Whether any other acquisition waits is seen by its first step: it returns at once if there is none.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, Final, cast

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._probes.limits.instrumented import (
    ENTER,
    EXIT,
    LimitedBySlots,
    LimitedOpen,
)
from otel_pipeline_metrics._probes.limits.probe import (
    LimitProbe,
    PermitWait,
    failed,
    interrupted,
)
from otel_pipeline_metrics._probes.queues.instrumented import coroutine_function
from otel_pipeline_metrics._stages.workers.finding import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otel_pipeline_metrics._probes.limits.permits import Permits
    from otel_pipeline_metrics._probes.limits.single import SinglePermit
    from otel_pipeline_metrics._stages.workers.worker import Worker

    Acquire = Callable[[], Coroutine[Any, Any, Any]]

# The attributes of asyncio's own classes.


async def counted(
    probe: LimitProbe, acquire: Callable[[], Coroutine[Any, Any, Any]], worker: Worker | None
) -> Any:
    """Acquire a permit; measure the wait from the first suspension on.

    Args:
        probe: of the limit.
        acquire: returns the coroutine that acquires it.
        worker: that waits; the current one if None.
    """
    acquiring = acquire()
    try:
        awaited = acquiring.send(None)
    except StopIteration as over:
        if over.value is not False:
            probe.acquired()
        return over.value
    with PermitWait(probe, worker) as wait:
        result = await _rest(acquiring, awaited)
    if result is not False:
        probe.acquired(wait.seconds)
    return result


@types.coroutine
def _rest(coroutine: Any, awaited: Any) -> Generator[Any, Any, Any]:
    """Run a coroutine from its first suspension to its end."""
    while True:
        step: Callable[[Any], Any] = coroutine.send
        try:
            given = yield awaited
        except BaseException as error:  # the coroutine handles cancellation too
            given, step = error, coroutine.throw
        try:
            awaited = step(given)
        except StopIteration as over:
            return over.value


class LimitedAsyncLock(LimitedBySlots, LimitedOpen):
    """An instrumented `Lock`, `Semaphore` or `BoundedSemaphore` of asyncio."""

    __slots__ = ()

    __aenter__ = ENTER
    __aexit__ = EXIT

    def __init__(self, lock: Any, probe: Any) -> None:
        super().__init__(lock, probe)
        # what has the permits, and the tasks that wait for one
        permits: Any = lock._lock if isinstance(lock, asyncio.Condition) else lock  # type: ignore[attr-defined]
        make: Callable[[Any, Any], Acquire] = _ACQUIRING.get(type(permits).acquire, _by_asking)
        acquire = make(permits, probe)
        release = probe.releasing(lock)

        async def enter() -> None:
            await acquire()

        async def leave(_kind: object, _error: object, _traceback: object) -> None:
            release()

        self._opm_set(acquire, release, enter, leave)


def _of_lock(lock: Any, probe: SinglePermit) -> Acquire:
    """Return the `acquire` of a stand-in for asyncio's lock, which waits for no free one."""
    name, current = probe.name, _series.active_cell.get

    async def acquired(worker: Worker | None) -> Any:
        if lock._locked or lock._waiters:  # of tasks that come first
            return await counted(probe, lock.acquire, worker)
        lock._locked = True
        # `acquired` of the probe written out: the calls are a fifth of the cost of a lock
        try:
            if probe.use is None:
                use = (current() or _series.default_cell)[0].limits[name]
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
            failed(lock, probe, error)
        return True

    @coroutine_function
    def acquire() -> Coroutine[Any, Any, Any]:
        """Acquire as the wrapped object does."""
        # `asyncio.wait_for` may run the coroutine in another task, before Python 3.12
        return acquired(requesting_worker() if lock._locked else None)

    return acquire


def _of_semaphore(semaphore: Any, probe: Permits) -> Acquire:
    """Return the `acquire` of a stand-in for asyncio's semaphore, which waits for no free one."""

    async def acquired(worker: Worker | None) -> Any:
        if semaphore._value <= 0 or semaphore._waiters:  # of tasks that come first
            return await counted(probe, semaphore.acquire, worker)
        semaphore._value -= 1
        try:
            probe.acquired()
        except BaseException:
            interrupted(semaphore, probe)
            raise
        return True

    @coroutine_function
    def acquire() -> Coroutine[Any, Any, Any]:
        """Acquire as the wrapped object does."""
        return acquired(requesting_worker() if semaphore._value <= 0 else None)

    return acquire


def _by_asking(limit: Any, probe: LimitProbe) -> Acquire:
    """Return the `acquire` of a stand-in for a condition with a lock of another class."""

    @coroutine_function
    def acquire() -> Coroutine[Any, Any, Any]:
        """Acquire as the wrapped object does."""
        return counted(probe, limit.acquire, requesting_worker())

    return acquire


# By the method that acquires: what acquires at once if a permit is free.
_ACQUIRING: Final[dict[Any, Callable[[Any, Any], Acquire]]] = {
    asyncio.Lock.acquire: _of_lock,
    asyncio.Semaphore.acquire: _of_semaphore,
}


class LimitedAsyncCondition(LimitedAsyncLock):
    """An instrumented `Condition` of asyncio: its lock, which its `wait` does not hold."""

    __slots__ = ()

    @coroutine_function
    def wait(self) -> Coroutine[Any, Any, Any]:
        """Wait as the wrapped condition does: its worker is idle."""
        return self._opm_wait(requesting_worker())

    async def _opm_wait(self, worker: Worker | None) -> Any:
        condition, probe = self._opm_queue, self._opm_probe
        held = probe.suspend()
        try:
            with PermitWait(probe, worker, "idle"):
                return await condition.wait()
        finally:
            probe.resume(held)

    # the library's own, which calls `wait`
    wait_for = cast("Any", asyncio.Condition.wait_for)

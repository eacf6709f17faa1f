"""Stand in for asyncio's locks, semaphores and conditions, with permits that are counted.

Whether an acquisition waits is seen by its first step: it returns at once if the permit is free.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, cast

from otel_pipeline_metrics._probes.limits.instrumented import Limited
from otel_pipeline_metrics._probes.limits.probe import LimitProbe, PermitWait
from otel_pipeline_metrics._probes.queues.instrumented import coroutine_function
from otel_pipeline_metrics._probes.queues.probe import requesting_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otel_pipeline_metrics._stages.workers.worker import Worker


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


class LimitedAsyncLock(Limited):
    """An instrumented `Lock`, `Semaphore` or `BoundedSemaphore` of asyncio."""

    # what has the tasks that wait to acquire
    __slots__ = ("_opm_lock",)

    _opm_lock: Any

    def __init__(self, lock: Any, probe: LimitProbe) -> None:
        super().__init__(lock, probe)
        if isinstance(lock, asyncio.Condition):
            lock = lock._lock  # type: ignore[attr-defined]  # noqa: SLF001
        object.__setattr__(self, "_opm_lock", lock)

    @coroutine_function
    def acquire(self) -> Coroutine[Any, Any, Any]:
        """Acquire as the wrapped object does."""
        # `asyncio.wait_for` may run the coroutine in another task, before Python 3.12
        worker = requesting_worker() if self._opm_queue.locked() else None
        return self._opm_acquire(worker)

    async def _opm_acquire(self, worker: Worker | None) -> Any:
        lock = self._opm_queue
        if lock.locked() or self._opm_lock._waiters:  # noqa: SLF001 - tasks that come first
            return await counted(self._opm_probe, lock.acquire, worker)
        result = await lock.acquire()
        self._opm_probe.acquired()
        return result

    def release(self) -> None:
        """Release as the wrapped object does."""
        try:
            self._opm_probe.released()
        finally:
            self._opm_queue.release()

    async def __aenter__(self) -> None:
        # `_opm_acquire` written out, which saves a coroutine
        lock = self._opm_queue
        if lock.locked() or self._opm_lock._waiters:  # noqa: SLF001
            await counted(self._opm_probe, lock.acquire, None)
            return
        await lock.acquire()
        self._opm_probe.acquired()

    async def __aexit__(self, *_: object) -> None:
        try:
            self._opm_probe.released()
        finally:
            self._opm_queue.release()


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

"""`TaskPool`: the workers of a coroutine function or async generator function."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._pools.meters import BLOCKED, IDLE, WORKING, Meter
from otel_pipeline_metrics._pools.pool import Plan, Pool, SinkError, raise_as_itself
from otel_pipeline_metrics._pools.tuning import Tuner
from otel_pipeline_metrics._probes.queues.instrumented import SHUT_DOWN
from otel_pipeline_metrics._probes.queues.probe import NOTHING

if TYPE_CHECKING:
    from typing_extensions import Self

_EndOfSource: Final = SHUT_DOWN[0]

# From this part of the time on, an event loop computes, so more tasks do not help.
_BUSY: Final = 0.85


class TaskPool(Pool):
    """Tasks that take items from one queue and put results into another."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._tasks: set[asyncio.Task[None]] = set()
        # those that wait for an item
        self._waiting: set[asyncio.Task[None]] = set()
        # of those, the ones that leave since there are too many
        self._released: set[asyncio.Task[None]] = set()
        self._controller: asyncio.Task[None] | None = None
        self._made = 0
        self._body: asyncio.Task[Any] | None = None
        # the body was cancelled because an item failed
        self._body_cancelled = False
        self._leaving = False

    async def __aenter__(self) -> Self:
        """Start the tasks."""
        self._enter()
        self._body = asyncio.current_task()
        for _ in range(self._plan.low):
            self._add()
        if self._meters is not None:
            self._controller = asyncio.get_running_loop().create_task(
                self._control(), name=f"{self.name}-control"
            )
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object, /
    ) -> None:
        """Wait for the end of the source; cancel the tasks after an exception."""
        self._leaving = True
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        if self._body_cancelled and self._is_cancelled_by_us():
            cancelled = None
        if error is not None:
            self._stop()
        outside = await self._wait_for(self._tasks)
        if self._controller is not None:
            self._controller.cancel()
            outside = await self._wait_for({self._controller}) or outside
        cancelled = outside or cancelled
        if self._body_cancelled and not isinstance(error, asyncio.CancelledError):
            # the body never awaited again, or went on; no later await shall meet it
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        self._tell_skipped()
        if self._error is not None and self._outdoes(error):
            self._cancel_again()
            raise_as_itself(self._error)
        if cancelled is not None and cancelled is not error:
            raise cancelled

    async def _wait_for(self, tasks: set[asyncio.Task[None]]) -> asyncio.CancelledError | None:
        """Wait for tasks; stop them if the block is cancelled meanwhile, and return that."""
        cancelled = None
        while any(not task.done() for task in tasks):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as outside:
                # while it stops already, this is what cancelled the body, or makes no difference
                if not self._stopping:
                    cancelled = outside
                    self._stop()
        return cancelled

    def _is_cancelled_by_us(self) -> bool:
        """Take the cancellation of the body back; tell whether it was ours alone."""
        # before Python 3.11 cancellations are not counted
        uncancel = getattr(self._body, "uncancel", None)
        return uncancel is None or uncancel() == 0

    def _cancel_again(self) -> None:
        """Have the cancellation by somebody else raised at the next `await`."""
        body: Any = self._body
        if hasattr(body, "cancelling") and body.cancelling():
            body.uncancel()
            body.cancel()

    def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    def _add(self) -> None:
        self._active += 1
        self._made += 1
        task = asyncio.get_running_loop().create_task(
            self._work(), name=f"{self.name}-{self._made - 1}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # raised in the block; asyncio need not log it

    # --- a task ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        this: Any = asyncio.current_task()
        meter = None if self._meters is None else self._meters.add()
        try:
            try:
                await self._take_all(this, meter)
            finally:
                self._active -= 1
                if meter is not None and self._meters is not None:
                    self._meters.remove(meter)
            if not self._active and self._may_pass_on():
                await self._pass_end_on()
        except BaseException as error:
            self._fail(error, this)
            if not isinstance(error, Exception):
                raise

    async def _take_all(self, this: asyncio.Task[None], meter: Meter | None) -> None:
        while not self._ended and not self._stopping and not self._is_surplus():
            self._waiting.add(this)
            try:
                item = await self._plan.source.get()
            except _EndOfSource:
                self._end()
                return
            except asyncio.CancelledError:
                if self._was_woken(this):
                    return
                raise
            finally:
                self._waiting.discard(this)
            if self._is_end(item):
                self._end()
                self._done()
                return
            try:
                if meter is None:
                    await self._handle(item)
                else:
                    meter.enter(WORKING)
                    await self._handle(item, meter)
                    meter.done += 1
                    meter.enter(IDLE)
            finally:
                self._done()

    def _is_surplus(self) -> bool:
        """Tell whether this task leaves, since there are too many."""
        leaves = self._surplus > 0
        self._surplus -= leaves
        return leaves

    def _was_woken(self, this: asyncio.Task[None]) -> bool:
        """Tell whether a wait was cancelled because nothing will come, or there are too many."""
        released = this in self._released
        self._released.discard(this)
        return (self._ended or released) and not self._stopping

    def _end(self) -> None:
        self._ended = True
        for task in self._waiting:
            task.cancel()

    async def _handle(self, item: Any, meter: Meter | None = None) -> None:
        try:
            if self._plan.generates:
                async with contextlib.aclosing(self._plan.function(item)) as results:
                    async for result in results:
                        await self._put(self._checked(result), meter)
            else:
                await self._put(self._checked(await self._plan.function(item)), meter)
        except SinkError:
            raise
        except Exception:
            if not self._skips():
                raise

    async def _put(self, result: Any, meter: Meter | None = None) -> None:
        if self._plan.sink is None:
            return
        if meter is not None:
            meter.enter(BLOCKED)
        try:
            await self._plan.sink.put(result)
        except Exception as error:
            raise SinkError(error) from error
        if meter is not None:
            meter.enter(WORKING)

    async def _pass_end_on(self) -> None:
        end = self._end_of_sink()
        if end is NOTHING:
            self._shut_down_sink()
        else:
            await self._put(end)

    def _fail(self, error: BaseException, this: asyncio.Task[None]) -> None:
        if self._stopping:
            return  # cancelled, or an error while it was
        self._error = error.error if isinstance(error, SinkError) else error
        self._stopping = True
        for task in self._tasks - {this}:
            task.cancel()
        if self._body is not None and not self._leaving:
            self._body_cancelled = True
            self._body.cancel()

    # --- how many --------------------------------------------------------------------------------

    async def _control(self) -> None:
        """Change the number of tasks while items come."""
        with errors.suppress_errors("changing the number of workers"):
            assert self._meters is not None  # noqa: S101 - of an elastic pool
            meters, tuner = self._meters, Tuner(self._plan.low, self._plan.high)
            meters.begin()
            cpu = time.thread_time()
            while not self._is_over():
                began = clock.now()
                await asyncio.sleep(meters.pause_s())
                before, cpu = cpu, time.thread_time()
                busy = (cpu - before) / max(clock.now() - began, 1e-9)
                bound = f"the event loop is busy {100 * busy:.0f} % of the time"
                count = tuner.tick(meters.tick(None if busy < _BUSY else bound))
                if count != self.count and not self._is_over():
                    self._resize(count, tuner.why)

    def _is_over(self) -> bool:
        return self._stopping or self._ended

    def _resize(self, count: int, why: str) -> None:
        self._note_change(self.count, count, why)
        staying = self._active - len(self._released)
        self._surplus = max(0, staying - count)
        # those that have no item leave at once
        for task in list(self._waiting - self._released)[: self._surplus]:
            self._surplus -= 1
            self._released.add(task)
            task.cancel()
        for _ in range(count - staying):
            self._add()

    @property
    def count(self) -> int:
        """How many workers there are, without those that leave after the item in hand."""
        return max(0, super().count - len(self._released))

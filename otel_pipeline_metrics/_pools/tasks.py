"""`TaskPool`: the workers of a coroutine function or async generator function."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._pools.pool import Plan, Pool, SinkError, raise_as_itself
from otel_pipeline_metrics._probes.queues.instrumented import SHUT_DOWN
from otel_pipeline_metrics._probes.queues.probe import NOTHING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_EndOfSource: Final = SHUT_DOWN[0]


class TaskPool(Pool):
    """Tasks that take items from one queue and put results into another."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._tasks: set[asyncio.Task[None]] = set()
        # those that wait for an item
        self._waiting: set[asyncio.Task[None]] = set()
        # how many take items
        self._active = 0
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
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Wait for the end of the source; cancel the tasks after an exception."""
        self._leaving = True
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        if self._body_cancelled and self._is_cancelled_by_us():
            cancelled = None
        if error is not None:
            self._stop()
        while self._tasks:
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError as outside:
                # while it stops already, this is what cancelled the body, or makes no difference
                if not self._stopping:
                    cancelled = outside
                    self._stop()
        if self._body_cancelled and not isinstance(error, asyncio.CancelledError):
            # the body never awaited again, or went on; nobody else shall meet it
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        self._tell_skipped()
        if self._error is not None and self._outdoes(error):
            self._cancel_again()
            raise_as_itself(self._error)
        if cancelled is not None and cancelled is not error:
            raise cancelled

    def _is_cancelled_by_us(self) -> bool:
        """Take the cancellation of the body back; tell whether nobody else wants it."""
        # before Python 3.11 nobody counts
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
        try:
            try:
                await self._take_all(this)
            finally:
                self._active -= 1
            if not self._active and self._may_pass_on():
                await self._pass_end_on()
        except BaseException as error:
            self._fail(error, this)
            if not isinstance(error, Exception):
                raise

    async def _take_all(self, this: asyncio.Task[None]) -> None:
        while not self._ended and not self._stopping:
            self._waiting.add(this)
            try:
                item = await self._plan.source.get()
            except _EndOfSource:
                self._end()
                return
            except asyncio.CancelledError:
                if self._was_woken():
                    return
                raise
            finally:
                self._waiting.discard(this)
            if self._is_end(item):
                self._end()
                self._done()
                return
            try:
                await self._handle(item)
            finally:
                self._done()

    def _was_woken(self) -> bool:
        """Tell whether a wait was cancelled only because nothing will come."""
        return self._ended and not self._stopping

    def _end(self) -> None:
        self._ended = True
        for task in self._waiting:
            task.cancel()

    async def _handle(self, item: Any) -> None:
        try:
            if self._plan.generates:
                async with contextlib.aclosing(self._plan.function(item)) as results:
                    async for result in results:
                        await self._put(self._checked(result))
            else:
                await self._put(self._checked(await self._plan.function(item)))
        except SinkError:
            raise
        except Exception:
            if not self._skips():
                raise

    async def _put(self, result: Any) -> None:
        if self._plan.sink is None:
            return
        try:
            await self._plan.sink.put(result)
        except Exception as error:
            raise SinkError(error) from error

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

"""`ThreadPool`: the workers of a plain function or generator function."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._pools.gil import Gil
from otel_pipeline_metrics._pools.meters import BLOCKED, IDLE, WORKING, Meter
from otel_pipeline_metrics._pools.pool import Plan, Pool, SinkError, raise_as_itself
from otel_pipeline_metrics._pools.tuning import Tuner
from otel_pipeline_metrics._probes.queues.instrumented import SHUT_DOWN
from otel_pipeline_metrics._probes.queues.probe import NOTHING

if TYPE_CHECKING:
    from typing_extensions import Self

# A thread that waits at a queue looks this often, in seconds, whether it should end.
LOOKS_S: Final = 0.05

_EndOfSource: Final = SHUT_DOWN[1]


class _StoppedError(Exception):
    """The pool stopped while a thread had a result to put."""


class ThreadPool(Pool):
    """Threads that take items from one queue and put results into another."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._made = 0
        self._controller: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the threads."""
        self._enter()
        try:
            for _ in range(self._plan.low):
                self._add()
            if self._meters is not None:
                self._controller = threading.Thread(
                    target=self._control, name=f"{self.name}-control", daemon=True
                )
                self._controller.start()
        except BaseException:  # no more threads
            self._stop_and_wait()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object, /) -> None:
        """Wait for the end of the source; at once for the items in hand after an exception."""
        try:
            if error is None:
                with self._changed:
                    while self._active and self._error is None:
                        self._changed.wait()
        finally:  # also by Ctrl-C
            self._stop_and_wait()
        self._tell_skipped()
        if self._error is not None and self._outdoes(error):
            raise_as_itself(self._error)

    def _stop_and_wait(self) -> None:
        self._stopping = True
        if self._controller is not None:  # first, since it starts threads
            self._controller.join()
        for thread in self._threads:
            thread.join()

    def _add(self) -> None:
        context = contextvars.copy_context()
        # a daemon, so that a program that never leaves the block can end
        thread = threading.Thread(
            target=context.run,
            args=(self._work,),
            name=f"{self.name}-{self._made}",
            daemon=True,
        )
        with self._changed:
            self._active += 1
            self._made += 1
        try:
            thread.start()
        except BaseException:
            with self._changed:
                self._active -= 1
            raise
        self._threads.append(thread)

    # --- a thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        meter = None if self._meters is None else self._meters.add()
        left = False
        try:
            left = self._take_all(meter)
        except BaseException as error:  # of the source, since those of items are handled
            self._fail(error)
        if meter is not None and self._meters is not None:
            self._meters.remove(meter)
        with self._changed:
            self._active -= not left
            # the last one stays active until the end is passed on
            last = not self._active and self._may_pass_on()
            self._active += last
        if last:
            try:
                self._pass_end_on()
            except BaseException as error:
                self._fail(error)
        with self._changed:
            self._active -= last
            self._changed.notify_all()

    def _take_all(self, meter: Meter | None) -> bool:
        """Work on items until the end; return True if it leaves before, as one too many."""
        get = self._plan.source.get
        while not self._stopping and not self._ended:
            if self._is_surplus():
                return True
            try:
                item = get(timeout=LOOKS_S)
            except queue.Empty:
                continue
            except _EndOfSource:
                self._ended = True
                break
            if self._is_end(item):
                self._ended = True
                self._done()
                break
            try:
                if self._error is not None:
                    with self._changed:
                        self._dropped += 1
                elif meter is None:
                    self._handle(item)
                else:
                    meter.enter(WORKING)
                    self._handle(item, meter)
                    meter.done += 1
                    meter.enter(IDLE)
            finally:
                self._done()
        return False

    def _is_surplus(self) -> bool:
        """Tell whether this thread leaves, since there are too many."""
        if not self._surplus:
            return False
        with self._changed:
            leaves = self._surplus > 0
            self._surplus -= leaves
            self._active -= leaves
            return leaves

    def _handle(self, item: Any, meter: Meter | None = None) -> None:
        try:
            if self._plan.generates:
                with contextlib.closing(self._plan.function(item)) as results:
                    for result in results:
                        self._put(self._checked(result), meter)
            else:
                self._put(self._checked(self._plan.function(item)), meter)
        except _StoppedError:
            pass
        except SinkError as refused:
            self._fail(refused.error)
        except Exception as error:
            with self._changed:
                goes_on = self._skips()
            if not goes_on:
                self._fail(error)
        except BaseException as error:
            self._fail(error)

    def _put(self, result: Any, meter: Meter | None = None) -> None:
        if self._plan.sink is None:
            return
        if meter is not None:
            meter.enter(BLOCKED)
        while not self._stopping:
            try:
                self._plan.sink.put(result, timeout=LOOKS_S)
            except queue.Full:
                continue
            except Exception as error:
                raise SinkError(error) from error
            if meter is not None:
                meter.enter(WORKING)
            return
        raise _StoppedError

    def _pass_end_on(self) -> None:
        end = self._end_of_sink()
        if end is NOTHING:
            self._shut_down_sink()
        else:
            with contextlib.suppress(_StoppedError):
                self._put(end)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, SinkError):
            error = error.error
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    # --- how many --------------------------------------------------------------------------------

    def _control(self) -> None:
        """Change the number of threads while items come."""
        with errors.suppress_errors("changing the number of workers"):
            assert self._meters is not None  # noqa: S101 - of an elastic pool
            meters, tuner = self._meters, Tuner(self._plan.low, self._plan.high)
            gil = Gil()
            meters.begin()
            while not self._is_over():
                left = meters.pause_s()
                while left > 0 and not self._is_over():
                    # short sleeps: an end is noticed soon, and each tells whether the GIL is held
                    pause = min(left, LOOKS_S)
                    gil.sample(pause)
                    left -= pause
                count = tuner.tick(meters.tick(gil.bound()))
                if count != self.count and not self._is_over():
                    self._resize(count, tuner.why)

    def _is_over(self) -> bool:
        return self._stopping or self._ended or self._error is not None

    def _resize(self, count: int, why: str) -> None:
        with self._changed:
            self._note_change(self.count, count, why)
            self._surplus = max(0, self._active - count)
            missing = count - self._active
        for _ in range(missing):
            self._add()

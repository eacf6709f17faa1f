"""Carry the context into the work of an executor, and count its workers as a limit.

A task waits from `submit` until one of the executor's threads begins it. A process does not tell
when it begins one. A process pool has work for all its processes as long as tasks wait, so there a
task is taken to begin as soon as fewer tasks than processes are unfinished before it.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core import cardinality, clock, drain, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import check_name
from otel_pipeline_metrics._probes.limits.permits import Permits
from otel_pipeline_metrics._probes.limits.probe import PermitWait, use_here
from otel_pipeline_metrics._probes.limits.registry import watch
from otel_pipeline_metrics._stages.parts import reduce_with_part
from otel_pipeline_metrics._stages.propagate import FromOtherProcess, Propagated
from otel_pipeline_metrics._stages.workers import accounting

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_pipeline_metrics._core.hooks import PartsOfRun
    from otel_pipeline_metrics._probes.limits.probe import Hold

E = TypeVar("E", bound=Executor)


def wrap_executor(executor: E, *, name: str | None = None) -> E:
    """Carry the context of `submit` into an executor's work; return that executor.

    For `ThreadPoolExecutor`, `ProcessPoolExecutor` and any other whose `map` calls `submit`, as
    theirs does; also in `loop.run_in_executor`. The executor is otherwise unchanged.

    Its workers are a limit, as those of `wrap_limit` are: tasks wait for a free one. The wait and
    the time in a worker belong to the stage that submits. A worker that waits in `result()` for a
    task of a thread pool is `blocked` until the task begins.

    What the tasks of a process pool do comes back with their results, and counts in the report of
    the run that submitted them. Results and exceptions are those of the bare pool.

    Args:
        executor: the executor.
        name: `pipeline.limit.name`, up to 128 characters; by default the name of its class.

    Raises:
        TypeError: it is not an executor, or is wrapped already.
        ValueError: `name` is empty or too long.
    """
    if not isinstance(executor, Executor):
        raise TypeError(
            f"executor must be a concurrent.futures.Executor, not {type(executor).__name__}"
        )
    submit = executor.submit
    if isinstance(submit, _Submit):
        raise TypeError("this executor is wrapped already")
    given = type(executor).__name__ if name is None else check_name(name, "name")
    distinct = cardinality.instrument_names.name("limit names", given)
    most: Any = getattr(executor, "_max_workers", None)
    probe = Permits(distinct, _kind(executor), most if isinstance(most, int) else None)
    workers = _Processes(most) if isinstance(executor, ProcessPoolExecutor) else None
    watch(probe)
    executor.submit = _Submit(submit, probe, workers)  # type: ignore[method-assign]  # of this instance only
    return executor


def _kind(executor: Executor) -> str:
    if isinstance(executor, ThreadPoolExecutor):
        return "thread pool"
    return "process pool" if isinstance(executor, ProcessPoolExecutor) else "executor"


class _Submit:
    """The `submit` of an executor, with context."""

    def __init__(self, submit: Any, probe: Permits, processes: _Processes | None) -> None:
        functools.update_wrapper(self, submit)
        self._submit = submit
        self._probe = probe
        self._processes = processes

    def __call__(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not callable(function):
            return self._submit(function, *args, **kwargs)
        if not isinstance(function, (Propagated, FromOtherProcess)):
            function = Propagated(function)
        task = _Task(function, self._probe)
        if self._processes is not None:
            return self._processes.submit(self._submit, task, args, kwargs)
        future = self._submit(task, *args, **kwargs)
        if type(future) is Future:
            future.__class__ = _TaskFuture
            future._opm_start = task.start  # type: ignore[attr-defined]
        return future


class _Start:
    """When a task began; its future refers to this, and not to the task with all its context."""

    __slots__ = ("at", "probe")

    def __init__(self, probe: Permits) -> None:
        self.probe = probe
        # `clock.now()`; None before
        self.at: float | None = None


class _Task:
    """A function that was submitted to an executor, which calls it once."""

    def __init__(self, function: Any, probe: Permits) -> None:
        # its names alone: it must not keep the function once that is done
        functools.update_wrapper(self, function, updated=())
        del self.__wrapped__  # type: ignore[attr-defined]
        self._function = function
        self._probe = probe
        self._scope = _series.current_scope()
        self._use = use_here(probe.name)
        self._submitted = clock.now()
        self._hold: Hold | None = None
        # of a process pool whose work is part of a run here
        self.part: dict[str, Any] | None = None
        self.start = _Start(probe)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, in one of the executor's threads."""
        self.begin()
        try:
            return self._function(*args, **kwargs)
        finally:
            self.end()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function alone; what another process does comes back as a part of the run."""
        if self.part is not None and isinstance(self._function, Propagated):
            headers, _, _ = self._function.carried()
            return reduce_with_part(self._function.function, headers, self.part)
        pickled: tuple[Any, ...] = self._function.__reduce__()
        return pickled

    def begin(self) -> None:
        """Count the task as begun. Never raises."""
        try:
            self.start.at = now = clock.now()
            seconds = max(0.0, now - self._submitted)
            use, waits = self._use, self._use.limit.waits
            if use.waited is not None:
                use.waited += seconds
            waits.append(seconds)
            self._hold = self._probe.acquired(seconds, use)
            if len(waits) >= drain.PENDING_BOUND:
                drain.drain_limit(self._scope, use.limit)
        except Exception:  # the task runs all the same
            errors.log_internal_error("beginning a task of an executor")

    def end(self, stage: str | None = None) -> None:
        """Count the task as done. Never raises.

        Args:
            stage: what it spent most of its time in, if that was in another process.
        """
        self.forget()
        try:
            if self._hold is not None:
                self._probe.drop(self._hold, stage)
        except Exception:
            errors.log_internal_error("ending a task of an executor")

    def forget(self) -> None:
        """Drop the function and the run: the future may be kept, and refers to this."""
        self._function, self._scope = None, _series.process_scope


class _Processes:
    """The tasks of a process pool, which begin in the order of `submit`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget the tasks: they are the parent's."""
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._running: set[_Task] = set()

    def submit(self, submit: Any, task: _Task, args: Any, kwargs: Any) -> Any:
        """Submit a task, and count it until it is done."""
        parts = _series.current_scope().parts
        if parts is not None:
            with errors.suppress_errors("the part of a call"):
                task.part = parts.expect()
        with self._lock:
            self._waiting.append(task)
            self._begin_next()
        try:
            future = submit(task, *args, **kwargs)
        except BaseException:
            self._over(task, parts, began=False)
            raise
        future.add_done_callback(lambda f: self._over(task, parts, began=not f.cancelled()))
        return future

    def _over(self, task: _Task, parts: PartsOfRun | None, *, began: bool) -> None:
        stage = None
        if parts is not None and task.part is not None:
            # it comes before the result, or not at all
            if began:
                stage = parts.give_up(task.part)
            else:
                parts.withdraw(task.part)
        with self._lock:
            if task in self._running:
                self._running.remove(task)
                task.end(stage)
            elif task in self._waiting:  # cancelled, or refused
                self._waiting.remove(task)
                task.forget()
            self._begin_next()

    def _begin_next(self) -> None:
        while self._waiting and len(self._running) < self._most:
            task = self._waiting.popleft()
            self._running.add(task)
            task.begin()


class _TaskFuture(Future[Any]):
    """The future of a task of an executor's threads."""

    _opm_start: _Start

    def result(self, timeout: float | None = None) -> Any:
        """Return the result; who waits for a task that has not begun is blocked."""
        if self._opm_start.at is not None or self.done():
            return super().result(timeout)
        with _StartWait(self._opm_start):
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception; who waits for a task that has not begun is blocked."""
        if self._opm_start.at is not None or self.done():
            return super().exception(timeout)
        with _StartWait(self._opm_start):
            return super().exception(timeout)


# in a log it looks like the bare executor's
_TaskFuture.__name__ = _TaskFuture.__qualname__ = Future.__name__


class _StartWait(PermitWait):
    """A `with` block in which a worker waits for a task, blocked until that begins."""

    __slots__ = ("_start",)

    def __init__(self, start: _Start) -> None:
        super().__init__(start.probe)
        self._start = start

    def __enter__(self) -> Self:
        """Begin the wait; the task itself has it in the limit's counts. Never raises."""
        super().__enter__()
        if self._wait is not None:
            self._wait.at, self._wait.start = None, self._start
        return self

    def __exit__(self, *_: object) -> None:
        """End the wait at the time at which the task began. Never raises."""
        if self._wait is None:
            return
        try:
            now, started = clock.now(), self._start.at
            until = now if started is None else max(self._began, min(started, now))
            accounting.end_wait(self._wait, until)
        except Exception:
            errors.log_internal_error("ending to wait for a task of an executor")

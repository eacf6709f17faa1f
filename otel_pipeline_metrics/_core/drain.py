"""Flush series to the sinks: for a collection, a report, or when one is full.

One lock is held while draining. The hot path never waits for it, so a signal handler, a gc
callback or a weakref callback may call a stage at any point.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, stage_time
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitSeries
    from otel_pipeline_metrics._core.observed import QueueSeries
    from otel_pipeline_metrics._core.records import Sink, StageResult
    from otel_pipeline_metrics._core.series import RunScope, Series
    from otel_pipeline_metrics._core.stage_id import StageId

PENDING_BOUND: Final = _series.PENDING_BOUND

# How long a collection waits for another thread that drains before it reports without it.
DRAIN_WAIT_S: Final = 1.0

# Forgotten runs whose series are looked at again, whether in use or not.
PARTED_BOUND: Final = 16

# How often a collection checks whether the lock is free.
DRAIN_POLL_S: Final = 0.001

# The series of runs that were forgotten: the last ones, and those with a call in progress since.
_parted: list[list[Series]] = []

_sinks: tuple[Sink, ...] = ()

# Their methods that take the batch of a series, the first one last.
_accepts: tuple[Callable[[Batch], None], ...] = ()
_drain_lock = threading.Lock()

# The thread that holds the lock.
_drainer = 0

# A collection waits for the lock until then; threads that would flush a series let it go first.
_wanted_until = 0.0


def set_sinks(sinks: tuple[Sink, ...]) -> None:
    """Set the sinks that get the results of every scope."""
    global _sinks, _accepts  # replaced whole
    _sinks, _accepts = sinks, tuple([sink.accept for sink in reversed(sinks)])


def submit(stage: StageId, result: StageResult) -> None:
    """Add a result that the program measured itself."""
    series = _series.current_scope().add(stage)
    series.results.append((result, None))
    if len(series.results) >= PENDING_BOUND:
        drain_series(series)


def drain(then: Callable[[], None] | None = None) -> bool:
    """Flush everything that is pending, and forget the scopes that are done.

    Args:
        then: called afterwards, while the lock is still held.

    Returns:
        False if another thread was draining for as long as this one could wait.
    """

    def everything() -> None:
        for scope in list(_series.scopes):
            _drain_scope(scope)
        _drain_parted()
        if then is not None:
            then()

    return _with_drain_lock(everything, DRAIN_WAIT_S)


def release(scope: RunScope) -> None:
    """Forget a run whose report is made, once it has no call in progress."""
    scope.released = True
    _with_drain_lock(lambda: _drain_scope(scope), 0)


def drain_scope(scope: RunScope) -> None:
    """Flush one scope, unless another thread is draining."""
    _with_drain_lock(lambda: _drain_scope(scope), 0)


def drain_series(series: Series) -> None:
    """Flush one series, unless another thread is draining, which then flushes it.

    The call that does this pays for `PENDING_BOUND` results at most.
    """

    def one() -> None:
        _replay_workers(series.scope)
        _flush_series(series, PENDING_BOUND)

    _with_drain_lock(one, 0)


def drain_queue(scope: RunScope, queue: QueueSeries) -> None:
    """Flush one queue, unless another thread is draining."""

    def one() -> None:
        _replay_workers(scope)
        _flush_queue(scope, queue)

    _with_drain_lock(one, 0)


def drain_workers(scope: RunScope, then: Callable[[], None] | None = None) -> bool:
    """Replay the logs of a scope's workers, as far as no other thread is draining.

    Args:
        scope: whose workers.
        then: called afterwards, while the lock is still held; with it, this waits for the lock.

    Returns:
        False if another thread was draining for as long as this one could wait.
    """

    def logs() -> None:
        _replay_workers(scope)
        if then is not None:
            then()

    return _with_drain_lock(logs, 0 if then is None else DRAIN_WAIT_S)


def _replay_workers(scope: RunScope, *, in_progress: bool = False) -> None:
    """Derive the time of a scope's workers from their logs, or until now; the lock is held."""
    if scope.workers and hooks.workers is not None:
        try:
            hooks.workers.replay(scope, in_progress=in_progress)
        except Exception:  # the calls' own numbers stand
            errors.log_internal_error("replaying the logs of workers")


def drain_limit(scope: RunScope, limit: LimitSeries) -> None:
    """Flush one limit, unless another thread is draining."""
    _with_drain_lock(lambda: _flush_limit(scope, limit), 0)


def unless_draining(work: Callable[[], None]) -> bool:
    """Do `work` under the lock; return False if another thread is draining."""
    return _with_drain_lock(work, 0)


def _with_drain_lock(work: Callable[[], None], wait_s: float) -> bool:
    """Do `work` under the lock; return False if it was not free within `wait_s`.

    Only `with` takes the lock, when it seems free: after `acquire()`, an exception of a signal
    handler could leave it locked for good.
    """
    global _wanted_until  # a hint only
    here = threading.get_ident()
    now = clock.monotonic()
    if not wait_s and now < _wanted_until:
        return False
    give_up_at = now + wait_s
    while _drain_lock.locked():
        # a signal handler or finalizer must not wait for the draining that it interrupts
        if _drainer == here or clock.monotonic() >= give_up_at:
            return False
        _wanted_until = give_up_at
        time.sleep(DRAIN_POLL_S)
    deferring_signals(lambda: _locked(work, here))
    return True


def _locked(work: Callable[[], None], here: int) -> None:
    # nothing else: a line of its own in here could leave the lock locked
    with _drain_lock:
        _drained(work, here)


def _drained(work: Callable[[], None], here: int) -> None:
    global _drainer, _wanted_until  # changed under the lock, or a hint
    try:
        _drainer = here
        _wanted_until = 0.0
        gc_safety.stay_last()
        work()
    finally:
        _drainer = 0


def _drain_scope(scope: RunScope) -> None:
    _deliver()
    _replay_workers(scope, in_progress=True)
    nested = {cell[0] for cell in _series.not_kept(scope)}
    for series in list(scope.series.values()):
        has_more = (
            # `pending` takes a call
            (series.results or series.sizes or series.event_times)
            or (series.kept or series in nested)
            or series.account.has_partial
            or series.times.queued
        )
        if has_more or (series.durations and not _flush_durations(series)):
            _flush_series(series)
    for queue in list(scope.queues.values()):
        if queue.waits:
            _flush_queue(scope, queue)
    for outside in list(scope.limits.values()):
        _flush_limit(scope, outside.limit)
    series_left = list(scope.series.values())
    if scope.released and not _in_use(series_left):
        _series.scopes.pop(scope, None)
        # A task that outlives its run may have looked up a series without having begun its call.
        in_use = [left for left in _parted[:-PARTED_BOUND] if _in_use(left)]
        _parted[:] = [*in_use, *_parted[-PARTED_BOUND:], series_left]
        # the run's report is made, so it takes nothing any more
        scope.sinks = ()
        scope.forget()


def _in_use(some: list[Series]) -> bool:
    return any(series.active or series.pending for series in some)


def _drain_parted() -> None:
    """Flush what calls that began as their run was forgotten have added since."""
    for series_left in _parted:
        for series in series_left:
            if series.pending:
                _flush_series(series)


def _flush_series(series: Series, most: int | None = None) -> None:
    if _undelivered:
        _deliver()
    before = stage_time.saved(series)
    try:
        batch = _batch(series, most)
        if batch is None:
            return
        accepts = _accepts
        if series.scope.sinks:
            accepts = tuple([sink.accept for sink in _sinks_of(series.scope)])
        undelivered, n_ended = [batch, *accepts], len(batch.durations)
        n_told, n_sizes, n_times = len(batch.results), len(batch.sizes), len(batch.event_times)
        # At once: a signal handler raises before or after this, not in the middle, as nothing is
        # called there. Others append at the end, and only the holder of the lock deletes.
        if n_told or n_sizes or n_times:
            (
                series.durations[:n_ended], series.results[:n_told], series.sizes[:n_sizes],
                series.event_times[:n_times], _undelivered[:],
            ) = (), (), (), (), undelivered  # fmt: skip
        else:
            series.durations[:n_ended], _undelivered[:] = (), undelivered
    except BaseException:  # of a signal handler: the batch is built again
        stage_time.restore(series, before)
        raise
    _deliver()


def _flush_durations(series: Series) -> bool:
    """Flush a series that has nothing but durations; return False if it may have more.

    Most are so at a collection. They get the numbers of `_flush_series` at half its cost.
    """
    times, account, before = series.times, series.account, series.times.reported
    if (
        (not series.runs or len(times.variants) > 1 or series.called or series.pulled)
        or (series.samples or series.exemplars or series.slowest)
        or (before[1] or before[2])
    ):
        return False
    durations = sorted(series.durations)
    count, total_s = len(durations), sum(durations)
    ended, reported_s, cpu_s = account.ended + total_s, before[0], 0.0
    # of a call in progress, more may have been reported than it took
    now_s = ended if ended > reported_s else reported_s  # noqa: FURB136 - a call costs more
    before_cpu_s, now_cpu_s = times.reported_cpu_s, account.cpu.part_of(ended)
    if now_cpu_s is not None and now_cpu_s > before_cpu_s:
        cpu_s = now_cpu_s - before_cpu_s
    batch = _new_batch(series, durations, total_s)
    batch.time, batch.cpu_s = (now_s - reported_s, 0.0, 0.0, 0.0, 0.0), cpu_s
    accepts = _accepts
    if series.scope.sinks:
        accepts = tuple([sink.accept for sink in _sinks_of(series.scope)])
    undelivered = [batch, *accepts]
    # at once, as in `_flush_series`
    (
        account.count, account.ended, times.reported, times.reported_cpu_s,
        series.durations[:count], _undelivered[:],
    ) = (
        account.count + count, ended, (now_s, 0.0, 0.0, before[3], before[4]), before_cpu_s + cpu_s,
        (), undelivered,
    )  # fmt: skip
    _deliver()
    return True


def _batch(series: Series, most: int | None) -> Batch | None:
    durations = series.durations[:most]
    durations.sort()
    total_s = sum(durations)
    # most series have nothing but durations
    finished = series.results[:most] if series.results else ()
    sizes = series.sizes[:most] if series.sizes else ()
    event_times = series.event_times[:most] if series.event_times else ()
    results, progress = stage_time.take(series, len(durations), total_s, finished)
    time = stage_time.since_reported(series)
    cpu_s = stage_time.cpu_since_reported(series)
    if not (durations or results or sizes or event_times or progress or cpu_s or any(time)):
        return None
    batch = _new_batch(series, durations, total_s)
    batch.results, batch.sizes, batch.event_times = results, sizes, event_times
    batch.time, batch.cpu_s, batch.progress = time, cpu_s, progress
    if series.exemplars:
        batch.exemplars, series.exemplars = tuple(series.exemplars.values()), {}
    if series.slowest:
        batch.slowest, series.slowest = series.slowest, []
    return batch


def _new_batch(series: Series, durations: list[float], total_s: float) -> Batch:
    """Return a batch of durations, but for `time` and `cpu_s`."""
    if hooks.tracing is not None:
        series.budget.update_slow_threshold(durations)
    # as `Batch(…)` would, at a third of the cost
    batch = object.__new__(Batch)
    batch.key, batch.attributes = series.key, series.attributes
    batch.durations, batch.total_s = durations, total_s
    batch.results = batch.sizes = batch.event_times = batch.progress = ()
    batch.exemplars = batch.slowest = ()
    return batch


def _flush_queue(scope: RunScope, queue: QueueSeries) -> None:
    _deliver()
    waits = sorted(queue.waits)
    if waits:
        taken, batch = len(waits), QueueBatch(queue.name, waits)
        undelivered = [batch, *[sink.accept_queue for sink in _sinks_of(scope)]]
        # at once, as in `_flush_series`
        queue.waits[:taken], _undelivered[:] = (), undelivered
        _deliver()


def _flush_limit(scope: RunScope, limit: LimitSeries) -> None:
    _deliver()
    waits, passed = sorted(limit.waits), limit.not_flushed()
    if passed or waits:
        taken, batch = len(waits), LimitBatch(limit.name, waits, passed)
        undelivered = [batch, *[sink.accept_limit for sink in _sinks_of(scope)]]
        passed += limit.passed
        # at once, as in `_flush_series`
        limit.waits[:taken], limit.passed, _undelivered[:] = (), passed, undelivered
        _deliver()


# A batch, and the methods of the sinks that have not taken it yet, the next one last: there are
# some if a signal handler has raised meanwhile.
_undelivered: list[Any] = []


def _sinks_of(scope: RunScope) -> tuple[Sink, ...]:
    """Return the sinks of a scope, the first one last."""
    return (*reversed(scope.sinks), *reversed(_sinks))


def _deliver() -> None:
    """Send what is not delivered yet, one sink after the other."""
    while len(_undelivered) > 1:
        accept = _undelivered[-1]
        try:
            accept(_undelivered[0])
        except Exception as error:  # the other sinks get the batch all the same
            if errors.from_signal_handler(error):
                raise
            del _undelivered[-1]
            errors.log_internal_error(f"sink {type(getattr(accept, '__self__', None)).__name__}")
        else:
            del _undelivered[-1]
    _undelivered.clear()


@forking.in_child
def _reset_after_fork() -> None:
    global _drain_lock, _drainer  # a thread that the child lacks may hold the lock
    _drain_lock = threading.Lock()
    _drainer = 0
    _parted.clear()
    _undelivered.clear()

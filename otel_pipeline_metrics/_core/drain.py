"""Flush series to the sinks: for a collection, a report, or when one is full.

One lock is held while draining. The hot path never waits for it, so a signal handler, a gc
callback or a weakref callback may call a stage at any point.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch, TimeInStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.limit_series import LimitSeries
    from otel_pipeline_metrics._core.records import EventTime, Sink, StageResult
    from otel_pipeline_metrics._core.series import QueueSeries, RunScope, Series
    from otel_pipeline_metrics._core.stage_id import StageId


T = TypeVar("T")

# Results that a series keeps before the thread that adds one more flushes them.
PENDING_BOUND: Final = 1024

# How long a collection waits for another thread that drains before it reports without it.
DRAIN_WAIT_S: Final = 1.0

# Forgotten runs whose series are looked at again, whether in use or not.
PARTED_BOUND: Final = 16

# How often a collection checks whether the lock is free.
DRAIN_POLL_S: Final = 0.001

# The series of runs that were forgotten: the last ones, and those with a call in progress since.
_parted: list[list[Series]] = []

_sinks: tuple[Sink, ...] = ()
_drain_lock = threading.Lock()

# The thread that holds the lock.
_drainer = 0

# A collection waits for the lock until then; threads that would flush a series let it go first.
_wanted_until = 0.0


def set_sinks(sinks: tuple[Sink, ...]) -> None:
    """Set the sinks that get the results of every scope."""
    global _sinks  # replaced whole
    _sinks = sinks


def submit(stage: StageId, result: StageResult) -> None:
    """Add a result that the program measured itself."""
    series = _series.current_scope().add(stage)
    series.begun.append(None)
    series.results.append(result)
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


def drain_series(series: Series) -> None:
    """Flush one series, unless another thread is draining, which then flushes it.

    The call that does this pays for `PENDING_BOUND` results at most.
    """
    _with_drain_lock(lambda: _flush_series(series, PENDING_BOUND), 0)


def drain_queue(scope: RunScope, queue: QueueSeries) -> None:
    """Flush one queue, unless another thread is draining."""
    _with_drain_lock(lambda: _flush_queue(scope, queue), 0)


def drain_limit(scope: RunScope, limit: LimitSeries) -> None:
    """Flush one limit, unless another thread is draining."""
    _with_drain_lock(lambda: _flush_limit(scope, limit), 0)


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
    global _drainer, _wanted_until  # changed under the lock, or a hint
    with _drain_lock:
        _drainer = here
        _wanted_until = 0.0
        gc_safety.stay_last()
        try:
            work()
        except BaseException as error:
            if not isinstance(error, Exception) or errors.from_signal_handler(error):
                errors.warn_once(
                    "draining",
                    "%s was raised while finished calls were being flushed: up to %d of a stage "
                    "may be missing from metrics and reports, which show them as in flight",
                    type(error).__name__,
                    PENDING_BOUND,
                )
            raise
        finally:
            _drainer = 0


def _drain_scope(scope: RunScope) -> None:
    for series in list(scope.series.values()):
        if series.pending or series.queued:
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
        # they refer to the scope: kept, they would be a reference cycle
        scope.series.clear()
        scope.queues.clear()
        scope.workers.clear()


def _in_use(some: list[Series]) -> bool:
    return any(series.active or series.pending for series in some)


def _drain_parted() -> None:
    """Flush what calls that began as their run was forgotten have added since."""
    for series_left in _parted:
        for series in series_left:
            if series.pending:
                _flush_series(series)


def _flush_series(series: Series, most: int | None = None) -> None:
    begun = len(series.begun)
    del series.begun[:begun]
    series.begun_before += begun
    durations, results = _pop_front(series.durations, most), _pop_front(series.results, most)
    sizes, event_times = _pop_front(series.sizes, most), _pop_front(series.event_times, most)
    ended = len(durations) + len(results)
    series.ended_before += ended
    try:
        _build_batch(series, durations, results, sizes, event_times)
    except BaseException:
        # Raised by a signal handler: any of the sinks may have them. Reports show them in flight.
        series.ended_before -= ended
        raise


def _build_batch(
    series: Series,
    durations: list[float],
    results: list[StageResult],
    sizes: list[int],
    event_times: list[EventTime],
) -> None:
    durations.sort()
    if not series.queued and series.states:
        # reported as the calls' own times, in case the workers' times become known later
        series.reported.busy += sum(durations) + sum(result.busy_s for result in results)
    time = _time_since_reported(series)
    if not (durations or results or sizes or event_times or time):
        return
    series.update_slow_threshold(durations)
    exemplars, series.exemplars = series.exemplars, {}
    samples = tuple(exemplars.values())
    batch = Batch(
        series.key, series.attributes, durations, results, time, samples, sizes, event_times
    )
    _send_to_sinks(series.scope, lambda sink: sink.accept(batch))


def _time_since_reported(series: Series) -> TimeInStates | None:
    """Return the workers' time since the last batch; None if waits are not known."""
    if not series.queued:
        return None
    now = TimeInStates()
    for spent in list(series.states.values()):
        now.busy += spent.busy
        now.idle += spent.idle
        now.blocked += spent.blocked
    last, series.reported = series.reported, now
    return TimeInStates(now.busy - last.busy, now.idle - last.idle, now.blocked - last.blocked)


def _flush_queue(scope: RunScope, queue: QueueSeries) -> None:
    waits = _pop_front(queue.waits)
    waits.sort()
    batch = QueueBatch(queue.name, waits)
    _send_to_sinks(scope, lambda sink: sink.accept_queue(batch))


def _flush_limit(scope: RunScope, limit: LimitSeries) -> None:
    passed, waits = limit.take_passed(), _pop_front(limit.waits)
    if passed or waits:
        waits.sort()
        batch = LimitBatch(limit.name, waits, passed)
        _send_to_sinks(scope, lambda sink: sink.accept_limit(batch))


def _send_to_sinks(scope: RunScope, send: Callable[[Sink], None]) -> None:
    for sink in (*_sinks, *scope.sinks):
        try:
            send(sink)
        except Exception:  # the other sinks get the batch all the same
            errors.log_internal_error(f"sink {type(sink).__name__}")


def _pop_front(waiting: list[T], most: int | None = None) -> list[T]:
    # loses nothing: others append at the end, and only the holder of the lock deletes
    count = len(waiting) if most is None else min(most, len(waiting))
    taken = waiting[:count]
    del waiting[:count]
    return taken


@forking.in_child
def _reset_after_fork() -> None:
    global _drain_lock, _drainer  # a thread that the child lacks may hold the lock
    _drain_lock = threading.Lock()
    _drainer = 0
    _parted.clear()

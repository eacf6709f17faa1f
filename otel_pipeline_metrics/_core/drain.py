"""Takes what waits in the series to the sinks: when somebody collects or reports, or it is much.

The one lock here is held while draining and is never waited for on the hot path, so that a signal
handler, a gc callback or a weakref callback may enter a stage at any point.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core import series as _series
from otel_pipeline_metrics._core.process import forking, gc_safety
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics._core.records import Batch, QueueBatch, TimeInStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.records import Sink, StageResult
    from otel_pipeline_metrics._core.series import QueueSeries, RunScope, Series
    from otel_pipeline_metrics._core.stage_id import StageId


T = TypeVar("T")

PENDING_BOUND: Final = 1024
"""Results a series keeps before the thread that adds one more hands them on."""

DRAIN_WAIT_S: Final = 1.0
"""How long a collection waits for another thread's draining before it reports without it."""

DRAIN_LOOK_S: Final = 0.001
"""How often it looks."""

_sinks: tuple[Sink, ...] = ()
_drain_lock = threading.Lock()
_drainer = 0
"""The thread that holds the lock."""
_wanted_until = 0.0
"""Until then a collection waits for it, and threads with a series to hand on let it go first."""


def set_sinks(sinks: tuple[Sink, ...]) -> None:
    """Name the sinks that get the results of every scope."""
    global _sinks  # replaced whole
    _sinks = sinks


def submit(stage: StageId, result: StageResult) -> None:
    """Add a result that was measured elsewhere, as manual recording does."""
    series = _series.current_scope().add(stage)
    series.begun.append(None)
    series.results.append(result)
    if len(series.results) >= PENDING_BOUND:
        drain_series(series)


def drain(then: Callable[[], None] | None = None) -> bool:
    """Hand everything pending to the sinks, and forget the scopes that are done.

    Args:
        then: called when that is done and still nobody else is draining.

    Returns:
        False where somebody else is draining and would not end.
    """

    def everything() -> None:
        for scope in (*list(_series.scopes), *list(_series.ended_scopes)):
            _drain_scope(scope)
        if then is not None:
            then()

    return _with_drain_lock(everything, DRAIN_WAIT_S)


def drain_series(series: Series) -> None:
    """Hand on one series, unless somebody is draining now: then it is in good hands.

    However much has come together meanwhile, one call pays for no more than the bound.
    """
    _with_drain_lock(lambda: _flush_series(series, PENDING_BOUND), 0)


def drain_queue(scope: RunScope, queue: QueueSeries) -> None:
    """Hand on one queue, unless somebody is draining now."""
    _with_drain_lock(lambda: _hand_on_queue(scope, queue), 0)


def _with_drain_lock(work: Callable[[], None], wait_s: float) -> bool:
    """Do a draining while nobody else does one; False if they did for as long as `wait_s`.

    The lock is only ever taken by a `with`, and where it looked free: after an `acquire()` of its
    own, a signal handler's exception could leave it locked for good.
    """
    global _wanted_until  # no more than a hint
    here = threading.get_ident()
    now = time.monotonic()
    if not wait_s and now < _wanted_until:
        return False
    give_up_at = now + wait_s
    while _drain_lock.locked():
        # in the middle of this thread's own draining, a signal handler or finalizer cannot wait
        if _drainer == here or time.monotonic() >= give_up_at:
            return False
        _wanted_until = give_up_at
        time.sleep(DRAIN_LOOK_S)
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
                    "%s struck while finished calls were being handed on: up to %d of a stage may "
                    "be missing from reports, which show them as in flight, and from metrics",
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
            _hand_on_queue(scope, queue)
    if scope.ended and not any(s.active or s.pending for s in scope.series.values()):
        _series.scopes.pop(scope, None)
        _series.ended_scopes.add(scope)


def _flush_series(series: Series, most: int | None = None) -> None:
    begun = len(series.begun)
    del series.begun[:begun]
    series.begun_before += begun
    plain, results = _pop_front(series.durations, most), _pop_front(series.results, most)
    sizes = _pop_front(series.sizes, most)
    ended = len(plain) + len(results)
    series.ended_before += ended
    try:
        _build_batch(series, plain, results, sizes)
    except BaseException:
        # A signal handler's: who knows which sink has them? So they stay in flight, as reports say.
        series.ended_before -= ended
        raise


def _build_batch(
    series: Series, plain: list[float], results: list[StageResult], sizes: list[int]
) -> None:
    plain.sort()
    if not series.queued and series.states:
        # told as the invocations' own times, should the workers' become known later
        series.reported.busy += sum(plain) + sum(result.busy_s for result in results)
    time = _time_since_told(series)
    if not (plain or results or sizes or time):
        return
    series.update_slow_threshold(plain)
    exemplars, series.exemplars = series.exemplars, {}
    batch = Batch(
        series.key,
        series.attributes,
        plain,
        results,
        time,
        tuple(exemplars.values()),
        sizes,
    )
    _send_to_sinks(series.scope, lambda sink: sink.accept(batch))


def _time_since_told(series: Series) -> TimeInStates | None:
    """Return the workers' time that no batch has told of; None where waits are not seen."""
    if not series.queued:
        return None
    now = TimeInStates()
    for spent in list(series.states.values()):
        now.busy += spent.busy
        now.idle += spent.idle
        now.blocked += spent.blocked
    told, series.reported = series.reported, now
    return TimeInStates(now.busy - told.busy, now.idle - told.idle, now.blocked - told.blocked)


def _hand_on_queue(scope: RunScope, queue: QueueSeries) -> None:
    waits = _pop_front(queue.waits)
    waits.sort()
    batch = QueueBatch(queue.name, waits)
    _send_to_sinks(scope, lambda sink: sink.accept_queue(batch))


def _send_to_sinks(scope: RunScope, tell: Callable[[Sink], None]) -> None:
    for sink in (*_sinks, *scope.sinks):
        try:
            tell(sink)
        except Exception:  # one sink must not take the others' numbers
            errors.log_internal_error(f"sink {type(sink).__name__}")


def _pop_front(waiting: list[T], most: int | None = None) -> list[T]:
    # appends go to the end and only the holder of the lock deletes, so this loses nothing
    count = len(waiting) if most is None else min(most, len(waiting))
    taken = waiting[:count]
    del waiting[:count]
    return taken


@forking.in_child
def _reset_after_fork() -> None:
    global _drain_lock, _drainer  # held, maybe, by a thread that is gone
    _drain_lock = threading.Lock()
    _drainer = 0

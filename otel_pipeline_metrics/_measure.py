"""The accounting of one execution, and the way of its result to the sinks.

The hot path is `enter` and `leave`: two clock reads, one context variable, one list append.
Nothing is aggregated and no lock is taken there. Results wait in their series until somebody
collects, or until `PENDING_BOUND` of them are there, and are then handed to the sinks in one
batch. The only lock is held while draining and is never waited for on the hot path, so a
signal handler, a gc callback or a weakref callback may enter a stage at any point.
"""

from __future__ import annotations

import operator
import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from otel_pipeline_metrics import _clock, _guard
from otel_pipeline_metrics._model import (
    AttributeValue,
    Batch,
    Direction,
    Outcome,
    Sink,
    StageKey,
    StageResult,
    check_attribute,
    outcome_of,
    qualified_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from contextvars import Token

T = TypeVar("T")

PENDING_BOUND: Final = 1024
"""Results a series keeps before the thread that adds one more hands them on."""

DRAIN_WAIT_S: Final = 1.0
"""How long a collection waits for another thread's draining before it reports without it."""


class StageId:
    """Identity of a stage: name, kind and fixed attributes. Equal ones are one object."""

    __slots__ = ("attributes", "kind", "name")

    def __init__(self, name: str, kind: str | None, attributes: Mapping[str, AttributeValue]):
        self.name = name
        self.kind = kind
        self.attributes = attributes

    def __reduce__(self) -> tuple[Callable[..., StageId], tuple[Any, ...]]:
        """Pickle as the call that interns it, so that identity holds in another process."""
        return stage_id, (self.name, self.kind, dict(self.attributes))


_stage_ids: dict[Hashable, StageId] = {}


def stage_id(
    name: str, kind: str | None, attributes: Mapping[str, AttributeValue] | None = None
) -> StageId:
    """Return the one `StageId` for these; comparing two is then comparing addresses."""
    fixed = dict(attributes or {})
    key = (name, kind, repr(sorted(fixed.items())))
    return _stage_ids.setdefault(key, StageId(name, kind, fixed))


class Series:
    """The results of one stage in one scope that no sink has seen yet."""

    __slots__ = ("active", "attributes", "cache", "key", "plain", "results", "scope")

    def __init__(self, scope: Scope, stage: StageId) -> None:
        self.scope = scope
        self.key = StageKey(scope.pipeline, stage.name, stage.kind)
        self.attributes = stage.attributes
        self.plain: list[float] = []
        """Busy seconds of those with nothing else to say; see `Batch.plain`."""
        self.results: list[StageResult] = []
        self.active: dict[Execution, None] = {}
        """Those in progress; a dict, since its statements are cheaper than a set's methods."""
        self.cache: Any = None
        """For the tracer: span attributes that are the same for every execution."""

    @property
    def pending(self) -> bool:
        """Whether something waits for the sinks."""
        return bool(self.plain or self.results)

    def clear(self) -> None:
        """Forget everything, as a forked child does."""
        self.plain.clear()
        self.results.clear()
        self.active.clear()


class Scope:
    """What executions belong to: a run, or the process where there is none."""

    __slots__ = ("ended", "on_resources", "pipeline", "run_id", "scope", "series", "sinks")

    def __init__(
        self, pipeline: str | None = None, run_id: str | None = None, sinks: tuple[Sink, ...] = ()
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.sinks = sinks
        self.series: dict[StageId, Series] = {}
        self.ended = False
        self.on_resources: Callable[[float, float], None] | None = None
        """Takes (CPU utilisation, RSS in bytes) that somebody measured by hand."""
        self.scope = self
        """Itself: an execution's parent is a scope or another execution."""

    def add(self, stage: StageId) -> Series:
        """Return the series of `stage`, made if need be."""
        return self.series.setdefault(stage, Series(self, stage))


class Tracing(Protocol):
    """Opens and closes spans; put in place by the telemetry room."""

    def start(self, execution: Execution) -> None:
        """Open the span of an execution and make it current."""

    def suspend(self, execution: Execution) -> None:
        """Make the span no longer current; it stays open."""

    def resume(self, execution: Execution) -> None:
        """Make the span current again."""

    def retry(self, execution: Execution, attempt: int, error_type: str) -> None:
        """Add the event of a retry."""

    def end(self, execution: Execution, result: StageResult) -> Any:
        """Close the span; return the context for exemplars, or None."""


class Details:
    """What an execution says of itself beyond its duration; made on the first such word."""

    __slots__ = ("attributes", "bytes_in", "bytes_out", "items_in", "items_out", "retries")

    def __init__(self) -> None:
        self.items_in: int | None = None
        self.items_out: int | None = None
        self.bytes_in: int | None = None
        self.bytes_out: int | None = None
        self.retries: dict[str, int] | None = None
        self.attributes: dict[str, AttributeValue] | None = None


class Execution:
    """One invocation of a stage in progress.

    `with stage(...) as s` and `current_stage()` give it. It belongs to the thread or task
    that opened it.
    """

    # Class attributes, not slots: an instance then stores only what is not as usual, which
    # makes it at half the cost.
    series: Series | None
    """None once it is closed."""
    scope: Scope
    started: float
    token: Token[Execution | Scope | None] | None = None
    elapsed: float = 0.0
    """Seconds before the latest resumption, waits included."""
    idle: float = 0.0
    blocked: float = 0.0
    plain: bool = True
    """Whether its duration is all there is to say so far."""
    details: Details | None = None
    span: Any = None
    attached: Any = None

    def _detail(self) -> Details:
        if self.details is None:
            self.details = Details()
            self.plain = False
        return self.details

    def add_items(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more items that went `in` or came `out`.

        Raises:
            TypeError: `n` is no integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        count = _count(n, "n")
        _check_direction(direction)
        if self.series is None:
            return
        detail = self._detail()
        if direction == "in":
            detail.items_in = (detail.items_in or 0) + count
        else:
            detail.items_out = (detail.items_out or 0) + count

    def add_bytes(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more payload bytes that went `in` or came `out`.

        Raises:
            TypeError: `n` is no integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        count = _count(n, "n")
        _check_direction(direction)
        if self.series is None:
            return
        detail = self._detail()
        if direction == "in":
            detail.bytes_in = (detail.bytes_in or 0) + count
        else:
            detail.bytes_out = (detail.bytes_out or 0) + count

    def retry(self, error: BaseException | type[BaseException] | str | None = None) -> None:
        """Count one more attempt, after `error` if there was one.

        Args:
            error: the exception, its class, or a name for `error.type`; never its message.
        """
        if self.series is None:
            return
        error_type = _error_type(error)
        detail = self._detail()
        if detail.retries is None:
            detail.retries = {}
        detail.retries[error_type] = detail.retries.get(error_type, 0) + 1
        if self.span is not None and tracing is not None:
            with _guard.guarded("a retry's span event"):
                # the first attempt is no retry, so the first retry is attempt 2
                tracing.retry(self, sum(detail.retries.values()) + 1, error_type)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Put an attribute on the span, and on metrics if `configure(metric_attributes=)` says so.

        A value that OpenTelemetry would not take is left out with one warning for each key.
        """
        try:
            check_attribute(key, value, "set_attribute")
        except (TypeError, ValueError) as error:
            _guard.once(f"attribute {key!r}", "attribute left out: %s", error)
            return
        if self.series is None:
            return
        detail = self._detail()
        if detail.attributes is None:
            detail.attributes = {}
        detail.attributes[key] = value


class _NoExecution(Execution):
    """Stands where there is no execution; takes every word and keeps none."""

    series = None


NOTHING: Final = _NoExecution()

tracing: Tracing | None = None
"""Set by the telemetry room; None: no spans."""

_sinks: tuple[Sink, ...] = ()
_process_scope = Scope()
_ambient = _process_scope
_scopes: dict[Scope, None] = {_process_scope: None}
_current: ContextVar[Execution | Scope | None] = ContextVar("opm_current", default=None)
_drain_lock = threading.Lock()


# --- the hot path ---------------------------------------------------------------------------


def enter(stage: StageId) -> Execution:
    """Open an execution of `stage` and make it current. Never raises."""
    try:
        # `_open` once more, written out: a call less is a tenth of the whole
        parent = _current.get()
        scope = _ambient if parent is None else parent.scope
        series = scope.series.get(stage)
        if series is None:
            series = scope.add(stage)
        execution = Execution()
        execution.series = series
        execution.scope = scope
        series.active[execution] = None
        if tracing is not None:
            tracing.start(execution)
        execution.token = _current.set(execution)
        execution.started = _clock.now()
    except Exception:  # noqa: BLE001 - a fault of ours must not keep the stage from running
        _guard.fault("opening a stage")
        return NOTHING
    return execution


def leave(
    execution: Execution,
    error: BaseException | None = None,
    count: Callable[[Any], int] | None = None,
    returned: Any = None,
) -> None:
    """Close an execution that was entered here. Never raises.

    Args:
        execution: what `enter` returned.
        error: what the user's code was left with.
        count: how many items `returned` is.
        returned: what the user's code returned.
    """
    series = execution.series
    if series is None:
        return
    try:
        elapsed = _clock.now() - execution.started
        if execution.plain and error is None and count is None:
            execution.series = None
            del series.active[execution]
            try:
                _current.reset(execution.token)  # type: ignore[arg-type]  # set by `enter`
            except ValueError:
                # a block closed from another context, where nothing of it is current
                pass
            series.plain.append(elapsed)
            if len(series.plain) >= PENDING_BOUND:
                drain_series(series)
            return
        execution.elapsed += elapsed
        if _unset_current(execution) and execution.span is not None and tracing is not None:
            tracing.suspend(execution)
        if count is not None:
            count_items(execution, count, returned)
        _close(execution, error)
    except Exception:  # noqa: BLE001 - the stage's own outcome stands, whatever befalls us
        _guard.fault("closing a stage")


# --- executions that are put aside and taken up again: generators ----------------------------


def prepare(stage: StageId) -> Execution:
    """Open an execution that is not current yet. Never raises."""
    try:
        execution = _open(stage)
        if tracing is not None:
            tracing.start(execution)
            if execution.span is not None:
                tracing.suspend(execution)
    except Exception:  # noqa: BLE001 - as in `enter`
        _guard.fault("opening a generator stage")
        return NOTHING
    return execution


def resume(execution: Execution) -> None:
    """Make a prepared execution current and let its time count. Never raises."""
    if execution.series is None:
        return
    try:
        if execution.span is not None and tracing is not None:
            tracing.resume(execution)
        execution.token = _current.set(execution)
        execution.started = _clock.now()
    except Exception:  # noqa: BLE001 - as in `enter`
        _guard.fault("resuming a generator stage")


def pause(execution: Execution) -> None:
    """Put an execution aside: its time stops, nothing of it stays current. Never raises."""
    if execution.series is None:
        return
    try:
        execution.elapsed += _clock.now() - execution.started
        if _unset_current(execution) and execution.span is not None and tracing is not None:
            tracing.suspend(execution)
    except Exception:  # noqa: BLE001 - as in `leave`
        _guard.fault("pausing a generator stage")


def finish(execution: Execution, error: BaseException | None = None) -> None:
    """Close an execution that is paused. Never raises."""
    if execution.series is None:
        return
    try:
        _close(execution, error)
    except Exception:  # noqa: BLE001 - as in `leave`
        _guard.fault("closing a generator stage")


def yielded(execution: Execution, count: Callable[[Any], int] | None, value: Any) -> None:
    """Count what a generator gave its consumer: one item, or what `count` says. Never raises."""
    if execution.series is None:
        return
    if count is not None:
        count_items(execution, count, value)
        return
    detail = execution._detail()  # noqa: SLF001 - same module
    detail.items_out = (detail.items_out or 0) + 1


def count_items(execution: Execution, count: Callable[[Any], int], value: Any) -> None:
    """Add what the user's `items` says of a value; where it fails, that is said once."""
    try:
        execution.add_items(count(value))
    except Exception as error:  # noqa: BLE001 - counting is ours to lose, the result is not
        key = execution.series.key if execution.series is not None else None
        _guard.once(
            f"items of {key}",
            "the items= of stage %r failed with %s: %s; its items are not counted",
            key.stage if key else "?",
            type(error).__name__,
            error,
        )


# --- inside ------------------------------------------------------------------------------------


def _open(stage: StageId) -> Execution:
    parent = _current.get()
    scope = _ambient if parent is None else parent.scope
    series = scope.add(stage)
    execution = Execution()
    execution.series = series
    execution.scope = scope
    series.active[execution] = None
    return execution


def _unset_current(execution: Execution) -> bool:
    """Take the execution off; False where this is not the context that it was put on in."""
    token, execution.token = execution.token, None
    if token is None:
        return False
    try:
        _current.reset(token)
    except ValueError:
        # closed from another task: nothing of it is current here
        return False
    return True


def _close(execution: Execution, error: BaseException | None) -> None:
    series = execution.series
    if series is None:
        return
    series.active.pop(execution, None)
    if execution.plain and error is None:
        series.plain.append(execution.elapsed)
    else:
        series.results.append(_result(execution, error))
    execution.series = None  # closed: a second leave and late words change nothing
    if len(series.plain) >= PENDING_BOUND or len(series.results) >= PENDING_BOUND:
        drain_series(series)


def _result(execution: Execution, error: BaseException | None) -> StageResult:
    detail = execution.details or Details()
    outcome: Outcome = outcome_of(error)
    result = StageResult(
        busy_s=execution.elapsed - execution.idle - execution.blocked,
        idle_s=execution.idle,
        blocked_s=execution.blocked,
        outcome=outcome,
        error_type=qualified_name(type(error)) if error and outcome == "error" else None,
        items_in=detail.items_in,
        items_out=detail.items_out,
        bytes_in=detail.bytes_in,
        bytes_out=detail.bytes_out,
        retries=tuple(detail.retries.items()) if detail.retries else (),
        attributes=detail.attributes,
    )
    if execution.span is None or tracing is None:
        return result
    try:
        context = tracing.end(execution, result)
    except Exception:  # noqa: BLE001 - the numbers stand without the span
        _guard.fault("ending a span")
        return result
    return result if context is None else result._replace(context=context)


def _count(n: object, argument: str) -> int:
    if isinstance(n, bool):
        raise TypeError(f"{argument} must be an integer, not bool")
    try:
        count = operator.index(n)  # type: ignore[arg-type]  # it raises what we want raised
    except TypeError:
        raise TypeError(f"{argument} must be an integer, not {type(n).__name__}") from None
    if count < 0:
        raise ValueError(f"{argument} must not be negative, this one is {count}")
    return count


def _check_direction(direction: object) -> None:
    if direction not in ("in", "out"):
        raise ValueError(f'direction must be "in" or "out", not {direction!r}')


def _error_type(error: BaseException | type[BaseException] | str | None) -> str:
    if error is None:
        return ""
    if isinstance(error, str):
        return error
    if isinstance(error, BaseException):
        return qualified_name(type(error))
    if isinstance(error, type) and issubclass(error, BaseException):
        return qualified_name(error)
    raise TypeError(
        f"error must be an exception, its class, a string or None, not {type(error).__name__}"
    )


# --- scopes and sinks ----------------------------------------------------------------------------


def current() -> Execution:
    """Return the innermost execution here, or one that keeps nothing where there is none."""
    found = _current.get()
    if isinstance(found, Execution) and found.series is not None:
        return found
    return NOTHING


def current_scope() -> Scope:
    """Return the scope that an execution opened here would belong to."""
    found = _current.get()
    return _ambient if found is None else found.scope


def open_scope(scope: Scope) -> Token[Execution | Scope | None]:
    """Make a run's scope current, and the process's own while it is the only run."""
    _scopes[scope] = None
    _settle_ambient()
    return _current.set(scope)


def close_scope(scope: Scope, token: Token[Execution | Scope | None]) -> bool:
    """End a run's scope; False where this is not the context that it was opened in.

    What is still in flight in it is drained as it ends.
    """
    scope.ended = True
    _settle_ambient()
    try:
        _current.reset(token)
    except ValueError:
        return False
    return True


def _settle_ambient() -> None:
    """Work that has lost its context, as threads have, belongs to the only run there is."""
    global _ambient  # noqa: PLW0603 - read on the hot path, written here only
    running = [s for s in list(_scopes) if s is not _process_scope and not s.ended]
    _ambient = running[0] if len(running) == 1 else _process_scope


def set_sinks(sinks: tuple[Sink, ...]) -> None:
    """Name the sinks that get the results of every scope."""
    global _sinks  # noqa: PLW0603 - replaced whole
    _sinks = sinks


def all_series() -> Iterator[Series]:
    """Go through every series of every scope that is not forgotten yet."""
    for scope in list(_scopes):
        yield from list(scope.series.values())


def drain() -> None:
    """Hand everything pending to the sinks, and forget the scopes that are done."""
    if not _drain_lock.acquire(timeout=DRAIN_WAIT_S):
        return
    try:
        for scope in list(_scopes):
            for series in list(scope.series.values()):
                if series.pending:
                    _hand_on(series)
            if scope.ended and not any(s.active or s.pending for s in scope.series.values()):
                _scopes.pop(scope, None)
    finally:
        _drain_lock.release()


def drain_series(series: Series) -> None:
    """Hand on one series, unless somebody is draining now: then it is in good hands."""
    if not _drain_lock.acquire(blocking=False):
        return
    try:
        _hand_on(series)
    finally:
        _drain_lock.release()


def _hand_on(series: Series) -> None:
    plain, results = _take(series.plain), _take(series.results)
    plain.sort()
    batch = Batch(series.key, series.attributes, plain, results)
    for sink in (*_sinks, *series.scope.sinks):
        try:
            sink.accept(batch)
        except Exception:  # noqa: BLE001 - one sink must not take the others' numbers
            _guard.fault(f"sink {type(sink).__name__}")


def _take(waiting: list[T]) -> list[T]:
    # appends go to the end and only the holder of the lock deletes, so this loses nothing
    count = len(waiting)
    taken = waiting[:count]
    del waiting[:count]
    return taken


def submit(stage: StageId, result: StageResult) -> None:
    """Add a result that was measured elsewhere, as manual recording does."""
    scope = current_scope()
    series = scope.add(stage)
    series.results.append(result)
    if len(series.results) >= PENDING_BOUND:
        drain_series(series)


def reset_after_fork() -> None:
    """Start a child from zero: what the parent measured is the parent's to report."""
    global _drain_lock  # noqa: PLW0603 - the old one may be held by a thread that is gone
    _drain_lock = threading.Lock()
    for series in all_series():
        series.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_after_fork)

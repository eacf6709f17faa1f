"""Define the records that go from stages to sinks, and the protocol of a sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, Union

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.cleaning import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


Outcome = Literal["ok", "error", "cancelled", "abandoned"]
WaitState = Literal["idle", "blocked"]
Direction = Literal["in", "out"]
AttributeValue = Union[
    str, bool, int, float, "Sequence[str]", "Sequence[bool]", "Sequence[int]", "Sequence[float]"
]


def qualified_name(error: type[BaseException]) -> str:
    """Return `module.QualName` of an exception class, without the module for builtins.

    The OpenTelemetry semantic conventions define this as the value of `error.type`.
    """
    if error.__module__ == "builtins":
        return clean_text(error.__qualname__)
    return clean_text(f"{error.__module__}.{error.__qualname__}")


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, and in the groups within it; or the exception itself."""
    left = [error]
    while left:
        one = left.pop()
        inside = _inside(one)
        if inside is None:
            yield one
        else:
            left += reversed(inside)


def _inside(error: BaseException) -> tuple[BaseException, ...] | None:
    """Return the exceptions in a group; None if it is no group."""
    try:
        inner = getattr(error, "exceptions", None)
        # before Python 3.11 groups are classes of a package
        return inner if isinstance(inner, tuple) and hasattr(error, "derive") else None
    except BaseException as failed:  # the attributes of the program's class
        if errors.raised_into(failed):
            raise
        return None


def error_type_of(error: BaseException) -> str:
    """Return `error.type`: of a group whose exceptions are of one type, that type."""
    try:
        kinds = {qualified_name(type(one)) for one in leaves_of(error)}
        return kinds.pop() if len(kinds) == 1 else qualified_name(type(error))
    except BaseException as failed:  # the attributes of the program's class
        if errors.raised_into(failed):
            raise
        return errors.name_of(error)


# Exceptions with which code asks its engine for another attempt; set by its adapter.
asks_for_retry: set[type[BaseException]] = set()


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the outcome of a call that ended with `error`.

    `GeneratorExit` means that the consumer stopped, which is not an error. Every other exception
    that is not an `Exception` (asyncio's, trio's and anyio's cancellation, `KeyboardInterrupt`,
    `SystemExit`) came from outside the stage, so it counts as cancelled.
    """
    # not with `isinstance`, which asks the program's class for `__class__`
    if error is None or issubclass(type(error), Exception):
        return "ok" if error is None else "error"
    return "abandoned" if issubclass(type(error), GeneratorExit) else "cancelled"


class StageKey(NamedTuple):
    """The key that a stage's results are grouped by."""

    pipeline: str | None
    stage: str
    kind: str | None


class Counts(NamedTuple):
    """Items and bytes; an unknown count is None, never 0."""

    items_in: int | None = None
    items_out: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None

    def since(self, before: Counts) -> Counts:
        """Return what was counted since `before`."""
        pairs = zip(self, before, strict=True)
        return Counts(*(None if new is None else new - (old or 0) for new, old in pairs))


NOTHING: Final = Counts()


class StageResult(NamedTuple):
    """The result of one call of a stage. Times are in seconds.

    `busy_s` excludes `idle_s` (waiting for input) and `blocked_s` (waiting for room or a
    permit). An unknown count is None, never 0.
    """

    busy_s: float
    idle_s: float = 0.0
    blocked_s: float = 0.0
    outcome: Outcome = "ok"
    error_type: str | None = None
    items_in: int | None = None
    items_out: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    retries: tuple[tuple[str, int], ...] = ()  # (`error.type` or "", how often)
    attributes: Mapping[str, AttributeValue] | None = None
    context: Any = None  # the OpenTelemetry context of the call's span, for exemplars
    error_message: str | None = None  # None without `configure(error_messages=True)`
    # the part of its counts that was reported while the call was in progress
    reported: Counts = NOTHING

    @property
    def counts(self) -> Counts:
        """Its items and bytes."""
        return Counts(self.items_in, self.items_out, self.bytes_in, self.bytes_out)


class Progress(NamedTuple):
    """What a call in progress has counted since the last batch."""

    counts: Counts
    attributes: Mapping[str, AttributeValue]  # of the call, as far as it has set them


class EventTime(NamedTuple):
    """The origin of an item and its end, in Unix seconds."""

    originated: float
    finished: float
    attributes: Mapping[str, AttributeValue]  # of the call, as far as it has set them
    context: Any = None  # the OpenTelemetry context of the call's span, for exemplars


class StageTime(NamedTuple):
    """Seconds of all workers at a stage, by state."""

    running: float = 0.0  # on the event loop, or in its thread
    awaiting: float = 0.0  # suspended on something else than input, room or a permit
    busy: float = 0.0  # running or awaiting: which is unknown
    idle: float = 0.0  # waiting for input
    blocked: float = 0.0  # waiting for room, a permit, a lock or a pool


# The same as a plain tuple, which is made at less cost.
Times = tuple[float, float, float, float, float]

NO_TIME: Final[Times] = StageTime()


@dataclass(slots=True, eq=False)
class Batch:
    """The finished calls of one stage since the last batch, as a sink gets them."""

    key: StageKey
    attributes: Mapping[str, AttributeValue]  # that the stage was defined with
    # Busy seconds of every call that reports only its duration: outcome ok, no waits, no counts
    # but `sizes`. Most calls do, and a float costs the hot path least.
    # Sorted, so that a sink counts them into buckets with a few bisections.
    durations: Sequence[float]
    # the results of all other calls
    results: Sequence[StageResult]
    # the workers' time since the last batch, of calls in progress too, and with the waits outside
    # of the stage if those are known; in the order of `StageTime`
    time: Times = NO_TIME
    # CPU seconds since the last batch
    cpu_s: float = 0.0
    # some of `durations` with a sampled span, and its OpenTelemetry context
    exemplars: Sequence[tuple[float, Any]] = ()
    # of `durations` with a sampled span, at least the slowest five, each with its context
    slowest: Sequence[tuple[float, Any]] = ()
    # items that came out of the calls in `durations`, if the stage has `items`; in no order
    sizes: Sequence[int] = ()
    # of items that calls have finished, also calls in progress
    event_times: Sequence[EventTime] = ()
    # of calls in progress
    progress: Sequence[Progress] = ()
    # the sum of `durations`
    total_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.total_s = sum(self.durations)


@dataclass(slots=True)
class TimeInStates:
    """Seconds of one worker at one stage, which add up to its wall time there."""

    busy: float = 0.0
    idle: float = 0.0
    blocked: float = 0.0
    between: float = 0.0  # the part of `busy` outside of calls: the worker's own code
    is_task: bool = False  # whether the worker is a task, whose own code may await

    def __bool__(self) -> bool:
        return bool(self.busy or self.idle or self.blocked)

    def add(self, more: TimeInStates) -> None:
        """Add another time to this one."""
        self.busy += more.busy
        self.idle += more.idle
        self.blocked += more.blocked
        self.between += more.between
        self.is_task = self.is_task or more.is_task

    def clear(self) -> None:
        """Set every time to zero."""
        self.busy = self.idle = self.blocked = self.between = 0.0


@dataclass(frozen=True)
class QueueBatch:
    """The items that left one queue since the last batch."""

    name: str
    waits: Sequence[float]  # seconds from put to get, sorted


@dataclass(frozen=True)
class LimitBatch:
    """What acquired permits of one limit since the last batch."""

    name: str
    waits: Sequence[float]  # seconds that were waited for permits, sorted
    passed: int  # permits that were acquired without waiting


class Sink(Protocol):
    """Gets results. An error is logged once and does not affect other sinks."""

    def accept(self, batch: Batch) -> None:
        """Take one batch; called by one thread at a time."""

    def accept_queue(self, batch: QueueBatch) -> None:
        """Take one batch of a queue; called by one thread at a time."""

    def accept_limit(self, batch: LimitBatch) -> None:
        """Take one batch of a limit; called by one thread at a time."""


# A value of an observable instrument, and its attributes.
Point = tuple[int | float, "Mapping[str, AttributeValue]"]

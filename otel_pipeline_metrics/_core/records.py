"""The records that travel through the library, and the Protocols at its seams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Outcome = Literal["ok", "error", "cancelled", "abandoned"]
WaitState = Literal["idle", "blocked"]
Direction = Literal["in", "out"]
AttributeValue = Union[
    str, bool, int, float, "Sequence[str]", "Sequence[bool]", "Sequence[int]", "Sequence[float]"
]


def qualified_name(error: type[BaseException]) -> str:
    """Return `module.QualName` of an exception class, without the module for builtins.

    This is the value of `error.type`, as the OpenTelemetry semantic conventions ask for.
    """
    if error.__module__ == "builtins":
        return error.__qualname__
    return f"{error.__module__}.{error.__qualname__}"


def outcome_of(error: BaseException | None) -> Outcome:
    """Say how an invocation ended that was left with `error`.

    `GeneratorExit` is the consumer walking away, never an error. Every other exception that
    is not an `Exception` (asyncio's, trio's and anyio's cancellation, `KeyboardInterrupt`,
    `SystemExit`) came from outside the stage, so it counts as cancelled.
    """
    if error is None:
        return "ok"
    if isinstance(error, GeneratorExit):
        return "abandoned"
    if not isinstance(error, Exception):
        return "cancelled"
    return "error"


class StageKey(NamedTuple):
    """What tells one stage's numbers from another's."""

    pipeline: str | None
    stage: str
    kind: str | None


class StageResult(NamedTuple):
    """How one invocation of a stage went. Times are in seconds.

    `busy_s` leaves out `idle_s` (waiting for input) and `blocked_s` (waiting for room or a
    permit). A count nobody gave is None, never 0.
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
    retries: tuple[tuple[str, int], ...] = ()
    """(`error.type` or "", how often)."""
    attributes: Mapping[str, AttributeValue] | None = None
    event_times: Sequence[tuple[float, float]] = ()
    """(event time, time of finishing) of items, Unix seconds."""
    context: Any = None
    """The OpenTelemetry context of the invocation's span, for exemplars."""
    error_message: str | None = None
    """The exception's message; None where messages are not wanted, as they are not unless
    `configure(error_messages=True)` says so."""


@dataclass(frozen=True)
class Batch:
    """What a sink gets: the finished invocations of one stage since the last batch."""

    key: StageKey
    attributes: Mapping[str, AttributeValue]
    """The attributes that the stage was defined with."""
    durations: Sequence[float]
    """Busy seconds of every invocation with nothing else to say: outcome ok, no waits, no
    counts but `sizes`. Most invocations are such; a bare float costs the hot path least.
    Sorted, so that a sink counts them into buckets by a few bisections."""
    results: Sequence[StageResult]
    """The rest."""
    time: TimeInStates | None = None
    """The workers' time since the last batch, waits outside the stage included; None where no
    queue is instrumented: then the invocations' own times are all that is known."""
    exemplars: Sequence[tuple[float, Any]] = ()
    """Of `plain`: values with a sampled span, and its OpenTelemetry context."""
    sizes: Sequence[int] = ()
    """Items that came out, of those of `plain` whose stage has `items`; in no order."""


@dataclass
class TimeInStates:
    """Seconds of one worker at one stage; they add up to its wall time there."""

    busy: float = 0.0
    idle: float = 0.0
    blocked: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.busy or self.idle or self.blocked)


@dataclass(frozen=True)
class QueueBatch:
    """The items that left one queue since the last batch."""

    name: str
    waits: Sequence[float]
    """Seconds from put to get, sorted."""


class Sink(Protocol):
    """Takes results away. A fault in one is logged once and does not reach the others."""

    def accept(self, batch: Batch) -> None:
        """Take one batch; called by one thread at a time."""

    def accept_queue(self, batch: QueueBatch) -> None:
        """Take one batch of a queue; called by one thread at a time."""


Point = tuple[int | float, "Mapping[str, AttributeValue]"]
"""One value of an observable instrument and its attributes."""

"""`Execution`: one call of a stage in progress, and what it can report of itself."""

from __future__ import annotations

import math
from itertools import count
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import cardinality, clock, errors, hooks, nesting, privacy
from otel_pipeline_metrics._core.cleaning import builtin, clean_int, clean_text
from otel_pipeline_metrics._core.drain import PENDING_BOUND, drain_series
from otel_pipeline_metrics._core.records import Counts, EventTime, qualified_name
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN
from otel_pipeline_metrics._core.validation import (
    MAX_NAME_LENGTH,
    check_attribute,
    check_count,
)
from otel_pipeline_metrics._stages.waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from otel_pipeline_metrics._core.hooks import OpenSpan
    from otel_pipeline_metrics._core.records import AttributeValue, Direction
    from otel_pipeline_metrics._core.series import Cell, RunScope, Series


class Pulled:
    """The time of a generator's steps that one stage pulled, or one run outside of stages."""

    __slots__ = ("ended", "open_s", "waited_s")

    def __init__(self) -> None:
        self.open_s = self.waited_s = 0.0
        # when the last step ended
        self.ended = 0.0


class Details:
    """What an execution reports beyond its duration; made when there is something.

    Helper threads with a copy of the context may report at the same time, so each step of a
    change is atomic by itself: there is no lock that a signal handler could find held.
    """

    __slots__ = ("attempts", "attributes", "counts", "pulls", "retries", "yielded")

    def __init__(self) -> None:
        # by name, as "items_in", and by thread, which alone changes its count
        self.counts: dict[tuple[str, int], int] = {}
        # by error type; `next` is atomic, adding to a number is not
        self.retries: dict[str, count[int]] = {}
        # the first attempt is no retry, so the first retry is attempt 2
        self.attempts: count[int] = count(2)
        self.attributes: dict[str, AttributeValue] = {}
        # of a generator: its items, and the time of its steps by their series, which each puller
        # has another one of
        self.yielded = 0
        self.pulls: dict[Series, Pulled] = {}

    def totals(self) -> Counts:
        """Return items and bytes so far, of all threads."""
        totals: dict[str, int] = {"items_out": self.yielded} if self.yielded else {}
        for (name, _), counted in list(self.counts.items()):
            totals[name] = clean_int(totals.get(name, 0) + counted, name)
        return Counts(**totals)

    def add(self, name: str, n: int, thread: int) -> None:
        """Count `n` more for a thread."""
        key = name, thread
        self.counts[key] = self.counts.get(key, 0) + n


class Execution:
    """One call of a stage in progress.

    `with stage(...) as s` and `current_stage()` give it. It belongs to the thread or task
    that opened it.
    """

    # Class attributes, not slots: an instance then stores only what differs from the default. And
    # no `__init__`, which would cost a block another call: see `make_execution`.
    cell: Cell  # see `series.Cell`
    series: Series | None  # None once it is closed
    entry: Cell | None = None  # of a generator: its cell between items; `cell` is its last step's
    block: object = None  # of a block: the `Stage` that its `with` statement holds
    # seconds before the last resumption, waits included; of a generator once it is over
    elapsed: float = 0.0
    idle: float = 0.0
    blocked: float = 0.0
    # Whether there is only the duration to report so far, and no span to end: then it ends like a
    # call without an execution. Of each instance, since Python reads one of the class at several
    # times the cost.
    bare: bool
    # of a generator: the part of `idle` and `blocked` of the steps that are over
    waited: float = 0.0
    details: Details | None = None
    span: OpenSpan | None = None
    # the rest is used only if a queue is instrumented
    opener: object = None  # the task or thread that runs it, if its worker is another
    run: Any = None  # of a generator: a `workers.worker.Run`
    links: Sequence[Any] = ()  # to the producers of what the worker got before
    links_dropped: int = 0

    def adopt_span(self) -> None:
        """Take over the span that is open in the cell, if any; not for users."""
        if len(self.cell) > CELL_WITHOUT_SPAN and hooks.tracing is not None:
            self.span = hooks.tracing.span_of(self.cell)
            self.bare = False

    def before(self) -> float:
        """Return the seconds before its last resumption, without waits; not for users."""
        if self.entry is None or self.details is None:
            return self.elapsed - self.waited
        return sum([part.open_s for part in list(self.details.pulls.values())])

    @property
    def scope(self) -> RunScope:
        """The run, or the process, that it belongs to."""
        scope: RunScope = self.cell[0].scope
        return scope

    def ensure_details(self) -> Details:
        """Return the details, made if need be; not for users."""
        if self.details is None:
            # atomic: of two threads that make them, both get the same
            vars(self).setdefault("details", Details())
            self.bare = False
        details: Details = vars(self)["details"]
        return details

    def add_items(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more items that went `in` or came `out`.

        Raises:
            TypeError: `n` is not an integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        self._add("items", n, direction)

    def add_bytes(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more payload bytes that went `in` or came `out`.

        Raises:
            TypeError: `n` is not an integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        self._add("bytes", n, direction)

    def _add(self, what: str, n: int, direction: Direction) -> None:
        more = check_count(n, "n")
        if direction not in ("in", "out"):
            raise ValueError(f'direction must be "in" or "out", not {direction!r}')
        if self.series is None:
            return
        self.ensure_details().add(f"{what}_{direction}", more, get_ident())

    def retry(self, error: BaseException | type[BaseException] | str | None = None) -> None:
        """Count one more attempt, after `error` if there was one.

        Args:
            error: the exception, its class, or a name for `error.type`, of which 128 characters
                are kept. The exception's message is not recorded.
        """
        error_type = retried_type(error)
        if self.series is not None:
            self.count_retry(error_type)

    def count_retry(self, error_type: str) -> None:
        """Count one more attempt, after an error of this type; also where the call has ended."""
        details = self.ensure_details()
        error_type = cardinality.key_in(details.retries, error_type, "errors of a call's retries")
        next(details.retries.setdefault(error_type, count()))
        attempt = next(details.attempts)
        if self.span is not None:
            with errors.suppress_errors("a retry's span event"):
                self.span.retry(attempt, error_type)

    def waiting(self) -> waiting:
        """Wait for a permit, a rate limit or a slow receiver: `with s.waiting():`.

        The time counts as this stage's `blocked`, not `busy`. Works with `async with` too.
        """
        return waiting("blocked")

    def event_time(self, timestamp: float | datetime) -> None:
        """Record when an item that is finished here originated at its source.

        Feeds `pipeline.item.duration` (now minus `timestamp`) and `pipeline.watermark.lag`.

        Args:
            timestamp: Unix seconds, or a datetime; a naive one counts as UTC.

        Raises:
            TypeError: it is neither.
            ValueError: it is not finite.
        """
        seconds = _unix_seconds(timestamp)
        series = self.series
        if series is None:
            return
        attributes, context = self.ensure_details().attributes, None
        if self.span is not None:
            with errors.suppress_errors("an event time's span"):
                context = self.span.context()
        series.event_times.append(EventTime(seconds, clock.unix(), attributes, context))
        if len(series.event_times) >= PENDING_BOUND:
            drain_series(series)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set an attribute of the span; of metrics if `metric_attributes` has it.

        `metric_attributes` is an argument of `configure()`.

        An attribute that OpenTelemetry would not take, or whose key is forbidden, is left out;
        a warning is logged once for each key.
        """
        try:
            key, value = check_attribute(key, value, "set_attribute")
        except (TypeError, ValueError) as error:
            # another class's own `__repr__` may raise
            known = repr(key) if type(key) is str else type(key)
            errors.warn_once(f"attribute {known}", "an attribute is left out: %s", error)
            return
        if self.series is None:
            return
        if not privacy.is_allowed(key):
            privacy.drop(key, f"stage {self.series.key.stage!r}")
            return
        self.ensure_details().attributes[key] = value


def make_execution(cell: Cell) -> Execution:
    """Return a new execution of a call, which a block makes itself."""
    made = Execution()
    made.cell = cell
    made.series = cell[0]
    made.bare = True
    return made


# What `current_stage()` returns outside a stage: it takes every call and keeps nothing.
NOOP_EXECUTION: Final = make_execution([None] * CELL_WITHOUT_SPAN)
NOOP_EXECUTION.cell[3] = NOOP_EXECUTION
NOOP_EXECUTION.bare = False


def _unix_seconds(timestamp: object) -> float:
    from datetime import datetime, timezone  # few programs record event times

    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            timestamp = timestamp.replace(tzinfo=timezone.utc)
        return timestamp.timestamp()
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)):
        raise TypeError(
            f"timestamp must be Unix seconds or a datetime, not {type(timestamp).__name__}"
        )
    try:
        seconds = float(builtin(timestamp))
    except OverflowError:  # 10**400
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError(f"timestamp must be finite, not {seconds}")
    return seconds


def retried_type(error: BaseException | type[BaseException] | str | None) -> str:
    """Return the `error.type` of a retry; "" if none is given."""
    if error is None or isinstance(error, str):
        # without the methods of a class of the program
        return "" if error is None else clean_text(str.__str__(error)[:MAX_NAME_LENGTH])
    kind = type(error) if isinstance(error, BaseException) else error
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return qualified_name(kind)
    raise TypeError(
        f"error must be an exception, its class, a string or None, not {type(error).__name__}"
    )


def execution_of(cell: Cell) -> Execution:
    """Return the execution of a call in progress, made if need be.

    Threads that share the call may do this at the same time. Python lets no other thread go on
    between the second look and the store, since nothing is called and no jump taken there.
    """
    found: Execution | None = cell[3]
    if found is None:
        made = make_execution(cell)
        made.adopt_span()
        if cell[3] is None:
            cell[3] = made
        found = cell[3]
    return found or NOOP_EXECUTION  # None: the call has ended meanwhile


nesting.set_have_execution(execution_of)

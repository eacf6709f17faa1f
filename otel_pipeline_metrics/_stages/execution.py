"""`Execution`: one call of a stage in progress, and what it can report of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, privacy
from otel_pipeline_metrics._core.records import qualified_name
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


class Details:
    """What an execution reports beyond its duration; made when there is something."""

    __slots__ = (
        "attributes", "bytes_in", "bytes_out", "event_times", "items_in", "items_out", "retries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.items_in: int | None = None
        self.items_out: int | None = None
        self.bytes_in: int | None = None
        self.bytes_out: int | None = None
        self.retries: dict[str, int] | None = None
        self.attributes: dict[str, AttributeValue] | None = None
        # (event time, time of finishing) of items, Unix seconds
        self.event_times: list[tuple[float, float]] | None = None


class Execution:
    """One call of a stage in progress.

    `with stage(...) as s` and `current_stage()` give it. It belongs to the thread or task
    that opened it.
    """

    # Class attributes, not slots: an instance then stores only what differs from the default.
    cell: Cell  # [series, token, started, self, worker] and its span, see `series.Cell`
    series: Series | None  # None once it is closed
    elapsed: float = 0.0  # seconds before the last resumption, waits included
    idle: float = 0.0
    blocked: float = 0.0
    duration_only: bool = True  # whether there is only the duration to report so far
    details: Details | None = None
    span: OpenSpan | None = None
    # the rest is used only if a queue is instrumented
    opener: object = None  # the task or thread that runs it, if its worker is another
    links: Sequence[Any] = ()  # to the producers of what the worker got before
    links_dropped: int = 0

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.series = cell[0]
        if len(cell) > CELL_WITHOUT_SPAN:
            self.adopt_span()

    def adopt_span(self) -> None:
        """Take over the span that is open in the cell, if any; not for users."""
        if len(self.cell) > CELL_WITHOUT_SPAN and hooks.tracing is not None:
            self.span = hooks.tracing.span_of(self.cell)

    @property
    def scope(self) -> RunScope:
        """The run, or the process, that it belongs to."""
        scope: RunScope = self.cell[0].scope
        return scope

    def ensure_details(self) -> Details:
        """Return the details, made if need be; not for users."""
        if self.details is None:
            self.details = Details()
            self.duration_only = False
        return self.details

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
        count = check_count(n, "n")
        if direction not in ("in", "out"):
            raise ValueError(f'direction must be "in" or "out", not {direction!r}')
        if self.series is None:
            return
        details, counted = self.ensure_details(), f"{what}_{direction}"
        setattr(details, counted, (getattr(details, counted) or 0) + count)

    def retry(self, error: BaseException | type[BaseException] | str | None = None) -> None:
        """Count one more attempt, after `error` if there was one.

        Args:
            error: the exception, its class, or a name for `error.type`, of which 128 characters
                are kept. The exception's message is not recorded.
        """
        error_type = _error_type(error)
        if self.series is None:
            return
        details = self.ensure_details()
        if details.retries is None:
            details.retries = {}
        details.retries[error_type] = details.retries.get(error_type, 0) + 1
        if self.span is not None:
            with errors.suppress_errors("a retry's span event"):
                # the first attempt is no retry, so the first retry is attempt 2
                self.span.retry(sum(details.retries.values()) + 1, error_type)

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
        if self.series is None:
            return
        details = self.ensure_details()
        if details.event_times is None:
            details.event_times = []
        details.event_times.append((seconds, clock.unix()))

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set an attribute of the span; of metrics if `metric_attributes` has it.

        `metric_attributes` is an argument of `configure()`.

        An attribute that OpenTelemetry would not take, or whose key is forbidden, is left out;
        a warning is logged once for each key.

        Raises:
            ValueError: the key is forbidden, and `configure(strict=True)` or the development
                console is on.
        """
        try:
            check_attribute(key, value, "set_attribute")
        except (TypeError, ValueError) as error:
            errors.warn_once(f"attribute {key!r}", "an attribute is left out: %s", error)
            return
        if self.series is None:
            return
        if not privacy.is_allowed(key):
            privacy.rules().check({key: value}, "set_attribute")
            privacy.drop(key, f"stage {self.series.key.stage!r}")
            return
        details = self.ensure_details()
        if details.attributes is None:
            details.attributes = {}
        details.attributes[key] = value


# What `current_stage()` returns outside a stage: it takes every call and keeps nothing.
NOOP_EXECUTION: Final = Execution([None, None, 0.0, None, None])
NOOP_EXECUTION.cell[3] = NOOP_EXECUTION


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
    if not math.isfinite(timestamp):
        raise ValueError(f"timestamp must be finite, not {timestamp}")
    return float(timestamp)


def _error_type(error: BaseException | type[BaseException] | str | None) -> str:
    if error is None or isinstance(error, str):
        return (error or "")[:MAX_NAME_LENGTH]
    kind = type(error) if isinstance(error, BaseException) else error
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return qualified_name(kind)
    raise TypeError(
        f"error must be an exception, its class, a string or None, not {type(error).__name__}"
    )

"""`Execution`: one invocation of a stage in progress, and what it can say of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, hooks, privacy
from otel_pipeline_metrics._core.records import qualified_name
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN, active_cell
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
    """What an execution says of itself beyond its duration; made on the first such word."""

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
        self.event_times: list[tuple[float, float]] | None = None
        """(event time, time of finishing) of items, Unix seconds."""


class Execution:
    """One invocation of a stage in progress.

    `with stage(...) as s` and `current_stage()` give it. It belongs to the thread or task
    that opened it.
    """

    # Class attributes, not slots: an instance then stores only what is not as usual.
    cell: Cell
    """What is current while it runs: [series, token, started, itself], and of its span."""
    series: Series | None
    """None once it is closed."""
    elapsed: float = 0.0
    """Seconds before the latest resumption, waits included."""
    idle: float = 0.0
    blocked: float = 0.0
    duration_only: bool = True
    """Whether its duration is all there is to say so far."""
    details: Details | None = None
    span: OpenSpan | None = None
    # the following only where a queue is instrumented
    worker: Any = None
    opener: object = None
    """The task or thread that runs it."""
    links: Sequence[Any] = ()
    """Span contexts and attributes of the producers of what the worker got before."""
    links_dropped: int = 0

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.series = cell[0]
        if len(cell) > CELL_WITHOUT_SPAN:
            self.adopt_span()

    def adopt_span(self) -> None:
        """Take over the span that is open in the cell, if there is one; not for users."""
        if len(self.cell) > CELL_WITHOUT_SPAN and hooks.tracing is not None:
            self.span = hooks.tracing.span_of(self.cell)

    @property
    def scope(self) -> RunScope:
        """What it belongs to."""
        scope: RunScope = self.cell[0].scope
        return scope

    def ensure_details(self) -> Details:
        """Return where more than the duration is kept; not for users."""
        if self.details is None:
            self.details = Details()
            self.duration_only = False
        return self.details

    def add_items(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more items that went `in` or came `out`.

        Raises:
            TypeError: `n` is no integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        self._add("items", n, direction)

    def add_bytes(self, n: int, direction: Direction = "out") -> None:
        """Count `n` more payload bytes that went `in` or came `out`.

        Raises:
            TypeError: `n` is no integer.
            ValueError: `n` is negative, or `direction` is neither "in" nor "out".
        """
        self._add("bytes", n, direction)

    def _add(self, what: str, n: int, direction: Direction) -> None:
        count = check_count(n, "n")
        if direction not in ("in", "out"):
            raise ValueError(f'direction must be "in" or "out", not {direction!r}')
        if self.series is None:
            return
        detail, counted = self.ensure_details(), f"{what}_{direction}"
        setattr(detail, counted, (getattr(detail, counted) or 0) + count)

    def retry(self, error: BaseException | type[BaseException] | str | None = None) -> None:
        """Count one more attempt, after `error` if there was one.

        Args:
            error: the exception, its class, or a name for `error.type`, of which 128 characters
                are kept; never its message.
        """
        error_type = _error_type(error)
        if self.series is None:
            return
        detail = self.ensure_details()
        if detail.retries is None:
            detail.retries = {}
        detail.retries[error_type] = detail.retries.get(error_type, 0) + 1
        if self.span is not None:
            with errors.suppress_errors("a retry's span event"):
                # the first attempt is no retry, so the first retry is attempt 2
                self.span.retry(sum(detail.retries.values()) + 1, error_type)

    def waiting(self) -> waiting:
        """Wait for a permit, a rate limit or a slow receiver: `with s.waiting():`.

        The time is this stage's `blocked`, not its `busy`. `async with` too.
        """
        return waiting("blocked")

    def event_time(self, timestamp: float | datetime) -> None:
        """Say when an item that is finished here came into being at its source.

        Feeds `pipeline.item.duration` (now less `timestamp`) and `pipeline.watermark.lag`.

        Args:
            timestamp: Unix seconds, or a datetime; a naive one is taken as UTC.

        Raises:
            TypeError: it is neither.
            ValueError: it is not finite.
        """
        seconds = _unix_seconds(timestamp)
        if self.series is None:
            return
        detail = self.ensure_details()
        if detail.event_times is None:
            detail.event_times = []
        detail.event_times.append((seconds, clock.unix()))

    def link(self, link: tuple[Any, str, float]) -> None:
        """Link the span to a producer's (span context, queue, seconds); not for users."""
        if self.span is not None:
            self.span.link(link)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Put an attribute on the span, and on metrics if `configure(metric_attributes=)` says so.

        A value that OpenTelemetry would not take is left out with one warning for each key,
        and so is a forbidden key.

        Raises:
            ValueError: the key is forbidden, and `configure(strict=True)` or the development
                console is on.
        """
        try:
            check_attribute(key, value, "set_attribute")
        except (TypeError, ValueError) as error:
            errors.warn_once(f"attribute {key!r}", "attribute left out: %s", error)
            return
        if self.series is None:
            return
        if not privacy.is_allowed(key):
            privacy.check({key: value}, "set_attribute")
            privacy.drop(key, f"stage {self.series.key.stage!r}")
            return
        detail = self.ensure_details()
        if detail.attributes is None:
            detail.attributes = {}
        detail.attributes[key] = value


class _NoExecution(Execution):
    """Stands where there is no execution; takes every word and keeps none."""

    def __init__(self) -> None:
        super().__init__([None, None, 0.0, None])
        self.cell[3] = self


NOOP_EXECUTION: Final = _NoExecution()


def _unix_seconds(timestamp: object) -> float:
    from datetime import datetime, timezone  # few programs tell event times

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
    if error is None:
        return ""
    if isinstance(error, str):
        return error[:MAX_NAME_LENGTH]
    if isinstance(error, BaseException):
        return qualified_name(type(error))
    if isinstance(error, type) and issubclass(error, BaseException):
        return qualified_name(error)
    raise TypeError(
        f"error must be an exception, its class, a string or None, not {type(error).__name__}"
    )


def executing() -> Execution | None:
    """Return the innermost execution here; None outside of any, or where none was needed yet."""
    found = active_cell.get()
    if found is None or len(found) == 1 or found[1] is None:
        return None
    execution: Execution | None = found[3]
    return execution

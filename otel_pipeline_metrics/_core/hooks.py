"""What the hot path calls if it is there: put in place by the rooms that know more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics._core.records import StageResult, WaitState
    from otel_pipeline_metrics._core.series import Cell, Series
    from otel_pipeline_metrics._stages.execution import Execution


Link = tuple[Any, str, float]
"""To the producer of an item: its span context, the queue, and the seconds in it."""


class Tracing(Protocol):
    """Opens and closes spans."""

    def open(self, cell: Cell, links: Sequence[Link] = (), links_dropped: int = 0) -> None:
        """Open a span into the cell and make it current, if one is wanted; always asked."""

    def close(self, cell: Cell, elapsed: float) -> None:
        """End the span of an invocation that has nothing to tell but its duration."""

    def span_of(self, cell: Cell) -> OpenSpan:
        """Return what tells more of the span that is open in a cell."""

    def record_late_span(self, series: Series, result: StageResult) -> Any:
        """Make a span after the fact, if the budget allows, for what turned out worth one."""


class OpenSpan(Protocol):
    """The span of an invocation in progress."""

    def suspend(self) -> None:
        """Make it no longer current; it stays open."""

    def resume(self) -> None:
        """Make it current again."""

    def retry(self, attempt: int, error_type: str) -> None:
        """Add the event of a retry."""

    def link(self, link: Link) -> None:
        """Link it to the producer of an item."""

    def drop_links(self, count: int) -> None:
        """Say how many producers it is not linked to."""

    def identity(self) -> Any:
        """Return its span context, for links to it."""

    def close(self, elapsed: float) -> None:
        """End it; there is nothing to tell but the duration."""

    def end(self, result: StageResult) -> Any:
        """End it, with what there is to tell; return its context if sampled, for exemplars."""


class WorkerAccounting(Protocol):
    """Keeps the time of each worker in the three states."""

    def opened(self, execution: Execution) -> None:
        """Give an execution what its worker brings along: the producers of its input."""

    def resuming(self, execution: Execution) -> None:
        """Begin to share out time to an execution, or go on after a pause."""

    def paused(self, execution: Execution, now: float) -> None:
        """Share out the time since then: it ends, or pauses."""

    def wait_begins(self, state: WaitState, now: float) -> Any:
        """Let the worker here wait; return it for `wait_ends`."""

    def wait_ends(self, worker: Any, state: WaitState, seconds: float, now: float) -> None:
        """Share out a wait."""


tracing: Tracing | None = None
"""Set by the telemetry room; None: no spans."""

spans_per_second: float | None = 100.0
"""Spans that each stage may make a second, over time; None: as many as it has invocations."""

workers: WorkerAccounting | None = None
"""Set when the first queue is instrumented: before that, nobody waits where we could see it."""

watch: Callable[[], None] | None = None
"""Puts `workers` in place."""

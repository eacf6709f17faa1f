"""What the hot path calls if it is there: put in place by the rooms that know more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._execution import Execution
    from otel_pipeline_metrics._model import StageResult, WaitState
    from otel_pipeline_metrics._series import Series


class Tracing(Protocol):
    """Opens and closes spans."""

    def wanted(self, series: Series) -> bool:
        """Tell whether the next invocation is to have a span; asked for every one."""

    def start(self, execution: Execution) -> None:
        """Open the span of an execution and make it current."""

    def suspend(self, execution: Execution) -> None:
        """Make the span no longer current; it stays open."""

    def resume(self, execution: Execution) -> None:
        """Make the span current again."""

    def retry(self, execution: Execution, attempt: int, error_type: str) -> None:
        """Add the event of a retry."""

    def link(self, execution: Execution, link: tuple[Any, str, float]) -> None:
        """Link an open span to the producer of an item: (span context, queue, seconds)."""

    def end_plain(self, execution: Execution) -> Any:
        """Close the span of an invocation that has nothing to say but its duration."""

    def late(self, series: Series, result: StageResult) -> Any:
        """Make a span after the fact, if the budget allows, for what turned out worth one."""

    def end(self, execution: Execution, result: StageResult) -> Any:
        """Close the span; return the context for exemplars, or None."""


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

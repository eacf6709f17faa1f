"""Functions that other rooms put in place for the hot path to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_pipeline_metrics._core.process.gc_safety import switch_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_pipeline_metrics._core.records import StageResult, WaitState


# From a consumer to the producer of an item: its span context, the queue, the seconds in it.
Link = tuple[Any, str, float]

# Parameters are typed as Any where the type belongs to a room above, or to `series`, which would
# make a circle: `cell` is a `series.Cell`, `execution` an `Execution`.


class Tracing(Protocol):
    """Opens and closes the spans of calls; `_telemetry.spans.Spans`."""

    def open(self, cell: Any, links: Sequence[Link] = (), links_dropped: int = 0) -> None:
        """Open the span of a call and make it current, if the budget allows one."""

    def close(self, cell: Any, elapsed: float) -> None:
        """End the span of a call with only a duration."""

    def span_of(self, cell: Any) -> OpenSpan:
        """Return a handle of the span that is open in a cell."""

    def record_late_span(self, series: Any, result: StageResult) -> Any:
        """Make the span of a call that is over; return its context if sampled."""


class TracingToCome(Protocol):
    """Waits for the program to set a provider of spans; `_telemetry.spans.Spans`."""

    def until_it_comes(self, series: Any, turns: Iterator[Any]) -> Iterator[Any]:
        """Return turns of a series that end by themselves, with a KeyError, once it is set."""

    def look(self) -> None:
        """Open spans from now on if it is set."""


class OpenSpan(Protocol):
    """The span of a call in progress; `_telemetry.spans.StageSpan`."""

    def suspend(self) -> None:
        """Make the span no longer current; it stays open."""

    def resume(self) -> None:
        """Make the span current again."""

    def retry(self, attempt: int, error_type: str) -> None:
        """Add an event for one more attempt."""

    def link(self, link: Link) -> None:
        """Link the span to the producer of an item."""

    def drop_links(self, count: int) -> None:
        """Record how many producers are not linked."""

    def identity(self) -> Any:
        """Return the span context that links to this span need."""

    def context(self) -> Any:
        """Return the span's context if sampled, for exemplars."""

    def close(self, elapsed: float) -> None:
        """End the span of a call with only a duration."""

    def end(self, result: StageResult) -> Any:
        """End the span with a result; return its context if sampled, for exemplars."""


class WorkerAccounting(Protocol):
    """Shares out the time of workers; `_stages.workers.accounting.Accounting`."""

    @property
    def accounts(self) -> bool:
        """Whether it does: an experiment stands in for it before the first queue too."""

    @property
    def pauses(self) -> bool:
        """Whether it does more with each call than to share out its time."""

    def accounting(self) -> WorkerAccounting:
        """Return what does, and all that this does."""

    def opened(self, execution: Any) -> None:
        """Give an execution the links to the producers of its input. Never raises."""

    def entered(self, cell: Any) -> None:
        """Count time for a call that begins, with its span, or resumes. Never raises."""

    def left(self, cell: Any, now: float) -> None:
        """Count the time of a call that ends or pauses. Never raises."""

    def wait_begins(self, state: WaitState, now: float) -> Any:
        """Begin a wait of the current worker; return what `wait_ends` takes."""

    def wait_ends(self, wait: Any, now: float) -> None:
        """End a wait."""

    def replay(self, scope: Any, *, in_progress: bool = False) -> None:
        """Derive the time of a scope's workers from their logs; the drain lock is held."""


class PartsOfRun(Protocol):
    """Takes parts of a run from other processes; `_lifecycle.run_parts.RunParts`."""

    run_id: str

    def expect(self) -> dict[str, Any]:
        """Return the context of one part more, which is waited for. Never raises."""

    def expect_task(self) -> dict[str, Any]:
        """Return the context of one more task of an engine, whose parts cover several."""

    def share(self) -> dict[str, Any]:
        """Return a context for all workers of an engine, each of which has one part."""

    def give_up(self, context: dict[str, Any]) -> str | None:
        """Wait no longer for the part of a context: its work is over.

        Returns:
            The stage that took most of it; None if its part is not here.
        """

    def withdraw(self, context: dict[str, Any]) -> None:
        """Expect no part of a context: its work never began."""

    def add(self, data: Any) -> bool:
        """Fold a part into the run. Never raises."""


class OpenPart(Protocol):
    """A part that is being measured; `_lifecycle.part.Part`."""

    @property
    def data(self) -> dict[str, Any]:
        """What was measured, as plain data."""

    def __enter__(self) -> Any:
        """Begin, in the current context."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End it."""


# None: no spans.
tracing: Tracing | None = None

# what the look for a turn raises without one, see `Series.turns` and `TracingToCome`
NO_TURN: Final = KeyError, StopIteration

# while none is set, but one may be: then the hot path has no spans to care for
tracing_to_come: TracingToCome | None = None

# None until the first queue is instrumented; before that, no wait can be seen.
workers: WorkerAccounting | None = None

# whether they do no more with a call than to log it for its worker, so that the hot path may
logs_calls = False


def set_tracing(found: Tracing | None, to_come: TracingToCome | None = None) -> None:
    """Have the hot path open spans; None: not any more, or not before a provider is set."""
    global tracing, tracing_to_come  # replaced whole
    # A signal handler may raise in between: the hot path is told first, and told otherwise last, so
    # that it never passes by what there is.
    if found is not None:
        switch_extra("tracing", on=True)
    tracing, tracing_to_come = found, to_come
    if found is None:
        switch_extra("tracing", on=False)


def set_workers(found: WorkerAccounting | None) -> None:
    """Have the hot path account for workers; None: not any more."""
    global workers, logs_calls  # replaced whole
    workers, logs_calls = found, found is not None and not found.pauses
    switch_extra("workers", on=found is not None)
    switch_extra("pausing", on=found is not None and found.pauses)


# Makes a coroutine function's coroutine begin later, during an experiment.
pausing: Callable[[Any], Any] | None = None

# Sets `workers`.
watch: Callable[[], None] | None = None

# Loads `_lifecycle`, which alone knows how a part is measured.
open_part: Callable[[dict[str, Any]], OpenPart] | None = None

# The same: what configures a worker that has work of another process, where it may, and flushes it
# until the work has ended, which the function that it returns tells.
begin_work: Callable[[], Callable[[], None]] | None = None

"""The picture of a run in progress: stages, rates, queues, time left; and of a loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors, text
from otel_pipeline_metrics._core.lookup import get_strings, number, ratio, stage_items, whole
from otel_pipeline_metrics.report import console, views
from otel_pipeline_metrics.report.flow import (
    error_total,
    items_completed,
    queues_in_order,
    stages_in_flow_order,
    verdict,
)
from otel_pipeline_metrics.report.tables import BOLD, Look, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from typing_extensions import Self

    from otel_pipeline_metrics.report.run_report import RunReport


# rates are those of the last ten seconds
WINDOW_S: Final = 10.0


class Live:
    """A view of what `snapshot` returns; start and stop it, or use `with`."""

    def __init__(
        self, snapshot: Callable[[], RunReport], *, interval: float = 0.5, stream: Any = None
    ) -> None:
        """Prepare the view; nothing is shown yet.

        Args:
            snapshot: returns the report so far; called on the thread that draws.
            interval: seconds between two pictures.
            stream: where to draw; standard error by default.

        Raises:
            ValueError: the interval is not positive.
        """
        if not interval > 0:
            raise ValueError(f"interval must be more than 0 s, not {interval!r}")
        history = History()
        self._view = lambda: render_frame(snapshot(), history)
        self._interval = interval
        self._stream = stream
        self._screen: views.Screen | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stop()

    @property
    def shown(self) -> bool:
        """Whether the view is being drawn."""
        return (
            self._screen is not None
            and self._view in self._screen.views
            and self._screen.is_drawing
        )

    def start(self) -> None:
        """Begin to draw if the stream is a terminal that supports it, or in a notebook."""
        if self._screen is None:
            with errors.suppress_errors("the live view"):
                self._screen = views.show(self._view, self._stream, self._interval)

    def stop(self) -> None:
        """Erase the view; safe at any time, and repeatedly."""
        shown, self._screen = self._screen, None
        if shown is not None:
            views.hide(shown, self._view)


class _Point(NamedTuple):
    at: float
    counts: dict[str, int]
    finished: int | None


class History:
    """The counts of the last seconds, from which rates are computed."""

    def __init__(self) -> None:
        self._points: deque[_Point] = deque()

    def add(self, report: RunReport) -> None:
        """Record the counts of this moment and drop those before the window."""
        now = clock.now()
        counts = {stage["name"]: _count(stage)[0] for stage in report.stages}
        self._points.append(_Point(now, counts, items_completed(report)))
        while len(self._points) > 2 and self._points[1].at <= now - WINDOW_S:
            self._points.popleft()

    def rate(self, name: str) -> float | None:
        """Return the items, or calls, of a stage per second."""
        first, last = self._points[0], self._points[-1]
        return ratio(last.counts.get(name, 0) - first.counts.get(name, 0), last.at - first.at)

    def finish_rate(self) -> float | None:
        """Return the items that the last stages take per second."""
        first, last = self._points[0], self._points[-1]
        if last.finished is None:
            return None
        return ratio(last.finished - (first.finished or 0), last.at - first.at)


def _count(stage: Mapping[str, Any]) -> tuple[int, str]:
    items = stage_items(stage)
    return (items, "items") if items is not None else (whole(stage, "count") or 0, "calls")


def render_frame(report: RunReport, history: History) -> RenderableType:
    """Return the picture of a run at this moment."""
    from rich.console import Group
    from rich.text import Text

    history.add(report)
    found = verdict(report)
    parts: list[RenderableType] = [Text(_headline(report), style="bold")]
    total = whole(report.run, "total")
    if total:
        parts.append(_Progress(items_completed(report) or 0, total, history.finish_rate()))
    if report.stages:
        parts.append(_stages(report, history, found.stages))
    if report.queues:
        parts.append(_queues(report))
    if found.known:
        parts.append(Text(text.printable(f"so far: {console.sentence(report)}")))
    return Group(*parts)


def _headline(report: RunReport) -> str:
    line = f"{report.run.get('pipeline')}  {text.duration(number(report.run, 'wall_s'))}"
    count = error_total(report)
    return text.printable(line) + (f"  {text.counted(count, 'error')}" if count else "")


class Bar:
    """How far a loop is: its items so far, their rate, and the time left if the end is known."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name = name
        self.total = total
        # counted by the loop, in its thread
        self.done = 0
        self._began = clock.now()

    def __call__(self) -> RenderableType:
        """Return the picture of this moment."""
        from rich.text import Text

        done, name = self.done, text.printable(self.name)
        rate = ratio(done, clock.now() - self._began)
        if self.total:
            return _Progress(done, self.total, rate, name)
        return Text.assemble((name, "bold"), f" {done:,} items  {text.number(rate)} per s")


class _Progress:
    """A bar with its numbers; where there is little room, the numbers alone."""

    def __init__(self, done: int, total: int, rate: float | None, name: str = "") -> None:
        self._done, self._total, self._name = done, total, name
        share = text.percent(min(1.0, done / total))
        self._numbers = f"{done:,} of {total:,}  {share}  {left(done, total, rate)}"

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table as Grid
        from rich.text import Text

        name = [Text(self._name, style="bold")] if self._name else []
        taken = text.width(f"{self._name} {self._numbers} ")
        if options.max_width - taken < 10:
            yield from [*name, Text(self._numbers)]
            return
        row = Grid.grid(padding=(0, 1))
        width = min(30, options.max_width - taken)
        bar = ProgressBar(total=self._total, completed=min(self._done, self._total), width=width)
        row.add_row(*name, bar, Text(self._numbers))
        yield row


class _Fitted:
    """A table with the columns that find room, as in the summary."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        look = Look(options.max_width, colours=terminal.color_system is not None)
        yield Text.from_ansi(self._table.render(look))


def left(done: int, total: int, rate: float | None) -> str:
    """Return the time left at the present rate."""
    if done >= total:
        return "all in"
    return f"{text.duration((total - done) / rate)} left" if rate else "time left unknown"


def _stages(report: RunReport, history: History, marked: list[str]) -> RenderableType:
    stages = stages_in_flow_order(report)
    states = console.states_of(stages)
    rows, tones = [], {}
    for row, stage in enumerate(stages):
        name = stage["name"]
        done, unit = _count(stage)
        if name in marked:
            tones[row, "stage"] = BOLD
        rows.append(
            (
                f"{name} ◆" if name in marked else name,
                f"{done:,} {unit}",
                text.number(history.rate(name)),
                text.number(whole(stage, "in_flight")),
                text.duration(number(stage, "duration_s", "p50")),
                *(text.percent(number(stage, "share", s)) for s in states),
                text.number(whole(stage, "errors", "total")),
            )
        )
    head = ("stage", "done", "per s", "in flight", "p50", *states, "errors")
    leave = ("p50", *states, "in flight", "per s")
    return _Fitted(Table(head, rows, left=1, leave=leave, tones=tones))


def _queues(report: RunReport) -> RenderableType:
    rows = [
        (
            queue["name"],
            *(
                ", ".join(get_strings(queue, key)) or text.UNKNOWN
                for key in ("producers", "consumers")
            ),
            text.number(
                number(queue, "depth_avg")
                if number(queue, "depth") is None
                else number(queue, "depth")
            ),
            text.number(number(queue, "depth_peak")),
            console.capacity(queue),
            text.duration(number(queue, "wait_s", "p50")),
        )
        for queue in queues_in_order(report)
    ]
    head = ("queue", "from", "to", "depth", "peak", "capacity", "wait p50")
    return _Fitted(Table(head, rows, left=3, leave=("wait p50", "peak", "from", "to")))

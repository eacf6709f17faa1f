"""Show a run in progress in the terminal: stages, rates, queues, time left.

One daemon thread does everything, and it alone writes to the terminal. An internal error ends
the view, never the run. Without a terminal, or without rich, nothing is shown. The program's own
output is not redirected: that would send `print` to another stream than the intended one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors, text
from otel_pipeline_metrics._core.lookup import get_strings, number, ratio, whole
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import (
    error_total,
    items_completed,
    queues_in_order,
    stages_in_flow_order,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType
    from rich.table import Table
    from typing_extensions import Self

    from otel_pipeline_metrics.report.run_report import RunReport


# rates are those of the last ten seconds
WINDOW_S: Final = 10.0

# how long `stop` waits for a terminal that takes no output
STOP_S: Final = 1.0


class Live:
    """A view of what `snapshot` returns; start and stop it, or use `with`."""

    def __init__(
        self, snapshot: Callable[[], RunReport], *, interval: float = 0.5, stream: Any = None
    ) -> None:
        """Prepare the view; nothing is shown yet.

        Args:
            snapshot: returns the report so far; called on the view's thread.
            interval: seconds between two frames.
            stream: where to draw; standard error by default.

        Raises:
            ValueError: the interval is not positive.
        """
        if not interval > 0:
            raise ValueError(f"interval must be more than 0 s, not {interval!r}")
        self._snapshot = snapshot
        self._interval = interval
        self._stream = stream
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def shown(self) -> bool:
        """Whether the view is being drawn."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to draw if the stream is a terminal that supports it."""
        if self._thread is not None:
            return
        with errors.suppress_errors("the live view"):
            stream = sys.stderr if self._stream is None else self._stream
            terminal = _terminal(stream)
            if terminal is None:
                return
            self._pid = os.getpid()
            self._stopping.clear()
            self._thread = threading.Thread(
                target=self._run, args=(terminal,), name="opm-live", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Erase the view; safe at any time, and repeatedly."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        # a forked child has no such thread, and the terminal belongs to the parent
        if thread is not None and os.getpid() == self._pid:
            thread.join(STOP_S)

    def _run(self, terminal: Console) -> None:
        with errors.suppress_errors("the live view"):
            self._draw(terminal)

    def _draw(self, terminal: Console) -> None:
        from rich import live

        history = History()
        view = live.Live(
            console=terminal,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            with view:
                # a killed program must not leave a terminal without a cursor
                terminal.show_cursor(True)
                while True:
                    frame = None
                    with errors.suppress_errors("the live view"):
                        frame = render_frame(self._snapshot(), history)
                    if frame is None:
                        return
                    view.update(frame, refresh=True)
                    if self._stopping.wait(self._interval):
                        return
        except (OSError, ValueError) as error:
            # the terminal was closed meanwhile, which is not an error
            errors.logger.debug("the live view ended: %r", error)


def _terminal(stream: Any) -> Console | None:
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return None
    except (AttributeError, ValueError):
        return None
    try:
        from rich.console import Console
    except ImportError:
        errors.warn_once(
            "live view",
            'the live view needs rich: pip install "otel-pipeline-metrics[cli]"',
        )
        return None
    return Console(file=stream, highlight=False)


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


def _count(stage: dict[str, Any]) -> tuple[int, str]:
    items = console.stage_items(stage)
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
        parts.append(_progress(items_completed(report) or 0, total, history.finish_rate()))
    if report.stages:
        parts.append(_stages(report, history, found.stages))
    if report.queues:
        parts.append(_queues(report))
    if found.known:
        parts.append(Text(text.printable(f"so far: {found.headline}")))
    return Group(*parts)


def _headline(report: RunReport) -> str:
    line = f"{report.run.get('pipeline')}  {text.duration(number(report.run, 'wall_s'))}"
    count = error_total(report)
    return text.printable(line) + (f"  {text.counted(count, 'error')}" if count else "")


def _progress(done: int, total: int, rate: float | None) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    share = text.percent(min(1.0, done / total))
    bar = ProgressBar(total=total, completed=min(done, total), width=30)
    row.add_row(bar, Text(f"{done:,} of {total:,}  {share}  {left(done, total, rate)}"))
    return row


def left(done: int, total: int, rate: float | None) -> str:
    """Return the time left at the present rate."""
    if done >= total:
        return "all in"
    return f"{text.duration((total - done) / rate)} left" if rate else "time left unknown"


def _table(*head: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column, title in enumerate(head):
        words = column == 0 or title in {"from", "to"}
        table.add_column(title, justify="left" if words else "right", no_wrap=True)
    return table


def _stages(report: RunReport, history: History, marked: list[str]) -> RenderableType:
    from rich.text import Text

    stages = stages_in_flow_order(report)
    states = console.states_of(stages)
    table = _table("stage", "done", "per s", "in flight", "p50", *states, "errors")
    for stage in stages:
        name = stage["name"]
        shown = text.printable(name)
        done, unit = _count(stage)
        table.add_row(
            Text(f"{shown} ◆" if name in marked else shown, style="bold" if name in marked else ""),
            f"{done:,} {unit}",
            text.number(history.rate(name)),
            text.number(whole(stage, "in_flight")),
            text.duration(number(stage, "duration_s", "p50")),
            *(text.percent(number(stage, "share", s)) for s in states),
            text.number(whole(stage, "errors", "total")),
        )
    return table


def _queues(report: RunReport) -> RenderableType:
    from rich.text import Text

    table = _table("queue", "depth", "peak", "capacity", "wait p50", "from", "to")
    for queue in queues_in_order(report):
        now = number(queue, "depth")
        table.add_row(
            Text(text.printable(queue["name"])),
            text.number(number(queue, "depth_avg") if now is None else now),
            text.number(number(queue, "depth_peak")),
            console.capacity(queue),
            text.duration(number(queue, "wait_s", "p50")),
            *(
                Text(text.printable(", ".join(get_strings(queue, key))) or text.UNKNOWN)
                for key in ("producers", "consumers")
            ),
        )
    return table

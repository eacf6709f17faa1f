"""A run as it goes on, in the terminal: stages, rates, queues, progress and time left.

Everything happens on one daemon thread, which alone touches the terminal. A fault there ends
the view, never the run. Where the stream is no terminal, or rich is not installed, there is no
view. What the program prints meanwhile is left alone: redirecting it would send `print` to
another stream than the one it was meant for.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core import errors as _errors
from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import (
    items_completed,
    names,
    number,
    queues_in_order,
    stages_in_flow_order,
    verdict,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType
    from rich.table import Table
    from typing_extensions import Self

    from otel_pipeline_metrics.report.run_report import RunReport


WINDOW_S: Final = 10.0
"""Rates are those of the last ten seconds."""

STOP_S: Final = 1.0
"""How long `stop` waits for a terminal that takes no output."""


class Live:
    """Shows what `snapshot` returns every `interval` seconds; start it, stop it, or use `with`."""

    def __init__(
        self, snapshot: Callable[[], RunReport], *, interval: float = 0.5, stream: Any = None
    ) -> None:
        """Nothing is shown yet.

        Args:
            snapshot: returns the report as far as the run has got; called on a thread.
            interval: seconds between two pictures.
            stream: where to draw; standard error unless given.

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
        """Whether something is being drawn."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to draw, if the stream is a terminal that can."""
        if self._thread is not None:
            return
        with _errors.suppress_errors("the live view"):
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
        """Take the picture away. It may be called at any time, and again."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        # in a forked child there is no such thread, and the terminal is the parent's
        if thread is not None and os.getpid() == self._pid:
            thread.join(STOP_S)

    def _run(self, terminal: Console) -> None:
        with _errors.suppress_errors("the live view"):
            self._draw(terminal)

    def _draw(self, terminal: Console) -> None:
        from rich.live import Live as Picture

        history = History()
        picture = Picture(
            console=terminal,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            with picture:
                # a killed program must not leave a terminal without a cursor
                terminal.show_cursor(True)
                while True:
                    drawn = None
                    with _errors.suppress_errors("the live view"):
                        drawn = render_frame(self._snapshot(), history)
                    if drawn is None:
                        return
                    picture.update(drawn, refresh=True)
                    if self._stopping.wait(self._interval):
                        return
        except (OSError, ValueError) as error:
            # the terminal was closed under us, which is nobody's fault
            _errors.logger.debug("the live view ended: %r", error)


def _terminal(stream: Any) -> Console | None:
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return None
    except (AttributeError, ValueError):
        return None
    try:
        from rich.console import Console
    except ImportError:
        _errors.warn_once(
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
    """The counts of the last seconds, for rates."""

    def __init__(self) -> None:
        self._points: deque[_Point] = deque()

    def add(self, report: RunReport) -> None:
        """Remember how far the run is now."""
        now = clock.now()
        counts = {stage["name"]: _count(stage)[0] for stage in report.stages}
        self._points.append(_Point(now, counts, items_completed(report)))
        while len(self._points) > 2 and self._points[1].at <= now - WINDOW_S:
            self._points.popleft()

    def rate(self, name: str) -> float | None:
        """Return the items, or invocations, of a stage per second."""
        first, last = self._points[0], self._points[-1]
        return _ratio(last.counts.get(name, 0) - first.counts.get(name, 0), last.at - first.at)

    def finish_rate(self) -> float | None:
        """Return the items that reach the last stage per second."""
        first, last = self._points[0], self._points[-1]
        if last.finished is None:
            return None
        return _ratio(last.finished - (first.finished or 0), last.at - first.at)


def _ratio(part: float, of: float) -> float | None:
    return part / of if of > 0 else None


def _count(stage: dict[str, Any]) -> tuple[int, str]:
    items = console.stage_items(stage)
    return (items, "items") if items is not None else (whole(stage, "count") or 0, "calls")


def render_frame(report: RunReport, history: History) -> RenderableType:
    """Return the picture of a run as it is now."""
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
        parts.append(Text(console.printable(f"so far: {found.headline}")))
    return Group(*parts)


def _headline(report: RunReport) -> str:
    run = report.run
    errors = sum(whole(stage, "errors", "total") or 0 for stage in report.stages)
    said = f"{run.get('pipeline')}  {console.seconds(number(run, 'wall_s'))}"
    return console.printable(said) + (f"  {console.counted(errors, 'error')}" if errors else "")


def _progress(done: int, total: int, rate: float | None) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    said = f"{done:,} of {total:,}  {100 * min(1.0, done / total):.0f} %  {left(done, total, rate)}"
    row.add_row(ProgressBar(total=total, completed=min(done, total), width=30), Text(said))
    return row


def left(done: int, total: int, rate: float | None) -> str:
    """Return the time left, as far as the pace of late tells."""
    if done >= total:
        return "all in"
    return f"{console.seconds((total - done) / rate)} left" if rate else "time left unknown"


def _table(*head: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column, title in enumerate(head):
        words = column == 0 or title in {"from", "to"}
        table.add_column(title, justify="left" if words else "right", no_wrap=True)
    return table


def _stages(report: RunReport, history: History, marked: list[str]) -> RenderableType:
    from rich.text import Text

    table = _table(
        "stage", "done", "per s", "in flight", "p50", "busy", "idle", "blocked", "errors"
    )
    for stage in stages_in_flow_order(report):
        name = stage["name"]
        plain = console.printable(name)
        done, unit = _count(stage)
        table.add_row(
            Text(f"{plain} ◆" if name in marked else plain, style="bold" if name in marked else ""),
            f"{done:,} {unit}",
            console.rate(history.rate(name)),
            console.count(whole(stage, "in_flight")),
            console.seconds(number(stage, "duration_s", "p50")),
            *(console.percent(number(stage, "share", s)) for s in ("busy", "idle", "blocked")),
            console.count(whole(stage, "errors", "total")),
        )
    return table


def _queues(report: RunReport) -> RenderableType:
    from rich.text import Text

    def _listed(queue: dict[str, Any], key: str) -> Text:
        return Text(console.printable(", ".join(names(queue, key))) or console.UNKNOWN)

    table = _table("queue", "depth", "peak", "capacity", "wait p50", "from", "to")
    for queue in queues_in_order(report):
        now = number(queue, "depth")
        table.add_row(
            Text(console.printable(queue["name"])),
            console.depth(number(queue, "depth_avg") if now is None else now),
            console.depth(number(queue, "depth_peak")),
            console.capacity(queue),
            console.seconds(number(queue, "wait_s", "p50")),
            _listed(queue, "producers"),
            _listed(queue, "consumers"),
        )
    return table

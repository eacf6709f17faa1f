"""The live view: what it shows, and that it does not disturb the run."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics.report import RunReport, live, screen
from tests.report import samples

if TYPE_CHECKING:
    from tests.conftest import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def drawn(picture: object, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(picture)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def report(done: int, total: int | None = None) -> RunReport:
    made = samples.full_data()
    for stage in made["stages"]:
        stage["items"] = {"in": done, "out": done}
        stage["in_flight"] = 1
    made["run"] |= {"total": total, "result": None}
    return RunReport(made)


def test_a_frame_shows_progress_stages_queues_and_verdict(clock: Clock) -> None:
    history = live.History()
    live.render_frame(report(100, 1000), history)
    clock.advance(2)
    expected = """\
nightly  20.0 s  3 errors
━━━━━━━━━                      300 of 1,000  30 %  7.00 s left
stage         done  per s  in flight      p50  busy  idle  blocked  errors
fetch    300 items    100          1  2.01 ms  10 %   0 %     90 %       0
process  300 items    100          1  4.94 ms  25 %   1 %     74 %       3
write ◆  300 items    100          1  19.6 ms  98 %   2 %      0 %       0
queue   from     to       depth  peak  capacity  wait p50
pages   fetch    process    3.7     4         4   75.0 ms
parsed  process  write      3.9     4         4   78.1 ms
so far: write holds the run back (98 % busy)"""
    assert drawn(live.render_frame(report(300, 1000), history)) == expected


def test_on_a_narrow_terminal_columns_go_and_numbers_stay(clock: Clock) -> None:
    history = live.History()
    live.render_frame(report(100, 1000), history)
    clock.advance(2)
    expected = """\
nightly  20.0 s  3 errors
300 of 1,000  30 %  7.00 s left
stage         done  per s  errors
fetch    300 items    100       0
process  300 items    100       3
write ◆  300 items    100       0
queue   to       depth  capacity
pages   process    3.7         4
parsed  write      3.9         4
so far: write holds the run back (98 %
busy)"""
    assert drawn(live.render_frame(report(300, 1000), history), 40) == expected


def test_rates_cover_the_last_seconds(clock: Clock) -> None:
    history = live.History()
    for second in range(60):
        history.add(report(second * 10 if second < 40 else 400 + (second - 40) * 100))
        clock.advance(1)
    assert history.rate("write") == pytest.approx(100)
    assert history.finish_rate() == pytest.approx(100)
    assert history.rate("no such stage") == 0


@pytest.mark.parametrize(
    ("done", "rate", "expected"),
    [(50, 10.0, "5.00 s left"), (50, None, "time left unknown"), (50, 0.0, "time left unknown"),
     (100, 10.0, "all in"), (120, 10.0, "all in")],
)  # fmt: skip
def test_time_left(done: int, rate: float | None, expected: str) -> None:
    assert live.left(done, 100, rate) == expected


@pytest.mark.parametrize("made", [samples.bare(), samples.hostile(), samples.report()])
def test_every_report_has_a_frame(made: RunReport) -> None:
    assert drawn(live.render_frame(made, live.History()))


def test_the_view_draws_until_it_is_stopped_and_is_erased() -> None:
    stream, calls = Terminal(), []

    def snapshot() -> RunReport:
        calls.append(threading.current_thread().name)
        return report(len(calls))

    with live.Live(snapshot, interval=0.01, stream=stream) as view:
        wait_for(lambda: len(calls) > 3)
        assert view.shown
    assert not view.shown
    assert set(calls) == {"opm-live"}
    assert "nightly" in stream.getvalue()
    # in the end the lines are erased
    assert stream.getvalue().endswith("\x1b[2K")
    view.stop()


def test_nothing_is_shown_without_a_terminal() -> None:
    stream = io.StringIO()
    with live.Live(samples.full, stream=stream) as view:
        assert not view.shown
    assert stream.getvalue() == ""


def test_nothing_is_shown_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with live.Live(samples.full, stream=Terminal()) as view:
        assert not view.shown


def test_standard_streams_are_not_redirected() -> None:
    before = sys.stdout, sys.stderr
    calls: list[int] = []
    with live.Live(lambda: calls.append(1) or report(1), interval=0.01, stream=Terminal()):  # type: ignore[func-returns-value]
        wait_for(lambda: calls)
        assert (sys.stdout, sys.stderr) == before


def test_an_internal_error_ends_only_the_view(caplog: pytest.LogCaptureFixture) -> None:
    errors.raise_faults = False

    def snapshot() -> RunReport:
        raise KeyError("on purpose")

    with live.Live(snapshot, interval=0.01, stream=Terminal()) as view:
        wait_for(lambda: not view.shown)
    assert "internal error in the live view" in caplog.text


class Closed(Terminal):
    """A terminal that is closed after a while."""

    def write(self, text: str) -> int:
        if len(self.getvalue()) > 500:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_closed_terminal_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "otel_pipeline_metrics")
    with live.Live(lambda: report(1), interval=0.01, stream=Closed()) as view:
        wait_for(lambda: not view.shown)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert "the live view ended" in caplog.text


class Stuck(Terminal):
    """A terminal whose output is stopped with Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(20)
        return super().write(text)


def test_a_stopped_terminal_does_not_delay_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "STOP_S", 0.1)
    stream = Stuck()
    view = live.Live(lambda: report(1), interval=0.01, stream=stream)
    view.start()
    shown = view._screen
    assert shown is not None
    before = time.monotonic()
    view.stop()
    assert time.monotonic() - before < 5
    stream.go_on.set()
    wait_for(lambda: not shown.is_drawing)


def test_without_rich_the_log_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with live.Live(samples.full, stream=Terminal()) as view:
        assert not view.shown
    assert 'pip install "otel-pipeline-metrics[cli]"' in caplog.text


@pytest.mark.parametrize("interval", [0, -1])
def test_the_interval_must_be_positive(interval: float) -> None:
    with pytest.raises(ValueError, match="interval must be more than 0 s"):
        live.Live(samples.full, interval=interval)


@pytest.mark.parametrize(
    ("consumers", "expected"),
    [((["a", "b"],), 30), ((["a"], ["b"]), 20), ((), 20)],
    ids=["of one queue", "of a queue each", "no queue"],
)
def test_completed_items_add_up_only_over_stages_that_share_a_queue(
    consumers: tuple[list[str], ...], expected: int
) -> None:
    stages = [
        samples.stage(name, [1.0], kind="write", items=(items, None))
        for name, items in (("a", 10), ("b", 20))
    ]
    queues = [samples.queue(f"q{n}", ["x"], names) for n, names in enumerate(consumers)]
    assert live.items_completed(samples.report(*stages, queues=queues)) == expected

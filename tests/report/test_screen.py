"""Views and the program's own lines on one terminal: nothing is torn, nothing is lost."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from rich.text import Text

from otel_pipeline_metrics.report import screen, views

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    """A terminal of 60 columns, whose screen can be looked at."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        shown = pyte.Screen(60, 200)
        pyte.Stream(shown).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in shown.display if line.strip()]


def wait_for(condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


class View:
    """A view of lines; counts how often it was drawn."""

    def __init__(self, *lines: str) -> None:
        self.shown = Text("\n".join(lines))
        self.drawn = 0

    def __call__(self) -> Any:
        self.drawn += 1
        return self.shown


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    yield Terminal()
    assert screen._screens == {}


def use(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it stdout and stderr; not in the fixture, since pytest sets them for each phase."""
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)


def up(view: View, interval: float = 0.01) -> screen.Screen:
    shown = views.show(view, interval=interval)
    assert shown is not None
    wait_for(lambda: view.drawn > 1 or (interval > 1 and shown._drawn))
    return shown


def test_lines_of_every_way_are_whole_and_above_the_view(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    before = logging.StreamHandler()
    real = logging.StreamHandler(sys.stderr)
    log = logging.getLogger("of a library")
    log.propagate = False
    log.addHandler(before)
    view = View("one", "two")
    shown = up(view)
    assert before.stream is real.stream is sys.stderr is not terminal
    meanwhile = logging.StreamHandler()
    log.addHandler(meanwhile)
    directly = logging.StreamHandler(terminal)
    log.addHandler(directly)
    wait_for(lambda: directly.stream is not terminal)
    for number in range(20):
        print("printed", number)
        log.warning("logged %d", number)
        if number % 5 == 0:
            drawn = view.drawn
            wait_for(lambda seen=drawn: view.drawn > seen + 1)
    expected = [
        line for number in range(20) for line in [f"printed {number}", *[f"logged {number}"] * 3]
    ]
    wait_for(lambda: terminal.lines() == [*expected, "one", "two"])
    screen.hide(shown, view)
    assert terminal.lines() == expected
    assert before.stream is real.stream is meanwhile.stream is directly.stream is terminal
    log.handlers.clear()
    assert sys.stdout is sys.stderr is terminal


def test_lines_in_quick_succession_leave_the_view_there(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view, 60)
    for number in range(5):
        print("line", number)
    drawn = view.drawn
    wait_for(lambda: terminal.lines() == [*(f"line {n}" for n in range(5)), "view"])
    assert view.drawn == drawn  # the same picture again
    screen.hide(shown, view)


def test_two_views_share_the_terminal_and_end_in_any_order(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    first, second = View("first"), View("second")
    shown = up(first)
    assert up(second) is shown
    wait_for(lambda: terminal.lines() == ["first", "second"])
    screen.hide(shown, first)
    print("between")
    wait_for(lambda: terminal.lines() == ["between", "second"])
    screen.hide(shown, second)
    screen.hide(shown, second)
    assert terminal.lines() == ["between"]
    wait_for(lambda: not shown.is_drawing)
    again = View("again")
    later = up(again)
    assert later is not shown
    screen.hide(later, again)


def test_a_line_that_has_not_ended_is_shown_below_the_others(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view)
    print("begun", end="")
    print("\rbar 40 %", end="", flush=True)
    wait_for(lambda: terminal.lines() == ["bar 40 %", "view"])
    print(", ended")
    wait_for(lambda: terminal.lines() == ["bar 40 %, ended", "view"])
    print("rest", end="")
    screen.hide(shown, view)
    assert terminal.lines() == ["bar 40 %, ended", "rest"]


def test_a_stand_in_that_somebody_kept_goes_on(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view)
    kept: Any = sys.stdout
    assert kept.isatty()
    assert kept.getvalue() == terminal.getvalue() or kept.stream is terminal
    with pytest.raises(TypeError, match="argument must be str, not bytes"):
        kept.write(b"x")
    screen.hide(shown, view)
    kept.writelines(["late", "r\n"])
    kept.flush()
    assert terminal.lines() == ["later"]


def test_a_stream_that_the_program_replaced_meanwhile_stays(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view)
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    print("for the program")
    screen.hide(shown, view)
    assert sys.stdout is own
    assert own.getvalue() == "for the program\n"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)


def test_another_terminal_and_a_pipe_are_left_alone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    other = Terminal()
    view = View("view")
    shown = views.show(view, other, 0.01)
    assert shown is not None
    wait_for(lambda: view.drawn > 1)
    assert sys.stdout is terminal
    print("elsewhere")
    screen.hide(shown, view)
    assert (terminal.lines(), other.lines()) == (["elsewhere"], [])


def test_what_is_taller_than_the_terminal_is_cut_at_its_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    monkeypatch.setattr(screen, "_rows", lambda _: 5)
    view = View(*(f"line {n}" for n in range(9)))
    shown = up(view)
    assert terminal.lines() == [f"line {n}" for n in range(4)]
    screen.hide(shown, view)
    assert terminal.lines() == []


def test_a_signal_handler_may_write_while_a_line_is_written(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view, 60)
    with shown.lock:  # as in the middle of `write`, in the same thread
        print("from the handler")
        screen.hide(shown, view)
    assert terminal.lines() == ["from the handler"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_by_itself(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(terminal, monkeypatch)
    view = View("view")
    shown = up(view)
    read, write = os.pipe()
    with shown.lock:  # held by the thread that draws, at the moment of the fork
        blocker = threading.Thread(target=lambda: print("waits"))
        blocker.start()
        child = os.fork()
        if child == 0:
            try:
                before = terminal.getvalue()
                print("child")
                os.write(write, terminal.getvalue()[len(before) :].encode())
            finally:
                os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    blocker.join()
    screen.hide(shown, view)
    with os.fdopen(read, "rb") as said:
        assert said.read() == b"child\n"

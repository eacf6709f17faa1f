"""Draw views of what goes on at the bottom of the terminal, below what the program writes.

One daemon thread draws all views of a terminal. While there is one, `sys.stdout`, `sys.stderr` and
the handlers of `logging` that write to this terminal write through it: a line of theirs appears
whole above the views. No file descriptor is redirected, so what C code, child processes and
`sys.stdout.buffer` write is not kept apart. An internal error ends a view, never the program.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, output
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    View = Callable[[], "RenderableType | None"]


# how long the end of a view waits for a terminal that takes no output
STOP_S: Final = 1.0

# The program's lines come at once; below them, the views are drawn at most so often.
REDRAW_S: Final = 0.05

# The screens of this process that have views, by the id of their stream.
_screens: dict[int, Screen] = {}
# reentrant: a signal handler may end a run
_lock = threading.RLock()


def add(view: View, stream: Any, make: Callable[[], Screen]) -> Screen:
    """Show a view on the screen of a stream, which is made if need be; return that screen."""
    with _lock:
        screen = _screens.get(id(stream))
        if screen is None:
            screen = _screens[id(stream)] = make()
        screen.views.append(view)
        screen.begin()
        screen.wake.set()
    return screen


def hide(screen: Screen, view: View) -> None:
    """Remove a view; safe at any time, and repeatedly."""
    with _lock:
        if view not in screen.views:
            return
        screen.views.remove(view)
        screen.leave(view)
        if screen.views or _screens.get(id(screen.stream)) is not screen:
            screen.wake.set()
            return
        del _screens[id(screen.stream)]
    screen.end()


@atexit.register
def _at_exit() -> None:
    """End all views: a daemon thread must not write while the interpreter ends."""
    with _lock:
        found = list(_screens.values())
        _screens.clear()
    for screen in found:
        screen.views.clear()
        screen.end()


@forking.in_child
def _in_child() -> None:
    """Leave the terminal to the parent; streams that go through a screen go on."""
    global _lock
    _lock = threading.RLock()
    for screen in _screens.values():
        screen.lock = threading.RLock()
        screen.up = False
    _screens.clear()


class Screen:
    """The views on one terminal."""

    def __init__(self, stream: Any, console: Console, interval: float) -> None:
        self.stream = stream
        self.views: list[View] = []
        # set when a view ends, and when all have
        self.wake = threading.Event()
        # also held by each writer, so that lines and pictures do not mix
        self.lock = threading.RLock()
        self.up = False
        self._interval = interval
        self._console = console
        self._thread: threading.Thread | None = None
        # the picture, and how many lines of it are on the terminal
        self._picture = ""
        self._drawn = 0
        self._drawn_at = 0.0
        # whether a line has erased it, and it is to be drawn again soon
        self._erased = False
        # what stands in for a stream of this terminal, by the stream's id
        self._throughs: dict[int, Through] = {}

    @property
    def is_drawing(self) -> bool:
        """Whether the thread draws."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self) -> None:
        """Stand in for the program's streams, and begin to draw."""
        if self._thread is not None:
            return
        self.up = True
        self._stand_in()
        self._thread = threading.Thread(target=self._run, name="opm-live", daemon=True)
        self._thread.start()

    def leave(self, view: View) -> None:
        """Let a view go, which is not among `views` any more."""

    def end(self) -> None:
        """Erase the views, give the streams back, and wait a moment for the thread."""
        self.wake.set()
        self._give_back()
        self._clear()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def _clear(self) -> None:
        # without the lock: a terminal that takes no output must not hold up the program
        if not self.lock.acquire(timeout=STOP_S):
            self.up = False
            return
        try:
            self._erase()
            for through in self._throughs.values():
                through.finish()
        except (OSError, ValueError) as error:
            errors.logger.debug("the live view ended: %r", error)
        finally:
            self.up = False
            self.lock.release()

    def _run(self) -> None:
        with errors.suppress_errors("the live view"):
            try:
                while self.views and self.up:
                    self._stand_in()
                    self.wake.clear()
                    self._draw(self._pictures())
                    self._wait()
            except (OSError, ValueError) as error:
                # the terminal was closed meanwhile, which is not an error
                errors.logger.debug("the live view ended: %r", error)
        self.up = False
        with _lock:
            # a later view begins anew
            if _screens.get(id(self.stream)) is self:
                del _screens[id(self.stream)]
        self._give_back()

    def _wait(self) -> None:
        """Wait for the next picture; show the last one again that a line has erased."""
        end = clock.monotonic() + self._interval
        while self.views and self.up and self.wake.wait(max(0.0, end - clock.monotonic())):
            self.wake.clear()
            if not self._erased:
                return
            time.sleep(REDRAW_S)
            with self.lock:
                if self._erased and self.views and self.up:
                    self._redraw()

    def _pictures(self) -> list[RenderableType]:
        found = []
        for view in list(self.views):
            picture = None
            with errors.suppress_errors("the live view"):
                picture = view()
            if picture is not None:
                found.append(picture)
            elif view in self.views:
                hide(self, view)
        return found

    def _rendered(self, pictures: list[RenderableType], columns: int) -> str:
        with self._console.capture() as captured:
            for picture in pictures:
                self._console.print(picture, width=columns)
        return captured.get()

    # --- on the terminal ------------------------------------------------------------------------

    def _draw(self, pictures: list[RenderableType]) -> None:
        # the last column stays free: some terminals begin a new line after it
        columns = (output.columns(self.stream) or 80) - 1
        picture = self._rendered(pictures, columns)
        with self.lock:
            if self.up and self.views:
                self._picture = picture
                self._erase()
                self._redraw()

    def _redraw(self) -> None:
        lines = [through.begun() for through in self._throughs.values() if through.begun()]
        lines += self._picture.splitlines()
        # what has left the screen at the top could not be erased
        lines = lines[: max(1, _rows(self.stream) - 1)]
        self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()
        self._drawn, self._drawn_at = len(lines), clock.monotonic()
        self._erased = False

    def _erase(self) -> None:
        drawn, self._drawn = self._drawn, 0
        if drawn:
            self.stream.write("\r" + "\x1b[1A\x1b[2K" * drawn)
            self.stream.flush()

    def write(self, through: Through, text: str) -> None:
        """Write what the program does; whole lines above the views."""
        with self.lock:
            if not self.up:
                through.stream.write(text)
                return
            lines, end, through.rest = (through.rest + text).rpartition("\n")
            if not end:
                return
            self._erase()
            try:
                through.stream.write(f"{lines}\n")
                through.stream.flush()
            finally:
                if clock.monotonic() - self._drawn_at >= REDRAW_S:
                    self._redraw()
                else:
                    self._erased = True
                    self.wake.set()

    # --- the program's streams ------------------------------------------------------------------

    def _stand_in(self) -> None:
        for name in ("stdout", "stderr"):
            for stream in (getattr(sys, f"__{name}__"), getattr(sys, name)):
                if self._is_mine(stream) and id(stream) not in self._throughs:
                    self._throughs[id(stream)] = Through(self, stream)
            found = self._throughs.get(id(getattr(sys, name)))
            if found is not None and self.up:
                setattr(sys, name, found)
        for handler in _handlers():
            found = self._throughs.get(id(handler.stream))
            if found is not None and self.up:
                handler.stream = found

    def _give_back(self) -> None:
        for name in ("stdout", "stderr"):
            through = getattr(sys, name)
            if isinstance(through, Through) and through.screen is self:
                setattr(sys, name, through.stream)
        for handler in _handlers():
            through = handler.stream
            if isinstance(through, Through) and through.screen is self:
                handler.stream = through.stream

    def _is_mine(self, stream: Any) -> bool:
        if stream is self.stream:
            return True
        if isinstance(stream, Through) or not output.is_terminal(stream):
            return False
        try:
            mine, other = os.fstat(self.stream.fileno()), os.fstat(stream.fileno())
        except (AttributeError, OSError, ValueError):
            return False
        return mine.st_rdev == other.st_rdev


class Through:
    """Stands in for a stream of the program while there are views on its terminal."""

    def __init__(self, screen: Screen, stream: Any) -> None:
        self.screen = screen
        self.stream = stream
        # the begin of a line that has not ended
        self.rest = ""

    def write(self, text: str) -> int:
        """Write whole lines above the views; the rest waits for the end of its line."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.screen.write(self, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write all of them."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def begun(self) -> str:
        """Return what is shown of a line that has not ended, as of a bar of its own."""
        return self.rest.rpartition("\r")[2]

    def finish(self) -> None:
        """Write what waits for the end of its line."""
        rest, self.rest = self.rest, ""
        if rest:
            self.stream.write(rest)
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _handlers() -> list[Any]:
    """Return the handlers of `logging` whose stream can be set."""
    # every handler registers itself here; there is no public way to all of them
    known = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
    return [
        one for one in known if isinstance(one, logging.StreamHandler) and "stream" in vars(one)
    ]


def _rows(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).lines or 24
    except (AttributeError, OSError, ValueError):
        return 24

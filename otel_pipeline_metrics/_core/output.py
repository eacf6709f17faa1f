"""Write to a stream that may be closed, may lack characters, or may be the program's own."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Final

from otel_pipeline_metrics._core import errors, notebook

# what stands for these where an encoding has no such character
_PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys("\u2588\u2589\u258a\u258b\u258c", "#"),
        **dict.fromkeys("\u258d\u258e\u258f", " "),
        "\u00b5": "u",
        "\u2026": "...",
        "\u2192": "->",
        "\u25c6": "*",
    }
)


def write_line(stream: Any, message: str) -> bool:
    """Write a line to a stream, or to stderr for None; tell whether it was written.

    Characters that the stream's encoding lacks are replaced. In a notebook a line of another
    thread than the one of the cells waits for the next line there. A stream of the program may
    raise anything: that costs the line, and passes on only what somebody raised *into* it.
    """
    # looked up now, since tests and notebooks replace it; None under pythonw and in some daemons
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return False
    if notebook.holds(stream):
        notebook.hold(message)
        return True
    waiting = notebook.taken() if notebook.is_running() else []
    return _write("\n".join([*waiting, message]), stream)


def write_held() -> None:
    """Write what other threads had to say in a notebook, if this is the thread of the cells."""
    if notebook.is_running() and not notebook.holds(sys.stderr) and (waiting := notebook.taken()):
        _write("\n".join(waiting), sys.stderr)


def _write(message: str, stream: Any) -> bool:
    try:
        try:
            stream.write(f"{message}\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            plain = message.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
            stream.write(f"{plain}\n")
        if hasattr(stream, "flush"):
            stream.flush()
    except BaseException as error:
        if errors.raised_into(error):
            raise
        return False
    return True


def is_terminal(stream: Any) -> bool:
    """Tell whether somebody looks at the stream; one that is closed or odd is none."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def has_colours(stream: Any) -> bool:
    """Tell whether the stream shows colours, by NO_COLOR (https://no-color.org) and TERM."""
    dumb = os.environ.get("TERM", "").lower() in {"dumb", "unknown"}
    return is_terminal(stream) and not dumb and not os.environ.get("NO_COLOR")


def columns(stream: Any) -> int | None:
    """Return how many columns a terminal has; None: as many as wanted, it is not one."""
    if not is_terminal(stream):
        return None
    if os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, ValueError, OSError):
        return 80

"""Show a view where the program runs: on a terminal, or in the output of a notebook's cell."""

from __future__ import annotations

import functools
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import errors, notebook, output
from otel_pipeline_metrics.report.screen import Screen, Through, add, hide

if TYPE_CHECKING:
    from rich.console import Console

    from otel_pipeline_metrics.report.screen import View

__all__ = ["Screen", "hide", "show"]


def show(view: View, stream: Any = None, interval: float = 0.5) -> Screen | None:
    """Show what `view` returns, again and again, until `hide` or until it returns None.

    Args:
        view: returns the picture of a moment; called on the thread that draws.
        stream: a terminal; by default stderr.
        interval: seconds between two pictures, if this is the first view there.

    Returns:
        What shows it; None without a terminal, a notebook or rich.
    """
    stream = sys.stderr if stream is None else stream
    stream = stream.stream if isinstance(stream, Through) else stream
    in_notebook = stream is sys.stderr and notebook.is_running()
    if not in_notebook and not output.is_terminal(stream):
        return None
    if not in_notebook and os.environ.get("TERM") == "dumb":
        return None
    console = _console(None if in_notebook else stream)
    if console is None:
        return None
    kind = Screen
    if in_notebook:
        from otel_pipeline_metrics.report.notebook_screen import NotebookScreen

        kind = NotebookScreen
    return add(view, stream, functools.partial(kind, stream, console, interval))


def _console(stream: Any) -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        errors.warn_once(
            "live view",
            'the live view needs rich: pip install "otel-pipeline-metrics[cli]"',
        )
        return None
    if stream is None:  # in a notebook, where rich would show what it prints, and in colours
        stream = io.StringIO()
        return Console(file=stream, highlight=False, force_jupyter=False, color_system=None)
    return Console(file=stream, highlight=False, force_jupyter=False)

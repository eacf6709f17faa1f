"""SIGTERM while a run is in progress: its report is written and telemetry is flushed.

Python ends at SIGTERM without running anything. While a run lasts, and only where the program
has no handler of its own, ours writes the reports so far (`partial`), flushes within the flush
timeout, and then lets the signal end the process as it would have: the exit status is the same,
and no code of the program's runs that would not have run.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from otel_pipeline_metrics import _guard

if TYPE_CHECKING:
    from collections.abc import Callable


class Ending(Protocol):
    """A run, as far as this needs to know it."""

    def terminated(self) -> None:
        """Write the report as far as it has got."""


_runs: list[Ending] = []
at_end: list[Callable[[], None]] = []
"""Called after the reports are written; `configure()` puts its flush here."""


def watch(run: Ending) -> None:
    """Be ready for SIGTERM while `run` lasts, if this is the main thread and nobody else is."""
    _runs.append(run)
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _handle)


def forget(run: Ending) -> None:
    """Leave SIGTERM as it was once the last run is over."""
    if run in _runs:
        _runs.remove(run)
    if _runs or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(number: int, frame: Any) -> None:  # noqa: ARG001 - signal's signature
    for step in [run.terminated for run in list(_runs)] + list(at_end):
        with _guard.guarded("ending at SIGTERM"):
            step()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _in_child() -> None:
    # the parent's runs are the parent's to report
    _runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

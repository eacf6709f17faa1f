"""Write what managers hold if the process ends without `stop()`, also at SIGTERM."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.process import signals
from otel_pipeline_metrics.service.known_managers import managers

if TYPE_CHECKING:
    from otel_pipeline_metrics.service.manager import MetricsManager


_registered = False


def watch(manager: MetricsManager) -> None:
    """Let a manager write what it holds when the process ends."""
    global _registered  # set once
    if not _registered:
        _registered = True
        atexit.register(_at_exit)
    signals.watch(manager)


def forget(manager: MetricsManager) -> None:
    """Leave a manager alone: it has stopped."""
    signals.forget(manager)


def _at_exit() -> None:
    for manager in list(managers):
        with errors.suppress_errors("writing the last operations"):
            manager.end()

"""An exporter of this process alone: a forked child uses none of its parent's connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics import _fork

if TYPE_CHECKING:
    from collections.abc import Callable


class PerProcess:
    """Holds an exporter, and makes another one in a forked child that has something to export.

    Not before, so a child that exports nothing opens no connection. The parent's is kept and never
    touched: to end a gRPC channel or a connection that the parent still uses would be its end there
    too.

    Args:
        exporter: that of the process that configures.
        again: makes one like it; None: it has no connection, and a child may use it too.
    """

    def __init__(self, exporter: Any, again: Callable[[], Any] | None) -> None:
        self._exporter = exporter
        self._again = again
        self._inherited: list[Any] = []
        self._lock = threading.Lock()
        _fork.watch(self)

    def after_fork(self) -> None:
        """Leave the exporter to the parent."""
        self._lock = threading.Lock()
        if self._again is not None:
            self._inherited.append(self._exporter)
            self._exporter = None

    @property
    def made(self) -> Any:
        """The exporter of this process; None where it has exported nothing yet."""
        return self._exporter

    def get(self) -> Any:
        """Return the exporter of this process."""
        with self._lock:
            if self._exporter is None and self._again is not None:
                self._exporter = self._again()
            return self._exporter

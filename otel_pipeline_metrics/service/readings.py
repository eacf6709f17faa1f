"""Read the resources of a service at its own interval, for their averages and peaks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors, settings
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.resources.monitor import ResourceMonitor
from otel_pipeline_metrics._telemetry import sink

if TYPE_CHECKING:
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


class ServiceReadings:
    """The monitor of the process's service; `readings` is the only one."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget the monitor, whose thread is the parent's; the next `keep()` makes one."""
        self._lock = threading.RLock()
        self._monitor: ResourceMonitor | None = None

    def keep(self) -> None:
        """Read at the interval that the settings ask for, if they ask for any."""
        asked = settings.settings()
        with self._lock, errors.suppress_errors("reading a service's resources"):
            found = self._monitor
            wanted = asked.monitoring_interval_s if asked.monitoring_enabled else None
            if wanted == (None if found is None else found.interval):
                return
            self.stop()
            if wanted is not None:
                self._monitor = ResourceMonitor(wanted)
                self._monitor.start()

    def stop(self) -> None:
        """Read no more."""
        with self._lock:
            found, self._monitor = self._monitor, None
            if found is not None:
                found.stop()

    def follow(self, _: InstrumentSet) -> None:
        """Follow the settings of the next `configure()`."""
        self.keep()


readings: Final = ServiceReadings()


def watch() -> None:
    """Read from now on."""
    # a probe is installed anew by each `configure()`
    sink.add_probe("service readings", readings.follow)
    readings.keep()

"""A thread that looks at the process's resources at a fixed interval and sums up what it saw."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.resources import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from otel_pipeline_metrics._probes.resources.reading import ResourceReading


MAX_READINGS: Final = 720
"""Readings kept: an hour at the default interval. The summary covers the older ones too."""

_JOIN_S: Final = 1.0

_Num = TypeVar("_Num", int, float)


@dataclass(frozen=True)
class ResourceSummary:
    """What a `ResourceMonitor` saw between its start and its latest reading; None is unknown."""

    samples: int = 0
    elapsed_s: float = 0.0
    cpu_utilization_avg: float | None = None
    """CPU time over the whole period and the CPUs available: 0 to 1, not a mean of samples."""
    cpu_utilization_peak: float | None = None
    """The busiest interval between two samples."""
    rss_bytes_avg: float | None = None
    """Weighted by time."""
    rss_bytes_peak: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    network_receive_bytes: int | None = None
    """Of the host or network namespace, like `network_transmit_bytes`."""
    network_transmit_bytes: int | None = None


@dataclass(frozen=True)
class _Totals:
    """The running aggregates, replaced whole, so that a summary needs no lock."""

    first: probe.Sample
    last: probe.Sample
    samples: int = 1
    cpu_peak: float | None = None
    rss_peak: int | None = None
    rss_area: float = 0.0
    rss_s: float = 0.0

    def plus(self, sample: probe.Sample) -> _Totals:
        """Return the aggregates with one more sample."""
        before, now = self.last.reading, sample.reading
        area, seconds = self.rss_area, self.rss_s
        if before.rss_bytes is not None and now.rss_bytes is not None:
            elapsed = max(0.0, now.at - before.at)
            area += elapsed * (before.rss_bytes + now.rss_bytes) / 2
            seconds += elapsed
        return replace(
            self,
            last=sample,
            samples=self.samples + 1,
            cpu_peak=_larger(self.cpu_peak, now.cpu_utilization),
            rss_peak=_larger(self.rss_peak, now.rss_bytes),
            rss_area=area,
            rss_s=seconds,
        )

    def summary(self) -> ResourceSummary:
        first, last = self.first.reading, self.last.reading
        rss = self.rss_area / self.rss_s if self.rss_s > 0 else self.rss_peak
        cpu_average = self._cpu_average()
        return ResourceSummary(
            samples=self.samples,
            elapsed_s=max(0.0, last.at - first.at),
            cpu_utilization_avg=cpu_average,
            # a period too short for a window of its own is its own peak
            cpu_utilization_peak=_larger(self.cpu_peak, cpu_average),
            rss_bytes_avg=rss,
            rss_bytes_peak=self.rss_peak,
            disk_read_bytes=_rise(first.disk_read_bytes, last.disk_read_bytes),
            disk_write_bytes=_rise(first.disk_write_bytes, last.disk_write_bytes),
            network_receive_bytes=_rise(first.network_receive_bytes, last.network_receive_bytes),
            network_transmit_bytes=_rise(first.network_transmit_bytes, last.network_transmit_bytes),
        )

    def _cpu_average(self) -> float | None:
        possible = self.last.capacity_s - self.first.capacity_s
        if self.first.cpu_s is None or self.last.cpu_s is None or possible <= 0:
            return None
        return min(1.0, max(0.0, self.last.cpu_s - self.first.cpu_s) / possible)


class ResourceMonitor(AsyncContextMixin):
    """Samples CPU, memory, disk and network of this process in a daemon thread.

    ```python
    with ResourceMonitor(interval=1.0) as monitor:
        work()
    print(monitor.summary().cpu_utilization_peak)
    ```

    `async with` works too. It needs no OpenTelemetry SDK and exports nothing. A forked child
    starts with the monitor stopped.

    Args:
        interval: seconds between two samples.
        on_reading: called with every reading: with the first in the thread that starts the
            monitor, with the last in the one that stops it, with the others in the monitor's.

    Raises:
        TypeError: `interval` is no number or `on_reading` cannot be called.
        ValueError: `interval` is not finite or not above 0.
    """

    def __init__(
        self,
        interval: float = 5.0,
        *,
        on_reading: Callable[[ResourceReading], None] | None = None,
    ) -> None:
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            raise TypeError(f"interval must be a number, not {type(interval).__name__}")
        if not math.isfinite(interval) or interval <= 0:
            raise ValueError(f"interval must be a finite number above 0, not {interval!r}")
        if on_reading is not None and not callable(on_reading):
            raise TypeError(f"on_reading must be callable, not {type(on_reading).__name__}")
        self._interval = interval
        self._on_reading = on_reading
        self._lock = threading.RLock()
        self._session: _Session | None = None
        self._totals: _Totals | None = None
        self._readings: deque[ResourceReading] = deque(maxlen=MAX_READINGS)
        forking.watch(self)

    @property
    def running(self) -> bool:
        """Whether the monitor takes samples in this process."""
        return self._session is not None

    @property
    def readings(self) -> list[ResourceReading]:
        """The latest readings, oldest first; at most `MAX_READINGS` of them."""
        with self._lock:
            return list(self._readings)

    @property
    def latest(self) -> ResourceReading | None:
        """The latest reading; None before the first start."""
        totals = self._totals
        return None if totals is None else totals.last.reading

    def summary(self) -> ResourceSummary:
        """Return what was seen since the latest start; cheap, and callable while it runs."""
        totals = self._totals
        return ResourceSummary() if totals is None else totals.summary()

    def start(self) -> None:
        """Take the first sample and go on in a thread. A second start warns and does nothing."""
        with self._lock:
            if self._session is not None:
                errors.logger.warning("this ResourceMonitor is already running; start() ignored")
                return
            session = self._session = _Session(probe.shared().reader())
            self._totals = None
            self._readings.clear()
        self._take(session)
        session.thread = threading.Thread(
            target=self._run, args=(session,), name="otel-pipeline-metrics-resources", daemon=True
        )
        with errors.suppress_errors(
            "ResourceMonitor.start"
        ):  # no thread left: first and last sample only
            session.thread.start()

    def stop(self) -> None:
        """Take the last sample and end the thread. Without a start, nothing happens."""
        with self._lock:
            session = self._session
            if session is None or session.stopping.is_set():
                return
            session.stopping.set()
        thread = session.thread
        try:
            # on_reading may stop the monitor from its own thread, which cannot wait for itself
            if (
                thread is not None
                and thread.is_alive()
                and thread is not threading.current_thread()
            ):
                thread.join(_JOIN_S)
            self._take(session)
        finally:
            with self._lock:
                if self._session is session:
                    self._session = None

    def after_fork(self) -> None:
        """Be stopped: the thread stayed in the parent, maybe while it held the lock."""
        self._lock = threading.RLock()
        self._session = None

    def _run(self, session: _Session) -> None:
        while not session.stopping.wait(self._interval):
            self._take(session)

    def _take(self, session: _Session) -> None:
        with errors.suppress_errors("ResourceMonitor"):
            sample = session.reader.sample()
            with self._lock:
                if self._session is not session:  # stopped while a slow on_reading ran
                    return
                totals = self._totals
                self._totals = (
                    _Totals(sample, sample, rss_peak=sample.reading.rss_bytes)
                    if totals is None
                    else totals.plus(sample)
                )
                self._readings.append(sample.reading)
            self._tell(sample.reading)

    def _tell(self, reading: ResourceReading) -> None:
        if self._on_reading is None:
            return
        try:
            self._on_reading(reading)
        except Exception as error:  # the user's fault must not end the sampling
            said = privacy.sanitized_message(error, repr)
            errors.warn_once("ResourceMonitor.on_reading", "on_reading raised %s, said once", said)

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


class _Session:
    """One period from start to stop."""

    def __init__(self, reader: probe.ResourceReader) -> None:
        self.reader = reader
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None


def _larger(one: _Num | None, other: _Num | None) -> _Num | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _rise(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else max(0, last - first)

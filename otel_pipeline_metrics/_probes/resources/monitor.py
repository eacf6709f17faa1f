"""Read the process's resources in a thread at a fixed interval, and sum them up."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin, Done
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import check_positive
from otel_pipeline_metrics._probes.resources import levels, probe, ticker, window
from otel_pipeline_metrics._probes.resources.contention import Contention
from otel_pipeline_metrics._probes.resources.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from otel_pipeline_metrics._probes.resources.reading import ResourceReading


# An hour at the default interval. The summary covers older readings too.
MAX_READINGS: Final = 720

_Num = TypeVar("_Num", int, float)


@dataclass(frozen=True)
class ResourceSummary:
    """Resources used between a monitor's start and latest reading; None is unknown."""

    samples: int = 0
    elapsed_s: float = 0.0
    # CPU time over the whole period and the CPUs available: 0 to 1, not a mean of samples
    cpu_utilization_avg: float | None = None
    # the busiest interval between two samples
    cpu_utilization_peak: float | None = None
    # CPU seconds of child processes, and of theirs
    children_cpu_s: float | None = None
    # the busy part of all the host's CPUs, of all processes
    system_cpu_utilization_avg: float | None = None
    # weighted by time
    rss_bytes_avg: float | None = None
    rss_bytes_peak: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    # of the host or network namespace, both of them
    network_receive_bytes: int | None = None
    network_transmit_bytes: int | None = None
    # the share of time in which a thread holds the GIL, and the random moments it comes from
    gil_held: float | None = None
    gil_held_samples: int = 0
    # the share of moments at which a thread that is ready has no CPU, and their number
    run_delay: float | None = None
    run_delay_samples: int = 0
    # the moments among them at which one had none, also of too few for a share
    run_delay_waited: int = 0


@dataclass(frozen=True)
class _Totals:
    """The running sums; they are replaced as a whole, so a summary needs no lock."""

    first: probe.Sample
    last: probe.Sample
    samples: int = 1
    cpu_peak: float | None = None
    rss_peak: int | None = None
    rss_area: float = 0.0
    rss_s: float = 0.0
    contention: Contention = field(default_factory=Contention)

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
            children_cpu_s=_rise(self.first.children_s, self.last.children_s),
            system_cpu_utilization_avg=self._system_average(),
            rss_bytes_avg=rss,
            rss_bytes_peak=self.rss_peak,
            disk_read_bytes=_rise(first.disk_read_bytes, last.disk_read_bytes),
            disk_write_bytes=_rise(first.disk_write_bytes, last.disk_write_bytes),
            network_receive_bytes=_rise(first.network_receive_bytes, last.network_receive_bytes),
            network_transmit_bytes=_rise(first.network_transmit_bytes, last.network_transmit_bytes),
            gil_held=self.contention.gil_held_share,
            gil_held_samples=self.contention.gil_samples,
            run_delay=self.contention.run_delay_share,
            run_delay_samples=self.contention.cpu_samples,
            run_delay_waited=self.contention.cpu_waited,
        )

    def _cpu_average(self) -> float | None:
        possible = self.last.capacity_s - self.first.capacity_s
        if self.first.cpu_s is None or self.last.cpu_s is None or possible <= 0:
            return None
        return min(1.0, max(0.0, self.last.cpu_s - self.first.cpu_s) / possible)

    def _system_average(self) -> float | None:
        possible = self.last.system_total_s - self.first.system_total_s
        busy = _rise(self.first.system_busy_s, self.last.system_busy_s)
        if busy is None or possible < window.MINIMUM_S:  # the kernel counts ticks
            return None
        return min(1.0, busy / possible)


class ResourceMonitor(AsyncContextMixin):
    """A sampler of CPU, memory, disk and network of this process.

    A daemon thread takes the samples. Monitors with the same interval share it; one with
    `on_reading` has its own, which a slow function delays for no other.

    ```python
    with ResourceMonitor(interval=1.0) as monitor:
        work()
    print(monitor.summary().cpu_utilization_peak)
    ```

    `async with` works too. The monitor needs no OpenTelemetry SDK and exports nothing. It is
    stopped in a forked child.

    Args:
        interval: seconds between two samples.
        on_reading: called with every reading: the first in the thread that starts the monitor,
            the last in the thread that stops it, the others in the monitor's own thread.

    Raises:
        TypeError: `interval` is not a number or `on_reading` is not callable.
        ValueError: `interval` is not finite or not above 0.
    """

    def __init__(
        self,
        interval: float = 5.0,
        *,
        on_reading: Callable[[ResourceReading], None] | None = None,
    ) -> None:
        self._interval = check_positive(interval, "interval")
        if on_reading is not None and not callable(on_reading):
            raise TypeError(f"on_reading must be callable, not {type(on_reading).__name__}")
        self._on_reading = on_reading
        self._lock = threading.RLock()
        self._session: _Session | None = None
        self._totals: _Totals | None = None
        self._readings: deque[ResourceReading] = deque(maxlen=MAX_READINGS)
        forking.watch(self)

    @property
    def running(self) -> bool:
        """True while the monitor takes samples in this process."""
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

    @property
    def interval(self) -> float:
        """Seconds between two samples."""
        return self._interval

    @property
    def latest_sample(self) -> probe.Sample | None:
        """The latest sample with its rising counters; not for users."""
        totals = self._totals
        return None if totals is None else totals.last

    def summary(self) -> ResourceSummary:
        """Return a summary since the latest start; it is cheap, and allowed while running."""
        totals = self._totals
        return ResourceSummary() if totals is None else totals.summary()

    def start(self) -> Done:
        """Take the first sample and start the thread. A second start only warns.

        It may be awaited, which does nothing more.
        """
        with self._lock:
            if self._session is not None:
                errors.logger.warning("this ResourceMonitor runs already; start() is ignored")
                return Done()
            own = self._on_reading is not None
            session = self._session = _Session(
                probe.shared().reader(),
                Ticker(self._interval) if own else ticker.shared(self._interval),
            )
            self._totals = None
            self._readings.clear()
        self._take(session)
        try:
            session.ticker.add(session, lambda: self._tick(session))
        except RuntimeError as error:  # the system, or a subinterpreter, refuses a thread
            message = "resources are sampled only at the start and at the end: %s"
            errors.warn_once("ResourceMonitor.start", message, error)
        return Done()

    def stop(self) -> Done:
        """Take the last sample and end the thread; before a start, do nothing.

        It may be awaited, which does nothing more.
        """
        with self._lock:
            session = self._session
            if session is None or session.stopping:
                return Done()
            session.stopping = True
        try:
            session.ticker.remove(session)
            self._take(session)
        finally:
            with self._lock:
                if self._session is session:
                    self._session = None
        return Done()

    def after_fork(self) -> None:
        """Stop: the thread exists only in the parent, and may have held the lock."""
        self._lock = threading.RLock()
        self._session = None

    def _tick(self, session: _Session) -> None:
        if not session.stopping:
            self._take(session, min(probe.SHARED_AGE_S, self._interval / 10))

    def _take(self, session: _Session, max_age_s: float = 0.0) -> None:
        with errors.suppress_errors("ResourceMonitor"):
            # held while reading too, so that samples of two threads come in order
            with self._lock:
                if self._session is not session:  # stopped during a slow on_reading
                    return
                sample = session.reader.sample(max_age_s)
                totals = self._totals
                totals = (
                    _Totals(sample, sample, rss_peak=sample.reading.rss_bytes)
                    if totals is None
                    else totals.plus(sample)
                )
                self._totals = replace(totals, contention=session.contention())
                self._readings.append(sample.reading)
            levels.sampled.add(sample.reading)
            self._call_back(sample.reading)

    def _call_back(self, reading: ResourceReading) -> None:
        if self._on_reading is None:
            return
        try:
            self._on_reading(reading)
        except BaseException as error:  # an error of the user's must not end the sampling
            if errors.raised_into(error):
                raise
            text = privacy.sanitized_message(error, repr)
            message = "on_reading raised %s; further errors of it are not logged"
            errors.warn_once("ResourceMonitor.on_reading", message, text)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stop()


class _Session:
    """One period from start to stop."""

    def __init__(self, reader: probe.ResourceReader, ticker: Ticker) -> None:
        self.reader = reader
        self.ticker = ticker
        self.stopping = False
        self._before = ticker.contention.counts

    def contention(self) -> Contention:
        """Return what the ticker's thread found at random moments since the start."""
        return self.ticker.contention.counts.since(self._before)


def _larger(one: _Num | None, other: _Num | None) -> _Num | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _rise(first: _Num | None, last: _Num | None) -> _Num | None:
    return None if first is None or last is None else max(last - first, 0)

"""What this process and its host use, read once for every reader that asks at the same time."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import check_number
from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._probes.resources.reading import ResourceReading
from otel_pipeline_metrics._probes.resources.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable


_LOCK_TIMEOUT_S: Final = 0.1
"""A reading takes a fraction of a millisecond: whoever waits longer gets the one before."""

_LIMITS_MAX_AGE_S: Final = 60.0
"""A container's limits may change while it runs, but seldom do."""


class Sample(NamedTuple):
    """A reading and the rising counters behind it, for readers with a window of their own."""

    reading: ResourceReading
    epoch: int
    """Changes after a fork."""
    cpu_s: float | None
    """CPU seconds of this process."""
    capacity_s: float
    """CPU seconds that this process could have used since the probe's first look."""
    system_busy_s: float | None
    system_total_s: float


class ResourceProbe:
    """Reads psutil and `getrusage`; what cannot be read is None and said once.

    Thread-safe, and safe in a forked child, which starts with nothing read. Use `shared()`:
    there is nothing to gain from a second probe.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._reset()
        forking.watch(self)

    def _reset(self) -> None:
        # Re-entrant, as a signal handler or a gc callback may read while its thread does.
        self._lock = threading.RLock()
        self._reading = False
        self._last: Sample | None = None
        self._process: Any = None
        self._process_window = Window()
        self._system_window = Window()
        self._capacity_s = 0.0
        self._cpus = 1.0
        self._cpus_at: float | None = None
        self._network = MonotonicCounter(), MonotonicCounter()

    def after_fork(self) -> None:
        """Forget the parent's PID, lock and counters."""
        self._epoch += 1
        self._reset()

    def read(self, max_age_s: float = 0.0) -> ResourceReading:
        """Return what is in use now, or the last reading if it is no older than `max_age_s`.

        `cpu_utilization` and `system_cpu_utilization` are over the time since the reading
        before, whoever asked for it; a reader that wants its own window takes `reader()`.
        """
        return self.sample(max_age_s).reading

    def reader(self) -> ResourceReader:
        """Return a view whose utilisations cover the time between its own readings."""
        return ResourceReader(self)

    def sample(self, max_age_s: float = 0.0) -> Sample:
        """Return a reading as `read` does, with the counters behind it."""
        lock = self._lock
        if not lock.acquire(timeout=_LOCK_TIMEOUT_S):
            return self._last or self._nothing()
        try:
            last = self._last
            if self._reading:  # this very thread is reading, further up its stack
                return last or self._nothing()
            if last is not None and clock.now() - last.reading.at <= max_age_s > 0:
                return last
            self._reading = True
            try:
                self._last = sample = self._take()
            finally:
                self._reading = False
            return sample
        finally:
            lock.release()

    def _nothing(self) -> Sample:
        return Sample(ResourceReading(clock.now()), self._epoch, None, 0.0, None, 0.0)

    def _take(self) -> Sample:
        at = clock.now()
        self._refresh_cpus(at)
        fields: dict[str, Any] = {}
        system_busy_s: float | None = None
        system_total_s = 0.0
        psutil = read_or_none("psutil", _import_psutil)
        process = read_or_none("the process", self._own_process, psutil)
        usage = read_or_none("CPU time", _process_usage, process)
        if usage is not None:
            fields |= usage
        if process is not None:
            fields |= _process_fields(process)
        if psutil is not None:
            fields |= self._network_fields(psutil)
            fields |= read_or_none("the host's memory", _memory_fields, psutil) or {}
            times = read_or_none("the host's CPU time", _system_cpu, psutil)
            if times is not None:
                system_busy_s, system_total_s = times
        cpu_s = None if usage is None else usage["cpu_user_s"] + usage["cpu_system_s"]
        if self._last is not None:
            self._capacity_s += max(0.0, at - self._last.reading.at) * self._cpus
        capacity_s = self._capacity_s
        reading = ResourceReading(
            at=at,
            cpu_utilization=self._process_window.advance(self._epoch, at, cpu_s, capacity_s),
            system_cpu_utilization=self._system_window.advance(
                self._epoch, at, system_busy_s, system_total_s
            ),
            **fields,
        )
        return Sample(reading, self._epoch, cpu_s, capacity_s, system_busy_s, system_total_s)

    def _own_process(self, psutil: Any) -> Any:
        if self._process is None and psutil is not None:
            self._process = psutil.Process()
        return self._process

    def _refresh_cpus(self, at: float) -> None:
        if self._cpus_at is None or at - self._cpus_at > _LIMITS_MAX_AGE_S:
            self._cpus_at = at
            found = read_or_none("the CPU limit", cgroup.limits)
            self._cpus = found.cpus if found is not None else 1.0

    def _network_fields(self, psutil: Any) -> dict[str, Any]:
        # nowrap=True takes a lock inside psutil and only helps 32-bit kernels
        count = read_or_none("network counters", lambda: psutil.net_io_counters(nowrap=False))
        if count is None:  # no network interface at all
            return {}
        receive, transmit = self._network
        return {
            "network_receive_bytes": receive.update(count.bytes_recv),
            "network_transmit_bytes": transmit.update(count.bytes_sent),
        }


class ResourceReader:
    """One reader's view of a probe: its utilisations reach back to its own last reading."""

    def __init__(self, probe: ResourceProbe) -> None:
        self._probe = probe
        self._process = Window()
        self._system = Window()

    def sample(self, max_age_s: float = 0.0) -> Sample:
        """Return the probe's sample with this reader's utilisations."""
        sample = self._probe.sample(max_age_s)
        at, epoch = sample.reading.at, sample.epoch
        reading = replace(
            sample.reading,
            cpu_utilization=self._process.advance(epoch, at, sample.cpu_s, sample.capacity_s),
            system_cpu_utilization=self._system.advance(
                epoch, at, sample.system_busy_s, sample.system_total_s
            ),
        )
        return sample._replace(reading=reading)

    def read(self, max_age_s: float = 0.0) -> ResourceReading:
        """Return the probe's reading with this reader's utilisations."""
        return self.sample(max_age_s).reading


class MonotonicCounter:
    """A total that stays where it is when its source falls: an interface went away."""

    def __init__(self) -> None:
        self._offset = 0
        self._last = 0

    def update(self, value: int) -> int:
        self._offset += max(0, self._last - value)
        self._last = value
        return self._offset + value


def read_or_none(what: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `read` gives, or None where this platform, container or moment forbids it."""
    try:
        return read(*arguments)
    except Exception as error:  # psutil's errors differ by platform
        errors.warn_once(f"resources: {what}", "cannot read %s, left out: %r", what, error)
        return None


def call_or_none(process: Any, method: str) -> Any:
    # looked up where errors are caught, since a platform may not have the method at all
    return read_or_none(f"psutil's {method}", methodcaller(method), process)


def _import_psutil() -> Any:
    import psutil

    return psutil


def _process_usage(process: Any) -> dict[str, Any]:
    """Return CPU times and context switches.

    `getrusage` is asked first: it counts in microseconds where /proc counts in ticks of 10 ms,
    it counts the context switches of all threads where psutil counts those of the main one,
    and it costs 1 µs instead of 50.
    """
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        times = process.cpu_times()
        return {"cpu_user_s": times.user, "cpu_system_s": times.system}
    usage = getrusage(RUSAGE_SELF)
    return {
        "cpu_user_s": usage.ru_utime,
        "cpu_system_s": usage.ru_stime,
        "context_switches_voluntary": usage.ru_nvcsw,
        "context_switches_involuntary": usage.ru_nivcsw,
    }


def _process_fields(process: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "thread_count": call_or_none(process, "num_threads"),
        "fd_count": call_or_none(process, "num_fds"),
    }
    memory = call_or_none(process, "memory_info")
    if memory is not None:
        fields |= {"rss_bytes": memory.rss, "vms_bytes": memory.vms}
    disk = call_or_none(process, "io_counters")
    if disk is not None:
        fields |= {"disk_read_bytes": disk.read_bytes, "disk_write_bytes": disk.write_bytes}
    return fields


def _memory_fields(psutil: Any) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        "system_memory_used_bytes": memory.used,
        "system_memory_utilization": memory.used / memory.total,
    }


def _system_cpu(psutil: Any) -> tuple[float, float]:
    """Return (busy, total) CPU seconds of the host, waiting for a disk counted as idle."""
    times = psutil.cpu_times()._asdict()
    # Linux counts guests' time in user and nice already
    total = sum(value for mode, value in times.items() if not mode.startswith("guest"))
    return total - times["idle"] - times.get("iowait", 0.0), total


_probes: dict[str, ResourceProbe] = {}


def shared() -> ResourceProbe:
    """Return the process's one probe, made on first use."""
    probe = _probes.get("shared")
    # setdefault is atomic, so that no lock is needed: who loses the race drops an unused probe
    return probe or _probes.setdefault("shared", ResourceProbe())


_manual = ResourceReading(at=-math.inf)


def record_manual(*, cpu_utilization: float | None = None, rss_bytes: int | None = None) -> None:
    """Keep what a program measured itself, for metrics where psutil is off.

    Args:
        cpu_utilization: 1 is all that the caller counts as available, and it is passed on as
            given, since programs that count each CPU as 1 go above; None keeps the last one.
        rss_bytes: resident memory; None keeps the last one.

    Raises:
        TypeError: a value is no number.
        ValueError: a value is negative or not finite.
    """
    global _manual  # replaced whole, never mutated
    changes: dict[str, Any] = {}
    if cpu_utilization is not None:
        changes["cpu_utilization"] = check_number(cpu_utilization, "cpu_utilization")
    if rss_bytes is not None:
        changes["rss_bytes"] = int(check_number(rss_bytes, "rss_bytes"))
    _manual = replace(_manual, at=clock.now(), **changes)


def manual() -> ResourceReading:
    """Return what `record_manual` keeps."""
    return _manual

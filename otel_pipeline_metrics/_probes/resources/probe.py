"""Read the process and its host, once for readers that ask at the same time."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors, settings
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._probes.resources import cgroup, children
from otel_pipeline_metrics._probes.resources.reading import ResourceReading
from otel_pipeline_metrics._probes.resources.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable


# Readers that ask at the same moment, such as two exporters, share one reading.
SHARED_AGE_S: Final = 0.05

# A reading takes a fraction of a millisecond; a thread that waits longer gets the previous one.
_LOCK_TIMEOUT_S: Final = 0.1

# A container's limits may change while it runs, but seldom do.
_LIMITS_MAX_AGE_S: Final = 60.0


class Sample(NamedTuple):
    """A reading and its rising counters, for readers with a window of their own."""

    reading: ResourceReading
    # changes after a fork
    epoch: int
    # CPU seconds of this process
    cpu_s: float | None
    # CPU seconds that this process could have used since the probe's first reading or the fork
    capacity_s: float
    system_busy_s: float | None
    system_total_s: float
    # the time of the fork that this process began with, if it began with one
    began: float | None = None
    # CPU seconds of its child processes, and of theirs
    children_s: float | None = None


class ResourceProbe:
    """A reader of psutil and `getrusage`; use the one that `shared()` returns.

    A value that cannot be read is None, with one warning. Threads and forked children may use
    it; a child starts without a reading.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._reset()
        forking.watch(self)

    def _reset(self) -> None:
        # re-entrant, since a signal handler or a gc callback may read while its thread does
        self._lock = threading.RLock()
        self._reading = False
        self._last: Sample | None = None
        self._process: Any = None
        self._began: float | None = None
        self._process_window = Window(exact=True)
        self._system_window = Window()
        self._capacity_s = 0.0
        self._cpus = 1.0
        self._cpus_at: float | None = None
        self._network = MonotonicCounter(), MonotonicCounter()
        self._disks = MonotonicCounter(), MonotonicCounter()

    def after_fork(self) -> None:
        self._epoch += 1
        self._reset()
        self._began = clock.now()

    def read(self, max_age_s: float = 0.0) -> ResourceReading:
        """Return a reading, or the last one if it is no older than `max_age_s`.

        Its utilisations cover the time since the previous reading by any reader; those of a
        `reader()` cover the time since its own.
        """
        return self.sample(max_age_s).reading

    def reader(self) -> ResourceReader:
        """Return a view whose utilisations cover the time between its own readings."""
        return ResourceReader(self)

    def sample(self, max_age_s: float = 0.0) -> Sample:
        """Return the reading that `read()` returns, with the counters behind it."""
        if not settings.settings().monitoring_enabled:
            return self._nothing()
        lock = self._lock
        if not lock.acquire(timeout=_LOCK_TIMEOUT_S):
            return self._last or self._nothing()
        try:
            last = self._last
            if self._reading:  # this thread is reading already, further up its stack
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
        times: tuple[float, float] | None = None
        psutil = read_or_none("psutil", import_psutil)
        process = read_or_none("the process", self._own_process, psutil)
        self._refresh_cpus(clock.now())
        # one after the other: what is done in between would be in only one of them
        at = clock.now()
        usage: dict[str, Any] = read_or_none("CPU time", _process_usage, process) or {}
        fields = dict(usage)
        if process is not None:
            fields |= _process_fields(process)
        if psutil is not None:
            fields |= self._network_fields(psutil)
            fields |= self._disk_fields(psutil)
            fields |= read_or_none("the host's memory", _memory_fields, psutil) or {}
            times = read_or_none("the host's CPU time", _system_cpu, psutil)
        system_busy_s, system_total_s = times or (None, 0.0)
        cpu_s = usage["cpu_user_s"] + usage["cpu_system_s"] if usage else None
        children_s = read_or_none("the CPU time of child processes", children.cpu_s)
        since = self._began if self._last is None else self._last.reading.at
        if since is not None:
            self._capacity_s += max(0.0, at - since) * self._cpus
        capacity_s = self._capacity_s
        reading = ResourceReading(
            at=at,
            cpu_utilization=self._process_window.advance(self._epoch, at, cpu_s, capacity_s),
            system_cpu_utilization=self._system_window.advance(
                self._epoch, at, system_busy_s, system_total_s
            ),
            **fields,
        )
        system = system_busy_s, system_total_s
        return Sample(reading, self._epoch, cpu_s, capacity_s, *system, self._began, children_s)

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
        if count is None:  # there is no network interface
            return {}
        receive, transmit = self._network
        return {
            "network_receive_bytes": receive.update(count.bytes_recv),
            "network_transmit_bytes": transmit.update(count.bytes_sent),
        }

    def _disk_fields(self, psutil: Any) -> dict[str, Any]:
        count = read_or_none("disk counters", lambda: psutil.disk_io_counters(nowrap=False))
        if count is None:  # there is no disk, or the host does not show it
            return {}
        read, write = self._disks
        return {
            "system_disk_read_bytes": read.update(count.read_bytes),
            "system_disk_write_bytes": write.update(count.write_bytes),
        }


class ResourceReader:
    """A view of a probe whose utilisations cover the time since its own last reading."""

    def __init__(self, probe: ResourceProbe) -> None:
        self._probe = probe
        self._process = Window(exact=True)
        self._system = Window()

    def sample(self, max_age_s: float = 0.0) -> Sample:
        sample = self._probe.sample(max_age_s)
        if self._process.needs_later(sample.reading.at):
            sample = self._probe.sample()
        at, epoch = sample.reading.at, sample.epoch
        reading = replace(
            sample.reading,
            cpu_utilization=self._process.advance(
                epoch, at, sample.cpu_s, sample.capacity_s, sample.began
            ),
            system_cpu_utilization=self._system.advance(
                epoch, at, sample.system_busy_s, sample.system_total_s
            ),
        )
        return sample._replace(reading=reading)

    def read(self, max_age_s: float = 0.0) -> ResourceReading:
        return self.sample(max_age_s).reading


class MonotonicCounter:
    """A total that stays when its source falls, as when an interface is removed."""

    def __init__(self) -> None:
        self._offset = 0
        self._last = 0

    def update(self, value: int) -> int:
        self._offset += max(0, self._last - value)
        self._last = value
        return self._offset + value


def read_or_none(what: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `read`, or None if this platform does not allow it."""
    try:
        return read(*arguments)
    except Exception as error:  # psutil's errors differ by platform
        message = "cannot read %s, which is not reported: %r"
        errors.warn_once(f"resources: {what}", message, what, error)
        return None


def import_psutil() -> Any:
    """Return psutil, which costs a program only if it reads resources."""
    import psutil

    return psutil


def _process_usage(process: Any) -> dict[str, Any]:
    """Return CPU times and context switches.

    `getrusage` comes first: it counts microseconds, while /proc counts ticks of 10 ms; it counts
    the context switches of all threads, psutil only those of the main one; and it costs 1 µs
    instead of 50.
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
    # a platform may lack a method, so `methodcaller` looks it up inside `read_or_none`
    fields: dict[str, Any] = {
        "thread_count": read_or_none("psutil's num_threads", methodcaller("num_threads"), process),
        "fd_count": read_or_none("psutil's num_fds", methodcaller("num_fds"), process),
    }
    memory = read_or_none("psutil's memory_info", methodcaller("memory_info"), process)
    if memory is not None:
        fields |= {"rss_bytes": memory.rss, "vms_bytes": memory.vms}
    disk = read_or_none("psutil's io_counters", methodcaller("io_counters"), process)
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
    """Return busy and total CPU seconds of the host; waiting for a disk is idle."""
    times = psutil.cpu_times()._asdict()
    # on Linux, user and nice include the guests' time
    total = sum(value for mode, value in times.items() if not mode.startswith("guest"))
    return total - times["idle"] - times.get("iowait", 0.0), total


_probes: dict[str, ResourceProbe] = {}


def shared() -> ResourceProbe:
    """Return the process's one probe, made on first use."""
    probe = _probes.get("shared")
    # setdefault is atomic: of two threads that make a probe, one drops its unused one
    return probe or _probes.setdefault("shared", ResourceProbe())


_manual = ResourceReading(at=-math.inf)


def record_manual(**fields: Any) -> None:
    """Keep checked values that the program measured itself, for use without psutil."""
    global _manual
    _manual = replace(_manual, at=clock.now(), **fields)


def manual() -> ResourceReading:
    """Return the reading that `record_manual()` keeps."""
    return _manual

"""Fake psutil and `getrusage`, and start each test with empty registries."""

from __future__ import annotations

import math
import resource
import sys
from collections import namedtuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline_metrics._probes.caches import registry
from otel_pipeline_metrics._probes.resources import cgroup, children, contention, filesystems, probe
from otel_pipeline_metrics._probes.resources.reading import ResourceLimits, ResourceReading

if TYPE_CHECKING:
    from collections.abc import Iterator

CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait guest")


@pytest.fixture(autouse=True)
def _empty_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.reset()
    monkeypatch.setattr(probe, "_probes", {})
    monkeypatch.setattr(probe, "_manual", ResourceReading(-math.inf))
    monkeypatch.setattr(filesystems, "_known", {})
    yield
    registry.reset()


class Machine:
    """A fake of psutil, its Process and getrusage; every call can be made to fail."""

    def __init__(self) -> None:
        self.user_s = 0.0
        self.system_s = 0.0
        self.children_s: float | None = 0.0
        self.switches = (0, 0)
        self.rss = 1000
        self.vms = 5000
        self.threads = 3
        self.fds = 7
        self.disk = (0, 0)
        self.network: tuple[int, int] | None = (0, 0)
        self.disks: tuple[int, int] | None = (0, 0)
        # mount points with their devices, and the shares in use
        self.mounts: list[tuple[str, str, float]] = [("/dev/a", "/", 0.25)]
        self.memory = (1000, 250)
        self.cpu = {"user": 0.0, "nice": 0.0, "system": 0.0, "idle": 0.0, "iowait": 0.0}
        self.failing: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.processes = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]

    # psutil
    def Process(self) -> Machine:  # noqa: N802 - psutil's name
        self._call("Process")
        self.processes += 1
        return self

    def net_io_counters(self, *, nowrap: bool) -> Any:
        self._call("net_io_counters")
        assert not nowrap
        if self.network is None:
            return None
        return SimpleNamespace(bytes_recv=self.network[0], bytes_sent=self.network[1])

    def disk_io_counters(self, *, nowrap: bool) -> Any:
        self._call("disk_io_counters")
        assert not nowrap
        if self.disks is None:
            return None
        return SimpleNamespace(read_bytes=self.disks[0], write_bytes=self.disks[1])

    def disk_partitions(self) -> Any:
        self._call("disk_partitions")
        return [SimpleNamespace(device=device, mountpoint=at) for device, at, _ in self.mounts]

    def disk_usage(self, path: str) -> Any:
        self._call("disk_usage")
        (share,) = (share for _, at, share in self.mounts if at == path)
        return SimpleNamespace(total=100, used=100 * share)

    def virtual_memory(self) -> Any:
        self._call("virtual_memory")
        return SimpleNamespace(total=self.memory[0], used=self.memory[1])

    def cpu_times(self) -> Any:
        self._call("cpu_times")
        return CpuTimes(**self.cpu, guest=1e9)

    # psutil.Process
    def num_threads(self) -> int:
        self._call("num_threads")
        return self.threads

    def num_fds(self) -> int:
        self._call("num_fds")
        return self.fds

    def memory_info(self) -> Any:
        self._call("memory_info")
        return SimpleNamespace(rss=self.rss, vms=self.vms)

    def io_counters(self) -> Any:
        self._call("io_counters")
        return SimpleNamespace(read_bytes=self.disk[0], write_bytes=self.disk[1])

    # the resource module
    def getrusage(self, _: int) -> Any:
        self._call("getrusage")
        return SimpleNamespace(
            ru_utime=self.user_s,
            ru_stime=self.system_s,
            ru_nvcsw=self.switches[0],
            ru_nivcsw=self.switches[1],
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return an idle machine with 2 CPUs, which the test changes."""
    fake = Machine()
    monkeypatch.setitem(sys.modules, "psutil", fake)
    monkeypatch.setattr(resource, "getrusage", fake.getrusage)
    monkeypatch.setattr(children, "cpu_s", lambda: fake.children_s)
    monkeypatch.setattr(cgroup, "limits", lambda: ResourceLimits("host", 2.0))
    # no random moment comes while a test runs
    monkeypatch.setattr(contention, "MEAN_PAUSE_S", 1e9)
    return fake

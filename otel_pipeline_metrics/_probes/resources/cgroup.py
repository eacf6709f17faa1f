"""Find the limits of CPU and memory: cgroup v2, cgroup v1, or the whole host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._probes.resources.reading import ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_pipeline_metrics._probes.resources.reading import Source

    # CPUs and bytes of memory, of a group and of its parents
    Found = tuple[list[float], list[int]]


_CGROUPS: Final = "sys/fs/cgroup"
_V1_CPU: Final = ("cpu,cpuacct", "cpuacct,cpu", "cpu")


def limits(root: str | Path = "/") -> ResourceLimits:
    """Return the CPUs and the memory that this process may use at most.

    A cgroup's limit counts only if it is tighter than the host's: the CPUs that the process may
    be scheduled on, and all of the memory.

    Args:
        root: the folder that has `proc` and `sys`; for tests.
    """
    root = Path(root)
    groups = _groups(root)
    tightest = ResourceLimits("host", float(_affinity()), _host_memory(root))
    versions: tuple[tuple[Source, Found], ...] = (
        ("cgroup2", _version_2(root, groups)),
        ("cgroup1", _version_1(root, groups)),
    )
    for source, (cpus, memory) in versions:
        least_cpus = min([tightest.cpus, *cpus])
        # v1 writes a number near 2**63 for "no limit", more than any host has
        known = [] if tightest.memory_bytes is None else [tightest.memory_bytes]
        least_memory = min([*known, *memory], default=None)
        if (least_cpus, least_memory) != (tightest.cpus, tightest.memory_bytes):
            tightest = ResourceLimits(source, least_cpus, least_memory)
    return tightest


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _host_memory(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return next((kib * 1024 for kib in _positive(line.split()[1])), None)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _groups(root: Path) -> dict[str, str]:
    """Return the path of the process's group: by controller for v1, under "" for v2."""
    groups: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Yield the group's directory and its parents up to `base`.

    A parent's limit holds for its children. In a container without a cgroup namespace of its
    own the path is the host's and does not exist below `base`: only `base` then has files.
    """
    # with "..", the process is outside the visible namespace
    parts = [] if ".." in path.split("/") else [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:depth])


def _version_2(root: Path, groups: Mapping[str, str]) -> Found:
    cpus: list[float] = []
    memory: list[int] = []
    for group in _upwards(root / _CGROUPS, groups.get("", "/")):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        cpus += _quotient(quota, period)
        memory += _positive(_text(group / "memory.max"))
    return cpus, memory


def _version_1(root: Path, groups: Mapping[str, str]) -> Found:
    cpus: list[float] = []
    memory: list[int] = []
    base = root / _CGROUPS
    for controller in _V1_CPU:
        for group in _upwards(base / controller, groups.get("cpu", "/")):
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
            cpus += _quotient(quota, period)
    for group in _upwards(base / "memory", groups.get("memory", "/")):
        memory += _positive(_text(group / "memory.limit_in_bytes"))
    return cpus, memory


def _quotient(quota: str, period: str) -> list[float]:
    return [cpu / of for cpu in _positive(quota) for of in _positive(period)]


def _positive(text: str) -> list[int]:
    """Return the number in a list; an empty one for no limit: "max", -1 or no file."""
    try:
        number = int(text)
    except ValueError:
        return []
    return [number] if number > 0 else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # missing, not readable, or not a hierarchy of this version
        return ""


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).splitlines() if ":" in line]

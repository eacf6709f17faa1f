"""How much CPU and memory this process may use: cgroup v2, cgroup v1, or the whole host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_pipeline_metrics._probes.resources.reading import ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Iterator


_CGROUPS = "sys/fs/cgroup"
_V1_CPU = ("cpu,cpuacct", "cpuacct,cpu", "cpu")


class _Found(NamedTuple):
    """The tightest limits of one hierarchy; None where it sets none."""

    cpus: float | None = None
    memory_bytes: int | None = None


def limits(root: str | Path = "/") -> ResourceLimits:
    """Return the CPUs and the memory this process may use at most.

    A cgroup's limit counts only where it is tighter than what the host gives; without one the
    CPUs are those the process may be scheduled on and the memory is all of the host's.

    Args:
        root: where `/proc` and `/sys` are found; for tests.
    """
    root = Path(root)
    cpus = float(_affinity())
    memory = _host_memory(root)
    groups = _groups(root)
    source = "host"
    found = {
        "cgroup2": _version_2(root, groups.get("", "/")),
        "cgroup1": _version_1(root, groups),
    }
    for version, limit in found.items():
        if limit.cpus is not None and limit.cpus < cpus:
            cpus, source = limit.cpus, version
        # v1 writes a number near 2**63 for "no limit", which no host has.
        if limit.memory_bytes is not None and (memory is None or limit.memory_bytes < memory):
            memory, source = limit.memory_bytes, version
    return ResourceLimits(
        source="cgroup2" if source == "cgroup2" else "cgroup1" if source == "cgroup1" else "host",
        cpus=cpus,
        memory_bytes=memory,
    )


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _host_memory(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            kib = _number(line.split()[1])
            return None if kib is None else int(kib) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _groups(root: Path) -> dict[str, str]:
    """Return the process's path in every hierarchy: by controller for v1, under "" for v2."""
    groups: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Yield the group's directory and its parents up to `base`.

    A parent's limit holds for its children. In a container without a cgroup namespace of its
    own the path is the host's and leads nowhere below `base`: only `base` then has files.
    """
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # the process is outside of the namespace we see
        parts = []
    for depth in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:depth])


def _version_2(root: Path, path: str) -> _Found:
    cpus: list[float] = []
    memory: list[float] = []
    for group in _upwards(root / _CGROUPS, path):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        cpus += _share(_number(quota), _number(period))  # "max" is no number
        memory += _positive(_number(_text(group / "memory.max")))
    return _tightest(cpus, memory)


def _version_1(root: Path, groups: dict[str, str]) -> _Found:
    cpus: list[float] = []
    memory: list[float] = []
    base = root / _CGROUPS
    for controller in _V1_CPU:
        for group in _upwards(base / controller, groups.get("cpu", "/")):
            quota = _number(_text(group / "cpu.cfs_quota_us"))  # -1 is no limit
            cpus += _share(quota, _number(_text(group / "cpu.cfs_period_us")))
    for group in _upwards(base / "memory", groups.get("memory", "/")):
        memory += _positive(_number(_text(group / "memory.limit_in_bytes")))
    return _tightest(cpus, memory)


def _share(quota: float | None, period: float | None) -> list[float]:
    if quota is None or period is None or quota <= 0 or period <= 0:
        return []
    return [quota / period]


def _positive(value: float | None) -> list[float]:
    return [] if value is None or value <= 0 else [value]


def _tightest(cpus: list[float], memory: list[float]) -> _Found:
    return _Found(min(cpus, default=None), int(min(memory)) if memory else None)


def _number(text: str) -> float | None:
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # not there, not readable, or not a hierarchy of this version
        return ""


def _lines(path: Path) -> list[str]:
    return [line for line in _text(path).splitlines() if ":" in line]

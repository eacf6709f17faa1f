"""Test limits of containers, in trees like those of the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otel_pipeline_metrics._probes.resources.cgroup import limits

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write a host with 16 GiB, the process's groups, and cgroup files."""
    files = {
        "proc/meminfo": f"MemTotal:       {16 * 1024**2} kB\nMemFree:  1 kB\n",
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{path}": text for path, text in files.items()},
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def test_a_host_without_cgroups_is_the_limit(tmp_path: Path) -> None:
    found = limits(tree(tmp_path, "", {}))

    assert (found.source, found.cpus, found.memory_bytes) == ("host", 8.0, 16 * GIB)


def test_without_any_readable_file_the_host_is_the_limit(tmp_path: Path) -> None:
    found = limits(str(tmp_path))

    assert (found.source, found.cpus) == ("host", 8.0)
    assert found.memory_bytes is None or found.memory_bytes > 0


def test_version_2_limits_a_container(tmp_path: Path) -> None:
    """In its own namespace a container sees its group as the root."""
    root = tree(tmp_path, "0::/", {"cpu.max": "150000 100000", "memory.max": str(2 * GIB)})

    found = limits(root)

    assert (found.source, found.cpus, found.memory_bytes) == ("cgroup2", 1.5, 2 * GIB)


def test_version_2_says_max_for_no_limit(tmp_path: Path) -> None:
    found = limits(tree(tmp_path, "0::/", {"cpu.max": "max 100000", "memory.max": "max"}))

    assert (found.source, found.cpus, found.memory_bytes) == ("host", 8.0, 16 * GIB)


def test_version_2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/pod/container",
        {
            "pod/container/cpu.max": "400000 100000",
            "pod/container/memory.max": str(4 * GIB),
            "pod/cpu.max": "200000 100000",
            "pod/memory.max": str(8 * GIB),
            "other/memory.max": "1",
        },
    )

    found = limits(root)

    assert (found.source, found.cpus, found.memory_bytes) == ("cgroup2", 2.0, 4 * GIB)


@pytest.mark.parametrize("path", ["/docker/abc", "/../other"])
def test_a_path_outside_the_mount_uses_the_root(tmp_path: Path, path: str) -> None:
    found = limits(tree(tmp_path, f"0::{path}", {"memory.max": str(GIB)}))

    assert (found.source, found.memory_bytes) == ("cgroup2", GIB)


def test_a_limit_above_the_host_does_not_count(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/", {"cpu.max": "6400000 100000", "memory.max": str(64 * GIB)})

    found = limits(root)

    assert (found.source, found.cpus, found.memory_bytes) == ("host", 8.0, 16 * GIB)


def test_version_1_limits_a_process(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n",
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": str(3 * GIB),
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )

    found = limits(root)

    assert (found.source, found.cpus, found.memory_bytes) == ("cgroup1", 0.5, 3 * GIB)


def test_version_1_without_limits_leaves_the_host(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "4:memory:/\n3:cpu:/\n",
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )

    found = limits(root)

    assert (found.source, found.cpus, found.memory_bytes) == ("host", 8.0, 16 * GIB)


@pytest.mark.parametrize("garbage", ["", "0 0", "-5 100000", "half", "1 -1"])
def test_unreadable_numbers_are_no_limit(tmp_path: Path, garbage: str) -> None:
    root = tree(tmp_path, "no colons here", {"cpu.max": garbage, "memory.max": garbage})

    assert limits(root).source == "host"


def test_the_real_host_can_be_read() -> None:
    found = limits()

    assert 0 < found.cpus <= 8
    assert found.memory_bytes is not None
    assert found.memory_bytes > 0

"""Read which addresses a process and its children listen on, from /proc."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

import psutil


def addresses_of(pids: set[int]) -> set[str]:
    """Return the IP addresses that some processes listen on, as in /proc/net/tcp and tcp6."""
    sockets = {
        found.group(1)
        for pid in pids
        for descriptor in _descriptors(pid)
        if (found := re.fullmatch(r"socket:\[(\d+)\]", descriptor))
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            # 0A: it listens
            if state == "0A" and rest[5] in sockets:
                found.add(str(_address(local.partition(":")[0])))
    return found


def is_loopback(address: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def family(pid: int) -> set[int]:
    """Return a process and those that it started."""
    return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}


def _descriptors(pid: int) -> list[str]:
    try:
        return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    except OSError:  # it ended
        return []


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # words of four bytes, each in the machine's order
    words = [bytes.fromhex(digits[n : n + 8])[::-1] for n in range(0, len(digits), 8)]
    return ipaddress.ip_address(b"".join(words))

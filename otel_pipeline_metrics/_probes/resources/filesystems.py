"""Read how full the local file systems are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._probes.resources.probe import (
    SHARED_AGE_S,
    import_psutil,
    read_or_none,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.records import Point


# Disks are seldom mounted while a program runs.
_MOUNTS_MAX_AGE_S: Final = 60.0

# A host with many containers has hundreds of mounts.
_MOST: Final = 20

_known: dict[str, tuple[float, list[Any]]] = {}


def points() -> list[Point]:
    """Return the share in use of each file system, 0 to 1.

    Only of those on a device of the host: to ask a network mount whose server is gone would hang.
    """
    at, found = _known.get("read", (-math.inf, []))
    if clock.now() - at > SHARED_AGE_S:
        found = list(_read())
        _known["read"] = clock.now(), found
    return found


def _read() -> Iterator[Point]:
    psutil = read_or_none("psutil", import_psutil)
    if psutil is None:
        return
    for mountpoint in _mountpoints(psutil):
        used = read_or_none(f"the file system at {mountpoint}", psutil.disk_usage, mountpoint)
        if used is not None and used.total:
            attributes = {defs.FILESYSTEM_MOUNTPOINT: mountpoint, defs.FILESYSTEM_STATE: "used"}
            yield used.used / used.total, attributes


def _mountpoints(psutil: Any) -> list[str]:
    at, found = _known.get("local", (0.0, []))
    if not found or clock.now() - at > _MOUNTS_MAX_AGE_S:
        mounted = read_or_none("the mounted file systems", psutil.disk_partitions) or []
        # a container binds single files from the host's disk: the first mount of a device counts
        by_device: dict[str, str] = {}
        for mount in mounted:
            by_device.setdefault(mount.device, mount.mountpoint)
        found = list(by_device.values())[:_MOST]
        _known["local"] = clock.now(), found
    return found

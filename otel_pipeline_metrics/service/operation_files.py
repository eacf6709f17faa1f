"""Write operations to a folder of small files, remove old ones, and read them again.

A file appears whole, under a name that no other has: it is written beside its place and then
linked there, which fails where the name is taken. So any number of processes may share a folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics.service.operation import iso_time, utc_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otel_pipeline_metrics.service.operation import Operation


_NAME: Final = re.compile(r"metrics_(\d{8}_\d{6}_\d{6})\.json")
_TEMPORARY: Final = ".opm-operations-"

# A temporary file of this age was left by a crash.
_ABANDONED_S: Final = 600.0

# Records that are encoded before the thread lets others run. Python switches threads every 5 ms,
# so an event loop would otherwise be late by as much as a batch takes.
_AT_A_TIME: Final = 50
_PAUSE_S: Final = 0.0001
# The same in a hurry: on a busy machine each pause takes as long as others need the CPU, and with
# that many of them, the files would fall behind 10,000 operations a second.
_AT_A_TIME_IN_A_HURRY: Final = 250

# The oldest files that are remembered, so that a full folder is not listed for each new file.
_REMEMBERED: Final = 64

_MAX_SPARED: Final = 1000

# Other processes may write to the folder, so it is listed again after this time.
_LIST_EVERY_S: Final = 60.0

# How often files are looked for that are too old.
_EXPIRE_EVERY_S: Final = 3600.0

# What a file system without hard links answers.
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

DAY_S: Final = 24 * 3600.0

DEFAULT_MAX_AGE_DAYS: Final = 30
DEFAULT_MAX_BYTES: Final = 2**30


class OperationFile(NamedTuple):
    """A file of operations, from its name and its size."""

    # the time in its name, which sorts as text
    stamp: str
    name: str
    size: int


class OperationFiles:
    """A folder of operations, bounded in age and in size.

    One thread at a time uses it.

    Args:
        directory: the folder; it exists.
        max_age_days: older files are removed.
        max_bytes: above this size of all files together, the oldest are removed.
    """

    def __init__(
        self,
        directory: Path,
        max_age_days: float = DEFAULT_MAX_AGE_DAYS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.directory = directory
        self._max_age_s = max_age_days * DAY_S
        self._max_bytes = max_bytes
        self._last_us = (0, 0)
        self._size = 0
        self._oldest: deque[OperationFile] = deque()
        # names of files that look like ours and are not, or that cannot be removed
        self._spared: set[str] = set()
        self._listed_at: float | None = None
        self._expired_at: float | None = None

    def write(self, operations: Sequence[Operation], *, sync: bool) -> str:
        """Write operations to a new file; return the time in its name, in ISO 8601.

        Args:
            operations: at least one.
            sync: wait until the file would survive a power failure. False is a hurry: others run
                less often meanwhile.

        Raises:
            OSError: the file cannot be written; no part of it is left behind.
        """
        encoded = _encoded(operations, _AT_A_TIME if sync else _AT_A_TIME_IN_A_HURRY)
        temporary = self.directory / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            descriptor = _create(temporary)
        except FileNotFoundError:  # somebody has removed the folder
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = _create(temporary)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
                unix_us = self._place(file, temporary, encoded, len(operations), sync=sync)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if sync:
            with contextlib.suppress(OSError):  # some file systems do not support it
                _sync_directory(self.directory)
        return iso_time(unix_us)

    def _place(self, file: Any, temporary: Path, encoded: bytes, count: int, *, sync: bool) -> int:
        now_us = round(clock.unix() * 1_000_000)
        # if the clock stands still, the names up to the last one are known to be taken
        unix_us = self._last_us[1] + 1 if now_us == self._last_us[0] else now_us
        file.write(_head(unix_us, count) + encoded)
        while True:
            file.flush()
            if sync:
                os.fsync(file.fileno())
            try:
                _link(temporary, self.directory / f"metrics_{_stamp(unix_us)}.json")
            except FileExistsError:
                # the file tells its own name, at its beginning and in a fixed length
                unix_us += 1
                file.seek(0)
                file.write(_head(unix_us, count))
                continue
            self._last_us = (now_us, unix_us)
            self._size += len(_head(unix_us, count)) + len(encoded)
            return unix_us

    def limit(self) -> int:
        """Remove what is too old or too much; return how many operations `max_bytes` cost."""
        now = clock.monotonic()
        if self._expired_at is None or now - self._expired_at >= _EXPIRE_EVERY_S:
            self._expired_at = now
            self.expire(self._max_age_s)
        if self._listed_at is None or now - self._listed_at >= _LIST_EVERY_S:
            self._list()
        lost = 0
        while self._size > self._max_bytes:
            if not self._oldest:
                self._list()
                if not self._oldest or self._size <= self._max_bytes:
                    break
            oldest = self._oldest.popleft()
            removed = self._remove(oldest)
            if removed is not None:
                lost += removed
                self._size -= oldest.size
        if lost:
            errors.warn_once(
                f"operations full {self.directory}",
                "%s holds more than %d bytes of operations: the oldest files are removed, and "
                "their operations are counted as dropped",
                self.directory,
                self._max_bytes,
            )
        return lost

    def _list(self) -> None:
        found = [file for file in listed(self.directory) if file.name not in self._spared]
        self._size = sum(file.size for file in found)
        self._oldest = deque(found[:_REMEMBERED])
        self._listed_at = clock.monotonic()

    def expire(self, max_age_s: float) -> int:
        """Remove the files that are older; return how many there were."""
        before = _stamp(max(0, round((clock.unix() - max_age_s) * 1_000_000)))
        count = 0
        for file in listed(self.directory):
            if file.stamp >= before:
                break
            if file.name not in self._spared:
                count += self._remove(file) is not None
        if count:
            self._listed_at = None
        return count

    def _remove(self, file: OperationFile) -> int | None:
        """Remove a file; return its number of operations, or None if it stays or was gone."""
        path = self.directory / file.name
        try:
            count = len(read(path))
        except FileNotFoundError:  # another process has removed it
            return None
        except (OSError, ValueError):
            count = None
        if count is not None:
            try:
                path.unlink()
            except FileNotFoundError:
                return None
            except OSError:
                count = None
        if count is None and len(self._spared) < _MAX_SPARED:
            self._spared.add(file.name)
        return count

    def sweep(self) -> None:
        """Remove the temporary files that a crash left."""
        before = clock.unix() - _ABANDONED_S
        for path in self.directory.glob(f"{_TEMPORARY}*.tmp"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()


def listed(directory: Path) -> list[OperationFile]:
    """Return the regular files of a folder whose names are those of operations, by time.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            matched = _NAME.fullmatch(entry.name)
            if matched is None:
                continue
            with contextlib.suppress(OSError):  # another process has removed it
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append(OperationFile(matched[1], entry.name, status.st_size))
    return sorted(found)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of one file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a file of operations, or has another's name.
    """
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    matched = _NAME.fullmatch(path.name)
    if not isinstance(data, dict) or matched is None or data.get("batch_id") != matched[1]:
        raise ValueError(f"{path.name}: batch_id is not the one in the name")
    records = data.get("records")
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise ValueError(f"{path.name}: records is not a list of objects")
    return records


def read_all(directory: Path) -> Iterator[tuple[OperationFile, list[dict[str, Any]] | None]]:
    """Yield every file with its records; None if it is not a file of operations.

    Raises:
        OSError: the folder cannot be read.
    """
    for file in listed(directory):
        try:
            yield file, read(directory / file.name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            yield file, None


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: the name is taken; no file is ever replaced.
        OSError: the file system refuses it.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The name is taken by an empty file first. Only a crash between the two leaves that.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        source.replace(target)


def _encoded(operations: Sequence[Operation], at_a_time: int) -> bytes:
    """Return everything after the head of a file."""
    records = []
    for place, operation in enumerate(operations):
        if place and place % at_a_time == 0:
            time.sleep(_PAUSE_S)
        records.append(json.dumps(operation.to_dict(), allow_nan=False))
    return (",\n".join(records) + "\n]}\n").encode("ascii")


def _head(unix_us: int, count: int) -> bytes:
    return (
        f'{{"batch_id": "{_stamp(unix_us)}", "batch_timestamp": "{iso_time(unix_us)}", '
        f'"total_records": {count}, "records": [\n'
    ).encode("ascii")


def _stamp(unix_us: int) -> str:
    return utc_time(unix_us).strftime("%Y%m%d_%H%M%S_%f")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

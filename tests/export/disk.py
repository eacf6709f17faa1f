"""A disk that loses power: what was not synced may be lost.

It passes every call to the real file system, and keeps beside that what a `fsync` has made
durable. After a power failure `survivors` builds what a real disk may then hold.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple


class PowerFailure(BaseException):
    """The process ends here; nothing may handle it."""


class Loss(NamedTuple):
    """What a power failure costs: each combination occurs on real file systems."""

    # names that no fsync of their directory has made durable
    names: bool
    # bytes that no fsync of their file has made durable
    content: bool


LOSSES = tuple(Loss(*each) for each in itertools.product((True, False), repeat=2))

# the calls that change the file system, or make a change durable
CHANGES = ("open", "write", "fsync", "rename", "unlink", "mkdir", "close")


class Disk:
    """Stands in for the module `os`, below one directory.

    Args:
        root: everything below it is on this disk.
        fails_after: the number of changes after which the power fails.
    """

    def __init__(self, root: Path, fails_after: float) -> None:
        self.root = root
        self.changes = 0
        self._fails_after = fails_after
        self._open: list[int] = []
        self._content: dict[int, bytes] = {}  # by inode
        # by directory's inode: the inodes of its names
        self._names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def change(*args: Any, **kwargs: Any) -> Any:
            if self.changes >= self._fails_after:
                raise PowerFailure
            result = self._write(*args) if name == "write" else real(*args, **kwargs)
            if name == "fsync":
                self._sync(args[0])
            elif name == "mkdir" or (name == "open" and args[1] & os.O_CREAT):
                # while it is open, its inode is not given to another file
                self._open.append(os.open(args[0], os.O_RDONLY))
                if name == "mkdir":
                    self._names[os.fstat(self._open[-1]).st_ino] = {}
            self.changes += 1
            if self.changes >= self._fails_after:
                raise PowerFailure
            return result

        return change

    def close_all(self) -> None:
        """Let go of the files that it has open."""
        while self._open:
            os.close(self._open.pop())

    def _write(self, descriptor: int, data: Any) -> int:
        """Write a part only, as the system may."""
        return os.write(descriptor, data[: max(1, len(data) // 2)])

    def _sync(self, descriptor: int) -> None:
        place = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = _names(place)
        else:
            with open(place, "rb") as file:  # noqa: PTH123 - by its name, as it is now
                self._content[found.st_ino] = file.read()

    def survivors(self, loss: Loss, into: Path) -> Path:
        """Build in `into` what is on the disk after the power failure."""
        self._restore(self.root.stat().st_ino, str(self.root), into, loss)
        return into

    def _restore(self, inode: int, place: str | None, into: Path, loss: Loss) -> None:
        """Restore a directory or a file; `place` is None if it is deleted, but not durably."""
        if inode not in self._names:
            if loss.content or place is None:
                into.write_bytes(self._content.get(inode, b""))
            else:
                shutil.copyfile(place, into)
            return
        into.mkdir()
        now = {} if place is None else _names(place)
        places = {of: f"{place}/{name}" for name, of in now.items()}
        for name, of in (self._names[inode] if loss.names else now).items():
            self._restore(of, places.get(of), into / name, loss)


def _names(directory: str) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(directory)}

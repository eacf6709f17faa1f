"""Where `opm top` finds a process, and whom both ends trust.

A process listens on a socket that is named by its id, in a folder of ours that no other user may
enter. Both ends look at the folder themselves, without following a link, and ask the kernel who is
at the other end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Final

_FOLDER: Final = "otel-pipeline-metrics"
_MODE: Final = 0o700
_ROOT: Final = 0

# pid, uid and gid, as SO_PEERCRED tells them
_CREDENTIALS: Final = struct.Struct("3i")


class NotTrustedError(PermissionError):
    """A folder or a peer that is not, or not only, ours; the message says which."""


def check_system() -> None:
    """Check that the system can say who is at the other end of a socket."""
    if not (hasattr(socket, "AF_UNIX") and hasattr(socket, "SO_PEERCRED")):
        raise NotTrustedError("this system cannot tell who is at the other end of a socket")


def folders() -> list[Path]:
    """Return where a socket may be; a process makes its own in the first one."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # https://specifications.freedesktop.org/basedir-spec/: a relative path is to be ignored
    found = []
    # one that is missing, or of another user after `su`, is none
    with contextlib.suppress(OSError):
        if runtime.is_absolute() and stat.S_ISDIR(runtime.stat().st_mode):
            found.append(runtime / _FOLDER)
    return [*found, Path(tempfile.gettempdir()) / f"{_FOLDER}-{os.geteuid()}"]


def check_folder(path: Path) -> None:
    """Check a folder by lstat.

    Raises:
        NotTrustedError: it is a link or no folder, belongs to another user, or others may enter it.
        OSError: it cannot be looked at.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotTrustedError(f"{path} is not a folder")
    if found.st_uid != os.geteuid():
        raise NotTrustedError(f"{path} belongs to another user")
    if stat.S_IMODE(found.st_mode) != _MODE:
        raise NotTrustedError(f"{path} must have mode 0700, not {stat.S_IMODE(found.st_mode):04o}")


def check_socket(path: Path) -> None:
    """Check a socket by lstat, in a folder that was checked.

    Raises:
        NotTrustedError: it is something else, or belongs to another user.
        OSError: it cannot be looked at.
    """
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise NotTrustedError(f"{path} is not a socket of ours")


def check_peer(connection: socket.socket) -> None:
    """Ask the kernel who is at the other end.

    Raises:
        NotTrustedError: neither we nor root.
        OSError: the connection is gone.
    """
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(told)
    if uid not in {os.geteuid(), _ROOT}:
        raise NotTrustedError(f"the other end belongs to the user {uid}")


def pids_in(folder: Path) -> list[int]:
    """Return the ids of processes that have, or had, a socket in a folder of ours.

    Raises:
        NotTrustedError: see `check_folder`.
    """
    try:
        check_folder(folder)
        return sorted(int(each.name) for each in folder.iterdir() if each.name.isdecimal())
    except FileNotFoundError:
        return []


def remove_stale(folder: Path) -> None:
    """Remove the sockets of processes that ended without doing so, from a folder of ours.

    Raises:
        NotTrustedError: see `check_folder`.
    """
    for pid in pids_in(folder):
        path = folder / str(pid)
        with contextlib.suppress(OSError):
            check_socket(path)
            if is_stale(path):
                path.unlink()


def is_stale(path: Path) -> bool:
    """Tell whether a socket has no listener; asked of the kernel, not of process ids.

    Processes of another container may share the folder, but not the numbers.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False

"""Write files whole: a regular file beside its place and then moved, anything else in place.

Read whatever a path names, without waiting for ever.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import select
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from otel_pipeline_metrics._core import clock

# a file name of any system; a point at its beginning would hide the file, or lead out of the folder
_UNSAFE: Final = re.compile(r"[^\w.-]+|^[.]+")
# bytes of a name in a file's name: these have 255 at most, and there may be more in it
_MAX_NAME: Final = 120

# how long a pipe or a device may take: it may have no reader
PATIENCE_S: Final = 1.0
_PAUSE_S: Final = 0.02
_READ_BYTES: Final = 1024 * 1024

# a regular file that can be written, but not replaced: its folder is read-only, or another
# file system is mounted on it
_IRREPLACEABLE: Final = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS}
# a path that names an open descriptor of this process
_DESCRIPTOR: Final = re.compile(r"/(?:proc/self|dev)/fd/(\d{1,9})|/dev/std(out|err)")
_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# never waits for a reader, and never makes a terminal the process's own
_IN_PLACE: Final = _BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` to `path`; a reader sees the old file or the new one.

    The folder is made if it is missing, a link is followed, and an existing file keeps its
    mode. A device, a pipe or a FIFO is written to, for at most `PATIENCE_S`, and never replaced.
    So is a file that cannot be replaced, and it alone may be left incomplete.

    Raises:
        OSError: the file cannot be written; no temporary file is left behind.
        ValueError: there is a null byte in the path.
    """
    target = Path(path)
    data = _encoded(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = target.stat()
    except FileNotFoundError:
        found = None
    if found is None:
        _replace(_followed(target), data, None)
    elif stat.S_ISREG(found.st_mode):
        _write_regular(target, data, found)
    else:
        _write_in_place(target, data, found.st_mode)
    return target


def read_whole(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return what `path` holds, but `limit` bytes at most.

    A pipe is read until its writers are done; a FIFO without a writer is given up after
    `PATIENCE_S`. A device is read as far as it goes without waiting.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is a null byte in the path.
    """
    descriptor = os.open(path, os.O_RDONLY | _IN_PLACE)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return _read_all(descriptor, limit, is_fifo=stat.S_ISFIFO(mode))
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, limit: int, *, is_fifo: bool) -> bytes:
    found = bytearray()
    give_up_at = clock.monotonic() + PATIENCE_S
    while len(found) < limit:
        try:
            part = os.read(descriptor, min(_READ_BYTES, limit - len(found)))
        except BlockingIOError:
            if not is_fifo:
                break
            _wait(descriptor)
            continue
        found += part
        if part:
            continue
        if found or not is_fifo:
            break
        if clock.monotonic() >= give_up_at:
            raise OSError(errno.ENXIO, "no process writes to this FIFO")
        # the writer may be about to open it
        time.sleep(_PAUSE_S)
    return bytes(found)


def _wait(descriptor: int, room_s: float | None = None) -> None:
    """Wait until there is something to read, or for so many seconds for room to write."""
    reads = room_s is None
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN if reads else select.POLLOUT)
        poll.poll(None if room_s is None else room_s * 1000)
    else:  # eventlet removes it
        select.select([descriptor] * reads, [descriptor] * (not reads), [], room_s)


def safe_name(name: str) -> str:
    """Return a name as a part of a file name, of 120 bytes at most."""
    short = name.encode("utf-8", "replace")[:_MAX_NAME].decode("utf-8", "ignore")
    return _UNSAFE.sub("_", short) or "_"


def write_temporary(text: str, prefix: str, suffix: str) -> Path:
    """Write `text` to a new temporary file that only its owner can read.

    Raises:
        OSError: the file cannot be written; none is left behind.
    """
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=suffix)
    path = Path(name)
    try:
        _fill(descriptor, _encoded(text))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _encoded(text: str) -> bytes:
    """Encode text; what UTF-8 cannot hold is escaped, and no error."""
    return text.encode("utf-8", "backslashreplace")


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return the path that `path` names now, so that a later chdir changes nothing."""
    try:
        return Path(path).absolute()
    except OSError:  # the working directory was removed
        return Path(path)


def _followed(target: Path) -> Path:
    """Return the place that links lead to, whether there is a file or not."""
    if not target.is_symlink():
        return target
    place = Path(os.path.realpath(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _write_regular(target: Path, data: bytes, found: os.stat_result) -> None:
    descriptor = _own_descriptor(target)
    if descriptor is not None:
        # `>out.txt` and /dev/stdout: what the program prints later must not go to a file
        # that was replaced, nor be written over this
        _write_all(descriptor, data, clock.monotonic() + PATIENCE_S)
        return
    try:
        _replace(_followed(target), data, found)
    except OSError as error:
        if error.errno not in _IRREPLACEABLE:
            raise
        with target.open("r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _own_descriptor(target: Path) -> int | None:
    """Return the descriptor that the path names, if it is one of this process."""
    place = os.path.abspath(target)  # noqa: PTH100 - a link would lead to the file itself
    named = _DESCRIPTOR.fullmatch(place)
    if named is None:
        return None
    return int(named[1] or {"out": 1, "err": 2}[named[2]])


def _replace(target: Path, data: bytes, old: os.stat_result | None) -> None:
    """Write a new file beside `target` and move it there."""
    # a short name, since that of the target may be as long as names can be
    temporary = target.parent / f".opm-{secrets.token_hex(8)}.tmp"
    # The system applies the umask. To ask for the umask would change it for a moment, for every
    # thread. What replaces a private file is private from its beginning.
    mode = 0o666 if old is None else 0o600
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode)
    try:
        _fill(descriptor, data)
        if old is not None:
            _keep_owner_and_mode(temporary, old)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _fill(descriptor: int, data: bytes) -> None:
    """Write a new file to the disk and close it."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _keep_owner_and_mode(temporary: Path, old: os.stat_result) -> None:
    new = temporary.stat()
    if hasattr(os, "chown") and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        # without the right to do this, the file cannot be replaced as it was
        os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def _write_in_place(target: Path, data: bytes, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(target))
    if stat.S_ISSOCK(mode):
        raise OSError(errno.ENXIO, "it is a socket", str(target))
    deadline = clock.monotonic() + PATIENCE_S
    descriptor = _open_in_place(target, deadline, fifo=stat.S_ISFIFO(mode))
    try:
        _write_all(descriptor, data, deadline)
    finally:
        os.close(descriptor)


def _open_in_place(target: Path, deadline: float, *, fifo: bool) -> int:
    while True:
        try:
            return os.open(target, os.O_WRONLY | _IN_PLACE)
        except OSError as error:
            if not fifo or error.errno != errno.ENXIO:
                raise
            if clock.monotonic() >= deadline:
                raise OSError(errno.ENXIO, "no process reads from this FIFO", str(target)) from None
        # the reader may be about to open it
        time.sleep(_PAUSE_S)


def _write_all(descriptor: int, data: bytes, deadline: float) -> None:
    """Write to a descriptor; give up if it has not taken everything by `deadline`."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _wait(descriptor, room_s=max(0.0, deadline - clock.monotonic()))
        if left and clock.monotonic() >= deadline:
            raise TimeoutError(
                errno.ETIMEDOUT, f"it took only a part of the text within {PATIENCE_S:g} s"
            )

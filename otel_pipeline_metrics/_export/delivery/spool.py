"""Keep on disk what the collector does not accept, until it does.

The spool is a directory of small files, one for each batch, which any number of processes may
share. A file is written whole or not at all, its name holds its owner and its number of items,
and the process that sends or drops it locks it meanwhile. A lock ends with its process, so a
crash leaves only the file, which another process then sends: perhaps for the second time.

What is in the directory may be anybody's: only regular files of a bounded size are read, no link
is followed, and what cannot be read is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.environment_variables import (
    OTEL_PIPELINE_METRICS_SPOOL,
    OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE,
    OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES,
)
from otel_pipeline_metrics._core.settings import Config
from otel_pipeline_metrics._export.environment_checks import get, positive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.environment import Signal


fcntl: Any
try:
    import fcntl
except ImportError:  # without POSIX locks, only one process may use a directory
    fcntl = None


_NAME: Final = re.compile(
    r"(traces|metrics)-(\d{13})-(\d{1,10}-[0-9a-f]{8})-(\d{6,12})-(\d{1,12})\.jsonl"
)
_TEMPORARY: Final = ".opm-"
# a temporary file of this age was left by a crash
_ABANDONED_S: Final = 600.0
# Of one file. As protobuf, the exporters send 64 MiB at most; as JSON that is more.
MAX_FILE_BYTES: Final = 256 * 1024 * 1024

_READ_BYTES: Final = 1024 * 1024

_CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSE_ON_EXEC
# a FIFO in the directory must not block, and a link not lead elsewhere
_OLD: Final = (
    os.O_RDONLY | _CLOSE_ON_EXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)


class SpooledBatch(NamedTuple):
    """One batch on disk, from the name of its file."""

    signal: Signal
    created_ms: int
    # PID and a random token of the process that wrote it
    owner: str
    number: int
    items: int
    name: str
    size: int


class Settings(NamedTuple):
    """The arguments of `Spool`."""

    directory: Path
    max_bytes: int
    max_age_s: float


def settings(config: Config, env: Mapping[str, str]) -> Settings | None:
    """Return the settings of `configure()`, or of the environment; None: no spool.

    Raises:
        OSError: the directory cannot be told, so there is no spool.
    """
    name = get(env, OTEL_PIPELINE_METRICS_SPOOL)
    directory = config.spool or (Path(name) if name else None)
    if directory is None:
        return None

    def limit(name: str, field: str) -> float:
        return _limit(env, name, getattr(config, field), getattr(Config, field))

    return Settings(
        _absolute(directory),
        int(limit(OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES, "spool_max_bytes")),
        limit(OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE, "spool_max_age_s"),
    )


def _absolute(directory: Path) -> Path:
    """Return the directory as it is now: a later chdir must not split the spool.

    Raises:
        OSError: there is no such user, or no working directory.
    """
    try:
        return Path(os.path.abspath(directory.expanduser()))
    except RuntimeError as error:
        raise OSError(errno.ENOENT, f"{error}".rstrip(".").lower()) from None


def max_age_s(env: Mapping[str, str]) -> float:
    """Return the age limit from the environment; infinite if unset."""
    return _limit(env, OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE, math.inf, math.inf)


def _limit(env: Mapping[str, str], name: str, given: float, default: float) -> float:
    text = get(env, name)
    if not text or given != default:
        return given
    number = positive(text)
    if number is None:
        errors.warn_once(
            name, "%s must be a number above 0, not %.40r; %g is used", name, text, default
        )
    return number or default


def why_unusable(directory: Path) -> str | None:
    """Make the directory and return why it cannot keep batches; None if it can."""
    trial = directory / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        _make_directory(directory)
        _write(trial, b"x")
        os.unlink(trial)
    except OSError as error:
        if errors.from_signal_handler(error):
            raise
        return error.strerror or type(error).__name__
    return None


def size_of(directory: Path) -> int:
    """Return the bytes of all batches in a directory."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) is not None:
                with contextlib.suppress(OSError):  # it has been sent
                    total += entry.stat().st_size
    return total


class Spool:
    """A bounded directory of batches.

    Args:
        directory: made if it does not exist.
        max_bytes: limit of all batches together; the oldest are dropped first.
        max_age_s: older batches are dropped.
    """

    def __init__(self, directory: Path, max_bytes: int, max_age_s: float) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        # by signal: the ledger that counts what is dropped here
        self.ledgers: dict[str, ExportLedger] = {}
        self._undeletable: set[str] = set()
        self._renew_owner()
        try:
            _make_directory(directory)
        except Exception as error:  # an audit hook may raise anything
            if errors.from_signal_handler(error):
                raise
            self._warn(error)
        self._sweep()

    def _renew_owner(self) -> None:
        self._pid = os.getpid()
        self._owner = f"{self._pid}-{secrets.token_hex(4)}"
        self._number = 0

    @property
    def owner(self) -> str:
        """The name of this process on disk; a forked child has another."""
        if self._pid != os.getpid():
            self._renew_owner()
        return self._owner

    def _warn(self, error: Exception) -> None:
        errors.warn_once(
            f"spool {self.directory}",
            "telemetry cannot be kept in %s (%s); what is not exported is dropped and counted",
            self.directory,
            getattr(error, "strerror", None) or type(error).__name__,
        )

    def put(self, signal: Signal, line: bytes, items: int) -> bool:
        """Keep one batch; if that fails, warn once and return False."""
        owner = self.owner
        name = f"{signal}-{round(clock.unix() * 1000):013d}-{owner}-{self._number:06d}-{items}"
        self._number += 1
        temporary = self.directory / f"{_TEMPORARY}{name}.tmp"
        try:
            self._make_room(len(line))
            try:
                _write(temporary, line)
            except FileNotFoundError:  # a cleaner has removed the directory
                # an exception of a signal handler is raised again, below
                _make_directory(self.directory)
                _write(temporary, line)
            # the name is new, so this replaces no file
            os.rename(temporary, self.directory / f"{name}.jsonl")
        except OSError as error:
            with errors.ignoring(OSError):
                os.unlink(temporary)
            if errors.from_signal_handler(error):
                raise
            self._warn(error)
            return False
        _sync_directory(self.directory)
        return True

    def batches(self, signal: Signal | None = None) -> list[SpooledBatch]:
        """Return the batches on disk, the oldest first."""
        found = []
        with errors.ignoring(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                matched = _NAME.fullmatch(entry.name)
                if matched is None or signal not in (None, matched[1]):
                    continue
                if entry.name in self._undeletable:
                    continue
                with errors.ignoring(OSError):  # another process has sent it
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    found.append(
                        SpooledBatch(
                            cast("Signal", matched[1]),
                            int(matched[2]),
                            matched[3],
                            int(matched[4]),
                            int(matched[5]),
                            entry.name,
                            entry.stat(follow_symlinks=False).st_size,
                        )
                    )
        return sorted(found, key=lambda batch: batch[1:])

    @contextlib.contextmanager
    def claim(self, batch: SpooledBatch) -> Iterator[int | None]:
        """Lock a batch and yield its open file.

        Yields None if another process has it, or has sent it, or if it cannot be opened.
        """
        descriptor = None
        with errors.ignoring(OSError):
            descriptor = os.open(self.directory / batch.name, _OLD)
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor if _locked(descriptor) else None
        finally:
            if fcntl is not None:
                # after a mere close, a child forked meanwhile would still hold the lock
                with errors.ignoring(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def read(self, descriptor: int) -> bytes | None:
        """Return the content of a claimed batch; None if it cannot be read."""
        content = bytearray()
        with errors.ignoring(OSError):
            if os.fstat(descriptor).st_size > MAX_FILE_BYTES:
                return None
            while part := os.read(descriptor, min(_READ_BYTES, MAX_FILE_BYTES + 1 - len(content))):
                content += part
            return bytes(content) if len(content) <= MAX_FILE_BYTES else None
        return None

    def done(self, batch: SpooledBatch, *, sent: int) -> None:
        """Delete a claimed batch of which `sent` items arrived, and count it."""
        # if it cannot be deleted, at least this process does not send it again
        self._undeletable.add(batch.name)
        with errors.ignoring(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.directory / batch.name)
            self._undeletable.discard(batch.name)
        # else it may be back after a power failure, and be sent again
        _sync_directory(self.directory)
        ledger = self.ledgers.get(batch.signal)
        if ledger is not None:
            own = batch.owner == self.owner
            ledger.note_unspooled(batch.items, own=own, sent=sent)

    def expire(self, signal: Signal | None = None) -> None:
        """Drop the batches of `signal`, or of both, that are too old."""
        oldest_ms = (clock.unix() - self._max_age_s) * 1000
        for batch in self.batches(signal):
            if batch.created_ms >= oldest_ms:
                return
            self._drop(batch)

    def _drop(self, batch: SpooledBatch) -> bool:
        """Drop a batch; return False if another process has it and will soon delete it."""
        with self.claim(batch) as descriptor:
            if descriptor is None:
                return False
            self.done(batch, sent=0)
        return True

    def _make_room(self, size: int) -> None:
        """Drop the oldest batches until there is room for `size` bytes.

        Raises:
            OSError: there is not enough room even so.
        """
        self.expire()
        batches = self.batches()
        total = sum(batch.size for batch in batches)
        for batch in batches:
            if total + size <= self._max_bytes or size > self._max_bytes:
                break
            if not self._drop(batch):
                continue
            total -= batch.size
            errors.warn_once(
                f"spool full {self.directory}",
                "%s holds %d bytes, its limit; the oldest telemetry in it is dropped and counted",
                self.directory,
                self._max_bytes,
            )
        if size and total + size > self._max_bytes:
            raise OSError(0, f"more than the {self._max_bytes} bytes allowed")

    def _sweep(self) -> None:
        """Remove the temporary files that a crash left."""
        before = clock.unix() - _ABANDONED_S
        with contextlib.suppress(OSError):  # it has been reported already
            for path in list(self.directory.glob(f"{_TEMPORARY}*.tmp")):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < before:
                        path.unlink()


def _make_directory(directory: Path) -> None:
    """Make the directory and those above it, so that they are there after a power failure."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return
    except FileNotFoundError:
        if directory.parent.is_dir():  # such as /proc, where nothing can be made
            raise
        _make_directory(directory.parent)
        _make_directory(directory)
        return
    _sync_directory(directory.parent)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    with errors.ignoring(OSError):  # some file systems do not support it
        descriptor = os.open(directory, os.O_RDONLY | _CLOSE_ON_EXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Lock a regular file; return False if another process has it, or has just sent it."""
    with errors.ignoring(OSError):
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        return stat.S_ISREG(found.st_mode) and found.st_nlink > 0
    return False

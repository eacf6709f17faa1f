"""What the collector would not take, on disk until it does.

A directory of small files, one batch each, which any number of processes may share: a file is
written whole or not at all, its name says whose it is and how much it holds, and whoever sends
or drops it holds its lock meanwhile. A lock goes with its process, so nothing is left behind
by a crash but the file, which is then sent by another: perhaps for the second time.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.settings import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_pipeline_metrics._export.environment import Signal


fcntl: Any


try:
    import fcntl
except ImportError:  # not POSIX: no locks, so one process a directory
    fcntl = None


_NAME: Final = re.compile(r"(traces|metrics)-(\d{13})-(\d+-[0-9a-f]{8})-(\d{6,})-(\d+)\.jsonl")
ENVIRONMENT_VARIABLE: Final = "OTEL_PIPELINE_METRICS_SPOOL"
MAX_BYTES_VARIABLE: Final = "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES"
MAX_AGE_VARIABLE: Final = "OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE"

_TEMPORARY: Final = ".opm-"
_ABANDONED_S: Final = 600.0
"""After this long a temporary file is what a crash left behind."""


class SpooledBatch(NamedTuple):
    """One batch on disk, as its file's name tells."""

    signal: Signal
    created_ms: int
    owner: str
    """PID and a random token of the process that wrote it."""
    number: int
    items: int
    name: str
    size: int


class Loss(Protocol):
    """Who is told that a batch is dropped from the disk."""

    def note_unspooled(self, items: int, *, own: bool, sent: int) -> None:
        """Count a batch of `items` that is on disk no more, `sent` of them delivered."""


class Settings(NamedTuple):
    """Where the spool is, and its limits."""

    directory: Path
    max_bytes: int
    max_age_s: float


def settings(config: Config, env: Mapping[str, str]) -> Settings | None:
    """Return what `configure()` asked for, or else the environment; None: no spool."""
    name = env.get(ENVIRONMENT_VARIABLE, "").strip()
    directory = config.spool or (Path(name) if name else None)
    if directory is None:
        return None
    return Settings(
        # a later chdir must not split it
        Path(os.path.abspath(directory.expanduser())),  # noqa: PTH100 - links stay
        int(_limit(env, MAX_BYTES_VARIABLE, config.spool_max_bytes, Config.spool_max_bytes)),
        _limit(env, MAX_AGE_VARIABLE, config.spool_max_age_s, Config.spool_max_age_s),
    )


def max_age_s(env: Mapping[str, str]) -> float:
    """Return the limit of age that the environment names; infinite if it names none."""
    return _limit(env, MAX_AGE_VARIABLE, math.inf, math.inf)


def _limit(env: Mapping[str, str], name: str, given: float, default: float) -> float:
    text = env.get(name, "").strip()
    if not text or given != default:
        return given
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and number > 0:
        return number
    errors.warn_once(
        name, "%s must be a number above 0, not %.40r; %g is used", name, text, default
    )
    return default


def why_unusable(directory: Path) -> str | None:
    """Return why nothing can be kept there; None if it can. Makes the directory."""
    trial = directory / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(trial, b"x")
        trial.unlink()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


class Spool:
    """A bounded directory of batches.

    Args:
        directory: made if it is not there.
        max_bytes: of all batches together; the oldest give way.
        max_age_s: older ones are dropped.
    """

    def __init__(self, directory: Path, max_bytes: int, max_age_s: float) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self.accounts: dict[str, Loss] = {}
        """By signal: who counts what is dropped here."""
        self._undeletable: set[str] = set()
        self._new_owner()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._say(error)
        self._sweep()

    def _new_owner(self) -> None:
        self._pid = os.getpid()
        self._owner = f"{self._pid}-{secrets.token_hex(4)}"
        self._number = 0

    @property
    def owner(self) -> str:
        """Who this process is on disk; a forked child is another."""
        if self._pid != os.getpid():
            self._new_owner()
        return self._owner

    def _say(self, error: OSError) -> None:
        errors.warn_once(
            f"spool {self.directory}",
            "telemetry cannot be kept in %s (%s); what is not exported is dropped and counted",
            self.directory,
            error.strerror or type(error).__name__,
        )

    def put(self, signal: Signal, line: bytes, items: int) -> bool:
        """Keep one batch; False if it cannot be kept, which is said once."""
        owner = self.owner
        name = f"{signal}-{round(clock.unix() * 1000):013d}-{owner}-{self._number:06d}-{items}"
        self._number += 1
        temporary = self.directory / f"{_TEMPORARY}{name}.tmp"
        try:
            self._make_room(len(line))
            _write(temporary, line)
            # the name is new, so nothing is replaced
            temporary.rename(self.directory / f"{name}.jsonl")
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._say(error)
            return False
        with contextlib.suppress(OSError):  # some file systems cannot
            _sync_directory(self.directory)
        return True

    def parcels(self, signal: Signal | None = None) -> list[SpooledBatch]:
        """Return what is on disk, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                matched = _NAME.fullmatch(entry.name)
                if matched is None or signal not in (None, matched[1]):
                    continue
                if entry.name in self._undeletable:
                    continue
                with contextlib.suppress(OSError):  # another process has sent it
                    found.append(
                        SpooledBatch(
                            cast("Signal", matched[1]),
                            int(matched[2]),
                            matched[3],
                            int(matched[4]),
                            int(matched[5]),
                            entry.name,
                            entry.stat().st_size,
                        )
                    )
        return sorted(found, key=lambda parcel: parcel[1:])

    @contextlib.contextmanager
    def claim(self, parcel: SpooledBatch) -> Iterator[Path | None]:
        """Hold a batch against other processes; None if one has it, or has sent it."""
        path = self.directory / parcel.name
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            yield None
            return
        try:
            yield path if _locked(descriptor) else None
        finally:
            if fcntl is not None:
                # closing alone would leave the lock with a child forked meanwhile
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def done(self, parcel: SpooledBatch, *, sent: int) -> None:
        """Delete a claimed batch of which `sent` items arrived, and have it counted."""
        try:
            (self.directory / parcel.name).unlink(missing_ok=True)
        except OSError:
            # this process at least does not send it again
            self._undeletable.add(parcel.name)
        account = self.accounts.get(parcel.signal)
        if account is not None:
            own = parcel.owner == self.owner
            account.note_unspooled(parcel.items, own=own, sent=sent)

    def expire(self, signal: Signal | None = None) -> None:
        """Drop the batches of `signal`, or of both, that are too old."""
        oldest_ms = (clock.unix() - self._max_age_s) * 1000
        for parcel in self.parcels(signal):
            if parcel.created_ms >= oldest_ms:
                return
            self._drop(parcel)

    def _drop(self, parcel: SpooledBatch) -> bool:
        """Drop a batch; False if a process has it: it will be gone soon."""
        with self.claim(parcel) as path:
            if path is None:
                return False
            self.done(parcel, sent=0)
        return True

    def _make_room(self, size: int) -> None:
        """Drop the oldest batches until there is room for `size` bytes.

        Raises:
            OSError: there is none, even so.
        """
        self.expire()
        parcels = self.parcels()
        total = sum(parcel.size for parcel in parcels)
        for parcel in parcels:
            if total + size <= self._max_bytes or size > self._max_bytes:
                break
            if not self._drop(parcel):
                continue
            total -= parcel.size
            errors.warn_once(
                f"spool full {self.directory}",
                "%s holds %d bytes, the most it may; the oldest telemetry in it is dropped "
                "and counted",
                self.directory,
                self._max_bytes,
            )
        if size and total + size > self._max_bytes:
            raise OSError(0, f"more than the {self._max_bytes} bytes allowed")

    def _sweep(self) -> None:
        """Remove what crashes left half written."""
        before = clock.unix() - _ABANDONED_S
        for path in self.directory.glob(f"{_TEMPORARY}*.tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(descriptor).st_nlink > 0  # else it was sent while we opened it

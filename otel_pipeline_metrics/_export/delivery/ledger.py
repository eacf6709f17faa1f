"""The ledger: what became of every span and metric point, exact at any moment.

`created = exported + sampled_out + dropped + spooled + pending`, for spans and for metric
points. Only the exporter knows these numbers: the SDK's `force_flush` returns True on failure,
and its queue drops without a word.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from otel_pipeline_metrics._core.environment_variables import OTEL_PIPELINE_METRICS_EXPORTER_LOGS
from otel_pipeline_metrics._core.errors import logger
from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.environment import Signal


# Exports between two collections; a reader that never collects needs no more.
_MAX_DURATIONS: Final = 1024


class LedgerSnapshot(NamedTuple):
    """The state of this process's spans or metric points since `configure()`."""

    # spans that ended or were not sampled; points that were collected for export
    created: int
    # accepted by the collector, if this process sent them
    exported: int
    sampled_out: int
    # refused or lost: a full queue, a passed deadline, a full disk
    dropped: int
    # on disk, to be sent later; another process that sends them does not tell this one
    spooled: int
    # in the queue, or being sent
    pending: int


class ExportLedger:
    """The ledger of one exporter. Items are spans or metric points.

    Args:
        signal: what it exports.
        kind: which exporter it is.
        target: where it sends to, without credentials.
        remote: whether that is outside the process.
        already_warned: hosts whose failure was reported; shared, so that traces and metrics to
            one collector give one warning.
    """

    def __init__(
        self,
        signal: Signal,
        kind: str,
        target: str,
        *,
        remote: bool = True,
        already_warned: set[str] | None = None,
    ) -> None:
        self.signal = signal
        self.kind = kind
        self.target = target
        self.remote = remote
        self._already_warned = set() if already_warned is None else already_warned
        # the deadline has passed: what still comes is not tried
        self.stopped = False
        # set at shutdown: the network may be used until this monotonic time
        self.until: float | None = None
        # the directory that keeps what cannot be sent
        self.kept_in: str | None = None
        # the number of items in the queue before the exporter; it returns None if unknown
        self.waiting: Callable[[], int | None] | None = None
        # the number of items that the queue holds at most
        self.capacity = 0
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # a signal handler may call stats()
        self._accepted = itertools.count()
        # counts one span into the queue; without a lock, since this runs in the user's thread
        self.accept = self._accepted.__next__
        self._looks = 0
        self._taken = 0
        self.exported = 0
        self.failed = 0
        self.spooled = 0
        # items of other processes, or of earlier ones, that were sent from the spool
        self.replayed = 0
        # such items that the spool's limits or the collector made an end of
        self.replay_dropped = 0
        self.batches_failed = 0
        self.batches_spooled = 0
        # (seconds, whether it was accepted) of the latest exports that were not read yet
        self.durations: deque[tuple[float, bool]] = deque(maxlen=_MAX_DURATIONS)
        # grows with everything that does not arrive in time
        self.misses = 0
        # whether the queue has ever been nearly full
        self.crowded = False
        # the result of the last export; None before the first
        self.last_ok: bool | None = None
        # why the last export that failed did, if that is known
        self.reason: str | None = None
        self._in_progress = 0
        self._closed = False

    def _created(self) -> int:
        if self.waiting is None:
            return self._taken
        # looking takes a number too, which is left out
        created = next(self._accepted) - self._looks
        self._looks += 1
        return created

    def snapshot(self, sampled_out: int = 0) -> LedgerSnapshot:
        """Return the state of all items now."""
        with self._lock:
            created = self._created()
            left = max(0, created - self.exported - self.failed - self.spooled)
            overflow = left if self._closed else self._overflow(created)
            return LedgerSnapshot(
                created=created + sampled_out,
                exported=self.exported,
                sampled_out=sampled_out,
                dropped=self.failed + overflow,
                spooled=self.spooled,
                pending=left - overflow,
            )

    def _overflow(self, created: int) -> int:
        """Return how many a full queue dropped: neither in it nor ever taken from it."""
        queued = self.waiting() if self.crowded and self.waiting is not None else None
        return 0 if queued is None else max(0, created - self._taken - queued)

    @property
    def overflowed(self) -> int:
        """Items that a full queue dropped so far."""
        with self._lock:
            return self._overflow(self._created())

    @property
    def pending(self) -> int:
        """Items that entered the queue and have not left it."""
        return self.snapshot().pending

    def begin(self, items: int) -> None:
        """Count `items` that the exporter receives; one export runs at a time."""
        with self._lock:
            # One statement without a call: an exception that a signal handler raises
            # strikes before or after it.
            self._taken, self._in_progress = self._taken + items, items

    def drop(self, items: int) -> None:
        """Count `items` of the export in progress that cannot be encoded."""
        with self._lock:
            lost = 0 if self._closed else items
            self.failed, self._in_progress = self.failed + lost, self._in_progress - items
            self.misses += lost

    def give_up(self) -> None:
        """Count what is left of an export that an exception ended."""
        with self._lock:
            if not self._in_progress:
                return
            lost = 0 if self._closed else self._in_progress
            self.failed, self._in_progress = self.failed + lost, 0
            self.batches_failed += bool(lost)
            self.misses += bool(lost)

    def note(self, items: int, *, ok: bool, rejected: int = 0, reason: str | None = None) -> None:
        """Count one export of `items`, and warn if it is the first failure of its host.

        Args:
            items: spans or metric points.
            ok: whether the collector accepted them.
            rejected: how many of them it rejected in spite of that.
            reason: why it failed.
        """
        with self._lock:
            if self._closed:
                self._in_progress = 0
                return
            exported = self.exported + (items - rejected if ok else 0)
            failed = self.failed + (rejected if ok else items)
            self.exported, self.failed, self._in_progress = exported, failed, 0
            self.last_ok = ok
            self.batches_failed += not ok
            self.misses += rejected + (not ok)
            self.reason = reason or self.reason
        if not ok:
            self.warn(reason)
        elif rejected:
            self._warn_of_rejected()

    def note_spooled(self, items: int) -> None:
        """Count a batch that is on disk now; after the end too, since it is not lost."""
        with self._lock:
            self.spooled, self._in_progress = self.spooled + items, 0
            self.last_ok = False
            self.batches_spooled += 1
            self.misses += 1
            if self._closed:
                self.failed = max(0, self.failed - items)
                self.batches_failed = max(0, self.batches_failed - 1)

    def note_unspooled(self, items: int, *, own: bool, sent: int) -> None:
        """Count a batch that left the disk: `sent` of it arrived, the rest is dropped."""
        with self._lock:
            if own:
                self.spooled -= items
                self.batches_spooled -= 1
                self.exported += sent
                self.failed += items - sent
            else:
                self.replayed += sent
                self.replay_dropped += items - sent

    def close(self) -> None:
        """Count what has not arrived by now as failed, and count nothing more."""
        with self._lock:
            if self._in_progress:
                self.batches_failed += 1
                self.last_ok = False
                self.reason = "no answer in time"
            lost = max(0, self._created() - self.exported - self.failed - self.spooled)
            self.failed += lost
            self.misses += lost
            self._closed = True

    @property
    def host(self) -> str:
        """The target without its path."""
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else self.target

    @property
    def _rejected_key(self) -> str:
        return f"{self.host} rejected {self.signal}"

    def mute(self) -> None:
        """Give no warnings about this host: the caller reports its failures."""
        self._already_warned |= {self.host, self._rejected_key}

    def _is_first_warning(self, key: str) -> bool:
        is_first = key not in self._already_warned
        self._already_warned.add(key)
        return is_first

    def warn(self, reason: str | None) -> None:
        """Warn that exporting fails, once for each host, and not after the deadline."""
        if self.stopped or not self._is_first_warning(self.host):
            return
        logger.warning(
            "telemetry cannot be exported to %s%s; the pipeline continues, and what is %s. "
            "To see the exporter's own log lines: %s=true",
            self.host,
            f" ({reason})" if reason else "",
            "lost is counted"
            if self.kept_in is None
            else f"not accepted is kept in {self.kept_in}",
            OTEL_PIPELINE_METRICS_EXPORTER_LOGS,
        )

    def _warn_of_rejected(self) -> None:
        if self._is_first_warning(self._rejected_key):
            logger.warning(
                "%s accepts some of the %s and rejects others (partial success); what it rejects "
                "is counted as dropped",
                self.host,
                "spans" if self.signal == "traces" else "metric points",
            )

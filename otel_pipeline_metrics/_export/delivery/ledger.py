"""The ledger: what became of everything that was to go out, exact at any moment.

`created = exported + sampled_out + dropped + spooled + pending`, for spans and for metric
points. It is kept at the exporter, the only place that knows: the SDK's `force_flush` returns
True on failure, and its queue drops in silence.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from otel_pipeline_metrics._core.counter import Counter
from otel_pipeline_metrics._core.errors import logger
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.delivery import log_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.environment import Signal


class LedgerSnapshot(NamedTuple):
    """What became of the spans or the metric points of this process, since `configure()`."""

    created: int
    """Spans that ended or were not sampled; points that were collected for export."""
    exported: int
    """Taken by the collector, in this process' own account."""
    sampled_out: int
    dropped: int
    """Refused, or lost: a full queue, a passed deadline, a disk that took no more."""
    spooled: int
    """On disk, to be sent later; another process that sends them does not tell this one."""
    pending: int
    """In the queue, or being sent."""


class ExportLedger:
    """What became of the data of one exporter. Items are spans or metric points.

    Args:
        signal: What it exports.
        kind: Which exporter it is.
        target: Where it sends to, without credentials.
        remote: Whether that is outside the process.
        said: Hosts whose failure was reported; shared, so that traces and metrics to one
            collector make one line.
    """

    def __init__(
        self,
        signal: Signal,
        kind: str,
        target: str,
        *,
        remote: bool = True,
        said: set[str] | None = None,
    ) -> None:
        self.signal = signal
        self.kind = kind
        self.target = target
        self.remote = remote
        self._said = set() if said is None else said
        self.stopped = False
        """The deadline has passed: whatever still comes is not tried any more."""
        self.until: float | None = None
        """The end has begun, and the network may be used until this monotonic time."""
        self.kept_in: str | None = None
        """Where what cannot be sent is kept, if it is."""
        self.waiting: Callable[[], int | None] | None = None
        """How many items are in the queue before the exporter, where one can look into it."""
        self.capacity = 0
        """How many items the queue holds at most."""
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Start at nothing: in a forked child what came before is the parent's to report."""
        self._lock = threading.RLock()  # stats() may be asked for by a signal handler
        self._accepted = Counter()
        self._taken = 0
        self.exported = 0
        self.failed = 0
        self.spooled = 0
        self.replayed = 0
        """Items of other processes, or of earlier ones, that were sent from the spool."""
        self.replay_dropped = 0
        """Items of others that the spool's limits or the collector put an end to."""
        self.batches_failed = 0
        self.batches_spooled = 0
        self.misses = 0
        """Grows with everything that does not arrive when it should."""
        self.crowded = False
        """Whether the queue has ever been near its limit."""
        self.last_ok: bool | None = None
        """How the last export went; None before the first."""
        self._under_way = 0
        self._closed = False

    def accept(self) -> None:
        """Count one span into the queue; no lock, since this is in the user's thread."""
        self._accepted.add()

    def _created(self) -> int:
        return self._taken if self.waiting is None else self._accepted.value()

    def ledger(self, sampled_out: int = 0) -> LedgerSnapshot:
        """Return where everything is now."""
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
        """Return how many a full queue dropped: neither in it nor ever taken out of it."""
        queued = self.waiting() if self.crowded and self.waiting is not None else None
        return 0 if queued is None else max(0, created - self._taken - queued)

    @property
    def pending(self) -> int:
        """Spans that went into the queue and have not come out of it."""
        return self.ledger().pending

    def begin(self, items: int) -> None:
        """Note that the exporter has been given `items`; one export runs at a time."""
        with self._lock:
            self._taken += items
            self._under_way = items

    def note(self, items: int, *, ok: bool, rejected: int = 0, reason: str | None = None) -> None:
        """Count one export of `items`, and say so if it is the first to its host that failed.

        Args:
            items: Spans or metric points.
            ok: Whether the collector took them.
            rejected: How many of them it did not take all the same.
            reason: Why it failed.
        """
        with self._lock:
            self._under_way = 0
            if self._closed:
                return
            self.last_ok = ok
            self.exported += items - rejected if ok else 0
            self.failed += rejected if ok else items
            self.batches_failed += not ok
            self.misses += rejected + (not ok)
        if not ok:
            self.warn(reason)
        elif rejected:
            self._say_rejected()

    def note_spooled(self, items: int) -> None:
        """Count a batch that is on disk now; after the end too, since there it is."""
        with self._lock:
            self._under_way = 0
            self.last_ok = False
            self.spooled += items
            self.batches_spooled += 1
            self.misses += 1
            if self._closed:
                self.failed = max(0, self.failed - items)
                self.batches_failed = max(0, self.batches_failed - 1)

    def note_unspooled(self, items: int, *, own: bool, sent: int) -> None:
        """Count a batch that is on disk no more: `sent` of it arrived, the rest is dropped."""
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
        """Count everything that is not out by now as failed, and count nothing after that."""
        with self._lock:
            if self._under_way:
                self.batches_failed += 1
                self.last_ok = False
            lost = max(0, self._created() - self.exported - self.failed - self.spooled)
            self.failed += lost
            self.misses += lost
            self._closed = True

    @property
    def host(self) -> str:
        """Where it sends to, without the path."""
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else self.target

    def mute(self) -> None:
        """Say nothing about this host: somebody else does."""
        self._said |= {self.host, f"{self.host} rejected {self.signal}"}

    def warn(self, reason: str | None) -> None:
        """Say that exporting fails, once for each host, and not after the deadline."""
        if self.stopped or self.host in self._said:
            return
        self._said.add(self.host)
        logger.warning(
            "telemetry cannot be exported to %s%s; the pipeline goes on, and what is %s. "
            "The exporter's own log lines: %s=true",
            self.host,
            f" ({reason})" if reason else "",
            "lost is counted" if self.kept_in is None else f"not taken is kept in {self.kept_in}",
            log_filter.ENVIRONMENT_VARIABLE,
        )

    def _say_rejected(self) -> None:
        key = f"{self.host} rejected {self.signal}"
        if key in self._said:
            return
        self._said.add(key)
        logger.warning(
            "%s takes some of the %s and rejects others (partial success); what it rejects "
            "is counted as dropped",
            self.host,
            "spans" if self.signal == "traces" else "metric points",
        )

"""Carries one exporter's batches to the collector, or else to the disk, and counts them.

An export that leaves the process runs in a thread of its own, so that at the deadline the batch
that is under way is given up at once, however long its request still hangs, and can be kept on
disk. With a spool, after a failure, the collector is left alone for a while: what comes meanwhile
goes to the disk without being tried, or the queue would overflow while each attempt takes its two
seconds.
"""

from __future__ import annotations

import contextvars
import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.background import BackgroundCall, BackgroundThread
from otel_pipeline_metrics._export.delivery import log_filter, responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.delivery.spool import Spool, SpooledBatch
    from otel_pipeline_metrics._export.environment import Signal


SLOW_S: Final = 0.5
"""A failure that took longer and gave no reason is told with its time."""

RESEND_S: Final = 0.5
"""How long an export that succeeded may go on with what is on disk."""

PAUSE_S: Final = (1.0, 30.0)
"""For how long a collector that failed is left alone: at first, doubled each time, at most."""

ATTEMPTS: Final = 2
"""With a spool an exporter's retries are few: the disk is the better place to wait in."""

PATIENCE_S: Final = 10.0
_LOOK_S: Final = 1.0


class Delivery(NamedTuple):
    """How one attempt went."""

    ok: bool
    reason: str | None = None
    permanent: bool = False
    rejected: int = 0


_GIVEN_UP: Final = Delivery(ok=False, reason="no answer in time")


class Carrier:
    """One exporter's way out.

    Args:
        account: counts.
        spool: keeps what is not taken; None: it is lost.
        send_nothing: makes the exporter export an empty batch, in whose place a batch from the
            disk is sent; None: it cannot be watched, so that is left to `opm replay`.
        patience_s: with a spool an attempt is given up after this long. The exporters of
            SDK 1.30 go on for a minute.
    """

    def __init__(
        self,
        account: ExportLedger,
        spool: Spool | None = None,
        send_nothing: Callable[[], object] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.account = account
        self._spool = spool
        self._send_nothing = send_nothing
        self._patience_s = patience_s
        self._lane: BackgroundThread | None = None
        self.after_fork()
        forking.watch(self)
        self.reason: str | None = None
        """Why the last batch was not taken; None if it was."""
        if account.remote:
            self._lane = BackgroundThread(f"export-{account.signal}")
        if spool is not None:
            account.kept_in = str(spool.directory)
            spool.accounts[account.signal] = account

    def after_fork(self) -> None:
        """Forget the attempt that the parent is making, and what it learnt of the collector."""
        self._job: BackgroundCall | None = None
        self._woken = threading.Event()
        self._pause_s = 0.0
        self._paused_until = 0.0

    def carry(self, items: int, export: Callable[[], bool], line: Callable[[], bytes]) -> bool:
        """Export a batch, or keep it; say whether the collector took it.

        Args:
            items: spans or metric points in it.
            export: makes the exporter export it.
            line: gives it as a line for the disk.
        """
        account = self.account
        account.begin(items)
        delivery = Delivery(ok=False) if self._pointless() else self._deliver(export)
        self.reason = delivery.reason
        if delivery.ok:
            self._pause_s = 0.0
            account.note(items, ok=True, rejected=min(items, delivery.rejected))
            self.resend(time.monotonic() + RESEND_S)
        elif not delivery.permanent and self._keep(items, line):
            account.note_spooled(items)
            account.warn(delivery.reason)
            self._pause()
        else:
            account.note(items, ok=False, reason=delivery.reason)
        return delivery.ok

    def _pointless(self) -> bool:
        if self.account.stopped:
            return True
        if self._spool is None:
            return False
        given_up = self._job is not None and not self._job.done
        return given_up or time.monotonic() < self._paused_until

    def _pause(self) -> None:
        if self.account.until is not None or time.monotonic() < self._paused_until:
            return
        least, most = PAUSE_S
        self._pause_s = min(most, max(least, 2 * self._pause_s))
        self._paused_until = time.monotonic() + self._pause_s

    def _keep(self, items: int, line: Callable[[], bytes]) -> bool:
        if self._spool is None or not items:
            return False
        with errors.suppress_errors("spool"):
            return self._spool.put(self.account.signal, line(), items)
        return False

    def begin_shutdown(self, until: float) -> None:
        """The end has begun: the collector is tried once more, until this monotonic time."""
        self._paused_until = 0.0
        self.account.until = until

    def stop(self) -> None:
        """The time is up: nothing more is tried, and what is under way is given up."""
        self.account.stopped = True
        self._woken.set()

    def close(self) -> None:
        """Let the thread go."""
        if self._lane is not None:
            self._lane.close()

    def _deliver(self, export: Callable[[], bool], replacement: Any = None) -> Delivery:
        if self._lane is None:
            return _attempt(export, replacement)
        done: list[Delivery] = []
        woken = self._woken = threading.Event()
        # The SDK has switched instrumentation off in this context; it must be off there too.
        context = contextvars.copy_context()
        keeps = self._spool is not None
        attempts = ATTEMPTS if keeps else None

        def attempt() -> None:
            try:
                done.append(context.run(_attempt, export, replacement, attempts))
            finally:
                woken.set()

        self._job = self._lane.submit(attempt)
        give_up_at = time.monotonic() + (self._patience_s if keeps else math.inf)
        while not (done or self._job.done or self.account.stopped):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                break
            woken.wait(min(left_s, _LOOK_S))
        return done[0] if done else _GIVEN_UP

    # --- what is on disk --------------------------------------------------------------------

    def resend(self, until: float) -> None:
        """Send what is on disk, the oldest first, beginning nothing after `until`.

        It ends at the first failure, and where the queue needs the time more.
        """
        if self._spool is None or self._send_nothing is None:
            return
        with errors.suppress_errors("sending what is on disk"):
            self._spool.expire(self.account.signal)
            for parcel in self._spool.parcels(self.account.signal):
                if self.account.stopped or time.monotonic() >= until or self._busy():
                    return
                with self._spool.claim(parcel) as path:
                    if path is not None and not self._resend(parcel, path.read_bytes()):
                        return

    def drain(self) -> None:
        """Send what is on disk, as far as the time that is left at the end allows."""
        until = self.account.until
        if self.account.last_ok and until is not None:
            self.resend(until)

    def _busy(self) -> bool:
        """Tell whether the queue fills up; at the end nothing more comes."""
        account = self.account
        if account.until is not None or account.waiting is None:
            return False
        return (account.waiting() or 0) > account.capacity // 2

    def _resend(self, parcel: SpooledBatch, lines: bytes) -> bool:
        """Send one claimed batch; say whether the collector is still there."""
        spool, send_nothing = self._spool, self._send_nothing
        if spool is None or send_nothing is None:
            return False
        delivery = send_lines(
            parcel.signal,
            lines,
            lambda request: self._deliver(lambda: bool(send_nothing()), request),
        )
        if delivery.ok:
            spool.done(parcel, sent=max(0, parcel.items - delivery.rejected))
        self.reason = delivery.reason
        return delivery.ok


def send_lines(signal: Signal, lines: bytes, send: Callable[[Any], Delivery]) -> Delivery:
    """Send each line's request, until one fails for now.

    Success means that nothing is left to try: what was refused for good is among the rejected.
    """
    from otel_pipeline_metrics._export.delivery import otlp_json

    rejected = 0
    for line in lines.splitlines():
        try:
            request = otlp_json.request(signal, line)
        except ValueError:
            errors.warn_once("spool line", "a line that is no OTLP/JSON is dropped from the spool")
            rejected = sys.maxsize  # nobody knows how many
            continue
        delivery = send(request)
        if delivery.permanent:
            rejected += otlp_json.count(request)
        elif not delivery.ok:
            return delivery
        else:
            rejected += delivery.rejected
    return Delivery(ok=True, rejected=rejected)


def _attempt(
    export: Callable[[], bool], replacement: Any = None, attempts: int | None = None
) -> Delivery:
    """Make one export, and tell how it went; never raises for what the exporter does."""
    started = clock.now()
    ok = False
    with log_filter.exporting() as heard, responses.exchange(replacement, attempts) as seen:
        try:
            ok = export()
        except Exception as error:  # SDK 1.30 raises on a refused connection
            heard.reason = type(error).__name__
    answer = seen.answer
    if answer is not None and not answer.ok:
        return Delivery(ok=False, reason=answer.reason, permanent=answer.permanent)
    if ok and answer is not None:
        return Delivery(ok=True, rejected=answer.rejected)
    if ok and replacement is None:
        return Delivery(ok=True)
    reason = heard.reason
    elapsed_s = clock.now() - started
    if reason is None and elapsed_s > SLOW_S:
        reason = f"no success in {elapsed_s:.1f} s"
    return Delivery(ok=False, reason=reason, permanent=responses.is_permanent(reason))

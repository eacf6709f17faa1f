"""Deliver an exporter's batches to the collector or to the disk, and count them.

An export that leaves the process runs in its own thread. So the batch in progress is given up
at the deadline at once, however long its request still hangs, and can be kept on disk. With a
spool, the exporter pauses after a failure: later batches go to the disk without an attempt.
Otherwise the queue would overflow while each attempt takes its two seconds.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import sys
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.background import BackgroundCall, BackgroundThread
from otel_pipeline_metrics._export.delivery import log_filter, responses
from otel_pipeline_metrics._export.delivery.responses import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._export.delivery.batch import Batch
    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.delivery.spool import Spool, SpooledBatch
    from otel_pipeline_metrics._export.environment import Signal


# a failure without a reason that took longer is reported with its time
SLOW_S: Final = 0.5
# how long a successful export may continue with what is on disk
RESEND_S: Final = 0.5
# the pause after a failure: the first one, and the longest, as it doubles with each failure
PAUSE_S: Final = (1.0, 30.0)
# with a spool an exporter retries little: the disk is the better place to wait
ATTEMPTS: Final = 2
PATIENCE_S: Final = 10.0
_POLL_S: Final = 1.0
_GIVEN_UP: Final = Answer(ok=False, reason="no answer in time")


class Delivery:
    """The way of one exporter's batches to the collector or to the disk.

    Args:
        ledger: counts.
        spool: keeps what the collector does not accept; None: that is lost.
        send_empty: makes the exporter export an empty batch, which a batch from the disk
            replaces; None: the answers cannot be observed, so `opm replay` sends the spool.
        patience_s: with a spool an attempt is given up after this long. The exporters of
            SDK 1.30 retry for a minute.
    """

    def __init__(
        self,
        ledger: ExportLedger,
        spool: Spool | None = None,
        send_empty: Callable[[], bool] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.ledger = ledger
        self._spool = spool
        self._send_empty = send_empty
        self._patience_s = patience_s
        self._thread: BackgroundThread | None = None
        self.after_fork()
        forking.watch(self)
        # why the last batch was not accepted; None if it was
        self.reason: str | None = None
        if ledger.remote:
            self._thread = BackgroundThread(f"export-{ledger.signal}")
        if spool is not None:
            ledger.kept_in = str(spool.directory)
            spool.ledgers[ledger.signal] = ledger

    def after_fork(self) -> None:
        self._call: BackgroundCall | None = None
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._pause_s = 0.0
        self._paused_until = 0.0

    def deliver(self, batch: Batch, export: Callable[[], bool]) -> bool:
        """Export a batch, or keep it; return whether the collector accepted it.

        Args:
            batch: what of it cannot be encoded is dropped, and counted.
            export: makes the exporter export it.
        """
        try:
            self.ledger.begin(batch.items)
            return self._deliver(batch, export)
        finally:
            # an exception of the program's, raised by a signal handler into its own flush
            self.ledger.give_up()

    def _deliver(self, batch: Batch, export: Callable[[], bool]) -> bool:
        ledger = self.ledger
        started = clock.now()
        answer = Answer(ok=False) if self._is_pointless() else self._try(export)
        ledger.durations.append((clock.now() - started, answer.ok))
        if answer.unsent and self._sift(batch):
            if not batch.items:
                return False
            answer = self._try(export)
        self.reason = answer.reason
        if answer.ok:
            self._pause_s = 0.0
            ledger.note(batch.items, ok=True, rejected=min(batch.items, answer.rejected))
            self.resend(clock.monotonic() + RESEND_S)
        elif not answer.permanent and self._keep(batch):
            ledger.note_spooled(batch.items)
            ledger.warn(answer.reason)
            self._pause()
        else:
            ledger.note(batch.items, ok=False, reason=answer.reason)
        return answer.ok

    def _sift(self, batch: Batch) -> int:
        """Drop what of a batch cannot be encoded; return how many items that are."""
        dropped = batch.sift()
        if dropped:
            self.ledger.drop(dropped)
        return dropped

    def _is_pointless(self) -> bool:
        if self.ledger.stopped or self._spool is None:
            return self.ledger.stopped
        hangs = self._call is not None and not self._call.done
        return hangs or clock.monotonic() < self._paused_until

    def _pause(self) -> None:
        if self.ledger.until is not None or clock.monotonic() < self._paused_until:
            return
        least, most = PAUSE_S
        self._pause_s = min(most, max(least, 2 * self._pause_s))
        self._paused_until = clock.monotonic() + self._pause_s

    def _keep(self, batch: Batch) -> bool:
        if self._spool is None or not batch.items:
            return False
        with errors.suppress_errors("the spool"):
            try:
                line = batch.line()
            except Exception as error:
                if errors.from_signal_handler(error) or not self._sift(batch):
                    raise
                line = batch.line()
            return bool(batch.items) and self._spool.put(self.ledger.signal, line, batch.items)
        return False

    def begin_shutdown(self, until: float) -> None:
        """Try the collector once more at shutdown, until this monotonic time."""
        self._paused_until = 0.0
        self.ledger.until = until

    def stop(self) -> None:
        """Begin no further attempt, and give up the one in progress."""
        self.ledger.stopped = True
        self._woken.put(None)

    def close(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._thread.close()

    def _try(self, export: Callable[[], bool], replacement: Any = None) -> Answer:
        if self._thread is None:
            return _attempt(export, replacement)
        answers: list[Answer] = []
        # Not an event: an exception of a signal handler that strikes while this thread waits could
        # leave the event's lock held, for which the exporting thread would wait for ever.
        woken = self._woken = SimpleQueue()
        # The SDK has switched instrumentation off in this context; it must be off there too.
        context = contextvars.copy_context()
        keeps = self._spool is not None
        attempts = ATTEMPTS if keeps else None

        def attempt() -> None:
            try:
                answers.append(context.run(_attempt, export, replacement, attempts))
            finally:
                woken.put(None)

        self._call = self._thread.submit(attempt)
        give_up_at = clock.monotonic() + (self._patience_s if keeps else math.inf)
        while not (answers or self._call.done or self.ledger.stopped):
            left_s = give_up_at - clock.monotonic()
            if left_s <= 0:
                break
            with contextlib.suppress(Empty):
                woken.get(timeout=min(left_s, _POLL_S))
        return answers[0] if answers else _GIVEN_UP

    # --- what is on disk --------------------------------------------------------------------

    def resend(self, until: float) -> None:
        """Send what is on disk, the oldest first, and begin no batch after `until`.

        It ends at the first failure, and earlier if the queue fills up meanwhile.
        """
        if self._spool is None or self._send_empty is None:
            return
        with errors.suppress_errors("sending what is on disk"):
            self._spool.expire(self.ledger.signal)
            for batch in self._spool.batches(self.ledger.signal):
                if self.ledger.stopped or clock.monotonic() >= until or self._is_busy():
                    return
                with self._spool.claim(batch) as descriptor:
                    lines = None if descriptor is None else self._spool.read(descriptor)
                    if lines is not None and not self._resend(batch, lines):
                        return

    def drain(self) -> None:
        """Send what is on disk, as far as the remaining time at shutdown allows."""
        until = self.ledger.until
        if self.ledger.last_ok and until is not None:
            self.resend(until)

    def _is_busy(self) -> bool:
        """Tell whether the queue fills up; at shutdown nothing more enters it."""
        ledger = self.ledger
        if ledger.until is not None or ledger.waiting is None:
            return False
        return (ledger.waiting() or 0) > ledger.capacity // 2

    def _resend(self, batch: SpooledBatch, lines: bytes) -> bool:
        """Send one claimed batch; return whether the collector still answers."""
        spool, send_empty = self._spool, self._send_empty
        if spool is None or send_empty is None:
            return False
        answer = send_lines(batch.signal, lines, lambda request: self._try(send_empty, request))
        if answer.ok:
            spool.done(batch, sent=max(0, batch.items - answer.rejected))
        self.reason = answer.reason
        return answer.ok


def send_lines(signal: Signal, lines: bytes, send: Callable[[Any], Answer]) -> Answer:
    """Send the request of each line, until one fails temporarily.

    Success means that nothing is left to send: permanent refusals are counted as rejected.
    """
    from otel_pipeline_metrics._export.delivery import otlp_json

    # how many items an empty file held is unknown
    rejected = 0 if lines.strip() else sys.maxsize
    for line in lines.splitlines():
        try:
            request = otlp_json.request(signal, line)
        except ValueError:
            errors.warn_once(
                "spool line", "a line in the spool is not valid OTLP/JSON and is dropped"
            )
            rejected = sys.maxsize  # how many items it held is unknown
            continue
        answer = send(request)
        if answer.permanent:
            rejected += otlp_json.count(request)
        elif not answer.ok:
            return answer
        else:
            rejected += answer.rejected
    return Answer(ok=True, rejected=rejected)


def _attempt(
    export: Callable[[], bool], replacement: Any = None, attempts: int | None = None
) -> Answer:
    """Make one export and return the answer; never raise an error of the exporter."""
    started = clock.now()
    ok = False
    with log_filter.exporting() as logs, responses.exchange(replacement, attempts) as seen:
        try:
            ok = export()
        except Exception as error:  # SDK 1.30 raises on a refused connection
            if errors.from_signal_handler(error):  # the console's export is in the program's thread
                raise
            logs.reason = responses.why(error)
    answer = seen.answer
    if answer is not None and (ok or not answer.ok):
        return answer
    if ok and replacement is None:
        return Answer(ok=True)
    reason = logs.reason
    elapsed_s = clock.now() - started
    if reason is None and elapsed_s > SLOW_S:
        reason = f"no success in {elapsed_s:.1f} s"
    return Answer(ok=False, reason=reason, unsent=replacement is None)

"""What `build` returns: the two providers, and the ways to flush and to end them in time."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._core.errors import logger
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.background import (
    BackgroundCall,
    BackgroundThread,
    Collector,
    wait_for,
)
from otel_pipeline_metrics._export.delivery import log_filter as _log_filter
from otel_pipeline_metrics._export.delivery.ledger import LedgerSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._export.background import Collector
    from otel_pipeline_metrics._export.delivery.counting_processor import CountingSampler
    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.environment import Signal
    from otel_pipeline_metrics._export.exporters import Counted


GRACE_S: Final = 0.25
"""After the deadline exporters are told to give up; this long a well-behaved one may take, so
that no thread is inside native code when the interpreter goes."""

CONSOLE_S: Final = 0.2
"""How long the metrics wait for the spans where these only go to the console."""

WRITING_S: Final = (0.2, 0.0005)
"""What is set aside at the end for keeping on disk what was not sent: at least, and for each
span that waits (measured: 0.2 ms on an idle machine)."""


class ExporterInfo(NamedTuple):
    """One place that telemetry goes to."""

    signal: Signal
    kind: str
    """`otlp/grpc`, `otlp/http`, `console`, an entry point's name; `given` or `global` where the
    provider is the user's own."""
    target: str
    """Redacted endpoint; the provider's class where it is the user's own."""


@dataclass(frozen=True)
class SignalPipeline:
    """One signal: its provider, whether we built it, and its exporters if so."""

    signal: Signal
    provider: Any
    owned: bool
    exporters: tuple[Counted, ...] = ()
    sampler: CountingSampler | None = None


class ExportPipeline:
    """The providers in use. One object for each `configure()`."""

    def __init__(
        self,
        traces: SignalPipeline,
        metrics: SignalPipeline,
        exporters: Sequence[ExporterInfo],
        log_filter: _log_filter.Filter | None = None,
    ) -> None:
        self._sides = (traces, metrics)
        self.tracer_provider: TracerProvider = traces.provider
        self.meter_provider: MeterProvider = metrics.provider
        self.owns_tracer_provider = traces.owned
        self.owns_meter_provider = metrics.owned
        self.exporters = tuple(exporters)
        self.console = any(info.kind == "console" for info in self.exporters)
        """Whether the development console is one of the exporters."""
        self._token = secrets.token_hex(4)
        self._filter = log_filter
        self._last: FlushReport | None = None
        self._flush_s: float | None = None
        self._late: Sequence[BackgroundCall] = ()
        self._late_s = 0.0
        self._lanes = {
            side.signal: BackgroundThread(f"flush-{side.signal}", ready=True)
            for side in self._sides
            if hasattr(side.provider, "force_flush")
        }
        owned = any(side.owned for side in self._sides)
        self._stop_lane = BackgroundThread("flush-stop", ready=True) if owned else None
        forking.watch(self)

    def after_fork(self) -> None:
        """Know nothing of the parent's flush."""
        self._flush_s = None
        self._late = ()

    @property
    def accounts(self) -> tuple[ExportLedger, ...]:
        """What each exporter of ours has done so far."""
        return tuple(exporter.account for side in self._sides for exporter in side.exporters)

    def flush(self, timeout_s: float) -> FlushReport:
        """Send what there is, all signals at once, and return after `timeout_s` at the latest.

        What is not done by then goes on in the background.
        """
        if self._last is not None:
            return self._last
        return self._run(timeout_s, ending=False)

    def shutdown(self, timeout_s: float) -> FlushReport:
        """Send what there is, then end what we built; the user's own providers are only flushed.

        Returns after `timeout_s` and a quarter of a second at the latest; what is not out by
        then is lost, counted and said in one line. A second call returns the first's report.
        """
        if self._last is None:
            if not all(job.done for job in self._late):
                # A flush just before has spent this long on the same spans in vain.
                timeout_s = max(min(timeout_s, GRACE_S), timeout_s - self._late_s)
            self._last = self._run(timeout_s, ending=True)
        return self._last

    def _run(self, timeout_s: float, *, ending: bool) -> FlushReport:
        started = clock.now()
        missed_before = self._misses()
        deadline = time.monotonic() + timeout_s
        until = self._hurry(timeout_s) if ending else deadline
        jobs: list[BackgroundCall] = []
        for side in self._sides:
            if side.signal in self._lanes:
                call = _call(side, deadline, ending=ending and side.owned)
                jobs.append(self._lanes[side.signal].submit(call))
                if side.exporters and not any(e.account.remote for e in side.exporters):
                    # On the console the last of the spans comes before the table of metrics.
                    jobs[-1].wait(min(deadline, time.monotonic() + CONSOLE_S))
        if not wait_for(jobs, until) and ending:
            self._stop_trying()
        in_time = wait_for(jobs, deadline)
        self._late, self._late_s = jobs, timeout_s
        if ending:
            self._end(jobs)
        missed = self._misses() - missed_before
        self._flush_s = clock.now() - started
        return self._report(
            ok=in_time and not missed and not any(job.failed for job in jobs),
            elapsed_s=self._flush_s,
        )

    def _misses(self) -> int:
        return sum(account.misses for account in self.accounts)

    @property
    def _keeping(self) -> list[Counted]:
        """The exporters that keep on disk what they cannot send."""
        exporters = [exporter for side in self._sides for exporter in side.exporters]
        return [exporter for exporter in exporters if exporter.account.kept_in is not None]

    def _hurry(self, timeout_s: float) -> float:
        """Return until when the network may be used, so that the disk has its time too."""
        keeping = self._keeping
        reserve_s = 0.0
        if keeping:
            least_s, each_s = WRITING_S
            waiting = sum(exporter.account.pending for exporter in keeping)
            reserve_s = min(timeout_s / 2, least_s + each_s * waiting)
        until = time.monotonic() + timeout_s - reserve_s
        for exporter in keeping:
            exporter.carrier.begin_shutdown(until)
        return until

    def _stop_trying(self) -> None:
        """From now on what was not sent is written to the disk."""
        for exporter in self._keeping:
            exporter.carrier.stop()
            if self._stop_lane is not None:
                self._stop_lane.submit(exporter.stoppable.abort)

    def _end(self, jobs: Sequence[BackgroundCall]) -> None:
        """Make late exporters give up, settle the accounts and let the threads go."""
        exporters = [exporter for side in self._sides for exporter in side.exporters]
        if not all(job.done for job in jobs):
            for exporter in exporters:
                exporter.carrier.stop()
            grace = time.monotonic() + GRACE_S
            if self._stop_lane is not None:
                for exporter in exporters:
                    self._stop_lane.submit(exporter.stoppable.abort)
            wait_for(jobs, grace)
        for exporter in exporters:
            exporter.account.close()
            exporter.carrier.close()
        self._say_what_was_lost()
        if self._filter is not None:
            self._filter.remove()
        for lane in (*self._lanes.values(), self._stop_lane):
            if lane is not None:
                lane.close()

    def _say_what_was_lost(self) -> None:
        said: list[str] = []
        lost = _by_target(self.accounts, "failed")
        for target, what in lost.items():
            said.append(f"{what} could not be exported to {target}")
        for target, what in _by_target(self._kept, "spooled").items():
            said.append(f"{what} that {target} did not take are kept in {self._kept[0].kept_in}")
        if said:
            logger.warning("%s", "; ".join(said))

    @property
    def _kept(self) -> list[ExportLedger]:
        return [exporter.account for exporter in self._keeping]

    def _report(self, *, ok: bool, elapsed_s: float) -> FlushReport:
        traces, metrics = self._sides
        spans = _counts(traces)
        points = _counts(metrics)
        return FlushReport(
            ok=ok,
            elapsed_s=elapsed_s,
            spans_exported=spans[0],
            spans_failed=spans[1],
            metric_points_exported=points[0],
            metric_points_failed=points[1],
            collector=self._collector(),
            spans_pending=max((e.account.pending for e in traces.exporters), default=0),
            spans_spooled=max((e.account.spooled for e in traces.exporters), default=0),
            metric_points_spooled=max((e.account.spooled for e in metrics.exporters), default=0),
        )

    def ledger(self, signal: Signal) -> LedgerSnapshot | None:
        """Return what became of the spans or of the metric points; None if nobody knows.

        With several exporters the one that did worst speaks, and those out of the process
        before the console.
        """
        side = next(side for side in self._sides if side.signal == signal)
        accounts = _authoritative(side)
        if not accounts:
            return (
                None if hasattr(side.provider, "force_flush") else LedgerSnapshot(0, 0, 0, 0, 0, 0)
            )
        worst = min(accounts, key=lambda account: account.exported)
        return worst.ledger(0 if side.sampler is None else side.sampler.left_out)

    def stats(self) -> dict[str, Any]:
        """Return what became of the telemetry so far, as plain data for a report.

        For spans and metric points `created = exported + sampled_out + dropped + spooled +
        pending`; None where the provider is the user's own.
        """
        ledgers = {
            "spans": self.ledger("traces"),
            "metric_points": self.ledger("metrics"),
        }
        found: dict[str, Any] = {
            name: dict.fromkeys(LedgerSnapshot._fields) if ledger is None else ledger._asdict()
            for name, ledger in ledgers.items()
        }
        accounts = self._kept
        found["replayed"] = {
            name: sum(account.replayed for account in accounts if account.signal == signal)
            for name, signal in (("spans", "traces"), ("metric_points", "metrics"))
        }
        # counts are of one process, and of one configure(); a forked child starts at nothing
        found["process"] = f"{os.getpid()}-{self._token}"
        found["flush_s"] = self._flush_s
        found["collector"] = self._collector()
        return found

    def _collector(self) -> Collector:
        tried = [account.last_ok for account in self.accounts if account.remote]
        waiting = any(account.pending for account in self.accounts if account.remote)
        if False in tried or (waiting and True not in tried):
            return "unreachable"
        return "ok" if True in tried else "off"


def _authoritative(side: SignalPipeline) -> list[ExportLedger]:
    accounts = [exporter.account for exporter in side.exporters]
    return [account for account in accounts if account.remote] or accounts


def _counts(side: SignalPipeline) -> tuple[int | None, int | None]:
    """Return exported and failed; with several exporters the one that did worst speaks."""
    accounts = _authoritative(side)
    if not accounts:  # nothing to export, or the user's own provider, or a reader that is pulled
        return (None, None) if hasattr(side.provider, "force_flush") else (0, 0)
    return (
        min(account.exported for account in accounts),
        max(account.failed for account in accounts),
    )


def _by_target(accounts: Iterable[ExportLedger], what: str) -> dict[str, str]:
    """Return `3 spans and 1 metric batch` for each target, of those counted as `what`."""
    found: dict[str, list[str]] = {}
    for account in accounts:
        count: int = getattr(account, what)
        if account.signal == "traces" and count:
            found.setdefault(account.target, []).append(_plural(count, "span"))
        elif account.signal == "metrics":
            batches = account.batches_failed if what == "failed" else account.batches_spooled
            if batches:
                found.setdefault(account.target, []).append(_plural(batches, "metric batch"))
    return {target: " and ".join(parts) for target, parts in found.items()}


def _call(side: SignalPipeline, deadline: float, *, ending: bool) -> Callable[[], object]:
    """Return the call that flushes or ends one provider; made in its lane."""

    def call() -> object:
        left_ms = max(1, int((deadline - time.monotonic()) * 1000))
        if not side.owned:
            return side.provider.force_flush(left_ms)
        with _log_filter.exporting():
            if not ending:
                return side.provider.force_flush(left_ms)
            if side.signal == "metrics":
                # Longer than we wait, or it would cut the export off before we do.
                return side.provider.shutdown(left_ms + 1000)
            return side.provider.shutdown()

    return call


def _plural(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('ch') else 's'}"


@dataclass(frozen=True)
class FlushReport:
    """What became of the telemetry; counts are totals since `configure()`.

    None where nobody knows: the provider is the user's own, and its exporters are not counted.
    """

    ok: bool
    """Everything was done before the deadline, and arrived."""
    elapsed_s: float
    spans_exported: int | None = None
    spans_failed: int | None = None
    """After shutdown this holds every span that did not get out, those in the queue too."""
    metric_points_exported: int | None = None
    metric_points_failed: int | None = None
    collector: Collector = "off"
    """off: nothing was sent anywhere, or by providers of the user's own."""
    spans_pending: int = 0
    """Spans still waiting in the queue; 0 after shutdown."""
    spans_spooled: int = 0
    """On disk, to be sent later."""
    metric_points_spooled: int = 0

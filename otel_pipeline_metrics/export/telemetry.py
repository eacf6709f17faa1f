"""What `build` returns: the two providers, and the ways to flush and to end them in time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics import _clock
from otel_pipeline_metrics._guard import logger
from otel_pipeline_metrics.export import quiet
from otel_pipeline_metrics.export.flush import FlushReport, Job, Lane, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics.export.counting import Account
    from otel_pipeline_metrics.export.environment import Signal
    from otel_pipeline_metrics.export.exporters import Counted
    from otel_pipeline_metrics.export.flush import Collector

GRACE_S: Final = 0.25
"""After the deadline exporters are told to give up; this long a well-behaved one may take, so
that no thread is inside native code when the interpreter goes."""

CONSOLE_S: Final = 0.2
"""How long the metrics wait for the spans where these only go to the console."""

FILTER_STAYS_S: Final = 120.0
"""As long as the most patient exporter, that of SDK 1.30, goes on with one batch."""


class ExporterInfo(NamedTuple):
    """One place that telemetry goes to."""

    signal: Signal
    kind: str
    """`otlp/grpc`, `otlp/http`, `console`, an entry point's name; `given` or `global` where the
    provider is the user's own."""
    target: str
    """Redacted endpoint; the provider's class where it is the user's own."""


@dataclass(frozen=True)
class Side:
    """One signal: its provider, whether we built it, and its exporters if so."""

    signal: Signal
    provider: Any
    owned: bool
    exporters: tuple[Counted, ...] = ()


class Telemetry:
    """The providers in use. One object for each `configure()`."""

    def __init__(
        self,
        traces: Side,
        metrics: Side,
        exporters: Sequence[ExporterInfo],
        log_filter: quiet.Filter | None = None,
    ) -> None:
        self._sides = (traces, metrics)
        self.tracer_provider: TracerProvider = traces.provider
        self.meter_provider: MeterProvider = metrics.provider
        self.owns_tracer_provider = traces.owned
        self.owns_meter_provider = metrics.owned
        self.exporters = tuple(exporters)
        self.console = any(info.kind == "console" for info in self.exporters)
        """Whether the development console is one of the exporters."""
        self._filter = log_filter
        self._last: FlushReport | None = None
        self._late: Sequence[Job] = ()
        self._late_s = 0.0
        self._lanes = {
            side.signal: Lane(f"flush-{side.signal}")
            for side in self._sides
            if hasattr(side.provider, "force_flush")
        }
        owned = any(side.owned for side in self._sides)
        self._stop_lane = Lane("flush-stop") if owned else None

    @property
    def accounts(self) -> tuple[Account, ...]:
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
        started = _clock.now()
        failed_before = sum(account.failed for account in self.accounts)
        deadline = time.monotonic() + timeout_s
        jobs: list[Job] = []
        for side in self._sides:
            if side.signal in self._lanes:
                call = _call(side, deadline, ending=ending and side.owned)
                jobs.append(self._lanes[side.signal].submit(call))
                if side.exporters and not any(e.account.remote for e in side.exporters):
                    # On the console the last of the spans comes before the table of metrics.
                    jobs[-1].wait(min(deadline, time.monotonic() + CONSOLE_S))
        in_time = wait_for(jobs, deadline)
        self._late, self._late_s = jobs, timeout_s
        if ending:
            self._end(jobs)
        failed = sum(account.failed for account in self.accounts)
        return self._report(
            ok=in_time and failed == failed_before and not any(job.failed for job in jobs),
            elapsed_s=_clock.now() - started,
        )

    def _end(self, jobs: Sequence[Job]) -> None:
        """Make late exporters give up, settle the accounts and let the threads go."""
        exporters = [exporter for side in self._sides for exporter in side.exporters]
        if not all(job.done for job in jobs):
            for exporter in exporters:
                exporter.account.stopped = True
            grace = time.monotonic() + GRACE_S
            if self._stop_lane is not None:
                for exporter in exporters:
                    self._stop_lane.submit(exporter.stoppable.abort)
            wait_for(jobs, grace)
        for exporter in exporters:
            exporter.account.write_off()
        self._say_what_was_lost()
        self._remove_filter(jobs)
        for lane in (*self._lanes.values(), self._stop_lane):
            if lane is not None:
                lane.close()

    def _remove_filter(self, jobs: Sequence[Job]) -> None:
        """Take the filter away, but not before the last thread is out of its exporter."""
        if self._filter is None:
            return
        if self._stop_lane is None or all(job.done for job in jobs):
            self._filter.remove()
            return
        log_filter = self._filter

        def remove() -> None:
            wait_for(jobs, time.monotonic() + FILTER_STAYS_S)
            log_filter.remove()

        self._stop_lane.submit(remove)

    def _say_what_was_lost(self) -> None:
        lost: dict[str, list[str]] = {}
        for account in self.accounts:
            if account.signal == "traces" and account.failed:
                lost.setdefault(account.target, []).append(_plural(account.failed, "span"))
            elif account.batches_failed:
                batches = _plural(account.batches_failed, "metric batch")
                lost.setdefault(account.target, []).append(batches)
        if lost:
            logger.warning(
                "%s",
                "; ".join(
                    f"{' and '.join(what)} could not be exported to {target}"
                    for target, what in lost.items()
                ),
            )

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
        )

    def _collector(self) -> Collector:
        tried = [account.last_ok for account in self.accounts if account.remote]
        waiting = any(account.pending for account in self.accounts if account.remote)
        if False in tried or (waiting and True not in tried):
            return "unreachable"
        return "ok" if True in tried else "off"


def _counts(side: Side) -> tuple[int | None, int | None]:
    """Return exported and failed; with several exporters the one that did worst speaks."""
    accounts = [exporter.account for exporter in side.exporters]
    accounts = [account for account in accounts if account.remote] or accounts
    if not accounts:  # nothing to export, or the user's own provider, or a reader that is pulled
        return (None, None) if hasattr(side.provider, "force_flush") else (0, 0)
    return (
        min(account.exported for account in accounts),
        max(account.failed for account in accounts),
    )


def _call(side: Side, deadline: float, *, ending: bool) -> Callable[[], object]:
    """Return the call that flushes or ends one provider; made in its lane."""

    def call() -> object:
        left_ms = max(1, int((deadline - time.monotonic()) * 1000))
        if not side.owned:
            return side.provider.force_flush(left_ms)
        with quiet.exporting():
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

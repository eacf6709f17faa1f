"""Flush and shut down the providers in use under one deadline."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import clock, errors, text
from otel_pipeline_metrics._core.errors import logger
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._export.background import BackgroundCall, BackgroundThread, wait_for
from otel_pipeline_metrics._export.delivery.ledger import LedgerSnapshot
from otel_pipeline_metrics._export.delivery.log_filter import exporting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._export.delivery.counting_exporters import CountingExporter
    from otel_pipeline_metrics._export.delivery.counting_processor import CountingSampler
    from otel_pipeline_metrics._export.delivery.ledger import ExportLedger
    from otel_pipeline_metrics._export.delivery.log_filter import Filter
    from otel_pipeline_metrics._export.environment import Signal
    from otel_pipeline_metrics._export.logs import Logs
    from otel_pipeline_metrics._export.prometheus import Page


Collector = Literal["ok", "unreachable", "off"]

# The time that an aborted exporter has after the deadline to end its call, so that no thread is
# inside native code when the interpreter ends.
GRACE_S: Final = 0.25
# how long the metrics wait for the spans if these only go to the console
CONSOLE_S: Final = 0.2
# The time reserved at the end for writing unsent data to disk: at least, and for each span in
# the queue (measured: 0.2 ms on an idle machine).
WRITING_S: Final = (0.2, 0.0005)


@dataclass(frozen=True)
class FlushReport:
    """What became of the telemetry; counts are totals since `configure()`.

    None means unknown: the provider is the user's own, and its exporters are not counted.
    """

    # everything was done before the deadline, and arrived
    ok: bool
    elapsed_s: float
    spans_exported: int | None = None
    # after shutdown every span that was not exported, those in the queue too
    spans_failed: int | None = None
    metric_points_exported: int | None = None
    metric_points_failed: int | None = None
    # off: nothing was sent, or only by the user's own providers
    collector: Collector = "off"
    # spans that wait in the queue; 0 after shutdown
    spans_pending: int = 0
    # on disk, to be sent later
    spans_spooled: int = 0
    metric_points_spooled: int = 0


class ExporterInfo(NamedTuple):
    """One destination of telemetry."""

    signal: Signal
    # `otlp/grpc`, `otlp/http`, `console`, an entry point's name; `given` or `global` for a
    # provider of the user
    kind: str
    # the redacted endpoint; for a provider of the user its class
    target: str


@dataclass(frozen=True)
class SignalPipeline:
    """The provider of one signal, and its exporters if it is owned."""

    signal: Signal
    provider: Any
    # whether configure() built it
    owned: bool
    exporters: tuple[CountingExporter, ...] = ()
    infos: tuple[ExporterInfo, ...] = ()
    sampler: CountingSampler | None = None
    # what Prometheus scrapes
    pages: tuple[Page, ...] = ()
    # the span processor, or the metric reader, of the console
    console: Any = None

    @property
    def authoritative(self) -> list[ExportLedger]:
        """The ledgers of the remote exporters; without one, those of the console."""
        ledgers = [exporter.ledger for exporter in self.exporters]
        return [ledger for ledger in ledgers if ledger.remote] or ledgers

    @property
    def is_noop(self) -> bool:
        """Whether the provider has nothing to flush."""
        return not hasattr(self.provider, "force_flush")

    def flush(self, deadline: float, *, ending: bool) -> object:
        """Flush the provider, or shut it down if it is owned; return False on failure."""
        left_ms = max(1, int((deadline - clock.monotonic()) * 1000))
        if not self.owned:
            return self.provider.force_flush(left_ms)
        with exporting():
            if not ending:
                return self.provider.force_flush(left_ms)
            if self.signal == "metrics":
                # longer than our own wait, or it would end the export before the deadline
                return self.provider.shutdown(left_ms + 1000)
            return self.provider.shutdown()


class ExportPipeline:
    """The providers in use; one object for each `configure()`."""

    def __init__(
        self,
        traces: SignalPipeline,
        metrics: SignalPipeline,
        log_filter: Filter | None = None,
        logs: Logs | None = None,
    ) -> None:
        self._pipelines = (traces, metrics)
        self.tracer_provider: TracerProvider = traces.provider
        self.meter_provider: MeterProvider = metrics.provider
        self.owns_tracer_provider = traces.owned
        self.owns_meter_provider = metrics.owned
        self.exporters = (*traces.infos, *metrics.infos)
        # whether the console is one of the exporters
        self.console = any(info.kind == "console" for info in self.exporters)
        self.pages = metrics.pages
        # the threads that write to it; without a lock, since a signal handler may write too
        self._writing: set[int] = set()
        self._token = secrets.token_hex(4)
        self._filter = log_filter
        self._logs = logs
        self._last: FlushReport | None = None
        self._flush_s: float | None = None
        self._late: Sequence[BackgroundCall] = ()
        self._late_s = 0.0
        self._threads: dict[str, BackgroundThread] = {
            pipeline.signal: BackgroundThread(f"flush-{pipeline.signal}", ready=True)
            for pipeline in self._pipelines
            if not pipeline.is_noop
        }
        if logs is not None:
            self._threads["logs"] = BackgroundThread("flush-logs", ready=True)
        owned = traces.owned or metrics.owned
        self._abort_thread = BackgroundThread("flush-stop", ready=True) if owned else None
        self._counting = (*traces.exporters, *metrics.exporters)
        forking.watch(self)

    def after_fork(self) -> None:
        self._flush_s = None
        self._late = ()
        self._writing = set()

    @property
    def ledgers(self) -> tuple[ExportLedger, ...]:
        return tuple(exporter.ledger for exporter in self._counting)

    def hand_over(self, successor: ExportPipeline) -> None:
        """Let spans that are still open end at the successor's exporters.

        A span ends at the processors of the provider that began it, which are shut down by then.
        The same goes for tracers that other libraries keep.
        """
        if not self.owns_tracer_provider:
            return
        ours: Any
        ours, theirs = (
            getattr(each.tracer_provider, "_active_span_processor", None)
            for each in (self, successor)
        )
        if hasattr(ours, "_span_processors"):
            ours._span_processors = () if theirs is None else (theirs,)
            return
        errors.warn_once(
            "hand over",
            "this version of opentelemetry-sdk does not let open spans be handed over: those that "
            "were open at the second configure() are lost",
        )

    def show_console(self) -> None:
        """Write to the console, if it is an exporter, what it has not shown yet."""
        traces, metrics = self._pipelines
        thread = get_ident()
        if thread in self._writing:  # a signal handler inside of this, which must not wait for it
            return
        self._writing.add(thread)
        try:
            if traces.console is not None:
                traces.console.force_flush()
            if metrics.console is not None:
                metrics.console.collect()
        finally:
            self._writing.discard(thread)

    def flush(self, timeout_s: float) -> FlushReport:
        """Send all pending data of both signals; return after `timeout_s` at most.

        What is not done by then continues in the background.
        """
        if self._last is not None:
            return self._last
        return self._run(timeout_s, ending=False)

    def shutdown(self, timeout_s: float) -> FlushReport:
        """Send all pending data, then shut down the providers that are owned.

        Returns after `timeout_s` and a quarter of a second at most; what is not sent by then is
        lost, counted and reported in one line. The user's own providers are only flushed. A second
        call returns the first one's report.
        """
        if self._last is None:
            if not all(call.done for call in self._late):
                # a flush just before has spent this long on the same spans in vain
                timeout_s = max(min(timeout_s, GRACE_S), timeout_s - self._late_s)
            self._last = self._run(timeout_s, ending=True)
        return self._last

    def _run(self, timeout_s: float, *, ending: bool) -> FlushReport:
        started = clock.now()
        missed_before = self._misses()
        deadline = clock.monotonic() + timeout_s
        until = self._begin_shutdown(timeout_s) if ending else deadline
        calls: list[BackgroundCall] = []
        for pipeline in self._pipelines:
            if pipeline.signal in self._threads:
                call = partial(pipeline.flush, deadline, ending=ending)
                calls.append(self._threads[pipeline.signal].submit(call))
                if pipeline.exporters and not any(e.ledger.remote for e in pipeline.exporters):
                    # on the console the last of the spans comes before the table of metrics
                    calls[-1].wait(min(deadline, clock.monotonic() + CONSOLE_S))
        if self._logs is not None:
            call = partial(self._logs.flush, deadline, ending=ending)
            calls.append(self._threads["logs"].submit(call))
        if not wait_for(calls, until) and ending:
            self._abort(self._keeping)
        in_time = wait_for(calls, deadline)
        self._late, self._late_s = calls, timeout_s
        if ending:
            self._end(calls)
        missed = self._misses() - missed_before
        self._flush_s = clock.now() - started
        return self._report(
            ok=in_time and not missed and not any(call.failed for call in calls),
            elapsed_s=self._flush_s,
        )

    def _misses(self) -> int:
        return sum(ledger.misses for ledger in self.ledgers)

    @property
    def _keeping(self) -> list[CountingExporter]:
        """The exporters that keep on disk what they cannot send."""
        return [exporter for exporter in self._counting if exporter.ledger.kept_in is not None]

    def _begin_shutdown(self, timeout_s: float) -> float:
        """Reserve time for the disk; return until when the network may be used."""
        reserve_s = 0.0
        if self._keeping:
            least_s, each_s = WRITING_S
            waiting = sum(exporter.ledger.pending for exporter in self._keeping)
            reserve_s = min(timeout_s / 2, least_s + each_s * waiting)
        until = clock.monotonic() + timeout_s - reserve_s
        for exporter in self._keeping:
            exporter.delivery.begin_shutdown(until)
        return until

    def _abort(self, exporters: Sequence[CountingExporter]) -> None:
        """Begin no further attempt, and make these exporters give up the one in progress."""
        for exporter in exporters:
            exporter.delivery.stop()
        if self._abort_thread is not None:
            for exporter in exporters:
                self._abort_thread.submit(exporter.abort)

    def _end(self, calls: Sequence[BackgroundCall]) -> None:
        """Abort late exporters, close the ledgers and let the threads end."""
        if not all(call.done for call in calls):
            grace = clock.monotonic() + GRACE_S
            self._abort(self._counting)
            wait_for(calls, grace)
        for exporter in self._counting:
            exporter.ledger.close()
            exporter.delivery.close()
        self._warn_of_losses()
        if self._logs is not None:
            self._logs.close()
        if self._filter is not None:
            self._filter.remove()
        for thread in (*self._threads.values(), self._abort_thread):
            if thread is not None:
                thread.close()

    def _warn_of_losses(self) -> None:
        sentences: list[str] = []
        for target, items in _by_target(self.ledgers, "failed").items():
            sentences.append(f"{items} could not be exported to {target}")
        kept = [exporter.ledger for exporter in self._keeping]
        for target, items in _by_target(kept, "spooled").items():
            sentences.append(f"{items} that {target} did not accept are kept in {kept[0].kept_in}")
        if sentences:
            logger.warning("%s", "; ".join(sentences))

    def _report(self, *, ok: bool, elapsed_s: float) -> FlushReport:
        traces, metrics = self._pipelines
        spans_exported, spans_failed = _counts(traces)
        points_exported, points_failed = _counts(metrics)
        return FlushReport(
            ok=ok,
            elapsed_s=elapsed_s,
            spans_exported=spans_exported,
            spans_failed=spans_failed,
            metric_points_exported=points_exported,
            metric_points_failed=points_failed,
            collector=self._collector(),
            spans_pending=max((e.ledger.pending for e in traces.exporters), default=0),
            spans_spooled=max((e.ledger.spooled for e in traces.exporters), default=0),
            metric_points_spooled=max((e.ledger.spooled for e in metrics.exporters), default=0),
        )

    def snapshot(self, signal: Signal) -> LedgerSnapshot | None:
        """Return what became of the spans or of the metric points; None if unknown.

        Of several exporters the worst one counts, and the console only without a remote one.
        """
        pipeline = next(pipeline for pipeline in self._pipelines if pipeline.signal == signal)
        if not pipeline.authoritative:
            return LedgerSnapshot(0, 0, 0, 0, 0, 0) if pipeline.is_noop else None
        worst = min(pipeline.authoritative, key=lambda ledger: ledger.exported)
        return worst.snapshot(0 if pipeline.sampler is None else pipeline.sampler.left_out)

    def stats(self) -> dict[str, Any]:
        """Return what became of the telemetry so far, as plain data for a report.

        For spans and metric points `created = exported + sampled_out + dropped + spooled +
        pending`; None for a provider of the user.
        """
        signals: dict[str, Signal] = {"spans": "traces", "metric_points": "metrics"}
        found: dict[str, Any] = {}
        for name, signal in signals.items():
            state = self.snapshot(signal)
            unknown = dict.fromkeys(LedgerSnapshot._fields)
            found[name] = unknown if state is None else state._asdict()
        found["replayed"] = {
            name: sum(e.ledger.replayed for e in self._keeping if e.ledger.signal == signal)
            for name, signal in signals.items()
        }
        # counts belong to one process and one configure(); a forked child starts at zero
        found["process"] = f"{os.getpid()}-{self._token}"
        found["flush_s"] = self._flush_s
        found["collector"] = self._collector()
        return found

    def _collector(self) -> Collector:
        remote = [ledger for ledger in self.ledgers if ledger.remote]
        results = [ledger.last_ok for ledger in remote]
        waiting = any(ledger.pending for ledger in remote)
        if False in results or (waiting and True not in results):
            return "unreachable"
        return "ok" if True in results else "off"


def _counts(pipeline: SignalPipeline) -> tuple[int | None, int | None]:
    """Return exported and failed; of several exporters the worst one counts."""
    ledgers = pipeline.authoritative
    if not ledgers:  # nothing to export, or the user's own provider, or a reader that is pulled
        return (0, 0) if pipeline.is_noop else (None, None)
    return min(ledger.exported for ledger in ledgers), max(ledger.failed for ledger in ledgers)


def _by_target(
    ledgers: Iterable[ExportLedger], what: Literal["failed", "spooled"]
) -> dict[str, str]:
    """Return `3 spans and 1 metric batch` for each target, of those counted as `what`.

    Of those that failed the target is followed by the reason.
    """
    found: dict[str, list[str]] = {}
    for ledger in ledgers:
        is_traces = ledger.signal == "traces"
        count: int = getattr(ledger, what if is_traces else f"batches_{what}")
        if count:
            items = text.counted(count, "span" if is_traces else "metric batch")
            why = f" ({ledger.reason})" if what == "failed" and ledger.reason else ""
            found.setdefault(ledger.target + why, []).append(items)
    return {target: " and ".join(parts) for target, parts in found.items()}

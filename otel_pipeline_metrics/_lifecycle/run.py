"""Measure one run of a pipeline with `run`, from its span to its report."""

from __future__ import annotations

import functools
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, cast

from otel_pipeline_metrics._core import clock, current_run, drain, errors, privacy, series, settings
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin
from otel_pipeline_metrics._core.process import signals
from otel_pipeline_metrics._core.process.signals import deferring_signals
from otel_pipeline_metrics._core.records import AttributeValue, error_type_of
from otel_pipeline_metrics._core.validation import (
    check_attributes,
    check_count,
    check_flag,
    check_name,
)
from otel_pipeline_metrics._experiments.experiment import Experiment
from otel_pipeline_metrics._lifecycle import summary
from otel_pipeline_metrics._lifecycle.live_verdict import span_attributes
from otel_pipeline_metrics._lifecycle.report_data import RunDataCollector, sample_interval
from otel_pipeline_metrics._lifecycle.report_file import ReportFile
from otel_pipeline_metrics._lifecycle.run_decorator import each_call
from otel_pipeline_metrics._lifecycle.run_parts import RunParts, check_timeout
from otel_pipeline_metrics._lifecycle.run_result import Result, result_of
from otel_pipeline_metrics._probes.resources.instruments import install_resources
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.live import Live

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otel_pipeline_metrics._stages.stage import F


PARTS_TIMEOUT_S: Final = 2.0


def run(
    name: str,
    *,
    report: str | os.PathLike[str] | None = None,
    resources: bool | float = True,
    attributes: Mapping[str, AttributeValue] | None = None,
    total: int | None = None,
    live: bool = False,
    parts_timeout: float = PARTS_TIMEOUT_S,
    experiment: bool = False,
) -> Run:
    """Measure one run of a pipeline: a block, or each call of a decorated function.

    As a block (`with run("nightly"):`, `async with` too) or as a decorator of a function or a
    coroutine function (`@run("nightly")`), each of whose calls is then a run of its own.

    Stages inside belong to it, also those on threads without its context, while it is the only
    run in progress. At its end, however it ends, the report is written and the summary shown;
    neither can change the run's own result.

    Args:
        name: the pipeline's name, up to 128 characters.
        report: the file for the report; its folder is made. The suffix decides: `.html` is a
            page (needs the extra `cli`), `.md` Markdown, `.json` or none JSON. `~` is the home
            folder; `{run_id}`, `{date}` (of the run's start in UTC, 2026-11-26) and `{pipeline}`
            (as a safe file name) are filled in. If the file cannot be written, the report goes
            to a temporary file whose path is logged.
        resources: sample CPU, memory, disk and network with psutil during the run, each second
            or, for a number, at that interval in seconds.
        attributes: attributes of the run's span.
        total: the number of items that will come out of the last stage, if it is known
            beforehand; the live view then shows the progress and the time left.
        live: show stages, rates and queues in the terminal during the run. Needs the extra
            `cli`; does nothing if stderr is not a terminal.
        parts_timeout: seconds that the end waits at most for parts of other processes that were
            sent for with `context()`, up to 1,000,000; 0 does not wait.
        experiment: find out during the run what faster stages would gain: while one is tried,
            others pause now and then, which slows the run by about a tenth at most. For runs
            of a minute and more, of tasks of asyncio or of threads.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the name is empty or too long, `total` is negative, the report's suffix is
            unknown, or an attribute's key is forbidden and `strict` is in force.
        ImportError: the report is a page, and the extra `cli` is not installed.
    """
    privacy.rules().check(check_attributes(attributes), "attributes")
    return Run(
        name,
        report=report,
        resources=resources,
        attributes=attributes,
        total=total,
        live=live,
        parts_timeout=parts_timeout,
        experiment=experiment,
    )


class Run(AsyncContextMixin):
    """The run that `run(...)` returns: a block that is entered once, or a decorator."""

    def __init__(
        self,
        name: str,
        *,
        report: str | os.PathLike[str] | None,
        resources: bool | float,
        attributes: Mapping[str, AttributeValue] | None,
        total: int | None,
        live: bool,
        parts_timeout: float,
        experiment: bool,
    ) -> None:
        self.name = check_name(name, "name")
        self.id = os.urandom(16).hex()
        self._file = None if report is None else ReportFile(report)
        self._attributes = check_attributes(attributes)
        self._again = functools.partial(
            Run,
            name,
            report=report,
            resources=resources,
            total=total,
            live=live,
            parts_timeout=parts_timeout,
            experiment=experiment,
        )
        self._collector = RunDataCollector(sample_interval(resources))
        self._scope = series.RunScope(self.name, self.id, (self._collector.stats,))
        self._scope.on_resources = self._collector.recorded.add
        self._parts = RunParts(self.name, self.id, check_timeout(parts_timeout))
        self._scope.parts = self._collector.parts = self._parts
        self._total = None if total is None else check_count(total, "total")
        self._live = check_flag(live, "live")
        if check_flag(experiment, "experiment"):
            self._collector.experiment = Experiment(self._scope)
        self._view: Any = None
        self._span: sink.OpenRun | None = None
        self._runs: Any = None
        self._started_at = 0.0
        self._started_unix = 0.0
        self._ended_at: float | None = None
        self._result: Result | None = None
        self._error_type: str | None = None
        self._message: str | None = None
        self._entered = False
        self._left = False
        self._final: RunReport | None = None

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self._result or 'in progress'}>"

    def _repr_html_(self) -> str | None:
        return self.report._repr_html_()

    @property
    def report(self) -> RunReport:
        """The report: final after the run, and `partial` until then."""
        if self._final is not None:
            return self._final
        drain.drain()
        return RunReport(self._data())

    def __call__(self, function: F) -> F:
        """Return a function each of whose calls is a run with these arguments.

        Raises:
            TypeError: `function` is not callable, a class or a generator function.
        """
        kept = privacy.drop_forbidden_at_definition(self._attributes, f"run {self.name!r}")
        return cast("F", each_call(function, functools.partial(self._again, attributes=kept)))

    def __enter__(self) -> Run:
        """Begin the run.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._entered:
            raise RuntimeError(f"run {self.name!r} was entered before: call run() for each run")
        self._entered = True
        self._pid = os.getpid()
        with errors.suppress_errors("opening a run"):
            telemetry = sink.installed()
            self._runs = telemetry.runs
            self._runs.started(self.name, self.id)
            attributes = privacy.drop_forbidden(self._attributes, f"run {self.name!r}")
            self._span = telemetry.spans.start_run(self._scope, attributes)
        with errors.suppress_errors("a run's resources"):
            if not settings.settings().monitoring_enabled:
                self._collector.monitor = None
            if self._collector.monitor is not None:
                sink.add_probe("resources", install_resources)
                self._collector.monitor.start()
                self._collector.heartbeat.start(self._note_loop_delay)
        with errors.suppress_errors("a run's caches"):
            self._collector.begin(self._scope, self._note_bottleneck)
        current_run.open_scope(self._scope)
        with errors.suppress_errors("an experiment"):
            if self._collector.experiment is not None:
                self._collector.experiment.begin()
        self._started_unix = clock.unix()
        self._started_at = clock.now()
        self._parts.opened()
        if self._file is not None:
            self._file.fill(run_id=self.id, pipeline=self.name, started_unix=self._started_unix)
        with errors.suppress_errors("watching for SIGTERM"):
            signals.watch(self)
        if self._live:
            with errors.suppress_errors("the live view"):
                self._view = Live(lambda: self.report)
                self._view.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the run: close its span, write the report, show the summary.

        Runs may end in any order and in any thread. Ending one again, or one that was not
        entered, changes nothing.
        """
        if not self._begin_to_end():
            return
        try:
            # who is interrupted wants to leave
            if error is None or issubclass(type(error), Exception):
                self._parts.ending()
                self._parts.wait()
        finally:
            self._end(error)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the run as `with` does; while it waits for parts, other tasks work."""
        if not self._begin_to_end():
            return
        try:
            if error is None or issubclass(type(error), Exception):
                self._parts.ending()
                await self._parts.wait_async()
        finally:
            self._end(error)

    def _begin_to_end(self) -> bool:
        """Tell whether the run ends now: once, and in the process that began it."""
        if not self._entered or self._left:
            return False
        self._left = True
        if os.getpid() != self._pid:
            self._leave_to_parent()
            return False
        self._ended_at = clock.now()
        return True

    def _end(self, error: BaseException | None) -> None:
        self._result = result_of(error)
        if error is not None and self._result != "success":
            self._error_type = error_type_of(error)
            self._message = privacy.message_of(error)
        current_run.close_scope(self._scope)
        with errors.suppress_errors("an experiment"):
            if self._collector.experiment is not None:
                self._collector.experiment.end()
        with errors.suppress_errors("the live view"):
            if self._view is not None:
                # it refers to the run, which would be a reference cycle
                view, self._view = self._view, None
                view.stop()
        with errors.suppress_errors("a run's resources"):
            if self._collector.monitor is not None:
                self._collector.end()
                self._collector.heartbeat.stop()
                self._collector.monitor.stop()
        with errors.suppress_errors("closing a run"):
            self._end_telemetry()
        with errors.suppress_errors("a run's report"):
            summary.show(*deferring_signals(self._finish))
        with errors.suppress_errors("watching for SIGTERM"):
            signals.forget(self)
        with errors.suppress_errors("releasing a run"):
            drain.release(self._scope)

    def context(self) -> dict[str, Any]:
        """Return plain data with which another process measures a part of this run.

        Give it to `part()` there, and what that measured to `add_part()` here. At the end, the run
        waits for one part for each call of this. It has the run's name and id and the trace's
        headers, and neither an endpoint nor a secret.

        Raises:
            RuntimeError: the run is not in progress.
        """
        if not self._entered or self._left:
            raise RuntimeError(f"run {self.name!r} is not in progress")
        return self._parts.expect()

    def add_part(self, data: dict[str, Any]) -> bool:
        """Fold the data of a part into this run; return whether it is in.

        The same part may come any number of times, and counts once. Data that is no part of this
        run, has over 4 MB as JSON or over 10,000 stages is dropped, which is logged once and
        counted. Never raises.
        """
        return self._parts.add(data)

    @property
    def parts_missing(self) -> int:
        """How many parts were sent for with `context()` and did not come: unknown, not zero."""
        return self._parts.missing

    def _finish(self) -> tuple[RunReport, Path | None]:
        self._drain()
        self._parts.close()
        self._final = RunReport(self._data())
        return self._final, self._write(self._final)

    def _drain(self) -> None:
        if not drain.drain():
            errors.logger.warning(
                "the report of run %r lacks its last calls: they could not be flushed in time",
                self.name,
            )

    def _leave_to_parent(self) -> None:
        """Leave the block in a child that was forked inside; the run is the parent's."""
        with errors.suppress_errors("leaving the parent's run"):
            current_run.close_scope(self._scope)
            if self._span is not None:
                self._span.leave()
            drain.release(self._scope)

    def on_sigterm(self) -> None:
        """Write a partial report, since SIGTERM is about to end the process."""
        if self._final is not None:
            return
        self._result = "cancellation"
        self._error_type = "SIGTERM"
        self._ended_at = clock.now()
        self._drain()
        self._write(RunReport(self._data()))

    def _note_loop_delay(self, seconds: float) -> None:
        if self._runs is not None:
            self._runs.latest().loop_delay(self.name, seconds)

    def _note_bottleneck(self, found: tuple[str, str | None] | None) -> None:
        if self._runs is not None:
            self._runs.latest().bottleneck(self.name, self.id, found)

    def _end_telemetry(self) -> None:
        context = None
        result = self._result or "success"
        wall_s = (self._ended_at or clock.now()) - self._started_at
        # error.type is for failures; the result alone tells cancellation and timeout
        error_type = self._error_type if result == "failure" else None
        with errors.suppress_errors("a run's verdict"):
            if self._span is not None and self._span.is_recording:
                self._drain()
                self._span.set_attributes(span_attributes(self._data()["bottleneck"]))
        with errors.suppress_errors("ending a run's span"):
            if self._span is not None:
                context = self._span.end(result, error_type, self._message)
        if self._runs is not None:
            self._runs.latest().ended(
                self.name, self.id, wall_s, result, error_type, clock.unix(), context
            )

    def _data(self) -> dict[str, Any]:
        now = self._ended_at if self._ended_at is not None else clock.now()
        started = datetime.fromtimestamp(self._started_unix, tz=timezone.utc)
        run = {
            "pipeline": self.name,
            "id": self.id,
            "trace_id": self._span.trace_id if self._span is not None else None,
            "trace_url": settings.settings().trace_url,
            "result": self._result,
            "error_type": self._error_type,
            "started": started.isoformat() if self._entered else None,
            "started_at": self._started_at,
            "wall_s": now - self._started_at if self._entered else 0.0,
            "partial": self._result != "success",
            "total": self._total,
        }
        return self._collector.report_data(run, self._scope, now)

    def _write(self, report: RunReport) -> Path | None:
        return None if self._file is None else self._file.write(report)

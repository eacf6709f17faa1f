"""What an adapter does in the workers of its engine: configure, measure, send, flush.

A worker has one part for each run that sends it tasks. The part is cumulative: it is sent at most
once a second while there is something new, and once at the end, and the newest replaces the one
before. With it, telemetry is flushed, since the worker may end without warning.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, current_run, errors, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics._lifecycle.part import (
    TASK,
    Measured,
    attach_trace,
    checked_context,
    detach_trace,
    owner,
    trace_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORKERS: Final = "OTEL_PIPELINE_METRICS_WORKERS"

INTERVAL_S: Final = 1.0
# A flush takes at most so long; after a failure there is none for a while.
FLUSH_S: Final = 1.0
PAUSE_S: Final = 30.0

# Runs that a worker remembers.
_MAX_RUNS: Final = 64

_looked = False


@forking.in_child
def _look_again() -> None:
    global _looked  # of the child
    _looked = False


def configure_worker() -> None:
    """Call `configure()` if the program did not, an exporter is named, and nothing forbids it.

    For processes that got work from an instrumented one. OTEL_PIPELINE_METRICS_WORKERS=off
    forbids it.
    """
    global _looked  # once in a process
    if _looked:
        return
    _looked = True
    if configure.was_configured() or os.environ.get(WORKERS, "").strip().lower() == "off":
        return
    from otel_pipeline_metrics._export import environment, global_providers

    plan = environment.plan(os.environ)
    named = {*plan.traces, *plan.metrics} - {"console"}
    if plan.source != "environment" or not named or any(global_providers.all_existing()):
        return
    configure.configure()
    errors.warn_once(
        "worker",
        "this worker configured itself, since work of an instrumented process arrived and its "
        "environment names an exporter; %s=off forbids that",
        WORKERS,
    )


class Begun(NamedTuple):
    """A task in progress, for `end`."""

    part: Measured | None
    counts: bool
    # the cell and the OpenTelemetry context around it
    cell: Any
    around: Any


class WorkerParts:
    """The parts that this worker measures for the runs that send it tasks.

    Args:
        send: sends the data of one part to its run; called in a thread of its own.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._flush_at = 0.0
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._parts: dict[str, Measured] = {}
        self._changed: set[str] = set()
        # runs that this process was told of
        self._told: set[str] = set()
        self._active = 0
        self._delivering = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def begin(self, context: Mapping[str, Any] | None) -> Begun:
        """Begin a task in the current context. Never raises.

        Args:
            context: of the run that sent it, if it was one.
        """
        try:
            configure_worker()
            with self._lock:
                self._active += 1
            self._watch()
            if context is not None:
                return self._begin(checked_context(context))
        except (TypeError, ValueError) as error:
            errors.warn_once("context of a task", "a task came with a broken context: %s", error)
        except Exception:
            errors.log_internal_error("beginning a task")
        return Begun(None, counts=False, cell=None, around=None)

    def _begin(self, context: dict[str, str]) -> Begun:
        run_id = context["run"]
        with self._lock:
            part = self._parts.get(run_id)
            if part is None:
                while len(self._parts) >= _MAX_RUNS:
                    self._parts.pop(next(iter(self._parts))).end()
                part = self._parts[run_id] = Measured(context)
                # it is unknown when the run is over: what has no context is not its work
                part.scope.remote = True
            part.owners[owner()] = None
            self._changed.add(run_id)
        cell = series.scopes.get(part.scope)
        if cell is None:
            cell = series.scopes[part.scope] = series.root_cell(part.scope)
        before = series.active_cell.get()
        series.active_cell.set(cell)
        return Begun(part, context["part"] == TASK, before, attach_trace(context))

    def end(self, begun: Begun, *, is_over: bool = True, earlier: int = 0) -> None:
        """End a task, in the context in which it began. Never raises.

        Args:
            begun: what `begin` returned.
            is_over: whether the engine is done with it; false if it calls it again.
            earlier: how often the engine called it before this.
        """
        with errors.suppress_errors("ending a task"):
            with self._lock:
                self._active -= 1
                # a task of no run is flushed too
                self._changed.add("")
                if begun.part is not None:
                    begun.part.covers += begun.counts and is_over
                    begun.part.earlier += begun.counts and is_over and earlier
                    begun.part.retried += begun.counts and not is_over
                    self._changed.add(begun.part.scope.run_id or "")
            if begun.part is not None:
                series.active_cell.set(begun.cell)
                detach_trace(begun.around)

    def open_run(self, context: Mapping[str, Any], owners: list[str]) -> None:
        """Measure for a run that the driver says is open: work without a context is its own.

        With two such runs at a time, it belongs to none.

        Args:
            context: of the run.
            owners: names of the threads that may work for it.

        Raises:
            TypeError: `context` is not a dict.
            ValueError: it is not the context of a run.
        """
        checked = checked_context(context)
        with self._lock:
            if checked["run"] in self._parts:
                return
            part = self._parts[checked["run"]] = Measured(checked)
            part.owners.update(dict.fromkeys(owners))
            part.scope.around = trace_of(checked)
            self._told.add(checked["run"])
        current_run.open_for_process(part.scope)
        self._watch()

    def close_run(self, run_id: str) -> dict[str, Any] | None:
        """End the part of such a run, and return its data; None if there is none."""
        with self._lock:
            part = self._parts.pop(run_id, None)
            self._told.discard(run_id)
            self._changed.discard(run_id)
        if part is None:
            return None
        current_run.close_scope(part.scope)
        part.end()
        return part.data

    # --- sending ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have a thread that sends while there is something to send."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="opm-parts", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._wake.wait(INTERVAL_S)
            with self._lock:
                idle = not (self._active or self._changed or self._told)
                if idle:
                    self._thread = None
                    return
            self.deliver()

    def deliver(self) -> None:
        """Send what is new, and flush. Never raises."""
        with self._delivering:
            with self._lock:
                changed, self._changed = self._changed | self._told, set()
                parts = [self._parts[run_id] for run_id in changed if run_id in self._parts]
                if self._active:
                    # tasks in progress have more the next time
                    self._changed.update(changed)
            for part in parts:
                try:
                    self._send(part.data)
                except Exception as error:  # of the engine or its broker
                    self._changed.add(part.scope.run_id or "")
                    errors.warn_once(
                        "sending a part", "a part of a run could not be sent: %r", error
                    )
            self.flush()

    def flush(self) -> None:
        """Flush telemetry, except for a while after a failure. Never raises."""
        with errors.suppress_errors("flushing a worker"):
            if not configure.is_configured() or clock.monotonic() < self._flush_at:
                return
            if not configure.flush(FLUSH_S).ok:
                self._flush_at = clock.monotonic() + PAUSE_S

    def close(self) -> None:
        """Send what is new now: the worker is about to end. Takes about a second at most."""
        done = threading.Thread(target=self.deliver, name="opm-parts-end", daemon=True)
        done.start()
        done.join(INTERVAL_S + FLUSH_S)


# --- work that brings its part by itself, or has none ---------------------------------------------

_flushed = WorkerParts(lambda _: None)


def begin_work() -> Callable[[], None]:
    """Configure this worker, where it may, and flush once a second until its work has ended.

    Returns:
        What ends the work; it never raises.
    """
    configure_worker()
    if not configure.is_configured():
        return lambda: None
    return functools.partial(_flushed.end, _flushed.begin(None))

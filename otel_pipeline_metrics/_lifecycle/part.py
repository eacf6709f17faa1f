"""Measure a part of a run in another process, with `part`."""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import attach, get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_pipeline_metrics._core import clock, current_run, drain, errors, series
from otel_pipeline_metrics._core.context_manager import AsyncContextMixin
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.validation import MAX_NAME_LENGTH
from otel_pipeline_metrics._lifecycle.report_data import RunDataCollector
from otel_pipeline_metrics._probes.resources import cgroup
from otel_pipeline_metrics._stages.workers.worker import owner_here
from otel_pipeline_metrics.report.part_schema import PART

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.hooks import PartsOfRun

CONTEXT: Final = "otel_pipeline_metrics/context/1"

# In place of a token: of a task whose part covers several, and of a worker that is told of the run.
TASK: Final = "task"
WORKER: Final = "worker"

_TRACE: Final = TraceContextTextMapPropagator()

# Runs whose begin in this process is remembered.
_MAX_RUNS: Final = 64


def part(context: Mapping[str, Any]) -> Part:
    """Measure a part of a run that another process began, in a `with` or an `async with`.

    Stages inside belong to that run, and their spans to its trace. What they did is `data` of what
    this returns: plain data to send back to the run, for its `add_part()`. A part has no span,
    report or log line of its own.

    Args:
        context: what `Run.context()` returned there.

    Raises:
        TypeError: `context` is not a dict.
        ValueError: it is not the context of a run.
    """
    return Part(context)


class Measured:
    """What the stages of one part did until now, and its data."""

    def __init__(self, context: Mapping[str, str]) -> None:
        self._context = context
        self.id = os.urandom(16).hex()
        self._collector = RunDataCollector(None)
        self._collector.held.begin()
        self.scope = series.RunScope(context["pipeline"], context["run"], (self._collector.stats,))
        self._numbers = itertools.count(1)
        # tasks and threads that worked for it
        self.owners: dict[str, None] = {}
        # Of the tasks that the run counts: those that were over here, their attempts before the
        # last one, here or elsewhere, and the attempts here that another one follows.
        self.covers = self.earlier = self.retried = 0
        # what has no context belongs to a run that is open here, if there is one
        self.scope.remote = bool(open_runs())
        _began(context["run"])
        self._began = clock.now()
        self._ended: float | None = None
        self._final: dict[str, Any] | None = None

    def end(self) -> None:
        """Make the data final."""
        self._ended = clock.now()
        with errors.suppress_errors("the data of a part"):
            self._final = self._collect()
        with errors.suppress_errors("releasing a part"):
            drain.release(self.scope)

    @property
    def data(self) -> dict[str, Any]:
        """Return plain data, each time with a higher number."""
        if self._final is not None:
            return self._final
        try:
            return self._collect()
        except Exception:
            errors.log_internal_error("the data of a part")
            return self._envelope({"stages": [], "queues": [], "limits": []}, 0.0)

    def _collect(self) -> dict[str, Any]:
        now = clock.now() if self._ended is None else self._ended
        wall_s = now - self._began
        drain.drain()
        rows = self._collector.part_data(self.scope, wall_s, now)
        for stage in rows["stages"]:
            # without queues its workers are unknown; the tasks and threads of this part are some
            found = [str(number) for number in stage["worker_ids"]]
            stage["worker_ids"] = found or list(self.owners)
        return self._envelope(rows, wall_s)

    def _envelope(self, rows: dict[str, Any], wall_s: float) -> dict[str, Any]:
        return {
            "schema": PART,
            "id": self.id,
            "part": self._context["part"],
            "run": self._context["run"],
            "number": next(self._numbers),
            "final": self._ended is not None,
            "covers": self.covers,
            "earlier": self.earlier,
            "retried": self.retried,
            "wall_s": wall_s,
            "process": _process(self._context["run"]),
            **rows,
        }


class Part(AsyncContextMixin):
    """What `part(...)` returns. It can be entered once."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = checked_context(context)
        self._measured: Measured | None = None
        self._over = False
        self._around: Any = None

    def __repr__(self) -> str:
        return f"<Part of run {self._context['pipeline']!r}>"

    def __enter__(self) -> Part:
        """Begin the part.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._measured is not None:
            raise RuntimeError("this part was entered before: call part() for each")
        self._around = attach_trace(self._context)
        self._measured = Measured(self._context)
        self._measured.owners[owner()] = None
        current_run.open_scope(self._measured.scope)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the part, whose data is final from then on."""
        if self._measured is None or self._over:
            return
        self._over = True
        current_run.close_scope(self._measured.scope)
        detach_trace(self._around)
        self._around = None
        self._measured.end()

    @property
    def data(self) -> dict[str, Any]:
        """What the part's stages did until now: plain data, for `Run.add_part()`.

        Each look has a higher number; of several, the run keeps the one with the highest.

        Raises:
            RuntimeError: the part was not entered.
        """
        if self._measured is None:
            raise RuntimeError("this part was not entered: use it in a `with`")
        return self._measured.data


def begin_part(context: Any, sent: str) -> Part | None:
    """Begin the part of what was sent here, a task or a job; None if its context is broken."""
    try:
        found = Part(context)
    except (TypeError, ValueError) as error:
        errors.warn_once(f"context of a {sent}", "a %s came with a broken context: %s", sent, error)
        return None
    return found.__enter__()


def trace_of(context: Mapping[str, str]) -> Any:
    """Return the OpenTelemetry context that a run's context names."""
    return _TRACE.extract(context)


def attach_trace(context: Mapping[str, str]) -> Any:
    """Make the span that a context names current; return what `detach_trace` takes."""
    with errors.suppress_errors("the trace of a part"):
        around = get_current()
        attach(_TRACE.extract(context, around))
        return around
    return None


def detach_trace(around: Any) -> None:
    """Make current what was around a part."""
    with errors.suppress_errors("the trace of a part"):
        if around is not None:
            attach(around)


def checked_context(context: object) -> dict[str, str]:
    """Return the known keys of a run's context."""
    if not isinstance(context, dict):
        raise TypeError(
            f"context must be what run.context() returned, not {type(context).__name__}"
        )
    if context.get("schema") != CONTEXT:
        raise ValueError(
            f"context must be what run.context() returned; its schema is not {CONTEXT}"
        )
    found: dict[str, str] = {}
    for key in ("pipeline", "run", "part"):
        value = context.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_LENGTH:
            raise ValueError(f"context must be what run.context() returned; {key!r} is broken")
        found[key] = value
    for key in ("traceparent", "tracestate"):
        if isinstance(context.get(key), str):
            found[key] = context[key]
    return found


def open_runs() -> list[PartsOfRun]:
    """Return what takes parts for the runs that are open in this process."""
    return [
        scope.parts for scope in list(series.scopes) if scope.parts is not None and not scope.ended
    ]


def context_of(pipeline: str | None, run_id: str, token: str) -> dict[str, Any]:
    """Return the context of a part; in a span with its W3C headers, and without baggage."""
    context: dict[str, Any] = {
        "schema": CONTEXT,
        "pipeline": pipeline,
        "run": run_id,
        "part": token,
    }
    with errors.suppress_errors("the trace of a part"):
        _TRACE.inject(context)
    return context


def owner() -> str:
    """Return what tells the current task or thread from others of this process."""
    found = owner_here()
    return f"task {os.urandom(8).hex()}" if isinstance(found, int) else str(found[0])


# --- this process -----------------------------------------------------------------------------

# by run: the clock and the CPU seconds of this process when it began to work for the run
_first: dict[str, tuple[float, float]] = {}
forking.in_child(_first.clear)


def _began(run_id: str) -> None:
    if run_id not in _first:
        while len(_first) >= _MAX_RUNS:
            _first.pop(next(iter(_first)), None)
        _first[run_id] = (clock.now(), time.process_time())


def _process(run_id: str) -> dict[str, Any]:
    first = _first.get(run_id)
    return {
        "id": forking.this_process(),
        "host": platform.node() or None,
        "pid": os.getpid(),
        "wall_s": None if first is None else max(0.0, clock.now() - first[0]),
        "cpu_s": None if first is None else max(0.0, time.process_time() - first[1]),
        "cpus": cgroup.limits().cpus,
        "rss_bytes_peak": _rss_peak(),
    }


def _rss_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

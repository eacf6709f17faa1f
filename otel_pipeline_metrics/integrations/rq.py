"""Bring what RQ's workers do into the report of the run that enqueues the jobs.

    from otel_pipeline_metrics.integrations.rq import OpmQueue

    queue = OpmQueue(connection=redis)

and workers of `rq worker --worker-class otel_pipeline_metrics.integrations.rq.OpmWorker`. In a
run, jobs carry the run and the trace in their `meta`, and the part comes back there.
"""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import rq
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from otel_pipeline_metrics._core import errors, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle import configure
from otel_pipeline_metrics._lifecycle.part import TASK, Part, begin_part
from otel_pipeline_metrics._lifecycle.worker_parts import FLUSH_S, configure_worker
from otel_pipeline_metrics.report.part_schema import UNREADABLE, packed, unpacked

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import RunScope

CONTEXT: Final = "opm-context"
# of each attempt
PARTS: Final = "opm-parts"
# that the job had when it was enqueued
RETRIES: Final = "opm-retries"

# How often a run looks for parts, and how many jobs at a time.
_LOOK_S: Final = 0.2
_AT_ONCE: Final = 500


class OpmWorker(rq.Worker):
    """A worker that measures its jobs for the runs that enqueued them, and loses nothing.

    RQ forks a process for each job, which leaves by `os._exit`; so telemetry is flushed at the end
    of each job, for at most one second.
    """

    def execute_job(self, *arguments: Any, **kwargs: Any) -> None:
        """Have a job performed in a process of its own, as `rq.Worker` does."""
        # in each of those it would take longer than many a job
        with errors.suppress_errors("configuring a worker of RQ"):
            configure_worker()
        super().execute_job(*arguments, **kwargs)

    def perform_job(self, job: Job, *arguments: Any, **kwargs: Any) -> bool:
        """Perform a job, as `rq.Worker` does."""
        part: Part | None = None
        earlier = 0
        with errors.suppress_errors("beginning a job of RQ"):
            # RQ has set the default handler of SIGTERM in this process
            configure.watch_the_end()
            earlier = job.meta.get(RETRIES, 0) - _retries_left(job)
            given = job.meta.get(CONTEXT)
            if given is not None:
                part = begin_part(given, "job")
        try:
            return super().perform_job(job, *arguments, **kwargs)
        finally:
            with errors.suppress_errors("ending a job of RQ"):
                if part is not None:
                    part.__exit__(None, None, None)
                    _send(job, part, earlier)
                if configure.is_configured() and not configure.flush(FLUSH_S).ok:
                    errors.logger.warning(
                        "the telemetry of a job was not sent within %g s; what is left is lost, as "
                        "RQ ends the job's process",
                        FLUSH_S,
                    )


def _retries_left(job: Job) -> int:
    # the first counts down what the job was enqueued with, the other one what it returned
    return (job.retries_left or 0) - (job.number_of_retries or 0)


def _send(job: Job, part: Part, earlier: int) -> None:
    # a job whose result is not kept is gone by now, and must not come back
    if not job.connection.exists(job.key):
        return
    data = part.data
    if job.get_status(refresh=False) in {JobStatus.QUEUED, JobStatus.SCHEDULED}:
        # another attempt follows, and has the part that the run waits for
        data |= {"part": TASK, "retried": 1}
    else:
        data |= {"earlier": earlier}
    meta = job.get_meta()  # that of another attempt may have come meanwhile
    meta[PARTS] = [*meta.get(PARTS, ()), base64.b85encode(packed(data)).decode()]
    job.save_meta()  # type: ignore[no-untyped-call]


class OpmQueue(rq.Queue):
    """A queue whose jobs are part of the run that enqueues them."""

    def create_job(self, *arguments: Any, **kwargs: Any) -> Job:
        """Create a job, as `rq.Queue` does."""
        job = super().create_job(*arguments, **kwargs)
        scope = series.current_scope()
        if scope.parts is not None:
            with errors.suppress_errors("enqueueing a job of RQ"):
                context = scope.parts.expect()
                job.meta |= {CONTEXT: context, RETRIES: _retries_left(job)}
                _watch(scope, job, context)
        return job


class _Watch:
    """A thread that takes the parts of one run's jobs from their `meta`."""

    def __init__(self, scope: RunScope) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._jobs: dict[str, tuple[Job, dict[str, Any]]] = {}
        threading.Thread(target=self._work, name="opm-rq-parts", daemon=True).start()

    def add(self, job: Job, context: dict[str, Any]) -> None:
        """Look for the part of a job."""
        with self._lock:
            self._jobs[job.id] = (job, context)

    def _work(self) -> None:
        while not self._scope.released:
            with self._lock:
                jobs = list(self._jobs.values())[:_AT_ONCE]
            for job, context in jobs:
                try:
                    if self._take(job, context):
                        with self._lock:
                            del self._jobs[job.id]
                except Exception as error:  # of Redis
                    errors.warn_once("rq", "parts of jobs cannot be read: %r", error)
                    break
            time.sleep(_LOOK_S)

    def _take(self, job: Job, context: dict[str, Any]) -> bool:
        """Fold the part of a job; return whether there is nothing more to wait for."""
        assert self._scope.parts is not None  # noqa: S101 - only such runs are watched
        try:
            meta = Job.fetch(job.id, connection=job.connection, serializer=job.serializer).meta
        except NoSuchJobError:
            # before it is enqueued it is not there either
            if job.get_status(refresh=False) is None or job.enqueued_at is None:
                return False
            self._scope.parts.give_up(context)
            return True
        over = False
        texts = meta.get(PARTS)
        for text in texts if isinstance(texts, list) else ():
            try:
                part = unpacked(base64.b85decode(text))
                over |= part["part"] == context["part"]
            except (KeyError, TypeError, *UNREADABLE) as error:
                errors.warn_once("rq part", "what is no part is dropped: %r", error)
            else:
                self._scope.parts.add(part)
        return over


_watches: dict[str, _Watch] = {}
forking.in_child(_watches.clear)


def _watch(scope: RunScope, job: Job, context: dict[str, Any]) -> None:
    run_id = scope.run_id or ""
    found = _watches.get(run_id)
    if found is None:
        for done in [key for key, each in _watches.items() if each._scope.released]:
            _watches.pop(done, None)
        found = _watches.setdefault(run_id, _Watch(scope))
    found.add(job, context)

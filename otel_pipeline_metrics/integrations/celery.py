"""Bring what Celery's workers do into the report of the run that sends the tasks.

    from otel_pipeline_metrics.integrations.celery import instrument_celery

    app = Celery("tasks", broker=...)
    instrument_celery(app)

The module of the app is imported by who sends tasks and by the workers, so one line serves both. In
a run, tasks carry the run and the trace; workers send their parts as events of Celery's own.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from celery import exceptions, signals
from celery.events.receiver import EventReceiver

from otel_pipeline_metrics._core import errors, records, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle.part import context_of
from otel_pipeline_metrics._lifecycle.worker_parts import Begun, WorkerParts
from otel_pipeline_metrics._stages.parts import fold
from otel_pipeline_metrics.report.part_schema import UNREADABLE, packed, unpacked

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.task import Context

HEADER: Final = "opm-context"
EVENT: Final = "opm-part"

# How long the first task of a run waits at most until parts can be received.
_READY_S: Final = 2.0
# After a broker was gone.
_AGAIN_S: Final = 1.0

_apps: WeakKeyDictionary[Celery, _App] = WeakKeyDictionary()


def instrument_celery(app: Celery) -> Celery:
    """Measure the tasks of an app in its workers, for the runs that send them; return the app.

    For the pools prefork, threads, solo and gevent. A task that asks for a retry is an attempt, not
    an error. Calling it again changes nothing.

    Args:
        app: the Celery app, in the module that workers and senders import.

    Raises:
        TypeError: `app` is not a Celery app.
    """
    if not hasattr(app, "events") or not hasattr(app, "tasks"):
        raise TypeError(f"app must be a Celery app, not {type(app).__name__}")
    if app not in _apps:
        _apps[app] = _App(app)
    return app


class _App:
    """One instrumented app, in the process that sends tasks or in a worker."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._parts = WorkerParts(self._send)
        # By request, not by task id: an attempt publishes the next one, which has its id and may
        # begin, and end, before that attempt does.
        self._begun: WeakKeyDictionary[Context, Begun] = WeakKeyDictionary()
        self._receiver: _Receiver | None = None
        records.asks_for_retry.add(exceptions.Retry)
        for signal, receiver in (
            (signals.before_task_publish, self._before_publish),
            (signals.task_prerun, self._prerun),
            (signals.task_postrun, self._postrun),
            (signals.worker_process_shutdown, self._end),
            (signals.worker_shutdown, self._end),
        ):
            signal.connect(receiver, weak=False)
        forking.watch(self)

    def after_fork(self) -> None:
        """Receive nothing: parts come to the parent."""
        self._begun.clear()
        self._receiver = None

    # --- who sends tasks ----------------------------------------------------------------------

    def _before_publish(self, headers: Any = None, **_: Any) -> None:
        with errors.suppress_errors("sending a task"):
            scope = series.current_scope()
            # a task that is tried again has its context already
            if scope.run_id is None or not isinstance(headers, dict) or HEADER in headers:
                return
            if scope.parts is None:
                # a task that a task sends belongs to its run, which does not know of it
                context = context_of(scope.pipeline, scope.run_id, "nested")
            else:
                self._receive()
                context = scope.parts.expect_task()
            headers[HEADER] = json.dumps(context)

    def _receive(self) -> None:
        if self._receiver is None:
            self._receiver = _Receiver(self._app)
        self._receiver.ready.wait(_READY_S)

    # --- a worker -----------------------------------------------------------------------------

    def _prerun(self, task: Any, **_: Any) -> None:
        if task.app is not self._app:
            return
        with errors.suppress_errors("beginning a task of Celery"):
            given = (task.request.headers or {}).get(HEADER)
            context = json.loads(given) if isinstance(given, str) else None
            self._begun[task.request] = self._parts.begin(context)

    def _postrun(self, task: Any, state: str | None = None, **_: Any) -> None:
        with errors.suppress_errors("ending a task of Celery"):
            begun = self._begun.pop(task.request, None)
            if begun is not None:
                self._parts.end(begun, is_over=state != "RETRY", earlier=task.request.retries)

    def _send(self, data: dict[str, Any]) -> None:
        text = base64.b85encode(packed(data)).decode()
        with self._app.events.default_dispatcher() as dispatcher:
            dispatcher.send(EVENT, part=text)

    def _end(self, **_: Any) -> None:
        self._parts.close()


class _Receiver:
    """A thread that takes the parts that workers send."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.ready = threading.Event()
        threading.Thread(target=self._work, name="opm-celery-parts", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                with self._app.connection_for_read() as connection:
                    made = _Ready(
                        connection, handlers={EVENT: _take}, routing_key="opm.part", app=self._app
                    )
                    made.ready = self.ready
                    made.capture(limit=None, timeout=None, wakeup=False)
            except Exception as error:  # the broker is gone
                errors.warn_once("celery", "parts of workers cannot be received: %r", error)
            time.sleep(_AGAIN_S)


class _Ready(EventReceiver):  # type: ignore[misc]  # Celery has no types
    ready: threading.Event

    def on_consume_ready(self, *arguments: Any, **kwargs: Any) -> None:
        """Tell that events are received from now on."""
        super().on_consume_ready(*arguments, **kwargs)
        self.ready.set()


def _take(event: dict[str, Any]) -> None:
    try:
        fold(unpacked(base64.b85decode(event["part"])))
    except (KeyError, TypeError, AttributeError, *UNREADABLE) as error:
        errors.warn_once("celery part", "an event that is no part is dropped: %r", error)

"""Bring what Ray's workers do into the report of the run that is open in the driver.

    from otel_pipeline_metrics.integrations.ray import setup_ray_worker

    ray.init(runtime_env={"worker_process_setup_hook": setup_ray_worker})

The driver tells the workers which runs are open by the store that Ray has for its libraries. A
named actor of the driver takes what they did: while a run goes on once a second, and at its end.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ray
from ray.exceptions import RayError
from ray.experimental import internal_kv

from otel_pipeline_metrics._core import clock, errors, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle import run_parts
from otel_pipeline_metrics._lifecycle.part import open_runs
from otel_pipeline_metrics._lifecycle.worker_parts import INTERVAL_S, WorkerParts, configure_worker
from otel_pipeline_metrics.report.part_schema import UNREADABLE, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics._core.hooks import PartsOfRun
    from otel_pipeline_metrics._lifecycle.run_parts import RunParts

_NAMESPACE: Final = "otel_pipeline_metrics"
_STORE: Final = _NAMESPACE.encode()
# Of the actor's own process, where the hook has nothing to do.
_IS_ACTOR: Final = "OPM_RAY_ACTOR"

# How long a driver waits for its actor, and a worker that starts for the driver.
_ACTOR_S: Final = 30.0
# How long a run that begins waits until all workers know of it, and how often these look.
_TELL_S: Final = 2.0
_LOOK_S: Final = 0.2
# How long a worker waits at the end of a run until its part has arrived.
_SEND_S: Final = 2.0


class _SetupHook:
    """What `ray.init` takes as a `worker_process_setup_hook`: it measures a worker for the driver.

    `ray.init` pickles it, so the driver knows that workers will ask for its runs.
    """

    __name__ = "setup_ray_worker"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for the workers."""
        with errors.suppress_errors("the driver of Ray"):
            _driver.begin()
        return _hook_of_driver, ()

    def __call__(self) -> None:
        """Measure this worker for the Collector alone: the driver gave the hook's name only."""
        _set_up(0.0)
        errors.warn_once("ray", "by the name of setup_ray_worker alone, no run has parts of Ray")


setup_ray_worker: Final = _SetupHook()


def _hook_of_driver() -> Callable[[], None]:
    return _set_up


def _set_up(wait_s: float = _ACTOR_S) -> None:
    with errors.suppress_errors("the setup of a worker of Ray"):
        if not os.environ.get(_IS_ACTOR):
            _Worker().start(wait_s)


def _name() -> str:
    return f"parts of job {ray.get_runtime_context().get_job_id()}"


class Open(NamedTuple):
    """The runs that are open in the driver."""

    version: int
    # of the runs, by their ids
    contexts: dict[str, dict[str, Any]]


class _Store:
    """The runs that are open, and the version of them that each worker acts on.

    Workers look here, and do not wait at the actor: before its first task, Ray aborts a process
    that calls an actor, and with a call in progress, a worker does not end.
    """

    def __init__(self) -> None:
        self._prefix = f"worker of {_name()} "

    def write(self, now: Open) -> None:
        """Write the open runs."""
        internal_kv._internal_kv_put(_name(), json.dumps(now), namespace=_STORE)

    def read(self) -> Open | None:
        """Return the open runs; None before the driver wrote them."""
        found = internal_kv._internal_kv_get(_name(), namespace=_STORE)
        return None if found is None else Open(*json.loads(found))

    def note(self, worker: str, version: int | None) -> None:
        """Write the version that a worker acts on; None if it ended."""
        key = f"{self._prefix}{worker}"
        if version is None:
            internal_kv._internal_kv_del(key, namespace=_STORE)
        else:
            internal_kv._internal_kv_put(key, str(version), namespace=_STORE)

    def wait(self, version: int, timeout_s: float) -> int:
        """Wait until all workers act on a version; forget those that do not, and count them."""
        until = clock.monotonic() + timeout_s
        while late := self._older_than(version):
            if clock.monotonic() > until:
                for worker in late:
                    self.note(worker, None)
                break
            time.sleep(_LOOK_S / 4)
        return len(late)

    def _older_than(self, version: int) -> list[str]:
        keys = internal_kv._internal_kv_list(self._prefix, namespace=_STORE)
        noted = {k: internal_kv._internal_kv_get(k, namespace=_STORE) for k in keys}
        return [
            key.decode().removeprefix(self._prefix)
            for key, value in noted.items()
            if value is not None and int(value) < version
        ]


class Parts:
    """The actor: the parts that the driver has yet to take."""

    def __init__(self) -> None:
        # by run and part: the newest, compressed
        self._parts: dict[str, dict[str, bytes]] = {}

    def add(self, run_id: str, part_id: str, content: bytes) -> None:
        """Keep the newest of a part."""
        self._parts.setdefault(run_id, {})[part_id] = content

    def take(self, run_id: str) -> list[bytes]:
        """Return the parts of a run that came since the last time."""
        return list(self._parts.pop(run_id, {}).values())


class _Driver:
    """The runs in this process, of which it tells the workers by its actor."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Leave the cluster to the parent."""
        self._lock = threading.RLock()
        self._beginning: threading.Thread | None = None
        self._actor: Any = None
        # of the cluster that the actor is in, the id that this process has there
        self._here: str | None = None
        self._now = Open(0, {})
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Make the actor as soon as `ray.init`, which pickles the hook now, is done."""
        if self not in run_parts.engines:
            run_parts.engines.append(self)
        # here, since the trace around is that of the run
        contexts = {parts.run_id: parts.share() for parts in open_runs()}
        self._beginning = threading.Thread(
            target=self._begin, args=(contexts,), name="opm-ray-begin", daemon=True
        )
        self._beginning.start()

    def _begin(self, contexts: dict[str, dict[str, Any]]) -> None:
        until = clock.monotonic() + 10 * _ACTOR_S
        while not ray.is_initialized():
            if clock.monotonic() > until:
                return
            time.sleep(_LOOK_S)
        with self._lock:
            self._here = _this_driver()
            self._now = Open(0, {})
            try:
                self._actor = (
                    ray.remote(Parts)
                    .options(
                        name=_name(),
                        namespace=_NAMESPACE,
                        num_cpus=0,
                        runtime_env={"env_vars": {_IS_ACTOR: "1"}},
                    )
                    .remote()
                )
            except Exception as error:
                _warn(error)
                return
        self._tell(contexts)

    def opened(self, parts: RunParts) -> None:
        if not ray.is_initialized():
            return
        if self._beginning is not None:
            # `ray.init` was a moment ago
            self._beginning.join(_ACTOR_S)
        if self._is_here():
            self._tell({parts.run_id: parts.share()})

    def _tell(self, contexts: dict[str, dict[str, Any]]) -> None:
        try:
            with self._lock:
                now = self._publish({**self._now.contexts, **contexts})
            _Store().wait(now.version, _TELL_S)
        except Exception as error:  # the cluster is gone, or has no room
            _warn(error)
            return
        with self._lock:
            if contexts and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="opm-ray", daemon=True)
                self._thread.start()

    def _publish(self, contexts: dict[str, dict[str, Any]]) -> Open:
        if contexts != self._now.contexts or not self._now.version:
            self._now = Open(self._now.version + 1, contexts)
            _Store().write(self._now)
        return self._now

    def _work(self) -> None:
        while True:
            time.sleep(INTERVAL_S)
            with self._lock:
                runs = list(open_runs())
                if not runs or not self._is_here():
                    self._thread = None
                    return
                actor = self._actor
            try:
                for parts in runs:
                    _add(parts, ray.get(actor.take.remote(parts.run_id), timeout=_ACTOR_S))
            except Exception as error:
                _warn(error)

    def _is_here(self) -> bool:
        return ray.is_initialized() and self._here == _this_driver()

    def ending(self, parts: RunParts, timeout_s: float) -> None:
        if not self._is_here():
            return
        try:
            with self._lock:
                left = {k: v for k, v in self._now.contexts.items() if k != parts.run_id}
                now = self._publish(left)
            late = _Store().wait(now.version, timeout_s)
            _add(parts, ray.get(self._actor.take.remote(parts.run_id), timeout=_SEND_S))
            for _ in range(late - parts.unfinished_workers):
                parts.give_up(parts.expect())
        except Exception as error:
            _warn(error)


def _warn(error: Exception) -> None:
    # for an actor that is dead, Ray raises a plain `Exception`
    errors.warn_once("ray", "the run of a driver of Ray lacks parts: %r", error)


def _this_driver() -> str:
    # ids of jobs are the same in each cluster
    return str(ray.get_runtime_context().get_worker_id())


def _add(parts: PartsOfRun, found: list[bytes]) -> None:
    for content in found:
        try:
            parts.add(unpacked(content))
        except UNREADABLE as error:
            errors.warn_once("ray part", "what is no part is dropped: %r", error)


_driver = _Driver()


class _Worker:
    """This worker process, which measures for the runs that the driver names."""

    def __init__(self) -> None:
        self._id = os.urandom(8).hex()
        # whether it has begun a task: only then Ray takes calls of actors
        self._has_task = False
        self._actor: Any = None
        self._store = _Store()
        self._is_over = False
        self._now = Open(-1, {})
        self._parts = WorkerParts(self._send)

    def start(self, wait_s: float) -> None:
        """Begin with the runs that are open, and follow them.

        Args:
            wait_s: how long the driver may take to write them, as soon as `ray.init` is done.
        """
        configure_worker()
        self._store.note(self._id, self._now.version)
        until = clock.monotonic() + wait_s
        while (first := self._store.read()) is None and clock.monotonic() < until:
            time.sleep(_LOOK_S)
        if first is not None:
            self._apply(first)
        threading.Thread(target=self._follow, name="opm-ray", daemon=True).start()
        atexit.register(self._end)

    def _follow(self) -> None:
        flush_at = 0.0
        while not self._is_over:
            time.sleep(_LOOK_S)
            try:
                now = None if self._is_over else self._store.read()
                if now is not None and now.version > self._now.version:
                    self._apply(now)
                # what is done in a run is flushed with its parts
                if not self._now.contexts and _has_news() and clock.monotonic() >= flush_at:
                    flush_at = clock.monotonic() + INTERVAL_S
                    self._parts.flush()
            except Exception as error:  # the cluster is being shut down
                errors.logger.debug("the runs of Ray's driver cannot be read: %r", error)

    def _apply(self, now: Open) -> None:
        before, self._now = self._now.contexts, now
        for run_id in now.contexts.keys() - before.keys():
            with errors.suppress_errors("a run of Ray's driver"):
                self._parts.open_run(now.contexts[run_id], ["worker"])
        for run_id in before.keys() - now.contexts.keys():
            self._close(run_id)
        # the last, since this worker may be killed as soon as the driver knows
        self._store.note(self._id, now.version)

    def _close(self, run_id: str) -> None:
        # before what was measured is forgotten
        self._look_for_task()
        sent = None
        with errors.suppress_errors("a run of Ray's driver"):
            data = self._parts.close_run(run_id)
            try:
                sent = None if data is None else self._send(data)
            except (RayError, ValueError) as error:
                _warn(error)
        # meanwhile the part is on its way
        self._parts.flush()
        if sent is not None:
            with contextlib.suppress(RayError):
                ray.get(sent, timeout=_SEND_S)

    def _look_for_task(self) -> None:
        context = ray.get_runtime_context()
        self._has_task = self._has_task or bool(
            context.get_assigned_resources()
            or context.get_actor_id()
            # a stage is of a task
            or any(True for _ in series.all_series())
        )

    def _send(self, data: dict[str, Any]) -> Any:
        if self._is_over:
            return None
        self._look_for_task()
        if not self._has_task:
            return None
        if self._actor is None:
            self._actor = ray.get_actor(_name(), namespace=_NAMESPACE)
        return self._actor.add.remote(data["run"], data["id"], packed(data))

    def _end(self) -> None:
        # by now Ray aborts a process that calls it
        self._is_over = True
        self._parts.flush()


def _has_news() -> bool:
    return any(one.pending or one.active for one in series.all_series())

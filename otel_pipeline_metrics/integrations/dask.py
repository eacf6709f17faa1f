"""Bring what Dask's workers do into the report of the run that is open in the client's process.

    from otel_pipeline_metrics.integrations.dask import instrument_dask

    client = dask.distributed.Client(...)
    instrument_dask(client)

Workers are told which run opens and ends, by a plugin of Dask's own. What they did comes back while
the run goes on as events, and at its end by a call.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from distributed import Client
from distributed.diagnostics.plugin import WorkerPlugin

from otel_pipeline_metrics._core import errors, series
from otel_pipeline_metrics._lifecycle import configure, run_parts
from otel_pipeline_metrics._lifecycle.worker_parts import FLUSH_S, WorkerParts, configure_worker

if TYPE_CHECKING:
    from distributed import Worker

    from otel_pipeline_metrics._lifecycle.run_parts import RunParts

TOPIC: Final = "otel_pipeline_metrics"
_NAME: Final = "otel_pipeline_metrics"

_clients: WeakSet[Client] = WeakSet()


def instrument_dask(client: Client) -> Client:
    """Measure the tasks of a cluster for the run that is open in this process; return the client.

    For `submit`, `map`, `delayed` and collections; survives `client.restart()` and workers that
    come later. Of two runs that are open at a time, the work is at the Collector only, unless it is
    propagated. Calling this again changes nothing.

    Raises:
        TypeError: `client` is not a client of Dask, or an asynchronous one.
    """
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError("client must be a dask.distributed.Client that is not asynchronous")
    if client not in _clients:
        _clients.add(client)
        client.register_plugin(_Plugin(()), name=_NAME)
        run_parts.engines.append(_Cluster(client))
    return client


class _Cluster:
    """The workers of one client, told of the runs in this process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._open: dict[str, RunParts] = {}
        client.subscribe_topic(TOPIC, self._take)  # type: ignore[no-untyped-call]

    def opened(self, parts: RunParts) -> None:
        if self._client.status == "closed":
            run_parts.engines.remove(self)
        if self._client.status != "running":
            return
        self._open[parts.run_id] = parts
        self._tell()

    def _tell(self) -> None:
        # who comes later gets the plugin that was registered last
        contexts = tuple(parts.share() for parts in self._open.values())
        self._client.register_plugin(_Plugin(contexts), name=_NAME)

    def ending(self, parts: RunParts, timeout_s: float) -> None:
        if self._open.pop(parts.run_id, None) is None or self._client.status != "running":
            return
        # a worker that does not answer must not keep the run from ending
        asked = threading.Thread(target=self._collect, args=(parts,), daemon=True)
        asked.start()
        asked.join(timeout_s)

    def _collect(self, parts: RunParts) -> None:
        try:
            found = self._client.run(_close_run, parts.run_id, on_error="ignore")
            for data in found.values():
                if data is not None:
                    parts.add(data)
            self._tell()
        except Exception as error:  # the cluster is gone, or being closed
            errors.warn_once("dask", "parts of Dask's workers cannot be collected: %r", error)

    def _take(self, event: Any) -> None:
        _, message = event
        try:
            run_id, _, text = message.partition(" ")
            parts = self._open.get(run_id)
            if parts is not None:
                parts.add(json.loads(text))
        except (AttributeError, ValueError) as error:
            errors.warn_once("dask part", "an event that is no part is dropped: %r", error)


class _Plugin(WorkerPlugin):
    """Has a worker measure for the runs that are open in the client's process."""

    name = _NAME

    def __init__(self, contexts: tuple[dict[str, Any], ...]) -> None:
        self._contexts = contexts

    def setup(self, worker: Worker) -> None:
        """Begin with the runs that are open."""
        with errors.suppress_errors("a plugin of Dask"):
            if _is_clients_process(self._contexts):
                return
            configure_worker()
            _state.worker = worker
            threads = [f"thread {number}" for number in range(worker.state.nthreads)]
            for context in self._contexts:
                _state.parts.open_run(context, threads)

    def teardown(self, worker: Worker) -> None:
        """Send what there is: the worker may be about to end, or get another plugin."""
        with errors.suppress_errors("a plugin of Dask"):
            if configure.is_configured() and worker.status.name in {"closing", "closed"}:
                configure.flush(FLUSH_S)


def _is_clients_process(contexts: tuple[dict[str, Any], ...]) -> bool:
    """Tell whether a worker is in the process of the runs, which see its work by themselves."""
    here = {scope.run_id for scope in list(series.scopes) if scope.parts is not None}
    return any(context.get("run") in here for context in contexts)


class _State:
    """Of this worker process."""

    worker: Worker | None = None

    def __init__(self) -> None:
        self.parts = WorkerParts(self._send)

    def _send(self, data: dict[str, Any]) -> None:
        if self.worker is not None:
            # as text: Dask's own encoding makes tuples of lists
            self.worker.log_event(TOPIC, f"{data['run']} {json.dumps(data)}")


_state = _State()


def _close_run(run_id: str) -> dict[str, Any] | None:
    return _state.parts.close_run(run_id)

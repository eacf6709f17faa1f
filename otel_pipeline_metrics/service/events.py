"""`EventMetrics`: events, errors, breakers, retries and connections of a service."""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from otel_pipeline_metrics._core import cardinality, clock
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import outcome_of
from otel_pipeline_metrics._core.validation import (
    check_count,
    check_flag,
    check_name,
    check_number,
)
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.values import level, measure
from otel_pipeline_metrics.service import overview, queue_depths, watching
from otel_pipeline_metrics.service.activity import activity, error_type_of
from otel_pipeline_metrics.service.history import History
from otel_pipeline_metrics.service.tracker import Tracker

# The `pipeline.operation.type` of what `monitor_operation` times.
MONITORED: Final = "monitored"

BREAKER_STATES: Final = ("closed", "open", "half_open")

_DURATION: Final = measure(defs.EVENT_DURATION)
_IO: Final = measure(defs.EVENT_IO)
_DUPLICATES: Final = measure(defs.EVENT_DUPLICATES)
_POINTS: Final = measure(defs.EVENT_POINTS)
_ERRORS: Final = measure(defs.ERRORS)
_BREAKERS: Final = level(defs.BREAKER)
_CONNECTIONS: Final = level(defs.CONNECTIONS)


class _Totals:
    """The events of one source and domain, or of all."""

    def __init__(self) -> None:
        self.errors = 0
        self.duplicates = 0
        self.size: int | None = None
        self.points: int | None = None
        self.durations = History()

    def add(
        self, seconds: float, *, failed: bool, duplicate: bool, size: int | None, points: int | None
    ) -> None:
        self.durations.add(seconds, clock.now())
        self.errors += failed
        self.duplicates += duplicate
        self.size = _plus(self.size, size)
        self.points = _plus(self.points, points)

    def to_dict(self) -> dict[str, Any]:
        durations = self.durations
        return {
            "count": durations.count,
            "errors": self.errors,
            "error_rate": durations.share(self.errors),
            "duplicates": self.duplicates,
            "dedup_rate": durations.share(self.duplicates),
            "size_bytes": self.size,
            "points": self.points,
            "rate_per_s": durations.rate(),
            "duration_s": durations.to_dict(),
        }


class _Connections:
    """The connections of one name."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.state: str | None = None
        # the states that they were in
        self.seen: dict[str | None, None] = {}

    def report(self, name: str) -> None:
        """Set the level of the present state, and 0 for those that they have left."""
        count = 1 if self.count is None else self.count
        self.seen[self.state] = None
        for state in self.seen:
            attributes = [(defs.CONNECTION_NAME, name)]
            if state is not None:
                attributes.append((defs.CONNECTION_STATE, state))
            _CONNECTIONS.set(count if state == self.state else 0, tuple(attributes))


class EventMetrics:
    """What a service does beside its stages; `get_event_metrics()` returns that of the process.

    Any thread or task may record. Names are limited as those of stages are: past 2,000, or
    `max_attribute_values` for sources, domains, entities and error types, they are `_OTHER`.
    """

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)
        sink.add_probe("breakers", _BREAKERS.install)
        sink.add_probe("connections", _CONNECTIONS.install)
        watching.watch()

    def after_fork(self) -> None:
        """Start at zero: the parent reports what it did."""
        # re-entrant, since a signal handler may record while its thread does
        self._lock = threading.RLock()
        self._distinct = cardinality.Distinct()
        self._started = clock.now()
        self._all = _Totals()
        self._by_source: dict[tuple[str, str], _Totals] = {}
        self._errors: dict[tuple[str, str, str], int] = {}
        self._breakers: dict[str, str] = {}
        self._connections: dict[str, _Connections] = {}
        self._depths: dict[str, queue_depths.DepthByHand] = {}

    # --- recording --------------------------------------------------------------------------------

    def record_event_processing(
        self,
        duration_seconds: float,
        source: str,
        domain: str,
        entity_id: str | None = None,
        success: bool = True,
        size_bytes: int | None = None,
        duplicate: bool = False,
        points: int | None = None,
    ) -> None:
        """Record one event.

        Args:
            duration_seconds: how long it took.
            source: where it came from.
            domain: what it is about.
            entity_id: what it belongs to; a label of the metric, under the cardinality guard.
            success: whether it was processed.
            size_bytes: its payload; None: unknown.
            duplicate: whether it had been seen before.
            points: data points that it was written as; None: unknown.

        Raises:
            TypeError: a value is of the wrong kind.
            ValueError: a value is negative, not finite or empty.
        """
        seconds = check_number(duration_seconds, "duration_seconds")
        limit = self._distinct.name
        source = limit(defs.EVENT_SOURCE, check_name(source, "source"))
        domain = limit(defs.EVENT_DOMAIN, check_name(domain, "domain"))
        if entity_id is not None:
            entity_id = limit(defs.EVENT_ENTITY, check_name(entity_id, "entity_id"))
        failed = not check_flag(success, "success")
        again = check_flag(duplicate, "duplicate")
        size = None if size_bytes is None else check_count(size_bytes, "size_bytes")
        count = None if points is None else check_count(points, "points")

        origin = ((defs.EVENT_SOURCE, source), (defs.EVENT_DOMAIN, domain))
        entity = () if entity_id is None else ((defs.EVENT_ENTITY, entity_id),)
        error = ((defs.ERROR_TYPE, cardinality.OTHER),) if failed else ()
        _DURATION.record(seconds, (*origin, *entity, *error))
        _DUPLICATES.record(int(again), origin)
        if size is not None:
            _IO.record(size, origin)
        if count is not None:
            _POINTS.record(count, origin)
        with self._lock:
            totals = self._by_source.setdefault((source, domain), _Totals())
            for each in (self._all, totals):
                each.add(seconds, failed=failed, duplicate=again, size=size, points=count)

    def record_error(
        self,
        error: BaseException | type[BaseException] | str,
        component: str,
        severity: str = "error",
    ) -> None:
        """Record an error that the program has handled.

        Args:
            error: the exception, its class, or the name of its kind. Its message goes nowhere.
            component: the part of the program that had it.
            severity: such as "warning", "error" or "critical".

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: a string is empty.
        """
        known = isinstance(error, BaseException) or (
            isinstance(error, type) and issubclass(error, BaseException)
        )
        found = error_type_of(error) if known else check_name(error, "error")
        limit = self._distinct.name
        kind = limit(defs.ERROR_TYPE, found)
        component = limit(defs.COMPONENT, check_name(component, "component"))
        severity = limit(defs.SEVERITY, check_name(severity, "severity"))
        _ERRORS.record(
            1,
            ((defs.ERROR_TYPE, kind), (defs.COMPONENT, component), (defs.SEVERITY, severity)),
        )
        with self._lock:
            key = (kind, component, severity)
            self._errors[key] = self._errors.get(key, 0) + 1

    def record_retry_attempt(
        self,
        operation: str,
        attempt: int,
        error: BaseException | type[BaseException] | str | None = None,
    ) -> None:
        """Record an attempt after the first.

        Args:
            operation: the name of what is tried again.
            attempt: the number of the retry, from 1.
            error: why; its message goes nowhere.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: the name is empty, or `attempt` is below 1.
        """
        name = check_name(operation, "operation")
        if check_count(attempt, "attempt") < 1:
            raise ValueError("attempt must be 1 or more: the first retry is 1")
        activity.retry(name, None if error is None else error_type_of(error))

    def record_circuit_breaker_state(self, name: str, state: str) -> None:
        """Record the state that a circuit breaker is in now.

        Args:
            name: the breaker's.
            state: "closed", "open" or "half_open"; "half-open" and capitals are accepted.

        Raises:
            TypeError: an argument is not a string.
            ValueError: the name is empty, or the state is another.
        """
        name = cardinality.instrument_names.name("names of breakers", check_name(name, "name"))
        found = check_name(state, "state").lower().replace("-", "_")
        if found not in BREAKER_STATES:
            raise ValueError(f"state must be one of {', '.join(BREAKER_STATES)}, not {state!r:.80}")
        self._breakers[name] = found
        for each in BREAKER_STATES:
            attributes = ((defs.BREAKER_NAME, name), (defs.BREAKER_STATE, each))
            _BREAKERS.set(int(each == found), attributes)

    def set_connections(self, name: str, n: int) -> None:
        """Set how many connections there are.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: the name is empty, or the number is negative.
        """
        count = check_count(n, "n")
        name, connections = self._connections_of(name)
        with self._lock:
            connections.count = count
            connections.report(name)

    def set_connection_state(self, name: str, state: str) -> None:
        """Set the state of a connection, or of all connections of that name.

        Without `set_connections` it is one connection.

        Raises:
            TypeError: an argument is not a string.
            ValueError: an argument is empty.
        """
        found = self._distinct.name(defs.CONNECTION_STATE, check_name(state, "state"))
        name, connections = self._connections_of(name)
        with self._lock:
            connections.state = found
            connections.report(name)

    def _connections_of(self, name: str) -> tuple[str, _Connections]:
        names = cardinality.instrument_names
        name = names.name("names of connections", check_name(name, "name"))
        return name, self._connections.setdefault(name, _Connections())

    def set_queue_depth(self, name: str, n: int) -> None:
        """Set how many items are in a queue that is not wrapped: `pipeline.queue.size`.

        Ignored, with one warning, for the name of a wrapped queue, which is measured already.

        Raises:
            TypeError: an argument is of the wrong kind.
            ValueError: the name is empty, or the number is negative.
        """
        depth = check_count(n, "n")
        name = cardinality.instrument_names.name("queue names", check_name(name, "name"))
        with self._lock:
            queue_depths.set_depth(self._depths, name, depth)

    def monitor_operation(self, name: str) -> Tracker:
        """Return a context manager and decorator that times an operation and its errors.

        It reports `pipeline.operation.duration` with the type "monitored". What the block raises
        passes through.

        ```python
        async with get_event_metrics().monitor_operation("refresh"):
            await refresh()
        ```

        Raises:
            TypeError: the name is not a string.
            ValueError: the name is empty.
        """
        check_name(name, "name")

        def report(seconds: float, error: BaseException | None) -> None:
            failed = error is not None and outcome_of(error) != "abandoned"
            error_type = error_type_of(error) if error is not None and failed else None
            activity.record(MONITORED, name, max(0.0, seconds), error_type)

        return Tracker(report)

    # --- what is known ----------------------------------------------------------------------------

    @property
    def breakers(self) -> dict[str, str]:
        """The state of each breaker."""
        return dict(self._breakers)

    def to_dict(self) -> dict[str, Any]:
        """Return the events so far as plain data; unknown is None."""
        with self._lock:
            elapsed = clock.now() - self._started
            return {
                "elapsed_s": elapsed,
                "per_s": ratio(self._all.durations.count, elapsed),
                **self._all.to_dict(),
                "by_source": [
                    {"source": source, "domain": domain, **totals.to_dict()}
                    for (source, domain), totals in sorted(self._by_source.items())
                ],
                "reported_errors": [
                    {"type": kind, "component": component, "severity": severity, "count": count}
                    for (kind, component, severity), count in sorted(self._errors.items())
                ],
                "breakers": self.breakers,
                "connections": {
                    name: {"count": found.count, "state": found.state}
                    for name, found in sorted(self._connections.items())
                },
                "queues": {name: each.depth() for name, each in sorted(self._depths.items())},
            }

    def get_comprehensive_metrics(self) -> dict[str, Any]:
        """Return everything that is known of this process, as plain data.

        Its keys are `timestamp`, `resources`, `stages`, `caches`, `events`, `operations` and
        `health`; `opm schema service` prints its JSON Schema. Unknown is None.
        """
        return overview.comprehensive(self.to_dict())


_of_process: dict[int, EventMetrics] = {}


def get_event_metrics() -> EventMetrics:
    """Return the process's one `EventMetrics`; a forked child has its own."""
    process = os.getpid()
    # setdefault is atomic: two threads that make one get the same one
    return _of_process.get(process) or _of_process.setdefault(process, EventMetrics())


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more

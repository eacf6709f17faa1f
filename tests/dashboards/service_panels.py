"""The panels of the dashboards of a service and of the telemetry itself."""

from __future__ import annotations

from typing import Final

from otel_pipeline_metrics._core import metric_definitions as defs
from tests.dashboards.naming import label
from tests.dashboards.queries import (
    OF_JOB,
    Panel,
    Query,
    average,
    calls,
    failed,
    failing_share,
    level,
    quantiles,
    rate,
    share,
    unit,
    unit_of_rate,
    used,
)

_STAGE: Final = defs.STAGE_NAME
_OPERATION: Final = (defs.OPERATION_TYPE, defs.OPERATION_NAME)
_EVENT: Final = (defs.EVENT_SOURCE, defs.EVENT_DOMAIN)
OPERATIONS: Final = (
    Panel(
        "Operations a second",
        "Operations that a manager recorded or timed.",
        "cps",
        (calls(defs.OPERATION_DURATION, OF_JOB, *_OPERATION),),
    ),
    Panel(
        "Duration of operations",
        "Percentiles, read from the histogram's buckets.",
        unit(defs.OPERATION_DURATION),
        quantiles(defs.OPERATION_DURATION, OF_JOB, *_OPERATION),
    ),
    Panel(
        "Share of operations that fail",
        "Operations without failures have no line.",
        "percentunit",
        (failing_share(defs.OPERATION_DURATION, OF_JOB, *_OPERATION),),
    ),
    Panel(
        "Retries of operations a second",
        "Attempts after the first.",
        unit_of_rate(defs.OPERATION_RETRIES),
        (rate(defs.OPERATION_RETRIES, OF_JOB, defs.OPERATION_NAME),),
    ),
    Panel(
        "Errors a second",
        "That the program reported, by component and severity.",
        unit_of_rate(defs.ERRORS),
        (rate(defs.ERRORS, OF_JOB, defs.COMPONENT, defs.SEVERITY),),
    ),
    Panel(
        "Stalled stages and queues",
        "1 while something is in flight and nothing moves.",
        "short",
        (level(defs.STALLED, OF_JOB, _STAGE, defs.QUEUE_NAME, how="max"),),
        kind="statetimeline",
    ),
)
EVENTS: Final = (
    Panel(
        "Events a second",
        "By source and domain.",
        "cps",
        (calls(defs.EVENT_DURATION, OF_JOB, *_EVENT),),
    ),
    Panel(
        "Duration of events",
        "Percentiles, read from the histogram's buckets.",
        unit(defs.EVENT_DURATION),
        quantiles(defs.EVENT_DURATION, OF_JOB, *_EVENT),
    ),
    Panel(
        "Share of events that fail",
        "Sources and domains without failures have no line.",
        "percentunit",
        (failing_share(defs.EVENT_DURATION, OF_JOB, *_EVENT),),
    ),
    Panel(
        "Share of duplicates",
        "Events that had been seen before.",
        "percentunit",
        (share(defs.EVENT_DUPLICATES, defs.EVENT_DURATION, OF_JOB, *_EVENT),),
    ),
    Panel(
        "Event bytes a second",
        "Payload of events with a size.",
        unit_of_rate(defs.EVENT_IO),
        (rate(defs.EVENT_IO, OF_JOB, *_EVENT),),
    ),
    Panel(
        "Points written a second",
        "Data points that events were written as.",
        unit_of_rate(defs.EVENT_POINTS),
        (rate(defs.EVENT_POINTS, OF_JOB, *_EVENT),),
    ),
)
PROCESS: Final = (
    Panel(
        "Breakers",
        "1 for the state that a circuit breaker is in.",
        "short",
        (level(defs.BREAKER, OF_JOB, defs.BREAKER_NAME, defs.BREAKER_STATE, how="max"),),
        kind="statetimeline",
        width=12,
    ),
    Panel(
        "Connections",
        "By name and, where it is known, by state.",
        unit(defs.CONNECTIONS),
        (level(defs.CONNECTIONS, OF_JOB, defs.CONNECTION_NAME, defs.CONNECTION_STATE),),
        width=12,
    ),
    Panel(
        "CPUs in use",
        "CPU seconds a second of all processes, and the CPUs that one may use.",
        "short",
        (
            Query(rate(defs.PROCESS_CPU_TIME, OF_JOB).expr, "{{job}}"),
            Query(level(defs.CONTAINER_CPU_LIMIT, OF_JOB, how="min").expr, "limit of one, {{job}}"),
        ),
    ),
    Panel(
        "Memory",
        "Resident memory of all processes.",
        unit(defs.PROCESS_MEMORY_USAGE),
        (Query(level(defs.PROCESS_MEMORY_USAGE, OF_JOB).expr, "{{job}}"),),
    ),
    Panel(
        "Memory of the container's limit",
        "Of the process that is closest to it; at 1 the kernel kills it.",
        "percentunit",
        (
            Query(
                used(defs.PROCESS_MEMORY_USAGE, defs.CONTAINER_MEMORY_LIMIT, OF_JOB).expr,
                "{{job}}",
            ),
        ),
    ),
)

_EXPORTER: Final = defs.SDK_COMPONENT
_SENT: Final = f'{OF_JOB},{label(defs.ERROR_TYPE)}=""'
EXPORTS: Final = (
    Panel(
        "Spans sent",
        "Since the processes began.",
        "short",
        (level(defs.SDK_SPANS_EXPORTED, _SENT, _EXPORTER),),
        kind="stat",
    ),
    Panel(
        "Spans lost",
        "Since the processes began: refused, or dropped because there was no room.",
        "short",
        (level(defs.SDK_SPANS_EXPORTED, failed(OF_JOB), _EXPORTER),),
        kind="stat",
    ),
    Panel(
        "Metric points lost",
        "Since the processes began.",
        "short",
        (level(defs.SDK_POINTS_EXPORTED, failed(OF_JOB), _EXPORTER),),
        kind="stat",
    ),
    Panel(
        "Metric points a second",
        "That the collector has taken.",
        unit_of_rate(defs.SDK_POINTS_EXPORTED),
        (rate(defs.SDK_POINTS_EXPORTED, _SENT, _EXPORTER),),
    ),
    Panel(
        "Exports a second",
        "Requests to the collector, successful or not.",
        "cps",
        (calls(defs.SDK_EXPORT_DURATION, OF_JOB, _EXPORTER),),
    ),
    Panel(
        "Time of an export",
        "How long a request to the collector takes, on average.",
        unit(defs.SDK_EXPORT_DURATION),
        (average(defs.SDK_EXPORT_DURATION, OF_JOB, _EXPORTER),),
    ),
)
WAITING: Final = (
    Panel(
        "Spool",
        "Telemetry on disk that waits for the collector.",
        unit(defs.SPOOL_SIZE),
        (Query(level(defs.SPOOL_SIZE, OF_JOB).expr, "{{job}}"),),
    ),
    Panel(
        "Operations that wait for their file",
        "Of managers.",
        unit(defs.OPERATIONS_PENDING),
        (Query(level(defs.OPERATIONS_PENDING, OF_JOB).expr, "{{job}}"),),
    ),
    Panel(
        "Operations dropped",
        "Since the processes began: a full queue, a disk that fails, `max_bytes`.",
        "short",
        (Query(level(defs.OPERATIONS_DROPPED, OF_JOB).expr, "{{job}}"),),
        kind="stat",
    ),
)

"""What the three dashboards show. `python -m tests.dashboards.build` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_pipeline_metrics._core import metric_definitions as defs
from tests.dashboards.naming import label, series
from tests.dashboards.queries import (
    OF_JOB,
    OF_RUN,
    OF_STAGE,
    Panel,
    Query,
    average,
    buckets,
    calls,
    failed,
    failing_share,
    level,
    quantiles,
    rate,
    share,
    total,
    unit,
    unit_of_rate,
    used,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Variable(NamedTuple):
    """A list at the top of a dashboard, to choose from."""

    name: str
    text: str
    query: str


class Dashboard(NamedTuple):
    """A dashboard: its file is `NAME.json`."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    # which alerts it shows
    alerts: tuple[str, ...]
    rows: Mapping[str, Sequence[Panel]]

    @property
    def alerts_expr(self) -> str:
        """The query for the alerts that fire."""
        names = "|".join(self.alerts)
        return f'ALERTS{{alertstate="firing",alertname=~"{names}",{OF_JOB}}}'


def _values_of(attribute: str, metric: defs.Metric, of: str, suffix: str = "") -> str:
    return f"label_values({series(metric)}{suffix}{{{of}}}, {attribute})"


_STAGE: Final = defs.STAGE_NAME
_LAST_SUCCESS: Final = (defs.RUN_LAST_SUCCESS, OF_RUN, defs.PIPELINE_NAME)
_BOTTLENECK: Final = (defs.PIPELINE_NAME, defs.BOTTLENECK_KIND, defs.BOTTLENECK_NAME)
_RUNS: Final = (
    Panel(
        "Runs in progress",
        "Runs that have begun and not ended.",
        unit(defs.RUN_ACTIVE),
        (level(defs.RUN_ACTIVE, OF_RUN, defs.PIPELINE_NAME),),
        kind="stat",
        width=6,
    ),
    Panel(
        "Runs ended",
        "Runs that have ended since the processes began, by their result.",
        "short",
        (total(defs.RUN_DURATION, OF_RUN, defs.RUN_RESULT),),
        kind="stat",
        width=6,
    ),
    Panel(
        "Since the last success",
        "Time since a run last ended in success.",
        unit(defs.RUN_LAST_SUCCESS),
        (Query("time() - " + level(*_LAST_SUCCESS, how="max").expr, level(*_LAST_SUCCESS).legend),),
        kind="stat",
        width=6,
    ),
    Panel(
        "What limits the pipeline",
        "1 while the verdict names it. Nothing is emitted in the first seconds of a run, without "
        "`resources`, and between runs.",
        "short",
        (level(defs.BOTTLENECK, OF_RUN, *_BOTTLENECK, how="max"),),
        kind="statetimeline",
        width=24,
    ),
)
_STAGES: Final = (
    Panel(
        "Calls a second",
        "Calls of each stage that have ended.",
        "cps",
        (calls(defs.STAGE_DURATION, OF_STAGE, _STAGE),),
        has_stage=True,
    ),
    Panel(
        "Items a second",
        "Items that went into and came out of each stage, where they are counted.",
        unit_of_rate(defs.STAGE_ITEMS),
        (rate(defs.STAGE_ITEMS, OF_STAGE, _STAGE, defs.IO_DIRECTION),),
        has_stage=True,
    ),
    Panel(
        "Bytes a second",
        "Payload that each stage read and wrote, where it is counted.",
        unit_of_rate(defs.STAGE_IO),
        (rate(defs.STAGE_IO, OF_STAGE, _STAGE, defs.IO_DIRECTION),),
        has_stage=True,
    ),
    Panel(
        "Workers by state",
        "How many workers of a stage were running, awaiting, idle or blocked, on average. Much "
        "`blocked` means that what comes after is slower, much `idle` that what comes before is.",
        unit_of_rate(defs.STAGE_TIME),
        (rate(defs.STAGE_TIME, OF_STAGE, _STAGE, defs.STAGE_STATE),),
        width=12,
        is_stacked=True,
        has_stage=True,
    ),
    Panel(
        "Calls in progress",
        "Calls of each stage that have begun and not ended.",
        unit(defs.STAGE_ACTIVE),
        (level(defs.STAGE_ACTIVE, OF_STAGE, _STAGE),),
        width=12,
        has_stage=True,
    ),
    Panel(
        "Duration of calls",
        "Percentiles of a call's duration, read from the histogram's buckets.",
        unit(defs.STAGE_DURATION),
        quantiles(defs.STAGE_DURATION, OF_STAGE, _STAGE),
        width=12,
        has_stage=True,
    ),
    Panel(
        "Durations",
        "Calls by their duration, of all stages that are chosen above.",
        unit(defs.STAGE_DURATION),
        (buckets(defs.STAGE_DURATION, OF_STAGE),),
        kind="heatmap",
        width=12,
    ),
    Panel(
        "Failed calls a second",
        "Calls that ended in an error, by its type.",
        "cps",
        (calls(defs.STAGE_DURATION, failed(OF_STAGE), _STAGE, defs.ERROR_TYPE),),
        has_stage=True,
    ),
    Panel(
        "Share of calls that fail",
        "Of the calls that have ended. A stage without failures has no line.",
        "percentunit",
        (failing_share(defs.STAGE_DURATION, OF_STAGE, _STAGE),),
        has_stage=True,
    ),
    Panel(
        "Retries a second",
        "Attempts of a stage after the first.",
        unit_of_rate(defs.STAGE_RETRIES),
        (rate(defs.STAGE_RETRIES, OF_STAGE, _STAGE),),
        has_stage=True,
    ),
)
_QUEUES: Final = (
    Panel(
        "Items in queues",
        "Of wrapped queues.",
        unit(defs.QUEUE_SIZE),
        (level(defs.QUEUE_SIZE, OF_JOB, defs.QUEUE_NAME),),
    ),
    Panel(
        "How full queues are",
        "Items over capacity, of bounded queues. A full queue blocks what puts into it.",
        "percentunit",
        (used(defs.QUEUE_SIZE, defs.QUEUE_CAPACITY, OF_JOB, defs.QUEUE_NAME),),
    ),
    Panel(
        "Time in queues",
        "How long an item waits from put to get, on average.",
        unit(defs.QUEUE_ITEM_DURATION),
        (average(defs.QUEUE_ITEM_DURATION, OF_JOB, defs.QUEUE_NAME),),
    ),
    Panel(
        "Limits in use",
        "Permits that are held over those that there are: locks, semaphores, pools.",
        "percentunit",
        (used(defs.LIMIT_USAGE, defs.LIMIT_MAX, OF_JOB, defs.LIMIT_NAME),),
        width=12,
    ),
    Panel(
        "Wait for limits",
        "How long a permit is waited for, on average; 0 for one that was free.",
        unit(defs.LIMIT_WAIT_DURATION),
        (average(defs.LIMIT_WAIT_DURATION, OF_JOB, defs.LIMIT_NAME),),
        width=12,
    ),
)
_FRESHNESS: Final = (
    Panel(
        "Watermark lag",
        "Time since the newest event time that a stage has seen.",
        unit(defs.WATERMARK_LAG),
        (level(defs.WATERMARK_LAG, OF_STAGE, _STAGE, how="max"),),
        width=12,
        has_stage=True,
    ),
    Panel(
        "Age of items",
        "From an item's origin to the stage that says so by `event_time()`.",
        unit(defs.ITEM_DURATION),
        quantiles(defs.ITEM_DURATION, OF_STAGE, _STAGE),
        width=12,
        has_stage=True,
    ),
)
_HITS: Final = f'{OF_JOB},{label(defs.CACHE_REQUEST_TYPE)}="hit"'
_CACHES: Final = (
    Panel(
        "Hit ratio",
        "Hits over look-ups, of all processes.",
        "percentunit",
        (
            Query(
                f"{rate(defs.CACHE_REQUESTS, _HITS, defs.CACHE_NAME).expr}"
                f" / {rate(defs.CACHE_REQUESTS, OF_JOB, defs.CACHE_NAME).expr}",
                rate(defs.CACHE_REQUESTS, OF_JOB, defs.CACHE_NAME).legend,
            ),
        ),
        width=6,
    ),
    Panel(
        "Look-ups a second",
        "Hits and misses.",
        unit_of_rate(defs.CACHE_REQUESTS),
        (rate(defs.CACHE_REQUESTS, OF_JOB, defs.CACHE_NAME, defs.CACHE_REQUEST_TYPE),),
        width=6,
        is_stacked=True,
    ),
    Panel(
        "Entries in caches",
        "Where the cache tells.",
        unit(defs.CACHE_ENTRY_COUNT),
        (level(defs.CACHE_ENTRY_COUNT, OF_JOB, defs.CACHE_NAME),),
        width=6,
    ),
    Panel(
        "Evictions a second",
        "Entries that were removed to make room, where the cache tells.",
        unit_of_rate(defs.CACHE_EVICTIONS),
        (rate(defs.CACHE_EVICTIONS, OF_JOB, defs.CACHE_NAME),),
        width=6,
    ),
)

_OPERATION: Final = (defs.OPERATION_TYPE, defs.OPERATION_NAME)
_EVENT: Final = (defs.EVENT_SOURCE, defs.EVENT_DOMAIN)
_OPERATIONS: Final = (
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
_EVENTS: Final = (
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
_PROCESS: Final = (
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
_EXPORTS: Final = (
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
_WAITING: Final = (
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

_OF_PIPELINE: Final = (
    "PipelineLimitedByOneStage",
    "PipelineErrorBudgetBurnsFast",
    "PipelineErrorBudgetBurnsSlowly",
    "PipelineWithoutSuccess",
    "PipelineWatermarkLags",
    "PipelineQueueFull",
    "PipelineStalled",
    "PipelineCacheHitRatioFallen",
    "PipelineThroughputUnusual",
    "PipelineDurationUnusual",
)
_JOB: Final = Variable("job", "Service", _values_of("job", defs.PROCESS_MEMORY_USAGE, ""))
DASHBOARDS: Final = (
    Dashboard(
        "pipeline",
        "Pipeline",
        "What a pipeline does, and what holds it back.",
        (
            _JOB,
            Variable(
                "pipeline",
                "Pipeline",
                _values_of(label(defs.PIPELINE_NAME), defs.RUN_ACTIVE, OF_JOB),
            ),
            Variable(
                "stage",
                "Stage",
                _values_of(label(_STAGE), defs.STAGE_DURATION, OF_RUN, suffix="_count"),
            ),
        ),
        _OF_PIPELINE,
        {
            "Runs": _RUNS,
            "Stages": _STAGES,
            "Queues and limits": _QUEUES,
            "Freshness": _FRESHNESS,
            "Caches": _CACHES,
        },
    ),
    Dashboard(
        "service",
        "Service",
        "What a service does beside its stages, and how its processes are.",
        (_JOB,),
        ("PipelineQueueFull", "PipelineStalled", "PipelineMemoryNearLimit"),
        {
            "Operations": _OPERATIONS,
            "Events": _EVENTS,
            "Connections and processes": _PROCESS,
        },
    ),
    Dashboard(
        "telemetry",
        "Telemetry",
        "Whether the telemetry itself arrives.",
        (_JOB,),
        ("PipelineSpoolFills", "PipelineTelemetryLost"),
        {"Exports": _EXPORTS, "What waits": _WAITING},
    ),
)

"""List every telemetry name, unit, description and bucket of the library.

No stable semantic convention covers data pipelines (open-telemetry/semantic-conventions
issue 3762 is an open proposal), so `pipeline.*` is ours; `process.*`, `system.*` and
`error.type` are the OpenTelemetry semantic conventions'. Units are UCUM.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

# The name of the instrumentation scope on every span and metric.
SCOPE: Final = "otel_pipeline_metrics"
# of the semantic conventions whose names are used here beside our own
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

# attributes
PIPELINE_NAME: Final = "pipeline.name"
RUN_ID: Final = "pipeline.run.id"
RUN_RESULT: Final = "pipeline.run.result"
BOTTLENECK_KIND: Final = "pipeline.bottleneck.kind"
BOTTLENECK_NAME: Final = "pipeline.bottleneck.name"
BOTTLENECK_CONFIDENCE: Final = "pipeline.bottleneck.confidence"
BOTTLENECK_GAIN_LOW: Final = "pipeline.bottleneck.gain.low"
BOTTLENECK_GAIN_HIGH: Final = "pipeline.bottleneck.gain.high"
STAGE_NAME: Final = "pipeline.stage.name"
STAGE_KIND: Final = "pipeline.stage.kind"
STAGE_STATE: Final = "pipeline.stage.state"
STAGE_OUTCOME: Final = "pipeline.stage.outcome"
STAGE_ITEMS_IN: Final = "pipeline.stage.items.in"
STAGE_ITEMS_OUT: Final = "pipeline.stage.items.out"
STAGE_IO_IN: Final = "pipeline.stage.io.in"
STAGE_IO_OUT: Final = "pipeline.stage.io.out"
IO_DIRECTION: Final = "pipeline.io.direction"
BATCH_SIZE: Final = "pipeline.batch.size"
RETRY_ATTEMPT: Final = "pipeline.retry.attempt"
RETRY_EVENT: Final = "retry"
QUEUE_NAME: Final = "pipeline.queue.name"
LIMIT_NAME: Final = "pipeline.limit.name"
QUEUE_WAIT: Final = "pipeline.queue.wait"
LINKS_DROPPED: Final = "pipeline.links.dropped"
CACHE_NAME: Final = "cache.name"
CACHE_REQUEST_TYPE: Final = "cache.request.type"
CACHE_SIZE_FACTOR: Final = "cache.size.factor"
OPERATION_TYPE: Final = "pipeline.operation.type"
OPERATION_NAME: Final = "pipeline.operation.name"
EVENT_SOURCE: Final = "pipeline.event.source"
EVENT_DOMAIN: Final = "pipeline.event.domain"
EVENT_ENTITY: Final = "pipeline.event.entity"
COMPONENT: Final = "pipeline.component"
SEVERITY: Final = "severity"
BREAKER_NAME: Final = "pipeline.breaker.name"
BREAKER_STATE: Final = "pipeline.breaker.state"
CONNECTION_NAME: Final = "pipeline.connection.name"
CONNECTION_STATE: Final = "pipeline.connection.state"
ERROR_TYPE: Final = "error.type"
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_FILE_PATH: Final = "code.file.path"
CODE_LINE_NUMBER: Final = "code.line.number"
CPU_MODE: Final = "cpu.mode"
DISK_IO_DIRECTION: Final = "disk.io.direction"
NETWORK_IO_DIRECTION: Final = "network.io.direction"
CONTEXT_SWITCH_TYPE: Final = "process.context_switch.type"
SDK_COMPONENT: Final = "otel.component.name"
MEMORY_STATE: Final = "system.memory.state"
FILESYSTEM_MOUNTPOINT: Final = "system.filesystem.mountpoint"
FILESYSTEM_STATE: Final = "system.filesystem.state"

# In seconds: from a tenth of a millisecond to ten minutes.
DURATION_BUCKETS: Final[tuple[float, ...]] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

# In items, for the size of a batch.
SIZE_BUCKETS: Final[tuple[float, ...]] = (
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000,
)  # fmt: skip


Kind = Literal["histogram", "counter", "up-down counter", "gauge"]


class Metric(NamedTuple):
    """A metric; docs/metrics.md lists these, and says when each has no point."""

    name: str
    kind: Kind
    # in UCUM
    unit: str
    description: str
    # beside those of its stage
    attributes: tuple[str, ...] = ()
    # of a histogram
    buckets: tuple[float, ...] | None = None


def _histogram(
    name: str,
    unit: str,
    description: str,
    attributes: tuple[str, ...] = (),
    buckets: tuple[float, ...] = DURATION_BUCKETS,
) -> Metric:
    return Metric(name, "histogram", unit, description, attributes, buckets)


def _counter(name: str, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "counter", unit, description, attributes)


def _level(name: str, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "up-down counter", unit, description, attributes)


def _gauge(name: str, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "gauge", unit, description, attributes)


RUN_DURATION: Final = _histogram(
    "pipeline.run.duration",
    "s",
    "Duration of a whole run.",
    (PIPELINE_NAME, RUN_RESULT, ERROR_TYPE),
)
RUN_ACTIVE: Final = _level("pipeline.run.active", "{run}", "Runs in progress.", (PIPELINE_NAME,))
RUN_LAST_SUCCESS: Final = _gauge(
    "pipeline.run.last_success.time",
    "s",
    "Unix time at which a run last ended in success.",
    (PIPELINE_NAME,),
)
BOTTLENECK: Final = _gauge(
    "pipeline.bottleneck",
    "{bottleneck}",
    "1 for what limits a run in progress, 0 for what limited it earlier.",
    (PIPELINE_NAME, BOTTLENECK_KIND, BOTTLENECK_NAME),
)
STAGE_DURATION: Final = _histogram(
    "pipeline.stage.duration",
    "s",
    "Duration of one invocation of a stage, queue waits left out.",
    (ERROR_TYPE,),
)
STAGE_WORKERS: Final = _level(
    "pipeline.stage.workers", "{worker}", "Workers that `workers()` keeps for a stage."
)
STAGE_TIME: Final = _counter(
    "pipeline.stage.time",
    "s",
    "Worker-seconds that a stage spent running, awaiting, idle and blocked.",
    (STAGE_STATE,),
)
STAGE_CPU_TIME: Final = _counter(
    "pipeline.stage.cpu.time",
    "s",
    "CPU seconds of a stage, without those of the stages inside; estimated from samples.",
)
STAGE_ACTIVE: Final = _level(
    "pipeline.stage.active", "{invocation}", "Invocations of a stage in progress."
)
STAGE_ITEMS: Final = _counter(
    "pipeline.stage.items",
    "{item}",
    "Items that went into and came out of a stage.",
    (IO_DIRECTION, ERROR_TYPE),
)
STAGE_IO: Final = _counter(
    "pipeline.stage.io", "By", "Payload bytes that a stage read and wrote.", (IO_DIRECTION,)
)
STAGE_BATCH_SIZE: Final = _histogram(
    "pipeline.stage.batch.size", "{item}", "Items per invocation of a stage.", (), SIZE_BUCKETS
)
STAGE_RETRIES: Final = _counter(
    "pipeline.stage.retries", "{retry}", "Attempts of a stage after the first.", (ERROR_TYPE,)
)
QUEUE_SIZE: Final = _level("pipeline.queue.size", "{item}", "Items in a queue.", (QUEUE_NAME,))
QUEUE_CAPACITY: Final = _level(
    "pipeline.queue.capacity", "{item}", "Items that a bounded queue holds at most.", (QUEUE_NAME,)
)
QUEUE_ITEM_DURATION: Final = _histogram(
    "pipeline.queue.item.duration", "s", "Time of an item from put to get.", (QUEUE_NAME,)
)
LIMIT_USAGE: Final = _level(
    "pipeline.limit.usage", "{permit}", "Permits of a limit that are held.", (LIMIT_NAME,)
)
LIMIT_MAX: Final = _level(
    "pipeline.limit.max",
    "{permit}",
    "Permits of a limit that can be held at a time.",
    (LIMIT_NAME,),
)
LIMIT_WAIT_DURATION: Final = _histogram(
    "pipeline.limit.wait.duration",
    "s",
    "Time that was waited for a permit of a limit, 0 if it was free.",
    (LIMIT_NAME,),
)
ITEM_DURATION: Final = _histogram(
    "pipeline.item.duration",
    "s",
    "Time of an item from its origin at the source to the stage that says so.",
)
WATERMARK_LAG: Final = _gauge(
    "pipeline.watermark.lag", "s", "Time since the newest event time that a stage has seen."
)
EVENTLOOP_DELAY: Final = _histogram(
    "pipeline.eventloop.delay",
    "s",
    "By how much an event loop came round too late while a run lasted.",
    (PIPELINE_NAME,),
)
CACHE_REQUESTS: Final = _counter(
    "pipeline.cache.requests", "{request}", "Look-ups in a cache.", (CACHE_NAME, CACHE_REQUEST_TYPE)
)
CACHE_HIT_RATIO: Final = _gauge(
    "pipeline.cache.hit.ratio",
    "1",
    "Hits over look-ups since the cache was registered; prefer the counter in panels, since "
    "ratios do not add up.",
    (CACHE_NAME,),
)
CACHE_WHAT_IF: Final = _gauge(
    "pipeline.cache.what_if.hit.ratio",
    "1",
    "The hit ratio that an LRU cache would have had at `0.5`, `2` and `4` times its size.",
    (CACHE_NAME, CACHE_SIZE_FACTOR),
)
CACHE_EVICTIONS: Final = _counter(
    "pipeline.cache.evictions",
    "{entry}",
    "Entries that a cache removed to make room.",
    (CACHE_NAME,),
)
CACHE_EXPIRATIONS: Final = _counter(
    "pipeline.cache.expirations",
    "{entry}",
    "Entries that a cache removed because of their age.",
    (CACHE_NAME,),
)
CACHE_ENTRY_COUNT: Final = _level(
    "pipeline.cache.entry.count", "{entry}", "Entries in a cache.", (CACHE_NAME,)
)
CACHE_SIZE: Final = _level("pipeline.cache.size", "By", "Bytes that a cache holds.", (CACHE_NAME,))

OPERATION_DURATION: Final = _histogram(
    "pipeline.operation.duration",
    "s",
    "Duration of one operation of a service.",
    (OPERATION_TYPE, OPERATION_NAME, ERROR_TYPE),
)
OPERATION_RETRIES: Final = _counter(
    "pipeline.operation.retries",
    "{retry}",
    "Attempts of an operation after the first.",
    (OPERATION_NAME, ERROR_TYPE),
)
EVENT_DURATION: Final = _histogram(
    "pipeline.event.duration",
    "s",
    "Time that one event took to process.",
    (EVENT_SOURCE, EVENT_DOMAIN, EVENT_ENTITY, ERROR_TYPE),
)
EVENT_IO: Final = _counter(
    "pipeline.event.io", "By", "Payload bytes of events.", (EVENT_SOURCE, EVENT_DOMAIN)
)
EVENT_DUPLICATES: Final = _counter(
    "pipeline.event.duplicates",
    "{event}",
    "Events that had been seen before.",
    (EVENT_SOURCE, EVENT_DOMAIN),
)
EVENT_POINTS: Final = _counter(
    "pipeline.event.points",
    "{point}",
    "Data points that events were written as.",
    (EVENT_SOURCE, EVENT_DOMAIN),
)
ERRORS: Final = _counter(
    "pipeline.errors",
    "{error}",
    "Errors that the program reported, by component.",
    (ERROR_TYPE, COMPONENT, SEVERITY),
)
BREAKER: Final = _gauge(
    "pipeline.breaker.state",
    "1",
    "1 for the state that a circuit breaker is in, 0 for its other states.",
    (BREAKER_NAME, BREAKER_STATE),
)
CONNECTIONS: Final = _level(
    "pipeline.connection.count",
    "{connection}",
    "Connections by state.",
    (CONNECTION_NAME, CONNECTION_STATE),
)
STALLED: Final = _gauge(
    "pipeline.stalled",
    "1",
    "1 while something is in flight in a stage or a queue and nothing has moved for "
    "`stalled_after`, else 0.",
    (PIPELINE_NAME, STAGE_NAME, STAGE_KIND, QUEUE_NAME),
)
SPOOL_SIZE: Final = _level(
    "pipeline.telemetry.spool.size", "By", "Bytes of telemetry on disk that wait for the collector."
)
OPERATIONS_DROPPED: Final = _counter(
    "pipeline.telemetry.operations.dropped",
    "{operation}",
    "Operations that a manager has in no file: a full queue, a disk that fails, `max_bytes`.",
)
OPERATIONS_PENDING: Final = _level(
    "pipeline.telemetry.operations.pending", "{operation}", "Operations that wait for their file."
)
SDK_SPANS_EXPORTED: Final = _counter(
    "otel.sdk.exporter.span.exported",
    "{span}",
    "The number of spans for which the export has finished, either successful or failed.",
    (SDK_COMPONENT, ERROR_TYPE),
)
SDK_POINTS_EXPORTED: Final = _counter(
    "otel.sdk.exporter.metric_data_point.exported",
    "{data_point}",
    "The number of metric data points for which the export has finished, either successful or "
    "failed.",
    (SDK_COMPONENT, ERROR_TYPE),
)
SDK_EXPORT_DURATION: Final = _histogram(
    "otel.sdk.exporter.operation.duration",
    "s",
    "The duration of exporting a batch of telemetry records.",
    (SDK_COMPONENT, ERROR_TYPE),
)
CONTAINER_CPU_LIMIT: Final = _gauge(
    "pipeline.container.cpu.limit",
    "{cpu}",
    "CPUs that this process may use at most: its cgroup's limit, or the host's.",
)
CONTAINER_MEMORY_LIMIT: Final = _gauge(
    "pipeline.container.memory.limit",
    "By",
    "Memory that this process may use at most: its cgroup's limit, or the host's.",
)

PROCESS_CPU_TIME: Final = _counter(
    "process.cpu.time", "s", "Total CPU seconds broken down by different CPU modes.", (CPU_MODE,)
)
PROCESS_CPU_UTILIZATION: Final = _gauge(
    "process.cpu.utilization",
    "1",
    "Difference in process.cpu.time since the last measurement, divided by the elapsed time and "
    "number of CPUs available to the process.",
)
PROCESS_MEMORY_USAGE: Final = _level(
    "process.memory.usage", "By", "The amount of physical memory in use."
)
PROCESS_MEMORY_VIRTUAL: Final = _level(
    "process.memory.virtual", "By", "The amount of committed virtual memory."
)
PROCESS_THREAD_COUNT: Final = _level("process.thread.count", "{thread}", "Process threads count.")
PROCESS_FD_COUNT: Final = _level(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "Number of UNIX file descriptors in use by the process.",
)
PROCESS_DISK_IO: Final = _counter(
    "process.disk.io", "By", "Disk bytes transferred.", (DISK_IO_DIRECTION,)
)
PROCESS_CONTEXT_SWITCHES: Final = _counter(
    "process.context_switches",
    "{context_switch}",
    "Number of times the process has been context switched.",
    (CONTEXT_SWITCH_TYPE,),
)
SYSTEM_CPU_UTILIZATION: Final = _gauge(
    "system.cpu.utilization",
    "1",
    "Share of the time of all logical CPUs since the last measurement in which they were busy.",
)
SYSTEM_MEMORY_USAGE: Final = _level(
    "system.memory.usage", "By", "Reports memory in use by state.", (MEMORY_STATE,)
)
SYSTEM_MEMORY_UTILIZATION: Final = _gauge(
    "system.memory.utilization", "1", "Share of memory bytes in use, 0 to 1.", (MEMORY_STATE,)
)
SYSTEM_DISK_IO: Final = _counter(
    "system.disk.io", "By", "Disk bytes transferred by the host.", (DISK_IO_DIRECTION,)
)
SYSTEM_FILESYSTEM_UTILIZATION: Final = _gauge(
    "system.filesystem.utilization",
    "1",
    "Share of a file system that is in use, 0 to 1.",
    (FILESYSTEM_MOUNTPOINT, FILESYSTEM_STATE),
)
SYSTEM_NETWORK_IO: Final = _counter(
    "system.network.io",
    "By",
    "The number of bytes transmitted and received by the host or network namespace.",
    (NETWORK_IO_DIRECTION,),
)

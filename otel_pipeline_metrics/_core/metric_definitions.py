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


RUN_DURATION: Final = Metric(
    "pipeline.run.duration",
    "histogram",
    "s",
    "Duration of a whole run.",
    (PIPELINE_NAME, RUN_RESULT, ERROR_TYPE),
    buckets=DURATION_BUCKETS,
)
RUN_ACTIVE: Final = Metric(
    "pipeline.run.active", "up-down counter", "{run}", "Runs in progress.", (PIPELINE_NAME,)
)
RUN_LAST_SUCCESS: Final = Metric(
    "pipeline.run.last_success.time",
    "gauge",
    "s",
    "Unix time at which a run last ended in success.",
    (PIPELINE_NAME,),
)
BOTTLENECK: Final = Metric(
    "pipeline.bottleneck",
    "gauge",
    "{bottleneck}",
    "1 for what limits a run in progress, 0 for what limited it earlier.",
    (PIPELINE_NAME, BOTTLENECK_KIND, BOTTLENECK_NAME),
)
STAGE_DURATION: Final = Metric(
    "pipeline.stage.duration",
    "histogram",
    "s",
    "Duration of one invocation of a stage, queue waits left out.",
    (ERROR_TYPE,),
    buckets=DURATION_BUCKETS,
)
STAGE_WORKERS: Final = Metric(
    "pipeline.stage.workers",
    "up-down counter",
    "{worker}",
    "Workers that `workers()` keeps for a stage.",
)
STAGE_TIME: Final = Metric(
    "pipeline.stage.time",
    "counter",
    "s",
    "Worker-seconds that a stage spent running, awaiting, idle and blocked.",
    (STAGE_STATE,),
)
STAGE_CPU_TIME: Final = Metric(
    "pipeline.stage.cpu.time",
    "counter",
    "s",
    "CPU seconds of a stage, without those of the stages inside; estimated from samples.",
)
STAGE_ACTIVE: Final = Metric(
    "pipeline.stage.active",
    "up-down counter",
    "{invocation}",
    "Invocations of a stage in progress.",
)
STAGE_ITEMS: Final = Metric(
    "pipeline.stage.items",
    "counter",
    "{item}",
    "Items that went into and came out of a stage.",
    (IO_DIRECTION, ERROR_TYPE),
)
STAGE_IO: Final = Metric(
    "pipeline.stage.io",
    "counter",
    "By",
    "Payload bytes that a stage read and wrote.",
    (IO_DIRECTION,),
)
STAGE_BATCH_SIZE: Final = Metric(
    "pipeline.stage.batch.size",
    "histogram",
    "{item}",
    "Items per invocation of a stage.",
    buckets=SIZE_BUCKETS,
)
STAGE_RETRIES: Final = Metric(
    "pipeline.stage.retries",
    "counter",
    "{retry}",
    "Attempts of a stage after the first.",
    (ERROR_TYPE,),
)
QUEUE_SIZE: Final = Metric(
    "pipeline.queue.size", "up-down counter", "{item}", "Items in a queue.", (QUEUE_NAME,)
)
QUEUE_CAPACITY: Final = Metric(
    "pipeline.queue.capacity",
    "up-down counter",
    "{item}",
    "Items that a bounded queue holds at most.",
    (QUEUE_NAME,),
)
QUEUE_ITEM_DURATION: Final = Metric(
    "pipeline.queue.item.duration",
    "histogram",
    "s",
    "Time of an item from put to get.",
    (QUEUE_NAME,),
    buckets=DURATION_BUCKETS,
)
LIMIT_USAGE: Final = Metric(
    "pipeline.limit.usage",
    "up-down counter",
    "{permit}",
    "Permits of a limit that are held.",
    (LIMIT_NAME,),
)
LIMIT_MAX: Final = Metric(
    "pipeline.limit.max",
    "up-down counter",
    "{permit}",
    "Permits of a limit that can be held at a time.",
    (LIMIT_NAME,),
)
LIMIT_WAIT_DURATION: Final = Metric(
    "pipeline.limit.wait.duration",
    "histogram",
    "s",
    "Time that was waited for a permit of a limit, 0 if it was free.",
    (LIMIT_NAME,),
    buckets=DURATION_BUCKETS,
)
ITEM_DURATION: Final = Metric(
    "pipeline.item.duration",
    "histogram",
    "s",
    "Time of an item from its origin at the source to the stage that says so.",
    buckets=DURATION_BUCKETS,
)
WATERMARK_LAG: Final = Metric(
    "pipeline.watermark.lag",
    "gauge",
    "s",
    "Time since the newest event time that a stage has seen.",
)
EVENTLOOP_DELAY: Final = Metric(
    "pipeline.eventloop.delay",
    "histogram",
    "s",
    "By how much an event loop came round too late while a run lasted.",
    (PIPELINE_NAME,),
    buckets=DURATION_BUCKETS,
)
CACHE_REQUESTS: Final = Metric(
    "pipeline.cache.requests",
    "counter",
    "{request}",
    "Look-ups in a cache.",
    (CACHE_NAME, CACHE_REQUEST_TYPE),
)
CACHE_HIT_RATIO: Final = Metric(
    "pipeline.cache.hit.ratio",
    "gauge",
    "1",
    "Hits over look-ups since the cache was registered; prefer the counter in panels, since "
    "ratios do not add up.",
    (CACHE_NAME,),
)
CACHE_WHAT_IF: Final = Metric(
    "pipeline.cache.what_if.hit.ratio",
    "gauge",
    "1",
    "The hit ratio that an LRU cache would have had at `0.5`, `2` and `4` times its size.",
    (CACHE_NAME, CACHE_SIZE_FACTOR),
)
CACHE_EVICTIONS: Final = Metric(
    "pipeline.cache.evictions",
    "counter",
    "{entry}",
    "Entries that a cache removed to make room.",
    (CACHE_NAME,),
)
CACHE_EXPIRATIONS: Final = Metric(
    "pipeline.cache.expirations",
    "counter",
    "{entry}",
    "Entries that a cache removed because of their age.",
    (CACHE_NAME,),
)
CACHE_ENTRY_COUNT: Final = Metric(
    "pipeline.cache.entry.count", "up-down counter", "{entry}", "Entries in a cache.", (CACHE_NAME,)
)
CACHE_SIZE: Final = Metric(
    "pipeline.cache.size", "up-down counter", "By", "Bytes that a cache holds.", (CACHE_NAME,)
)

OPERATION_DURATION: Final = Metric(
    "pipeline.operation.duration",
    "histogram",
    "s",
    "Duration of one operation of a service.",
    (OPERATION_TYPE, OPERATION_NAME, ERROR_TYPE),
    buckets=DURATION_BUCKETS,
)
OPERATION_RETRIES: Final = Metric(
    "pipeline.operation.retries",
    "counter",
    "{retry}",
    "Attempts of an operation after the first.",
    (OPERATION_NAME, ERROR_TYPE),
)
EVENT_DURATION: Final = Metric(
    "pipeline.event.duration",
    "histogram",
    "s",
    "Time that one event took to process.",
    (EVENT_SOURCE, EVENT_DOMAIN, EVENT_ENTITY, ERROR_TYPE),
    buckets=DURATION_BUCKETS,
)
EVENT_IO: Final = Metric(
    "pipeline.event.io", "counter", "By", "Payload bytes of events.", (EVENT_SOURCE, EVENT_DOMAIN)
)
EVENT_DUPLICATES: Final = Metric(
    "pipeline.event.duplicates",
    "counter",
    "{event}",
    "Events that had been seen before.",
    (EVENT_SOURCE, EVENT_DOMAIN),
)
EVENT_POINTS: Final = Metric(
    "pipeline.event.points",
    "counter",
    "{point}",
    "Data points that events were written as.",
    (EVENT_SOURCE, EVENT_DOMAIN),
)
ERRORS: Final = Metric(
    "pipeline.errors",
    "counter",
    "{error}",
    "Errors that the program reported, by component.",
    (ERROR_TYPE, COMPONENT, SEVERITY),
)
BREAKER: Final = Metric(
    "pipeline.breaker.state",
    "gauge",
    "1",
    "1 for the state that a circuit breaker is in, 0 for its other states.",
    (BREAKER_NAME, BREAKER_STATE),
)
CONNECTIONS: Final = Metric(
    "pipeline.connection.count",
    "up-down counter",
    "{connection}",
    "Connections by state.",
    (CONNECTION_NAME, CONNECTION_STATE),
)
STALLED: Final = Metric(
    "pipeline.stalled",
    "gauge",
    "1",
    "1 while something is in flight in a stage or a queue and nothing has moved for "
    "`stalled_after`, else 0.",
    (PIPELINE_NAME, STAGE_NAME, STAGE_KIND, QUEUE_NAME),
)
SPOOL_SIZE: Final = Metric(
    "pipeline.telemetry.spool.size",
    "up-down counter",
    "By",
    "Bytes of telemetry on disk that wait for the collector.",
)
OPERATIONS_DROPPED: Final = Metric(
    "pipeline.telemetry.operations.dropped",
    "counter",
    "{operation}",
    "Operations that a manager has in no file: a full queue, a disk that fails, `max_bytes`.",
)
OPERATIONS_PENDING: Final = Metric(
    "pipeline.telemetry.operations.pending",
    "up-down counter",
    "{operation}",
    "Operations that wait for their file.",
)
SDK_SPANS_EXPORTED: Final = Metric(
    "otel.sdk.exporter.span.exported",
    "counter",
    "{span}",
    "The number of spans for which the export has finished, either successful or failed.",
    (SDK_COMPONENT, ERROR_TYPE),
)
SDK_POINTS_EXPORTED: Final = Metric(
    "otel.sdk.exporter.metric_data_point.exported",
    "counter",
    "{data_point}",
    "The number of metric data points for which the export has finished, either successful or "
    "failed.",
    (SDK_COMPONENT, ERROR_TYPE),
)
SDK_EXPORT_DURATION: Final = Metric(
    "otel.sdk.exporter.operation.duration",
    "histogram",
    "s",
    "The duration of exporting a batch of telemetry records.",
    (SDK_COMPONENT, ERROR_TYPE),
    buckets=DURATION_BUCKETS,
)
CONTAINER_CPU_LIMIT: Final = Metric(
    "pipeline.container.cpu.limit",
    "gauge",
    "{cpu}",
    "CPUs that this process may use at most: its cgroup's limit, or the host's.",
)
CONTAINER_MEMORY_LIMIT: Final = Metric(
    "pipeline.container.memory.limit",
    "gauge",
    "By",
    "Memory that this process may use at most: its cgroup's limit, or the host's.",
)

PROCESS_CPU_TIME: Final = Metric(
    "process.cpu.time",
    "counter",
    "s",
    "Total CPU seconds broken down by different CPU modes.",
    (CPU_MODE,),
)
PROCESS_CPU_UTILIZATION: Final = Metric(
    "process.cpu.utilization",
    "gauge",
    "1",
    "Difference in process.cpu.time since the last measurement, divided by the elapsed time and "
    "number of CPUs available to the process.",
)
PROCESS_MEMORY_USAGE: Final = Metric(
    "process.memory.usage", "up-down counter", "By", "The amount of physical memory in use."
)
PROCESS_MEMORY_VIRTUAL: Final = Metric(
    "process.memory.virtual", "up-down counter", "By", "The amount of committed virtual memory."
)
PROCESS_THREAD_COUNT: Final = Metric(
    "process.thread.count", "up-down counter", "{thread}", "Process threads count."
)
PROCESS_FD_COUNT: Final = Metric(
    "process.unix.file_descriptor.count",
    "up-down counter",
    "{file_descriptor}",
    "Number of UNIX file descriptors in use by the process.",
)
PROCESS_DISK_IO: Final = Metric(
    "process.disk.io", "counter", "By", "Disk bytes transferred.", (DISK_IO_DIRECTION,)
)
PROCESS_CONTEXT_SWITCHES: Final = Metric(
    "process.context_switches",
    "counter",
    "{context_switch}",
    "Number of times the process has been context switched.",
    (CONTEXT_SWITCH_TYPE,),
)
SYSTEM_CPU_UTILIZATION: Final = Metric(
    "system.cpu.utilization",
    "gauge",
    "1",
    "Share of the time of all logical CPUs since the last measurement in which they were busy.",
)
SYSTEM_MEMORY_USAGE: Final = Metric(
    "system.memory.usage",
    "up-down counter",
    "By",
    "Reports memory in use by state.",
    (MEMORY_STATE,),
)
SYSTEM_MEMORY_UTILIZATION: Final = Metric(
    "system.memory.utilization",
    "gauge",
    "1",
    "Share of memory bytes in use, 0 to 1.",
    (MEMORY_STATE,),
)
SYSTEM_DISK_IO: Final = Metric(
    "system.disk.io", "counter", "By", "Disk bytes transferred by the host.", (DISK_IO_DIRECTION,)
)
SYSTEM_FILESYSTEM_UTILIZATION: Final = Metric(
    "system.filesystem.utilization",
    "gauge",
    "1",
    "Share of a file system that is in use, 0 to 1.",
    (FILESYSTEM_MOUNTPOINT, FILESYSTEM_STATE),
)
SYSTEM_NETWORK_IO: Final = Metric(
    "system.network.io",
    "counter",
    "By",
    "The number of bytes transmitted and received by the host or network namespace.",
    (NETWORK_IO_DIRECTION,),
)

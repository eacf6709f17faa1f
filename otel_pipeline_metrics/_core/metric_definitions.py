"""List every telemetry name, unit, description and bucket of the library.

No stable semantic convention covers data pipelines (open-telemetry/semantic-conventions
issue 3762 is an open proposal), so `pipeline.*` is ours; `process.*`, `system.*` and
`error.type` are the OpenTelemetry semantic conventions'. Units are UCUM.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# The name of the instrumentation scope on every span and metric.
SCOPE: Final = "otel_pipeline_metrics"

# attributes
PIPELINE_NAME: Final = "pipeline.name"
RUN_ID: Final = "pipeline.run.id"
RUN_RESULT: Final = "pipeline.run.result"
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
QUEUE_WAIT: Final = "pipeline.queue.wait"
LINKS_DROPPED: Final = "pipeline.links.dropped"
CACHE_NAME: Final = "cache.name"
CACHE_REQUEST_TYPE: Final = "cache.request.type"
ERROR_TYPE: Final = "error.type"

# In seconds: from a tenth of a millisecond to ten minutes.
DURATION_BUCKETS: Final[tuple[float, ...]] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

# In items, for the size of a batch.
SIZE_BUCKETS: Final[tuple[float, ...]] = (
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000,
)  # fmt: skip


class Metric(NamedTuple):
    """The name, UCUM unit, description and, for a histogram, buckets of a metric."""

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] | None = None


RUN_DURATION: Final = Metric(
    "pipeline.run.duration", "s", "Duration of a whole run.", DURATION_BUCKETS
)
RUN_ACTIVE: Final = Metric("pipeline.run.active", "{run}", "Runs in progress.")
RUN_LAST_SUCCESS: Final = Metric(
    "pipeline.run.last_success.time", "s", "Unix time at which a run last ended in success."
)
STAGE_DURATION: Final = Metric(
    "pipeline.stage.duration",
    "s",
    "Duration of one invocation of a stage, queue waits left out.",
    DURATION_BUCKETS,
)
STAGE_TIME: Final = Metric(
    "pipeline.stage.time", "s", "Worker-seconds that a stage spent busy, idle and blocked."
)
STAGE_ACTIVE: Final = Metric(
    "pipeline.stage.active", "{invocation}", "Invocations of a stage in progress."
)
STAGE_ITEMS: Final = Metric(
    "pipeline.stage.items", "{item}", "Items that went into and came out of a stage."
)
STAGE_IO: Final = Metric("pipeline.stage.io", "By", "Payload bytes that a stage read and wrote.")
STAGE_BATCH_SIZE: Final = Metric(
    "pipeline.stage.batch.size", "{item}", "Items per invocation of a stage.", SIZE_BUCKETS
)
STAGE_RETRIES: Final = Metric(
    "pipeline.stage.retries", "{retry}", "Attempts of a stage after the first."
)
QUEUE_SIZE: Final = Metric("pipeline.queue.size", "{item}", "Items in a queue.")
QUEUE_CAPACITY: Final = Metric(
    "pipeline.queue.capacity", "{item}", "Items that a bounded queue holds at most."
)
QUEUE_ITEM_DURATION: Final = Metric(
    "pipeline.queue.item.duration", "s", "Time of an item from put to get.", DURATION_BUCKETS
)
ITEM_DURATION: Final = Metric(
    "pipeline.item.duration",
    "s",
    "Time of an item from its origin at the source to the stage that says so.",
    DURATION_BUCKETS,
)
WATERMARK_LAG: Final = Metric(
    "pipeline.watermark.lag", "s", "Time since the newest event time that a stage has seen."
)
EVENTLOOP_DELAY: Final = Metric(
    "pipeline.eventloop.delay",
    "s",
    "By how much an event loop came round too late while a run lasted.",
    DURATION_BUCKETS,
)
CACHE_REQUESTS: Final = Metric("pipeline.cache.requests", "{request}", "Look-ups in a cache.")
CACHE_HIT_RATIO: Final = Metric(
    "pipeline.cache.hit.ratio",
    "1",
    "Hits over look-ups since the cache was registered; prefer the counter in panels, "
    "since ratios do not add up.",
)
CACHE_EVICTIONS: Final = Metric(
    "pipeline.cache.evictions", "{entry}", "Entries that a cache removed to make room."
)
CACHE_EXPIRATIONS: Final = Metric(
    "pipeline.cache.expirations", "{entry}", "Entries that a cache removed because of their age."
)
CACHE_ENTRY_COUNT: Final = Metric("pipeline.cache.entry.count", "{entry}", "Entries in a cache.")
CACHE_SIZE: Final = Metric("pipeline.cache.size", "By", "Bytes that a cache holds.")


CPU_MODE: Final = "cpu.mode"
DISK_IO_DIRECTION: Final = "disk.io.direction"
NETWORK_IO_DIRECTION: Final = "network.io.direction"
CONTEXT_SWITCH_TYPE: Final = "process.context_switch.type"
MEMORY_STATE: Final = "system.memory.state"

PROCESS_CPU_TIME: Final = Metric(
    "process.cpu.time", "s", "Total CPU seconds broken down by different CPU modes."
)
PROCESS_CPU_UTILIZATION: Final = Metric(
    "process.cpu.utilization",
    "1",
    "Difference in process.cpu.time since the last measurement, divided by the elapsed time "
    "and number of CPUs available to the process.",
)
PROCESS_MEMORY_USAGE: Final = Metric(
    "process.memory.usage", "By", "The amount of physical memory in use."
)
PROCESS_MEMORY_VIRTUAL: Final = Metric(
    "process.memory.virtual", "By", "The amount of committed virtual memory."
)
PROCESS_THREAD_COUNT: Final = Metric("process.thread.count", "{thread}", "Process threads count.")
PROCESS_FD_COUNT: Final = Metric(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "Number of UNIX file descriptors in use by the process.",
)
PROCESS_DISK_IO: Final = Metric("process.disk.io", "By", "Disk bytes transferred.")
PROCESS_CONTEXT_SWITCHES: Final = Metric(
    "process.context_switches",
    "{context_switch}",
    "Number of times the process has been context switched.",
)
SYSTEM_CPU_UTILIZATION: Final = Metric(
    "system.cpu.utilization",
    "1",
    "Share of the time of all logical CPUs since the last measurement in which they were busy.",
)
SYSTEM_MEMORY_USAGE: Final = Metric("system.memory.usage", "By", "Reports memory in use by state.")
SYSTEM_MEMORY_UTILIZATION: Final = Metric(
    "system.memory.utilization", "1", "Share of memory bytes in use, 0 to 1."
)
SYSTEM_NETWORK_IO: Final = Metric(
    "system.network.io",
    "By",
    "The number of bytes transmitted and received by the host or network namespace.",
)

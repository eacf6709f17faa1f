"""Describe the rows of a report; `report.schema` makes its JSON Schema of them.

Unknown values are None. A report of several runs has more keys than that of one, and one from an
earlier version may lack some: `row.get(...)`. Keys that are not listed are allowed, so later
versions can add some.
"""

from typing import Annotated, Any, TypedDict

from otel_pipeline_metrics.report.process_rows import ProcessRow, ResourcesRow, TelemetryRow
from otel_pipeline_metrics.report.typed_rows import Count, Number, Text
from otel_pipeline_metrics.report.verdict_rows import BottleneckRow

__all__ = [
    "BottleneckRow", "CacheRow", "Collected", "LimitRow", "PoolRow", "ProcessRow", "QueueRow",
    "Report", "ResourcesRow", "RunRow", "StageRow", "TelemetryRow", "WindowRow",
]  # fmt: skip


class RunExperimentRow(TypedDict):
    """Of a run with experiment=True: what that cost."""

    slowed: Annotated[Number, "by which part of its time the run got longer, estimated"]
    paused_s: Annotated[Number, "seconds that workers paused, all together"]


class RunRow(TypedDict):
    """The run itself."""

    pipeline: Annotated[Text, "the name given to run()"]
    id: Annotated[Text, "identifies the run; null in a report of several"]
    trace_id: Annotated[Text, "the trace of the run, 32 hex digits"]
    trace_url: Annotated[Text, "the address of a trace, with {trace_id} in its place, if set"]
    result: Annotated[Text, "success, failure, cancellation or timeout; null until it ends"]
    error_type: Annotated[Text, "the type of the exception that ended it"]
    started: Annotated[Text, "ISO 8601, UTC"]
    wall_s: Annotated[Number, "seconds from start to end; of several runs, in which one went on"]
    outside_s: Annotated[
        Number, "seconds of these in which no stage was open, or all that were waited"
    ]
    partial: Annotated[bool, "whether the run did not end in success"]
    total: Annotated[Count, "items expected, as given to run()"]
    experiment: RunExperimentRow | None
    merged_from: Annotated[list[Text], "in a report of several: ids of the latest runs"]
    merged_runs: Annotated[Count, "in a report of several: how many runs"]
    observed_s: Annotated[Number, "in a report of several: seconds of all runs, overlapping or not"]
    parts: Annotated[Count, "parts of other processes that are in this report; null without any"]
    parts_missing: Annotated[Count, "parts that were sent for and never came back"]
    parts_rejected: Annotated[Count, "parts that were dropped: no part of this run, or too large"]
    spans: Annotated[
        list[list[float]] | None,
        "in a report of several: [begin, end, seconds covered] of the times in which runs "
        "went on, from `started`; their sum is wall_s",
    ]


class StageErrorsRow(TypedDict):
    """Calls that raised."""

    total: Annotated[Count, "all of them"]
    by_type: Annotated[dict[str, int], "by the type of the exception"]


class StageRetriedRow(TypedDict):
    """Calls that reported retries and did not raise."""

    count: Annotated[Count, "how many"]
    total_s: Annotated[Number, "their seconds"]


StageItemsRow = TypedDict("StageItemsRow", {"in": Number, "out": Number})


class PercentilesSketchRow(TypedDict):
    """A DDSketch: what percentiles are computed and merged from."""

    rel_error: Annotated[Number, "the relative error of its buckets"]
    zeros: Annotated[Count, "values of 1 ns or less"]
    buckets: Annotated[dict[str, int], "counts by the index of the bucket"]


class PercentilesRow(TypedDict):
    """Percentiles of seconds, with what they are computed from."""

    avg: Annotated[Number, "mean, in seconds"]
    max: Annotated[Number, "the longest, exact"]
    p50: Annotated[Number, "50 % were shorter, within rel_error"]
    p95: Annotated[Number, "95 % were shorter, within rel_error; below 20 values the longest"]
    p99: Annotated[Number, "99 % were shorter, within rel_error; below 100 values the longest"]
    rel_error: Annotated[Number, "the relative error of the percentiles"]
    sketch: PercentilesSketchRow | None


class StageDurationSRow(PercentilesRow):
    """Seconds per call; time in which a generator's consumer works is left out."""

    total: Annotated[Number, "the sum"]
    min: Annotated[Number, "the shortest, exact"]
    sum_of_squares: Annotated[Number, "for the variance"]


class StageThroughputRow(TypedDict):
    """Rates per second."""

    wall_per_s: Annotated[Number, "calls by the run's wall time"]
    busy_per_s: Annotated[Number, "calls by the time spent in them"]
    items_per_s: Annotated[Number, "items produced, or else taken, by the run's wall time"]


class StageShareRow(TypedDict):
    """The states of the workers."""

    running: Annotated[Number, "on the event loop or in its thread; null is unknown"]
    awaiting: Annotated[Number, "suspended on something unknown; null is unknown"]
    busy: Annotated[Number, "running + awaiting, derived"]
    idle: Annotated[Number, "waiting for input"]
    blocked: Annotated[Number, "waiting for room in a queue, a permit, a lock or a pool"]


class StageTimeSRow(StageShareRow):
    """Seconds of all workers."""

    wall: Annotated[Number, "busy + idle + blocked"]
    loop_wait_most: Annotated[
        Number, "of awaiting, the most that was a wait for the event loop, which others held"
    ]
    split_standard_error: Annotated[Number, "of running and awaiting; 0 if they were not estimated"]


class StageServiceByInFlightRow(TypedDict):
    """One number in flight; the last one, 16, is for more."""

    in_flight: Annotated[Count, "calls in progress, this one included"]
    count: Annotated[Count, "samples"]
    avg_s: Annotated[Number, "their mean duration"]


class StageCallersRow(TypedDict):
    """One of them."""

    stage: Annotated[Text, "its name; null outside of stages"]
    wall_s: Annotated[Number, "seconds of the calls from begin to end, waits included"]
    spawned: Annotated[bool | None, "whether a sampled one began in a task of its own"]


class StageSlowestRow(TypedDict):
    """One call."""

    duration_s: Annotated[Number, "its duration, without waiting at queues"]
    outcome: Annotated[Text, "ok, error, cancelled or abandoned"]
    error_type: Annotated[Text, "the type of the exception that it raised"]
    attributes: Annotated[dict[str, Any], "of the stage and of the call, the first 16"]
    trace_id: Annotated[Text, "of its span; null without a sampled span of its own"]
    span_id: Annotated[Text, "of that span, 16 hex digits"]


class StageRow(TypedDict):
    """One stage, in the order in which stages first finished a call."""

    name: Annotated[str, "the stage's name; with its kind it is unique"]
    kind: Annotated[Text, "fetch, process, write, or null"]
    workers: Annotated[Count, "threads or tasks that ran it; null without a wrapped queue or limit"]
    count: Annotated[Count, "finished calls"]
    cancelled: Annotated[Count, "calls that were cancelled"]
    abandoned: Annotated[Count, "generators that were closed early"]
    errors: StageErrorsRow
    retries: Annotated[Count, "reported retries"]
    failed_s: Annotated[Number, "seconds of the calls that raised"]
    retried: StageRetriedRow
    items: Annotated[StageItemsRow, "items taken and produced"]
    bytes: Annotated[StageItemsRow, "bytes read and written"]
    duration_s: StageDurationSRow
    throughput: StageThroughputRow
    worker_s: Annotated[Number, "in a report of several: seconds that its workers were there"]
    time_s: StageTimeSRow
    share: Annotated[StageShareRow, "the states' shares of the workers' time, 0 to 1"]
    busiest_share: Annotated[Number, "the busy share of the busiest worker"]
    busiest_s: Annotated[Number, "the busy seconds of the worker that was busy for longest"]
    self_s: Annotated[Number, "seconds in which calls were open, and no stage inside of them was"]
    run_share: Annotated[
        Number,
        "the run's part in which it was the innermost open stage, shared equally with others",
    ]
    wall_s: Annotated[Number, "seconds of calls from begin to end, waits included"]
    in_flight_avg: Annotated[Number, "calls in progress on average over the run"]
    cpu_s: Annotated[Number, "CPU seconds without those of stages inside, estimated from samples"]
    service_by_in_flight: Annotated[
        list[StageServiceByInFlightRow],
        "mean duration of sampled calls by the calls in flight at their begin",
    ]
    tasks: Annotated[Count, "tasks that made its sampled calls; the last one, 64, is for more"]
    in_flight: Annotated[Count, "calls in progress at the end"]
    callers: Annotated[list[StageCallersRow], "in which stages it was called"]
    slowest: Annotated[list[StageSlowestRow], "the five slowest that ended, the slowest first"]


class QueueRow(TypedDict):
    """One instrumented queue."""

    name: Annotated[str, "the queue's name"]
    capacity: Annotated[Count, "null is unbounded"]
    depth: Annotated[Number, "items in it at the end"]
    depth_avg: Annotated[Number, "items in it on average; near capacity: slow consumers"]
    depth_peak: Annotated[Number, "the most items in it"]
    put: Annotated[Count, "items put"]
    got: Annotated[Count, "items got"]
    wait_s: Annotated[PercentilesRow, "seconds from put to get"]
    put_span_s: Annotated[Number, "seconds from the first put to the last"]
    put_blocked_s: Annotated[Number, "seconds that producers waited for room"]
    get_waited_s: Annotated[Number, "seconds that consumers waited for items"]
    producers: Annotated[list[str], "stages that put into it"]
    consumers: Annotated[list[str], "stages that get from it"]
    observed_s: Annotated[Number, "in a report of several: seconds that the averages cover"]


class LimitWaitSRow(PercentilesRow):
    """Seconds waited for a permit, 0 for one that was free."""

    total: Annotated[Number, "the sum"]


class LimitStagesRow(TypedDict):
    """One stage."""

    stage: Annotated[Text, "its name; null outside of stages"]
    waited_s: Annotated[Number, "seconds that its workers waited for permits"]
    held_s: Annotated[Number, "seconds of all permits that it held"]


class LimitRow(TypedDict):
    """One limit that workers waited for: a lock, a semaphore, a pool."""

    name: Annotated[str, "the limit's name"]
    kind: Annotated[
        Text, "lock, rlock, condition, semaphore, capacity limiter, thread pool, … or mixed"
    ]
    max: Annotated[Count, "permits that can be held at a time"]
    usage_avg: Annotated[Number, "permits held on average; near max: workers wait for them"]
    usage_peak: Annotated[Count, "the most permits held at a time"]
    acquired: Annotated[Count, "permits acquired"]
    wait_s: LimitWaitSRow
    stages: Annotated[list[LimitStagesRow], "who waited for permits and held them"]
    observed_s: Annotated[Number, "in a report of several: seconds that the averages cover"]


PoolChangesRow = TypedDict(
    "PoolChangesRow",
    {
        "at_s": Annotated[Number, "seconds since the pool began"],
        "from": Annotated[Count, "the number before"],
        "to": Annotated[Count, "the number after"],
        "why": Annotated[Text, "what was measured"],
    },
)


class PoolRow(TypedDict):
    """One pool."""

    name: Annotated[Text, "its name"]
    stage: Annotated[Text, "the stage that they run"]
    low: Annotated[Count, "the least number of workers"]
    high: Annotated[Count, "the most; as `low` where the number is fixed"]
    workers: Annotated[Count, "how many there were when the report was made; 0 after the end"]
    skipped: Annotated[Count, "items that failed and were skipped"]
    dropped: Annotated[Count, "items that were taken after an error, and not worked on"]
    changes: Annotated[list[PoolChangesRow], "each change of their number"]


class WindowStagesRow(TypedDict):
    """One stage."""

    name: Annotated[Text, "its name"]
    kind: Annotated[Text, "its kind"]
    count: Annotated[Count, "calls that ended"]
    items: Annotated[Count, "items produced, or else taken"]
    calls_per_s: Annotated[Number, "calls by the window's length"]
    items_per_s: Annotated[Number, "items by the window's length"]
    time_s: Annotated[StageShareRow, "seconds of all workers"]


class WindowQueuesRow(TypedDict):
    """One queue."""

    name: Annotated[Text, "its name"]
    depth: Annotated[Count, "items at the end"]


class WindowRow(TypedDict):
    """One window."""

    start_s: Annotated[Number, "seconds since the run's start"]
    end_s: Annotated[Number, "seconds since the run's start"]
    stages: Annotated[list[WindowStagesRow], "of the first 100 stages, what happened in the window"]
    queues: Annotated[list[WindowQueuesRow], "wrapped queues"]
    cpu_utilization: Annotated[Number, "of the CPUs that the process may use, 0 to 1"]
    rss_bytes: Annotated[Number, "resident memory at the end"]


class CacheWhatIfRow(TypedDict):
    """The hit ratio that an LRU cache of another size would have had, 0 to 1."""

    half: Annotated[Number, "with half the entries"]
    twice: Annotated[Number, "with twice the entries"]
    four_times: Annotated[Number, "with four times the entries"]


class CacheRow(TypedDict):
    """One registered cache, with its counts during the run."""

    name: Annotated[str, "the cache's name"]
    hits: Annotated[Count, "look-ups that found a value"]
    misses: Annotated[Count, "look-ups that did not"]
    evictions: Annotated[Count, "entries removed for room"]
    expirations: Annotated[Count, "entries removed for their age"]
    hit_ratio: Annotated[Number, "hits by look-ups, 0 to 1"]
    entries: Annotated[Count, "entries at the end"]
    size_bytes: Annotated[Number, "their size at the end"]
    what_if: CacheWhatIfRow | None


class Report(TypedDict):
    """What a report consists of beside its `schema`."""

    run: RunRow
    stages: list[StageRow]
    queues: list[QueueRow]
    limits: list[LimitRow]
    pools: Annotated[list[PoolRow], "of each `workers()` that began in the run"]
    windows: Annotated[list[WindowRow], "the run over time, in about 20; empty without `resources`"]
    caches: list[CacheRow]
    resources: ResourcesRow
    processes: Annotated[list[ProcessRow], "those whose parts are in this report; may be absent"]
    bottleneck: BottleneckRow
    telemetry: TelemetryRow


class CollectorStageRow(TypedDict):
    """A stage, as `MetricsCollector.export_json()` has it."""

    count: Annotated[Count, "items recorded by hand, and calls of a decorated stage"]
    total_duration_s: Annotated[Number, "seconds of all records"]
    avg_duration_s: Annotated[Number, "seconds per item or call"]
    min_duration_s: Annotated[Number, "seconds per item or call"]
    max_duration_s: Annotated[Number, "seconds per item or call"]
    throughput_per_s: Annotated[Number, "count per second of the total duration"]
    errors: Annotated[Count, "records of an error, and calls that raised"]


class CollectorCacheRow(TypedDict):
    """A cache there."""

    hits: Annotated[Count, "look-ups that found a value"]
    misses: Annotated[Count, "look-ups that did not"]
    hit_rate_pct: Annotated[Number, "hits in per cent of look-ups"]
    evictions: Annotated[Count, "entries removed for room"]
    expirations: Annotated[Count, "entries removed for their age"]
    size_mb: Annotated[Number, "size now; a MB is 1024 x 1024 bytes"]


class CollectorResourcesRow(TypedDict):
    """The samples of resources there."""

    avg_cpu_percent: Number
    peak_cpu_percent: Number
    avg_memory_mb: Number
    peak_memory_mb: Number
    avg_disk_io_mb: Number
    avg_network_io_mb: Number
    cpu_samples: Annotated[Count, "number of samples"]
    memory_samples: Annotated[Count, "number of samples"]


class Collected(TypedDict):
    """What `MetricsCollector.export_json()` returns."""

    start_time: Annotated[str, {"format": "date-time"}]
    duration_s: Annotated[
        Number, "seconds since the collector was made; of the process's, since its start"
    ]
    stages: Annotated[dict[str, CollectorStageRow], "by name"]
    resources: CollectorResourcesRow
    caches: Annotated[dict[str, CollectorCacheRow], "by name"]

"""Describe the rows of a report to type checkers; `schema` says what each field means.

Written by `python -m tests.report.rows`. Unknown values are None. A report of several runs has more
keys than that of one, and one from an earlier version may lack some: `row.get(...)`.
"""

from __future__ import annotations

from typing import Any, TypedDict


class RunExperimentRow(TypedDict):
    """Of a run with experiment=True: what that cost."""

    slowed: float | None
    paused_s: float | None


class RunRow(TypedDict):
    """The run itself."""

    pipeline: str | None
    id: str | None
    trace_id: str | None
    trace_url: str | None
    result: str | None
    error_type: str | None
    started: str | None
    wall_s: float | None
    outside_s: float | None
    partial: bool
    total: int | None
    experiment: RunExperimentRow | None
    merged_from: list[str | None]
    merged_runs: int | None
    observed_s: float | None
    parts: int | None
    parts_missing: int | None
    parts_rejected: int | None
    spans: list[list[float]] | None


class StageErrorsRow(TypedDict):
    """Calls that raised."""

    total: int | None
    by_type: dict[str, int]


class StageRetriedRow(TypedDict):
    """Calls that reported retries and did not raise."""

    count: int | None
    total_s: float | None


# Items taken and produced.
StageItemsRow = TypedDict(
    "StageItemsRow",
    {
        "in": "float | None",
        "out": "float | None",
    },
)


class StageDurationSSketchRow(TypedDict):
    """A DDSketch: what percentiles are computed and merged from."""

    rel_error: float | None
    zeros: int | None
    buckets: dict[str, int]


class StageDurationSRow(TypedDict):
    """Seconds per call; time in which a generator's consumer works is left out."""

    total: float | None
    min: float | None
    sum_of_squares: float | None
    avg: float | None
    max: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    rel_error: float | None
    sketch: StageDurationSSketchRow | None


class StageThroughputRow(TypedDict):
    """Rates per second."""

    wall_per_s: float | None
    busy_per_s: float | None
    items_per_s: float | None


class StageTimeSRow(TypedDict):
    """Seconds of all workers."""

    running: float | None
    awaiting: float | None
    busy: float | None
    idle: float | None
    blocked: float | None
    wall: float | None
    split_standard_error: float | None


class StageShareRow(TypedDict):
    """The states' shares of the workers' time, 0 to 1."""

    running: float | None
    awaiting: float | None
    busy: float | None
    idle: float | None
    blocked: float | None


class StageServiceByInFlightRow(TypedDict):
    """One number in flight; the last one, 16, is for more."""

    in_flight: int | None
    count: int | None
    avg_s: float | None


class StageCallersRow(TypedDict):
    """One of them."""

    stage: str | None
    wall_s: float | None
    spawned: bool | None


class StageSlowestRow(TypedDict):
    """One call."""

    duration_s: float | None
    outcome: str | None
    error_type: str | None
    attributes: dict[str, Any]
    trace_id: str | None
    span_id: str | None


class StageRow(TypedDict):
    """One stage, in the order in which stages first finished a call."""

    name: str
    kind: str | None
    workers: int | None
    count: int | None
    cancelled: int | None
    abandoned: int | None
    errors: StageErrorsRow
    retries: int | None
    failed_s: float | None
    retried: StageRetriedRow
    items: StageItemsRow
    bytes: StageItemsRow
    duration_s: StageDurationSRow
    throughput: StageThroughputRow
    worker_s: float | None
    time_s: StageTimeSRow
    share: StageShareRow
    busiest_share: float | None
    busiest_s: float | None
    self_s: float | None
    run_share: float | None
    wall_s: float | None
    in_flight_avg: float | None
    cpu_s: float | None
    service_by_in_flight: list[StageServiceByInFlightRow]
    tasks: int | None
    in_flight: int | None
    callers: list[StageCallersRow]
    slowest: list[StageSlowestRow]


class QueueWaitSRow(TypedDict):
    """Seconds from put to get."""

    avg: float | None
    max: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    rel_error: float | None
    sketch: StageDurationSSketchRow | None


class QueueRow(TypedDict):
    """One instrumented queue."""

    name: str
    capacity: int | None
    depth: float | None
    depth_avg: float | None
    depth_peak: float | None
    put: int | None
    got: int | None
    wait_s: QueueWaitSRow
    put_span_s: float | None
    put_blocked_s: float | None
    get_waited_s: float | None
    producers: list[str]
    consumers: list[str]
    observed_s: float | None


class LimitWaitSRow(TypedDict):
    """Seconds waited for a permit, 0 for one that was free."""

    total: float | None
    avg: float | None
    max: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    rel_error: float | None
    sketch: StageDurationSSketchRow | None


class LimitStagesRow(TypedDict):
    """One stage."""

    stage: str | None
    waited_s: float | None
    held_s: float | None


class LimitRow(TypedDict):
    """One limit that workers waited for: a lock, a semaphore, a pool."""

    name: str
    kind: str | None
    max: int | None
    usage_avg: float | None
    usage_peak: int | None
    acquired: int | None
    wait_s: LimitWaitSRow
    stages: list[LimitStagesRow]
    observed_s: float | None


# One change.
PoolChangesRow = TypedDict(
    "PoolChangesRow",
    {
        "at_s": "float | None",
        "from": "int | None",
        "to": "int | None",
        "why": "str | None",
    },
)


class PoolRow(TypedDict):
    """One pool."""

    name: str | None
    stage: str | None
    low: int | None
    high: int | None
    workers: int | None
    skipped: int | None
    dropped: int | None
    changes: list[PoolChangesRow]


class WindowStagesRow(TypedDict):
    """One stage."""

    name: str | None
    kind: str | None
    count: int | None
    items: int | None
    calls_per_s: float | None
    items_per_s: float | None
    time_s: StageShareRow


class WindowQueuesRow(TypedDict):
    """One queue."""

    name: str | None
    depth: int | None


class WindowRow(TypedDict):
    """One window."""

    start_s: float | None
    end_s: float | None
    stages: list[WindowStagesRow]
    queues: list[WindowQueuesRow]
    cpu_utilization: float | None
    rss_bytes: float | None


class CacheWhatIfRow(TypedDict):
    """The hit ratio that an LRU cache of another size would have had, 0 to 1."""

    half: float | None
    twice: float | None
    four_times: float | None


class CacheRow(TypedDict):
    """One registered cache, with its counts during the run."""

    name: str
    hits: int | None
    misses: int | None
    evictions: int | None
    expirations: int | None
    hit_ratio: float | None
    entries: int | None
    size_bytes: float | None
    what_if: CacheWhatIfRow | None


class ResourcesCpuUtilizationRow(TypedDict):
    """Of the CPUs that it may use, 0 to 1."""

    avg: float | None
    peak: float | None


class ResourcesDiskIoBytesRow(TypedDict):
    """In all."""

    read: float | None
    write: float | None


class ResourcesNetworkIoBytesRow(TypedDict):
    """In all."""

    receive: float | None
    transmit: float | None


class ResourcesLimitsRow(TypedDict):
    """What the process may use."""

    source: str | None
    cpus: float | None
    memory_bytes: float | None


class ResourcesEventLoopDelaySRow(TypedDict):
    """How late the event loop ran its callbacks."""

    count: int | None


class ResourcesRow(TypedDict):
    """What the process used during the run; only `network_io_bytes` is the host's."""

    samples: int | None
    cpu_utilization: ResourcesCpuUtilizationRow
    rss_bytes: ResourcesCpuUtilizationRow
    disk_io_bytes: ResourcesDiskIoBytesRow
    network_io_bytes: ResourcesNetworkIoBytesRow
    limits: ResourcesLimitsRow | None
    gil_held: float | None
    gil_held_samples: int | None
    run_delay: float | None
    run_delay_samples: int | None
    run_delay_waited: int | None
    event_loop_delay_s: ResourcesEventLoopDelaySRow | None
    series: list[list[float | None]] | None
    observed_s: float | None


class ProcessRow(TypedDict):
    """One process."""

    id: str | None
    host: str | None
    pid: int | None
    wall_s: float | None
    cpu_s: float | None
    cpus: float | None
    rss_bytes_peak: int | None


# One of them.
BottleneckEvidenceRow = TypedDict(
    "BottleneckEvidenceRow",
    {
        "name": "str | None",
        "value": "float | None",
        "line": "float | None",
        "for": "bool | None",
    },
)


class BottleneckWhatIfRow(TypedDict):
    """One change."""

    change: str | None
    name: str | None
    stage: str | None
    by: int | None
    gain: list[float]
    next: str | None


class BottleneckExperimentsRow(TypedDict):
    """One stage."""

    change: str | None
    name: str | None
    stage: str | None
    by: int | None
    predicted: float | None
    interval: list[float] | None
    invocations: int | None
    confirmed: bool | None
    why: str | None


class BottleneckRow(TypedDict):
    """The verdict: what limits the run."""

    kind: str | None
    name: str | None
    stage: str | None
    ties: list[str]
    busy: float | None
    confidence: str | None
    why: str | None
    evidence: list[BottleneckEvidenceRow]
    when: str | None
    advice: list[str]
    what_if: list[BottleneckWhatIfRow] | dict[str, Any] | None
    assumptions: list[str]
    experiments: list[BottleneckExperimentsRow]
    confirmed: bool | None


class TelemetrySpansRow(TypedDict):
    """Spans of the process: exported + sampled_out + dropped + spooled + pending."""

    created: int | None
    exported: int | None
    sampled_out: int | None
    dropped: int | None
    spooled: int | None
    pending: int | None
    lost: int | None


class TelemetryReplayedRow(TypedDict):
    """Sent from the spool."""

    spans: int | None
    metric_points: int | None


class TelemetryStageSpansRow(TypedDict):
    """Calls of this run with a span and without."""

    made: int | None
    skipped: int | None


class TelemetryRow(TypedDict):
    """What became of the process's telemetry until the run's end."""

    spans: TelemetrySpansRow | None
    metric_points: TelemetrySpansRow | None
    replayed: TelemetryReplayedRow | None
    guards: dict[str, int | None] | None
    process: str | None
    processes: list[dict[str, Any]]
    stage_spans: TelemetryStageSpansRow | None
    flush_s: float | None
    collector: str | None

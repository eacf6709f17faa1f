"""Describe what a report says of processes: their resources and their telemetry."""

from typing import Annotated, Any, TypedDict

from otel_pipeline_metrics.report.typed_rows import Count, Number, Text


class ResourcesCpuUtilizationRow(TypedDict):
    """Of the CPUs that it may use, 0 to 1."""

    avg: Number
    peak: Number


class ResourcesDiskIoBytesRow(TypedDict):
    """In all."""

    read: Number
    write: Number


class ResourcesNetworkIoBytesRow(TypedDict):
    """In all."""

    receive: Number
    transmit: Number


class ResourcesLimitsRow(TypedDict):
    """What the process may use."""

    source: Annotated[Text, "the cgroup's version, or host"]
    cpus: Number
    memory_bytes: Number


class ResourcesEventLoopDelaySRow(TypedDict):
    """How late the event loop ran its callbacks."""

    count: Annotated[Count, "beats"]


class ResourcesRow(TypedDict):
    """What the process used during the run; `network_io_bytes` and `system_…` are the host's."""

    samples: Annotated[Count, "0 if resources were not sampled"]
    cpu_utilization: ResourcesCpuUtilizationRow
    children_cpu_s: Annotated[
        Number, "CPU seconds of its child processes, and of theirs; null outside Linux"
    ]
    system_cpu_utilization: Annotated[
        Number, "average busy part of all CPUs of the host, of all processes, 0 to 1"
    ]
    rss_bytes: Annotated[ResourcesCpuUtilizationRow, "resident memory"]
    disk_io_bytes: ResourcesDiskIoBytesRow
    network_io_bytes: ResourcesNetworkIoBytesRow
    limits: ResourcesLimitsRow | None
    gil_held: Annotated[
        Number,
        "the share of time in which a thread of the process holds the GIL, 0 to 1; null below "
        "50 samples, on a build without a GIL, and outside Linux",
    ]
    gil_held_samples: Annotated[Count, "random moments at which that was looked at"]
    run_delay: Annotated[
        Number,
        "the share of moments at which a thread that is ready to run has no CPU, 0 to 1; null "
        "below 50 samples and without /proc/PID/schedstat",
    ]
    run_delay_samples: Annotated[Count, "random moments at which that was looked at"]
    run_delay_waited: Annotated[Count, "those of them at which one had none, also of fewer than 50"]
    event_loop_delay_s: ResourcesEventLoopDelaySRow | None
    series: Annotated[
        list[list[Number]] | None,
        "[seconds since start, CPU utilization, RSS bytes] of the latest samples",
    ]
    observed_s: Annotated[Number, "in a report of several: seconds that the averages cover"]


class ProcessRow(TypedDict):
    """One process."""

    id: Annotated[Text, "identifies the process"]
    host: Annotated[Text, "the name of its host"]
    pid: Annotated[Count, "its process id"]
    wall_s: Annotated[Number, "seconds from its first call for the run to the last"]
    cpu_s: Annotated[Number, "CPU seconds of the process in these"]
    cpus: Annotated[Number, "CPUs that it may use"]
    rss_bytes_peak: Annotated[Count, "the most resident memory of its life"]


class TelemetrySpansRow(TypedDict):
    """Of the process: exported + sampled_out + dropped + spooled + pending."""

    created: Annotated[Count, "all"]
    exported: Annotated[Count, "taken by the collector"]
    sampled_out: Annotated[Count, "left out by the sampler"]
    dropped: Annotated[Count, "refused or lost"]
    spooled: Annotated[Count, "kept on disk to be sent later"]
    pending: Annotated[Count, "not sent yet"]
    lost: Annotated[Count, "the former name of dropped"]


class TelemetryReplayedRow(TypedDict):
    """Sent from the spool."""

    spans: Count
    metric_points: Count


class TelemetryStageSpansRow(TypedDict):
    """Calls of this run with a span and without."""

    made: Annotated[Count, "with"]
    skipped: Annotated[Count, "without"]


class TelemetryRow(TypedDict):
    """What became of the process's telemetry until the run's end."""

    spans: TelemetrySpansRow | None
    metric_points: Annotated[TelemetrySpansRow | None, "the same of metric points"]
    replayed: TelemetryReplayedRow | None
    guards: Annotated[dict[str, Count] | None, "what was kept back, by guard"]
    process: Annotated[Text, "identifies the process"]
    processes: Annotated[list[dict[str, Any]], "of a report of several: these counts by process"]
    stage_spans: TelemetryStageSpansRow | None
    flush_s: Annotated[Number, "seconds that the last flush took"]
    collector: Annotated[Text, "ok, unreachable, off, or null if unknown"]

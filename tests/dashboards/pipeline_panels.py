"""The panels of the dashboard of a pipeline."""

from __future__ import annotations

from typing import Final

from otel_pipeline_metrics._core import metric_definitions as defs
from tests.dashboards.naming import label
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
    total,
    unit,
    unit_of_rate,
    used,
)

_STAGE: Final = defs.STAGE_NAME
_LAST_SUCCESS: Final = (defs.RUN_LAST_SUCCESS, OF_RUN, defs.PIPELINE_NAME)
_BOTTLENECK: Final = (defs.PIPELINE_NAME, defs.BOTTLENECK_KIND, defs.BOTTLENECK_NAME)
RUNS: Final = (
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
STAGES: Final = (
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
QUEUES: Final = (
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
FRESHNESS: Final = (
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
CACHES: Final = (
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

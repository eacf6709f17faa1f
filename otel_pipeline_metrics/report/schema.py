"""Describe the fields of reports, for validation and for the JSON Schemas.

Unknown values are null. Keys that are not listed are allowed, so later versions can add some.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

# name and version of the report's format; incompatible changes raise the number
SCHEMA: Final = "otel_pipeline_metrics/report/2"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def _of(kind: str, description: str, *, known: bool = False) -> Schema:
    return {"type": kind if known else [kind, "null"], "description": description}


def _number(description: str) -> Schema:
    return _of("number", description)


def _count(description: str) -> Schema:
    return _of("integer", description) | {"minimum": 0}


def _text(description: str) -> Schema:
    return _of("string", description)


def _list(description: str, items: Schema) -> Schema:
    return _of("array", description, known=True) | {"items": items}


def _object(description: str, **fields: Schema) -> Schema:
    return _of("object", description, known=True) | {"properties": fields}


def _optional(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _map(description: str, values: Schema) -> Schema:
    return _of("object", description, known=True) | {"additionalProperties": values}


def _entries(description: str, name: str, **fields: Schema) -> Schema:
    entry = _object(description, name={"type": "string", "description": name}, **fields)
    # of entries, unknown keys hold numbers, so that they can be compared and merged
    extra = {"additionalProperties": {"$ref": "#/$defs/numbers"}, "required": ["name"]}
    return _list(description, entry | extra)


def _pair(description: str, first: str, second: str) -> Schema:
    return _object(description, **{first: _number(first), second: _number(second)})


def _percentiles(unit: str) -> dict[str, Schema]:
    return {
        "avg": _number(f"mean, in {unit}"),
        "max": _number("the longest, exact"),
        "p50": _number("50 % were shorter, within rel_error"),
        "p95": _number("95 % were shorter, within rel_error; below 20 values the longest"),
        "p99": _number("99 % were shorter, within rel_error; below 100 values the longest"),
        "rel_error": _number("the relative error of the percentiles"),
        "sketch": _optional(
            _object(
                "a DDSketch: what percentiles are computed and merged from",
                rel_error=_number("the relative error of its buckets"),
                zeros=_count("values of 1 ns or less"),
                buckets=_map("counts by the index of the bucket", {"type": "integer"}),
            )
        ),
    }


def _states(description: str, **more: Schema) -> Schema:
    return _object(
        description,
        running=_number("on the event loop or in its thread; null where nobody can tell"),
        awaiting=_number("suspended on something unknown; null where nobody can tell"),
        busy=_number("running + awaiting, derived"),
        idle=_number("waiting for input"),
        blocked=_number("waiting for room in a queue, a permit, a lock or a pool"),
        **more,
    )


def _ledger(of: str) -> Schema:
    return _optional(
        _object(
            f"{of} of the process: exported + sampled_out + dropped + spooled + pending",
            **{
                name: _count(f"{of}: {meaning}")
                for name, meaning in {
                    "created": "all",
                    "exported": "taken by the collector",
                    "sampled_out": "left out by the sampler",
                    "dropped": "refused or lost",
                    "spooled": "kept on disk to be sent later",
                    "pending": "not sent yet",
                    "lost": "the former name of dropped",
                }.items()
            },
        )
    )


# what a report consists of beside its `schema`
PARTS: Final[dict[str, Schema]] = {
    "run": _object(
        "the run itself",
        pipeline=_text("the name given to run()"),
        id=_text("identifies the run; null in a report of several"),
        trace_id=_text("the trace of the run, 32 hex digits"),
        trace_url=_text("the address of a trace, with {trace_id} in its place; null if not set"),
        result=_text("success, failure, cancellation or timeout; null while it is in progress"),
        error_type=_text("the type of the exception that ended it"),
        started=_text("ISO 8601, UTC"),
        wall_s=_number("seconds from start to end; of several runs, in which one of them went on"),
        outside_s=_number("seconds of these in which no stage was open"),
        partial={"type": "boolean", "description": "whether the run did not end in success"},
        total=_count("items expected, as given to run()"),
        experiment=_optional(
            _object(
                "of a run with experiment=True: what that cost",
                slowed=_number("by which part of its time the run got longer, estimated"),
                paused_s=_number("seconds that workers paused, all together"),
            )
        ),
        merged_from=_list(
            "in a report of several: ids of the latest runs", {"type": ["string", "null"]}
        ),
        merged_runs=_count("in a report of several: how many runs"),
        observed_s=_number("in a report of several: seconds of all runs, overlapping or not"),
        parts=_count("parts of other processes that are in this report; null without any"),
        parts_missing=_count("parts that were sent for and never came back"),
        parts_rejected=_count("parts that were dropped: no part of this run, or too large"),
        spans=_optional(
            _list(
                "in a report of several: [begin, end, seconds covered] of the times in which runs "
                "went on, from `started`; their sum is wall_s",
                {"type": "array", "items": {"type": "number"}},
            )
        ),
    ),
    "stages": _entries(
        "one stage, in the order in which stages first finished a call",
        "the stage's name; with its kind it is unique",
        kind=_text("fetch, process, write, or null"),
        workers=_count("threads or tasks that ran it; null without a wrapped queue or limit"),
        count=_count("finished calls"),
        cancelled=_count("calls that were cancelled"),
        abandoned=_count("generators that were closed early"),
        errors=_object(
            "calls that raised",
            total=_count("all of them"),
            by_type=_map("by the type of the exception", {"type": "integer"}),
        ),
        retries=_count("reported retries"),
        failed_s=_number("seconds of the calls that raised"),
        retried=_object(
            "calls that reported retries and did not raise",
            count=_count("how many"),
            total_s=_number("their seconds"),
        ),
        items=_pair("items taken and produced", "in", "out"),
        bytes=_pair("bytes read and written", "in", "out"),
        duration_s=_object(
            "seconds per call; time in which a generator's consumer works is left out",
            total=_number("the sum"),
            min=_number("the shortest, exact"),
            sum_of_squares=_number("for the variance"),
            **_percentiles("seconds"),
        ),
        throughput=_object(
            "rates per second",
            wall_per_s=_number("calls by the run's wall time"),
            busy_per_s=_number("calls by the time spent in them"),
            items_per_s=_number("items produced, or else taken, by the run's wall time"),
        ),
        worker_s=_number("in a report of several: seconds that its workers were there"),
        time_s=_states(
            "seconds of all workers",
            wall=_number("busy + idle + blocked"),
            split_standard_error=_number("of running and awaiting; 0 if they were not estimated"),
        ),
        share=_states("the states' shares of the workers' time, 0 to 1"),
        busiest_share=_number("the busy share of the busiest worker"),
        busiest_s=_number("the busy seconds of the worker that was busy for longest"),
        self_s=_number("seconds in which calls were open, and no stage inside of them was"),
        run_share=_number(
            "the run's part in which it was the innermost stage open, shared equally with others"
        ),
        wall_s=_number("seconds of calls from begin to end, waits included"),
        in_flight_avg=_number("calls in progress on average over the run"),
        cpu_s=_number("CPU seconds without those of stages inside, estimated from samples"),
        service_by_in_flight=_list(
            "mean duration of sampled calls by the calls in flight when they began",
            _object(
                "one number in flight; the last one, 16, is for more",
                in_flight=_count("calls in progress, this one included"),
                count=_count("samples"),
                avg_s=_number("their mean duration"),
            ),
        ),
        tasks=_count("tasks that made its sampled calls; the last one, 64, is for more"),
        in_flight=_count("calls in progress at the end"),
        callers=_list(
            "in which stages it was called",
            _object(
                "one of them",
                stage=_text("its name; null outside of stages"),
                wall_s=_number("seconds of the calls from begin to end, waits included"),
                spawned=_of("boolean", "whether a sampled one began in a task of its own"),
            ),
        ),
        slowest=_list(
            "the five slowest calls that ended, the slowest first",
            _object(
                "one call",
                duration_s=_number("its duration, without waiting at queues"),
                outcome=_text("ok, error, cancelled or abandoned"),
                error_type=_text("the type of the exception that it raised"),
                attributes=_map("of the stage and of the call, the first 16", {}),
                trace_id=_text("of its span; null without a sampled span of its own"),
                span_id=_text("of that span, 16 hex digits"),
            ),
        ),
    ),
    "queues": _entries(
        "one instrumented queue",
        "the queue's name",
        capacity=_count("null is unbounded"),
        depth=_number("items in it at the end"),
        depth_avg=_number("items in it on average over the run; near capacity: slow consumers"),
        depth_peak=_number("the most items in it"),
        put=_count("items put"),
        got=_count("items got"),
        wait_s=_object("seconds from put to get", **_percentiles("seconds")),
        put_span_s=_number("seconds from the first put to the last"),
        put_blocked_s=_number("seconds that producers waited for room"),
        get_waited_s=_number("seconds that consumers waited for items"),
        producers=_list("stages that put into it", {"type": "string"}),
        consumers=_list("stages that get from it", {"type": "string"}),
        observed_s=_number("in a report of several: seconds that the averages cover"),
    ),
    "limits": _entries(
        "one limit that workers waited for: a lock, a semaphore, a pool",
        "the limit's name",
        kind=_text("lock, rlock, condition, semaphore, capacity limiter, thread pool, … or mixed"),
        max=_count("permits that can be held at a time"),
        usage_avg=_number("permits held on average over the run; near max: workers wait for them"),
        usage_peak=_count("the most permits held at a time"),
        acquired=_count("permits acquired"),
        wait_s=_object(
            "seconds waited for a permit, 0 for one that was free",
            total=_number("the sum"),
            **_percentiles("seconds"),
        ),
        stages=_list(
            "who waited for permits and held them, null outside of stages",
            _object(
                "one stage",
                stage=_text("its name"),
                waited_s=_number("seconds that its workers waited for permits"),
                held_s=_number("seconds of all permits that it held"),
            ),
        ),
        observed_s=_number("in a report of several: seconds that the averages cover"),
    ),
    "pools": _list(
        "the tasks or threads of each `workers()` that began in the run",
        _object(
            "one pool",
            name=_text("its name"),
            stage=_text("the stage that they run"),
            low=_count("the least number of workers"),
            high=_count("the most; as `low` where the number is fixed"),
            workers=_count("how many there were when the report was made; 0 after the end"),
            skipped=_count("items that failed and were skipped"),
            dropped=_count("items that were taken after an error, and not worked on"),
            changes=_list(
                "each change of their number",
                _object(
                    "one change",
                    at_s=_number("seconds since the pool began"),
                    **{"from": _count("the number before"), "to": _count("the number after")},
                    why=_text("what was measured"),
                ),
            ),
        ),
    ),
    "windows": _list(
        "how the run went over time, in about 20 windows; empty without `resources`",
        _object(
            "one window",
            start_s=_number("seconds since the run's start"),
            end_s=_number("seconds since the run's start"),
            stages=_list(
                "of the first 100 stages, what happened in the window",
                _object(
                    "one stage",
                    name=_text("its name"),
                    kind=_text("its kind"),
                    count=_count("calls that ended"),
                    items=_count("items produced, or else taken"),
                    calls_per_s=_number("calls by the window's length"),
                    items_per_s=_number("items by the window's length"),
                    time_s=_states("seconds of all workers"),
                ),
            ),
            queues=_list(
                "wrapped queues",
                _object("one queue", name=_text("its name"), depth=_count("items at the end")),
            ),
            cpu_utilization=_number("of the CPUs that the process may use, 0 to 1"),
            rss_bytes=_number("resident memory at the end"),
        ),
    ),
    "caches": _entries(
        "one registered cache, with its counts during the run",
        "the cache's name",
        hits=_count("look-ups that found a value"),
        misses=_count("look-ups that did not"),
        evictions=_count("entries removed for room"),
        expirations=_count("entries removed for their age"),
        hit_ratio=_number("hits by look-ups, 0 to 1"),
        entries=_count("entries at the end"),
        size_bytes=_number("their size at the end"),
        what_if=_optional(
            _object(
                "the hit ratio that an LRU cache of another size would have had, 0 to 1",
                half=_number("with half the entries"),
                twice=_number("with twice the entries"),
                four_times=_number("with four times the entries"),
            )
        ),
    ),
    "resources": _object(
        "what the process used during the run; only `network_io_bytes` is the host's",
        samples=_count("0 if resources were not sampled"),
        cpu_utilization=_pair("of the CPUs that it may use, 0 to 1", "avg", "peak"),
        rss_bytes=_pair("resident memory", "avg", "peak"),
        disk_io_bytes=_pair("in all", "read", "write"),
        network_io_bytes=_pair("in all", "receive", "transmit"),
        limits=_optional(
            _object(
                "what the process may use",
                source=_text("the cgroup's version, or host"),
                cpus=_number("CPUs"),
                memory_bytes=_number("memory"),
            )
        ),
        gil_held=_number(
            "the share of time in which a thread of the process holds the GIL, 0 to 1; null below "
            "50 samples, on a build without a GIL, and outside Linux"
        ),
        gil_held_samples=_count("random moments at which that was looked at"),
        run_delay=_number(
            "the share of moments at which a thread that is ready to run has no CPU, 0 to 1; null "
            "below 50 samples and without /proc/PID/schedstat"
        ),
        run_delay_samples=_count("random moments at which that was looked at"),
        run_delay_waited=_count("those of them at which one had none, also of fewer than 50"),
        event_loop_delay_s=_optional(
            _object("how late the event loop ran its callbacks", count=_count("beats"))
        ),
        series=_optional(
            _list(
                "[seconds since the start, CPU utilization, RSS in bytes] of the latest samples",
                {"type": "array", "items": {"type": ["number", "null"]}},
            )
        ),
        observed_s=_number("in a report of several: seconds that the averages cover"),
    ),
    "processes": _list(
        "the processes whose parts are in this report; empty or absent without any",
        _object(
            "one process",
            id=_text("identifies the process"),
            host=_text("the name of its host"),
            pid=_count("its process id"),
            wall_s=_number("seconds from its first call for the run to the last"),
            cpu_s=_number("CPU seconds of the process in these"),
            cpus=_number("CPUs that it may use"),
            rss_bytes_peak=_count("the most resident memory of its life"),
        ),
    ),
    "bottleneck": _object(
        "the verdict: what limits the run",
        kind=_text(
            "stage, source, limit, undecorated, serial, cpu, gil, machine, event loop, errors, "
            "workers, skew, tie or unknown"
        ),
        name=_text("the stage, limit or queue; null if it has no name, or the limit is none"),
        stage=_text("the stage concerned; null if the limit is none of them"),
        ties=_list("all stages that limit the run equally", {"type": "string"}),
        busy=_number("that stage's busy share"),
        confidence=_text("high, medium or low"),
        why=_text("the reason, with numbers"),
        evidence=_list(
            "numbers that speak for the verdict or against it",
            _object(
                "one of them",
                name=_text("what it is, with its unit"),
                value=_number("null is unknown"),
                line=_number("where the line is drawn"),
                **{"for": _of("boolean", "whether it speaks for the verdict; null is unknown")},
            ),
        ),
        when=_text("what limited the run when, if that changed"),
        advice=_list("what to do, a sentence each", {"type": "string"}),
        what_if={
            # of schema 1, an object
            "type": ["array", "object", "null"],
            "description": "what changes would gain, the verdict's own first",
            "items": _object(
                "one change",
                change=_text("faster, workers, limit or errors"),
                name=_text("the stage, limit or queue that is changed"),
                stage=_text("the stage concerned"),
                by=_count(
                    "2 is half the service time or twice the permits, 1 is one more worker, null "
                    "is no failures"
                ),
                gain=_list(
                    "the least and the most throughput gained, 0.25 is a quarter more",
                    {"type": "number"},
                ),
                next=_text("what limits the run then"),
            ),
        },
        assumptions=_list("what the verdict takes for granted", {"type": "string"}),
        experiments=_list(
            "of a run with experiment=True: what stages that are twice as fast would gain",
            _object(
                "one stage",
                change=_text("faster"),
                name=_text("the stage"),
                stage=_text("the same"),
                by=_count("2: half the service time"),
                predicted=_number(
                    "throughput gained, 0.25 is a quarter more; null if that cannot be known"
                ),
                interval=_optional(
                    _list("the least and the most that chance leaves possible", {"type": "number"})
                ),
                invocations=_count("calls that were virtually faster, or slower"),
                confirmed=_of(
                    "boolean",
                    "whether this bears out the gain in what_if; null where nobody can tell",
                ),
                why=_text("why nothing is predicted, or little is certain"),
            ),
        ),
        confirmed=_of(
            "boolean", "whether the experiments bear the verdict out; null where nobody can tell"
        ),
    ),
    "telemetry": _object(
        "what became of the process's telemetry until the run's end",
        spans=_ledger("spans"),
        metric_points=_ledger("metric points"),
        replayed=_optional(
            _object(
                "sent from the spool",
                spans=_count("spans"),
                metric_points=_count("metric points"),
            )
        ),
        guards=_optional(_map("what was kept back, by guard", {"type": ["integer", "null"]})),
        process=_text("identifies the process"),
        processes=_list("of a report of several: these counts by process", {"type": "object"}),
        stage_spans=_optional(
            _object(
                "calls of this run with a span and without",
                made=_count("with"),
                skipped=_count("without"),
            )
        ),
        flush_s=_number("seconds that the last flush took"),
        collector=_text("ok, unreachable, off, or null if unknown"),
    ),
}

# parts that reports of earlier releases lack
OPTIONAL_PARTS: Final = frozenset({"limits", "pools", "windows", "processes"})

# fields of entries that hold text; all others hold numbers
TEXT_FIELDS: Final = frozenset(
    name
    for part in PARTS.values()
    for name, field in part.get("items", {}).get("properties", {}).items()
    if "string" in (*field["type"], field["type"]) or "array" in field["type"]
)


def report_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `RunReport.to_dict()`."""
    numbers = {"type": ["number", "boolean", "object", "null"]}
    numbers["additionalProperties"] = {"$ref": "#/$defs/numbers"}  # type: ignore[assignment]
    return {
        "$schema": _DIALECT,
        "title": SCHEMA,
        "description": "A report of otel-pipeline-metrics. Seconds, bytes, ratios from 0 to 1.",
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, **PARTS},
        "required": ["schema", *(name for name in PARTS if name not in OPTIONAL_PARTS)],
        "$defs": {"numbers": numbers},
    }


def collector_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `MetricsCollector.export_json()`."""
    stage = _whole_object(
        count=_count("items recorded by hand, and calls of a decorated stage"),
        total_duration_s=_number("seconds of all records"),
        avg_duration_s=_number("seconds per item or call"),
        min_duration_s=_number("seconds per item or call"),
        max_duration_s=_number("seconds per item or call"),
        throughput_per_s=_number("count per second of the total duration"),
        errors=_count("records of an error, and calls that raised"),
    )
    cache = _whole_object(
        hits=_count("look-ups that found a value"),
        misses=_count("look-ups that did not"),
        hit_rate_pct=_number("hits in per cent of look-ups"),
        evictions=_count("entries removed for room"),
        expirations=_count("entries removed for their age"),
        size_mb=_number("size now; a MB is 1024 x 1024 bytes"),
    )
    resources = _whole_object(
        **{
            f"{kind}_{name}": _number(f"{kind} of the samples")
            for name in ("cpu_percent", "memory_mb")
            for kind in ("avg", "peak")
        },
        avg_disk_io_mb=_number("avg of the samples"),
        avg_network_io_mb=_number("avg of the samples"),
        cpu_samples=_count("number of samples"),
        memory_samples=_count("number of samples"),
    )
    fields = _whole_object(
        start_time={"type": "string", "format": "date-time"},
        duration_s=_number(
            "seconds since the collector was made; of the process's, since its start"
        ),
        stages=_map("by name", stage),
        resources=resources,
        caches=_map("by name", cache),
    )
    title = "otel_pipeline_metrics MetricsCollector.export_json"
    return {"$schema": _DIALECT, "title": title, **fields}


def _whole_object(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }

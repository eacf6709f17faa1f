"""The JSON Schema of `EventMetrics.get_comprehensive_metrics()`."""

from __future__ import annotations

from typing import Any, Final

from otel_pipeline_metrics._probes.caches.reading import CacheReading
from otel_pipeline_metrics._probes.resources.levels import ResourceLevels
from otel_pipeline_metrics._probes.resources.reading import ResourceReading
from otel_pipeline_metrics.service.health import STATUSES

Schema = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def comprehensive_schema() -> Schema:
    """Return the schema (draft 2020-12); `opm schema service` prints it."""
    return {
        "$schema": _DIALECT,
        "title": "otel_pipeline_metrics EventMetrics.get_comprehensive_metrics",
        **_object(
            timestamp={"type": "string", "format": "date-time"},
            resources=_resources(),
            stages=_list(_stage()),
            caches=_list(_cache()),
            events=_events(),
            operations=_operations(),
            health=_health(),
        ),
    }


def _object(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _number(description: str) -> Schema:
    return {"type": ["number", "null"], "description": description}


def _count(description: str, *, known: bool = True) -> Schema:
    kind = "integer" if known else ["integer", "null"]
    return {"type": kind, "minimum": 0, "description": description}


def _text(description: str, *, known: bool = True) -> Schema:
    return {"type": "string" if known else ["string", "null"], "description": description}


def _resources() -> Schema:
    fields = [name for name in ResourceReading.__dataclass_fields__ if name != "at"]
    return _object(
        **{name: _number("of the latest reading") for name in fields},
        limits=_object(
            source={"enum": ["cgroup2", "cgroup1", "host"]},
            cpus={"type": "number", "description": "CPUs that the process may use"},
            memory_bytes=_count("memory that the process may use", known=False),
        ),
        sampled=_object(
            **{
                name: _number("of the readings at `monitoring_interval` and of runs")
                for name in ResourceLevels().to_dict()
            }
        ),
    )


def _stage() -> Schema:
    duration = ("total", "avg", "min", "max", "p50", "p95", "p99", "rel_error")
    return _object(
        pipeline=_text("that of the run; null outside runs", known=False),
        name=_text("the stage's"),
        kind=_text("fetch, process, write or the program's own", known=False),
        count=_count("calls that have ended"),
        cancelled=_count("of them, those that were cancelled"),
        abandoned=_count("of them, generators that were closed early"),
        errors=_object(total=_count("calls that failed"), by_type=_map(_count("of one type"))),
        retries=_count("attempts after the first"),
        items=_pair("items", "in", "out"),
        bytes=_pair("bytes", "in", "out"),
        duration_s=_object(**{name: _number("seconds of a call") for name in duration}),
        throughput=_object(
            wall_per_s=_number("calls per second since the process began to look"),
            busy_per_s=_number("calls per second of their own time"),
            items_per_s=_number("items per second since the process began to look"),
        ),
        in_flight=_count("calls in progress"),
    )


def _pair(what: str, first: str, second: str) -> Schema:
    return _object(**{name: _count(what, known=False) for name in (first, second)})


def _cache() -> Schema:
    counts = [name for name in CacheReading.__dataclass_fields__ if name not in ("name", "reuse")]
    return _object(
        name=_text("the cache's"),
        **{name: _count("null if the source does not tell", known=False) for name in counts},
        hit_ratio=_number("hits over look-ups, 0 to 1"),
        what_if={
            "anyOf": [
                _object(
                    **{
                        size: _number("the hit ratio that an LRU cache of this size would have had")
                        for size in ("half", "twice", "four_times")
                    }
                ),
                {"type": "null"},
            ]
        },
    )


def _history() -> Schema:
    quantiles = ("p50", "p95", "p99")
    return _object(
        count=_count("samples in all"),
        total=_number("seconds in all"),
        avg=_number("seconds"),
        max=_number("seconds"),
        samples=_count("the latest samples, which the quantiles beside are of"),
        **{name: _number("of the latest samples, in seconds") for name in quantiles},
        overall=_object(
            **{name: _number("of all samples, within one per cent") for name in quantiles}
        ),
    )


def _event_totals() -> dict[str, Schema]:
    return {
        "count": _count("events"),
        "errors": _count("events that were not processed"),
        "error_rate": _number("errors over events, 0 to 1"),
        "duplicates": _count("events that had been seen before"),
        "dedup_rate": _number("duplicates over events, 0 to 1"),
        "size_bytes": _count("payload in all", known=False),
        "points": _count("data points that events were written as", known=False),
        "rate_per_s": _number("events per second, since the oldest of the latest samples"),
        "duration_s": _history(),
    }


def _events() -> Schema:
    return _object(
        elapsed_s={"type": "number", "description": "seconds since the first use"},
        per_s=_number("events per second since then"),
        **_event_totals(),
        by_source=_list(
            _object(
                source=_text("where events came from"),
                domain=_text("what they are about"),
                **_event_totals(),
            )
        ),
        reported_errors=_list(
            _object(
                type=_text("error.type"),
                component=_text("the part of the program"),
                severity=_text("as reported"),
                count=_count("how often"),
            )
        ),
        breakers=_map({"enum": ["closed", "open", "half_open"]}),
        connections=_map(
            _object(
                count=_count("connections", known=False),
                state=_text("as set", known=False),
            )
        ),
        queues=_map(_count("items, of queues that the program counts itself")),
    )


def _operations() -> Schema:
    return _object(
        by_name=_list(
            _object(
                type=_text("the operation's"),
                name=_text("the operation's"),
                count=_count("operations"),
                errors=_count("operations that failed"),
                error_rate=_number("errors over operations, 0 to 1"),
                duration_s=_history(),
            )
        ),
        retries=_map(_count("attempts after the first, by operation")),
    )


def _health() -> Schema:
    status = {"enum": list(STATUSES)}
    part = _object(status=status, reasons=_list(_text("why")))
    names = (
        "exporter", "spool", "queues", "event_loop", "manager", "breakers", "stalled_stages",
    )  # fmt: skip
    return _object(status=status, components=_object(**dict.fromkeys(names, part)))

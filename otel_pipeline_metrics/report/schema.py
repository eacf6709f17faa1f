"""The JSON Schemas of reports and of what a collector exports; `report.rows` has their fields."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics.report.typed_rows import Schema

# name and version of the report's format; incompatible changes raise the number
SCHEMA: Final = "otel_pipeline_metrics/report/2"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# what a report consists of beside its `schema`. This and what follows could be read from
# `report.rows`, which takes five milliseconds that a program with a run need not pay
PARTS: Final[dict[str, type]] = {
    "run": dict, "stages": list, "queues": list, "limits": list, "pools": list, "windows": list,
    "caches": list, "resources": dict, "processes": list, "bottleneck": dict, "telemetry": dict,
}  # fmt: skip

# lists whose entries have a name; other keys that are unknown hold numbers there, so that they can
# be compared and merged
NAMED: Final = ("stages", "queues", "limits", "caches")

# fields of entries that hold text or lists; all others hold numbers
TEXT_FIELDS: Final = frozenset({
    "callers", "changes", "consumers", "host", "id", "kind", "name", "producers", "queues",
    "service_by_in_flight", "slowest", "stage", "stages",
})  # fmt: skip

# parts that reports of earlier releases lack
OPTIONAL_PARTS: Final = frozenset({"limits", "pools", "windows", "processes"})


@functools.cache
def parts() -> dict[str, Schema]:
    """Return the schema of each part of a report."""
    from otel_pipeline_metrics.report.rows import Report
    from otel_pipeline_metrics.report.typed_rows import schema_of

    found: dict[str, Schema] = schema_of(Report)["properties"]
    for name in NAMED:
        numbers = {"additionalProperties": {"$ref": "#/$defs/numbers"}}
        found[name]["items"] |= {**numbers, "required": ["name"]}
    return found


def report_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `RunReport.to_dict()`."""
    numbers = {"$ref": "#/$defs/numbers"}
    return {
        "$schema": _DIALECT,
        "title": SCHEMA,
        "description": "A report of otel-pipeline-metrics. Seconds, bytes, ratios from 0 to 1.",
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, **parts()},
        "required": ["schema", *(name for name in PARTS if name not in OPTIONAL_PARTS)],
        "$defs": {
            "numbers": {
                "type": ["number", "boolean", "object", "null"],
                "additionalProperties": numbers,
            }
        },
    }


def collector_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of `MetricsCollector.export_json()`."""
    from otel_pipeline_metrics.report.rows import Collected
    from otel_pipeline_metrics.report.typed_rows import schema_of

    title = "otel_pipeline_metrics MetricsCollector.export_json"
    return {"$schema": _DIALECT, "title": title, **schema_of(Collected, closed=True)}
